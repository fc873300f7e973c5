-- Pipelined GETs: `wrk -s loadtest/wrk/pipeline.lua URL -- [DEPTH]`, 16 in one send unless told.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

local batch

function init(args)
  batch = string.rep(wrk.format(), tonumber(args[1]) or 16)
end

function request()
  return batch
end
