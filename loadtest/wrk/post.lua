-- POST with a sized body: `wrk -s loadtest/wrk/post.lua URL -- [BYTES]`, 4096 bytes unless told.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.body = string.rep("x", tonumber(args[1]) or 4096)
end
