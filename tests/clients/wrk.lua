-- Any load at all, and the verdict on it: wrk itself ends well whatever it saw. The number of requests is not asserted
-- but that there were some.
function done(summary, latency, requests)
  local errors = summary.errors
  local wrong = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  if wrong > 0 or summary.requests == 0 then
    io.write(string.format(
      "wrk.lua: %d requests; connect errors %d, read %d, write %d, timeout %d, status %d\n",
      summary.requests, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
    io.flush()
    os.exit(1)
  end
end
