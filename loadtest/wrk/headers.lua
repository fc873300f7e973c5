-- GET with many request fields: `wrk -s loadtest/wrk/headers.lua URL -- [COUNT]`, 50 unless told.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

function init(args)
  for index = 0, (tonumber(args[1]) or 50) - 1 do
    wrk.headers["X-Field-" .. index] = "value-" .. index .. "-of-a-plausible-length"
  end
end
