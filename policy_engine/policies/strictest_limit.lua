-- Several limiters of one policy have each added their numbers, the last one of the chain first.
-- X-RateLimit-* tell of the one with the fewest left, RateLimit of each that NAMES has a name for.
-- What a policy further in has told stands before them and takes part in the first only.
local X = { "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset" }
local LEFT, RESET = X[2], X[3]

function envoy_on_response(handle)
  local headers = handle:headers()
  local count = headers:getNumValues(LEFT)
  if count == 0 then
    return
  end
  local fewest, at = nil, 0
  local each = {}
  for index = 0, count - 1 do
    local left = headers:getAtIndex(LEFT, index)
    local number = tonumber(left)
    if number and (fewest == nil or number < fewest) then
      fewest, at = number, index
    end
    local name = NAMES and NAMES[count - index]
    if name then
      local reset = headers:getAtIndex(RESET, index)
      table.insert(each, 1, '"' .. name .. '";r=' .. left .. (reset and ";t=" .. reset or ""))
    end
  end
  for _, name in ipairs(X) do
    local value = headers:getAtIndex(name, at)
    headers:remove(name)
    if KEEP and value then
      headers:add(name, value)
    end
  end
  if POLICY then
    headers:replace("ratelimit-policy", POLICY)
    if #each > 0 then
      headers:replace("ratelimit", table.concat(each, ", "))
    end
  end
end
