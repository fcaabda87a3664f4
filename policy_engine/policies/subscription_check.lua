-- Lets only requests pass that come by a live subscription, and says which one it is.
-- These constants, sha256.lua and subscription_table.lua are prepended when it is compiled:
--   HEADER  the header that holds the token
--   COOKIE  the cookie that holds it if the header is not there, or nil
--   KEEP    whether the digest is left in the stream's metadata for a second check
-- Private headers are always written or removed here.

local LONGEST = 4096 -- bytes; no longer token is taken, and none is hashed
local METADATA, DIGEST = "signalbox.subscription-validation", "digest"
local APPLICATION = "x-signalbox-application"
local SUBSCRIPTION = "x-signalbox-subscription"
local QUOTA = "x-signalbox-quota"
local REFUSED = { [":status"] = "403", ["content-type"] = "application/json" }
local WORDS = '{"error":"Forbidden","message":"An active subscription to this API is required"}'

-- The cookie's value, and the header without it; nil when it is not there. Twice is wrong: "".
local function from_cookie(header)
  local kept, value = {}, nil
  for pair in header:gmatch("[^;]+") do
    local name, content = pair:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
    if name == COOKIE then
      value = value == nil and content or ""
    else
      kept[#kept + 1] = pair:match("^%s*(.-)%s*$")
    end
  end
  return value, table.concat(kept, "; ")
end

local function presented(headers)
  local token = headers:get(HEADER)
  headers:remove(HEADER)
  if COOKIE == nil then
    return token
  end
  local header = headers:get("cookie")
  if header == nil or not header:find(COOKIE, 1, true) then
    return token
  end
  local value, rest = from_cookie(header)
  if value ~= nil then
    if rest == "" then
      headers:remove("cookie")
    else
      headers:replace("cookie", rest)
    end
  end
  return token or value
end

local function metadata(handle)
  return handle:streamInfo():dynamicMetadata()
end

-- What the context may know the caller by; nil when there is nothing.
local function credential(handle, headers)
  local token = presented(headers)
  if token ~= nil then
    if token == "" or #token > LONGEST then
      return nil
    end
    local digest = sha256(token)
    if KEEP then
      metadata(handle):set(METADATA, DIGEST, digest)
    end
    return "t:" .. digest
  end
  local earlier = metadata(handle):get(METADATA)
  if earlier ~= nil then
    return "t:" .. earlier[DIGEST]
  end
  local application = headers:get(APPLICATION)
  return application and "a:" .. application
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove(SUBSCRIPTION)
  headers:remove(QUOTA)
  local known = credential(handle, headers)
  local found = subscription_of(handle, known)
  if found == nil then
    handle:respond(REFUSED, WORDS)
    return
  end
  local id, quota, application = found:match("^([^\t]*)\t([^\t]*)\t(.*)$")
  headers:add(SUBSCRIPTION, id)
  if quota ~= "" then
    headers:add(QUOTA, quota)
  end
  if application ~= "" and headers:get(APPLICATION) == nil then
    headers:add(APPLICATION, application)
  end
end
