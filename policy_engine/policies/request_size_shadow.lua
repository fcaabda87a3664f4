-- Counts the bytes of a body while it passes.
-- The constant LONGEST is prepended when the policy is compiled.

function envoy_on_request(handle)
  local told = tonumber(handle:headers():get("content-length") or "")
  if told ~= nil then
    if told > LONGEST then
      report(handle, "too large")
    end
    return
  end
  local count = 0
  for chunk in handle:bodyChunks() do
    count = count + chunk:length()
    if count > LONGEST then
      report(handle, "too large")
      return
    end
  end
end
