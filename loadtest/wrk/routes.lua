-- GETs for many routes in random order: `wrk -s loadtest/wrk/routes.lua URL -- [COUNT]`, of 100,000 unless told. The
-- order is the same in each run.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

local requests = {}

-- Requests prepared: more than the gateway's near caches hold routes for.
local PREPARED = 65536

function init(args)
  local count = tonumber(args[1]) or 100000
  math.randomseed(1)
  for index = 1, PREPARED do
    requests[index] = wrk.format("GET", string.format("/any/service-%06d", math.random(0, count - 1)))
  end
end

local at = 0

function request()
  at = at % PREPARED + 1
  return requests[at]
end
