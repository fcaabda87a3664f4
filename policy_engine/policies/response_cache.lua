-- A shared HTTP cache after RFC 9111: one per worker and attachment, in memory, never stale.
-- The constants stand before: TTL_S, STATUSES, VARY_BY, PER_CALLER, IGNORE_REQUEST, MAX_BODY_BYTES,
-- MAX_BYTES, APPLICATION, NAMESPACE.

local entries, used_bytes = {}, 0
local newest, oldest = nil, nil
local names = {}     -- the request headers that keys are made of; grows with what upstreams vary by
local known = {}
local generation = 0 -- of `names`: a key of an earlier one is never found again
local MOST_NAMES = 16
local OVERHEAD_BYTES = 512
local asked_for, latest = {}, 0 -- what waits for an answer of the upstream, by number
local MOST_WAITING = 16384      -- of those that wait longer no answer is kept
local CACHEABLE = {}
for _, status in ipairs(STATUSES) do CACHEABLE[status] = true end
local DROPPED = {
  ["age"] = true, ["connection"] = true, ["content-length"] = true, ["date"] = true,
  ["keep-alive"] = true, ["proxy-authenticate"] = true, ["proxy-connection"] = true,
  ["ratelimit"] = true, ["ratelimit-policy"] = true, ["server"] = true, ["te"] = true,
  ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
  ["x-cache-status"] = true, ["x-ratelimit-limit"] = true, ["x-ratelimit-quota"] = true,
  ["x-ratelimit-remaining"] = true, ["x-ratelimit-reset"] = true,
}
local MONTHS = {
  Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6,
  Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12,
}

local function learn(name)
  if known[name] then return true end
  if #names >= MOST_NAMES then return false end
  known[name] = true
  names[#names + 1] = name
  generation = generation + 1
  return true
end

for _, name in ipairs(VARY_BY) do learn(name) end

local function unlink(entry)
  if entry.newer then entry.newer.older = entry.older else newest = entry.older end
  if entry.older then entry.older.newer = entry.newer else oldest = entry.newer end
  entry.newer, entry.older = nil, nil
end

local function link(entry)
  entry.older = newest
  if newest then newest.newer = entry else oldest = entry end
  newest = entry
end

local function forget(entry)
  unlink(entry)
  entries[entry.key] = nil
  used_bytes = used_bytes - entry.bytes
end

local function remember(entry)
  local before = entries[entry.key]
  if before then forget(before) end
  if entry.bytes > MAX_BYTES then return end
  entries[entry.key] = entry
  link(entry)
  used_bytes = used_bytes + entry.bytes
  while used_bytes > MAX_BYTES do forget(oldest) end
end

local function directives(value)
  local found = {}
  for part in ((value or "") .. ","):gmatch("%s*(.-)%s*,") do
    local name, argument = part:match('^([^=%s]+)%s*=%s*"?([^"]*)"?$')
    name = (name or part):lower()
    if name ~= "" then found[name] = argument or true end
  end
  return found
end

local function seconds(argument)
  return type(argument) == "string" and argument:match("^%d+$") and tonumber(argument) or nil
end

-- the seconds since 1970 of an HTTP date; nil for anything else
local function epoch_s(text)
  local day, month, year, hour, minute, second =
    (text or ""):match("^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  month = month and MONTHS[month]
  if not month then return nil end
  local y = month <= 2 and year - 1 or year + 0
  local shifted = month > 2 and month - 3 or month + 9
  local of_year = math.floor((153 * shifted + 2) / 5) + day - 1
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) + of_year
  return (days - 719468) * 86400 + hour * 3600 + minute * 60 + second
end

local function opaque(tag)
  return (tag:gsub("^W/", ""))
end

local function not_modified(headers, entry)
  local wanted = headers:get("if-none-match")
  if wanted then
    if not entry.etag then return false end
    for tag in (wanted .. ","):gmatch("%s*(.-)%s*,") do
      if tag == "*" or opaque(tag) == opaque(entry.etag) then return true end
    end
    return false
  end
  local since = headers:get("if-modified-since")
  return since ~= nil and since == entry.last_modified
end

-- the key of what is asked for, and whether somebody in particular asks
local function key_of(headers)
  local application = headers:get(APPLICATION)
  local authorization, cookie = headers:get("authorization"), headers:get("cookie")
  local identified = application ~= nil or authorization ~= nil or cookie ~= nil
  local parts = {
    generation, headers:get(":scheme") or "", headers:get(":authority") or "", headers:get(":path"),
  }
  for _, name in ipairs(names) do
    local value = headers:get(name)
    parts[#parts + 1] = value and "=" .. value or ""
  end
  if PER_CALLER then
    for _, value in ipairs({ application or "", authorization or "", cookie or "" }) do
      parts[#parts + 1] = value
    end
  end
  return table.concat(parts, "\n"), identified -- which no header can hold
end

local function usable(entry, now_s, identified, asked)
  if now_s >= entry.expires_s then return false end
  if identified and not PER_CALLER and not entry.public then return false end
  if asked["no-cache"] then return false end
  local longest, fresh = seconds(asked["max-age"]), seconds(asked["min-fresh"])
  if longest and now_s - entry.born_s > longest then return false end
  return not (fresh and entry.expires_s - now_s < fresh)
end

-- what is known of a request waits here, not in its metadata, which the access log tells
local function wait_for(handle, what)
  latest = latest + 1
  what.number = latest
  asked_for[latest % MOST_WAITING] = what
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "number", latest)
end

local function waited_for(handle)
  local state = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  if not state then return nil end
  local slot = state.number % MOST_WAITING
  local what = asked_for[slot]
  if not what or what.number ~= state.number then return nil end
  asked_for[slot] = nil
  return what
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method = headers:get(":method")
  if method ~= "GET" and method ~= "HEAD" then return end
  local asked = IGNORE_REQUEST and {} or directives(headers:get("cache-control"))
  if not IGNORE_REQUEST and not headers:get("cache-control") then
    asked = directives(headers:get("pragma"))
  end
  local length = headers:get("content-length")
  -- who is known, but not by name, can have no answers of their own
  local nameless = PER_CALLER and headers:get(APPLICATION) == "-"
  if nameless or headers:get("range") or headers:get("upgrade") or headers:get("transfer-encoding")
    or (length and length ~= "0") or asked["no-store"] then
    wait_for(handle, { status = "BYPASS" })
    return
  end
  local key, identified = key_of(headers)
  local entry = entries[key]
  local now_s = handle:timestamp() / 1000
  if entry and now_s >= entry.expires_s then
    forget(entry)
    entry = nil
  end
  if entry and usable(entry, now_s, identified, asked) then
    unlink(entry)
    link(entry)
    local answer = entry.headers
    answer["age"] = tostring(math.max(0, math.floor(now_s - entry.born_s)))
    if not_modified(headers, entry) then
      answer[":status"] = "304"
      handle:respond(answer)
    else
      answer[":status"] = entry.status
      handle:respond(answer, entry.body)
    end
    return
  end
  if asked["only-if-cached"] then
    handle:respond({ [":status"] = "504", ["content-type"] = "application/json" },
      '{"error":"Gateway Timeout","message":"The answer is not in the cache"}')
    return
  end
  if method == "GET" and handle:body() == nil then
    wait_for(handle, {
      status = "MISS", key = key, generation = generation, identified = identified,
    })
  else
    wait_for(handle, { status = "BYPASS" })
  end
end

-- how long it is good, and whether anybody may have it; nil: it is not kept
local function lifetime_s(headers, identified, now_s)
  if not CACHEABLE[headers:get(":status")] or headers:get("set-cookie") then return nil end
  if headers:get("content-range") then return nil end
  local told = directives(headers:get("cache-control"))
  if told["no-store"] or told["private"] or told["no-cache"] then return nil end
  local shared = seconds(told["s-maxage"])
  local public = told["public"] ~= nil or shared ~= nil
  if identified and not PER_CALLER and not public then return nil end
  local good_s = shared or seconds(told["max-age"])
  if not good_s and headers:get("expires") then
    local expires_s = epoch_s(headers:get("expires"))
    good_s = expires_s and expires_s - (epoch_s(headers:get("date")) or now_s) or 0
  end
  return good_s or TTL_S, public
end

-- whether the key of the request tells apart all that the answer varies by
local function told_apart(headers, made_in)
  local every = true
  for name in ((headers:get("vary") or "") .. ","):gmatch("%s*(.-)%s*,") do
    if name == "*" then return false end
    if name ~= "" and not learn(name:lower()) then every = false end
  end
  return every and generation == made_in
end

function envoy_on_response(handle)
  local asked = waited_for(handle)
  if not asked then return end
  local headers = handle:headers()
  headers:replace("x-cache-status", asked.status)
  if not asked.key then return end
  local now_s = handle:timestamp() / 1000
  local good_s, public = lifetime_s(headers, asked.identified, now_s)
  if not good_s or not told_apart(headers, asked.generation) then return end
  local age_s = seconds(headers:get("age")) or 0
  if good_s <= age_s then return end
  local length = tonumber(headers:get("content-length") or "0")
  if not length or length > MAX_BODY_BYTES then return end

  local kept, bytes = { ["x-cache-status"] = "HIT" }, OVERHEAD_BYTES + 2 * #asked.key
  for name, value in pairs(headers) do
    if name:sub(1, 1) ~= ":" and name:sub(1, 8) ~= "x-envoy-" and not DROPPED[name] then
      local values = kept[name]
      if values then values[#values + 1] = value else kept[name] = { value } end
      bytes = bytes + #name + #value + 64
    end
  end
  local entry = {
    key = asked.key, headers = kept, status = headers:get(":status"), public = public,
    etag = headers:get("etag"), last_modified = headers:get("last-modified"),
    born_s = now_s - age_s, expires_s = now_s - age_s + good_s,
  }
  local parts, body_bytes = {}, 0
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    body_bytes = body_bytes + size
    if body_bytes > MAX_BODY_BYTES then
      parts = nil
    elseif parts and size > 0 then
      parts[#parts + 1] = chunk:getBytes(0, size)
    end
  end
  if not parts or handle:trailers() then return end
  if body_bytes > 0 and not kept["content-type"] then return end
  entry.body = table.concat(parts)
  entry.bytes = bytes + body_bytes
  remember(entry)
end
