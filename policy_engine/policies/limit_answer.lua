-- A limiter marks what it refuses; what is marked by FILTER gets the policy's own answer.
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(MARK) ~= FILTER then
    return
  end
  headers:remove(MARK)
  local seconds = headers:get("x-ratelimit-reset")
  if RETRY and seconds and not headers:get("retry-after") then
    headers:add("retry-after", seconds)
  end
  headers:replace(":status", STATUS)
  headers:replace("content-type", TYPE)
  local body = handle:body(true)
  if body then
    body:setBytes(BODY)
    headers:replace("content-length", tostring(#BODY))
  end
end
