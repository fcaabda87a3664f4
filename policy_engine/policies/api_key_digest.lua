-- Replaces a presented API key by its lower-case hex SHA-256, for the api_key_auth filter behind it.
-- These constants are prepended when the policy is compiled:
--   HEADER  the header that holds the key; with QUERY, the private header that gets the digest
--   QUERY   the query parameter that holds the key, or nil
--   PREFIX  in lower case, what the value must start with (in any case); not part of the key
--   PLACE   where in the stream's metadata a digest is left for a second check of the same key
--   KEEP    whether to leave it there
-- What api_key_auth reads is always written or removed here, so a digest cannot be presented.
-- Nothing is shared between requests but scratch space: one thread runs one request at a time and
-- nothing here yields. SHA-256: FIPS 180-4.

local bit = require("bit")
local band, bor, bxor = bit.band, bit.bor, bit.bxor
local ror, rshift, lshift, tobit, tohex = bit.ror, bit.rshift, bit.lshift, bit.tobit, bit.tohex
local byte, char, find = string.byte, string.char, string.find
local lower, rep, sub = string.lower, string.rep, string.sub

local LONGEST = 4096 -- bytes; no longer key is issued, and none is hashed
local METADATA = "signalbox.api-key-auth"

local K = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
for i = 1, 64 do
  K[i] = tobit(K[i])
end
local W = {}
for i = 1, 64 do
  W[i] = 0
end

local function sha256(message)
  local length = #message
  local bits = char(band(rshift(length, 5), 255), band(lshift(length, 3), 255)) -- below 64 KiB
  local padded = message .. "\128" .. rep("\0", (55 - length) % 64 + 6) .. bits
  local h1, h2, h3, h4 = 0x6a09e667, tobit(0xbb67ae85), 0x3c6ef372, tobit(0xa54ff53a)
  local h5, h6, h7, h8 = 0x510e527f, tobit(0x9b05688c), 0x1f83d9ab, 0x5be0cd19
  for first = 1, #padded, 64 do
    for i = 1, 16 do
      local at = first + i * 4 - 4
      local b1, b2, b3, b4 = byte(padded, at, at + 3)
      W[i] = bor(lshift(b1, 24), lshift(b2, 16), lshift(b3, 8), b4)
    end
    for i = 17, 64 do
      local x, y = W[i - 15], W[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
      local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
      W[i] = tobit(W[i - 16] + s0 + W[i - 7] + s1)
    end
    local a, b, c, d, e, f, g, h = h1, h2, h3, h4, h5, h6, h7, h8
    for i = 1, 64 do
      local t1 = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(g, band(e, bxor(f, g)))
      t1 = t1 + K[i] + W[i]
      local t2 = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bor(band(a, b), band(c, bor(a, b)))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
    end
    h1, h2, h3, h4 = tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d)
    h5, h6, h7, h8 = tobit(h5 + e), tobit(h6 + f), tobit(h7 + g), tobit(h8 + h)
  end
  return tohex(h1) .. tohex(h2) .. tohex(h3) .. tohex(h4)
    .. tohex(h5) .. tohex(h6) .. tohex(h7) .. tohex(h8)
end

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
