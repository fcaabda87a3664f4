-- Draws by chance which requests would fail.
-- The constants PER_MILLION and REASON are prepended when the policy is compiled.

function envoy_on_request(handle)
  if math.random(1000000) <= PER_MILLION then
    report(handle, REASON)
  end
end
