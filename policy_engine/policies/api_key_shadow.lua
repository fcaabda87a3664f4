-- Looks for a live API key and changes nothing: behind api_key_digest.lua, whose functions it uses.
-- The constant LIVE has each digest of a live key. (To ask the filter's context instead would cost
-- time with every key in it, for every request.)

function envoy_on_request(handle)
  local headers = handle:headers()
  local value
  if QUERY == nil then
    value = headers:get(HEADER)
  else
    value = from_query(headers:get(":path") or "")
  end
  local key = value and key_in(value)
  local digest = key and sha256(key)
  if value == nil then
    local earlier = metadata(handle):get(METADATA)
    digest = earlier and earlier[PLACE]
  end
  if digest == nil then
    report(handle, value == nil and "missing_api_key" or "unknown_api_key")
  elseif not LIVE[digest] then
    report(handle, "unknown_api_key")
  end
end
