-- GET with these request fields: `wrk -s loadtest/wrk/fields.lua URL -- NAME=VALUE…`.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

function init(args)
  for _, field in ipairs(args) do
    local name, value = field:match("^([^=]+)=(.*)$")
    wrk.headers[name] = value
  end
end
