-- A new connection for each request: wrk reconnects when the response says `Connection: close`.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

wrk.headers["Connection"] = "close"
