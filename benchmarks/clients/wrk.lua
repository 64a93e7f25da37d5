-- Print wrk's results as a JSON object on a line of its own.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %f, "errors": %d, "timeouts": %d, "p50": %f, "p90": %f, "p99": %f, "p999": %f, "max": %f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status, e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(90) / 1e6, latency:percentile(99) / 1e6,
    latency:percentile(99.9) / 1e6, latency.max / 1e6))
end
