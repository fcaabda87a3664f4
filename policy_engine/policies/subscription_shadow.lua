-- Looks for a live subscription and changes nothing.
-- These constants, sha256.lua and subscription_table.lua are prepended when it is compiled:
--   HEADER  the header that holds the token
--   COOKIE  the cookie that holds it if the header is not there, or nil
--   SUBSCRIPTION, QUOTA  private headers for what counts by plans, or nil if no plan refuses

local LONGEST = 4096

local function from_cookie(header)
  local value
  for pair in (header or ""):gmatch("[^;]+") do
    local name, content = pair:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
    if name == COOKIE then
      value = value == nil and content or ""
    end
  end
  return value
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local token = headers:get(HEADER) or (COOKIE and from_cookie(headers:get("cookie")))
  local known
  if token then
    known = token ~= "" and #token <= LONGEST and "t:" .. sha256(token)
  else
    local earlier = handle:streamInfo():dynamicMetadata():get("signalbox.subscription-validation")
    local application = headers:get("x-signalbox-application")
    known = earlier and "t:" .. earlier["digest"] or application and "a:" .. application
  end
  local found = subscription_of(handle, known)
  if not found then
    report(handle, "no active subscription")
  elseif QUOTA then
    local id, quota = found:match("^([^\t]*)\t([^\t]*)\t")
    if quota ~= "" then
      headers:replace(SUBSCRIPTION, id)
      headers:replace(QUOTA, quota)
    end
  end
end
