-- Replaces a presented API key by its lower-case hex SHA-256, for the api_key_auth filter behind it.
-- These constants and sha256.lua are prepended when the policy is compiled:
--   HEADER  the header that holds the key; with QUERY, the private header that gets the digest
--   QUERY   the query parameter that holds the key, or nil
--   PREFIX  in lower case, what the value must start with (in any case); not part of the key
--   PLACE   where in the stream's metadata a digest is left for a second check of the same key
--   KEEP    whether to leave it there
-- What api_key_auth reads is always written or removed here, so a digest cannot be presented.

local char, find, lower, sub = string.char, string.find, string.lower, string.sub

local LONGEST = 4096 -- bytes; no longer key is issued, and none is hashed
local METADATA = "signalbox.api-key-auth"

-- The key in a presented value; nil when it cannot be one.
local function key_in(value)
  if PREFIX ~= "" then
    if lower(sub(value, 1, #PREFIX)) ~= PREFIX then
      return nil
    end
    value = sub(value, (find(value, "[^ ]", #PREFIX + 1)) or #value + 1)
  end
  if value == "" or #value > LONGEST then
    return nil
  end
  return value
end

local function decoded(text)
  if not find(text, "[%%+]") then
    return text
  end
  text = text:gsub("+", " ")
  return (text:gsub("%%(%x%x)", function(hex)
    return char(tonumber(hex, 16))
  end))
end

-- The only value of parameter QUERY, and the path without it; nil when there is none or several.
local function from_query(path)
  local mark = find(path, "?", 1, true)
  if mark == nil then
    return nil
  end
  local kept, value, count = {}, nil, 0
  for pair in sub(path, mark + 1):gmatch("[^&]+") do
    local equals = find(pair, "=", 1, true)
    local name = equals and sub(pair, 1, equals - 1) or pair
    if decoded(name) == QUERY then
      count = count + 1
      value = equals and decoded(sub(pair, equals + 1)) or ""
    else
      kept[#kept + 1] = pair
    end
  end
  if count ~= 1 then
    return nil
  end
  local rest = table.concat(kept, "&")
  return value, sub(path, 1, mark - 1) .. (rest ~= "" and "?" .. rest or "")
end

local function metadata(handle)
  return handle:streamInfo():dynamicMetadata()
end

-- Let api_key_auth see the digest of `key` instead of what was presented.
local function present(handle, headers, key)
  local digest = sha256(key)
  headers:replace(HEADER, digest)
  if KEEP then
    metadata(handle):set(METADATA, PLACE, digest)
  end
end

-- No key here: an earlier check may have taken it off the request.
local function present_earlier(handle, headers)
  local known = metadata(handle):get(METADATA)
  local digest = known and known[PLACE]
  if digest ~= nil then
    headers:replace(HEADER, digest)
  else
    headers:remove(HEADER)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local value, rest
  if QUERY == nil then
    value = headers:get(HEADER) -- several are joined by a comma, and so refused
  else
    value, rest = from_query(headers:get(":path") or "")
  end
  local key = value and key_in(value)
  if key ~= nil then
    present(handle, headers, key)
    if rest ~= nil then
      headers:replace(":path", rest)
    end
  elseif value == nil then
    present_earlier(handle, headers)
  else
    headers:remove(HEADER)
  end
end
