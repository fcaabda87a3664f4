-- Looks for the cookies of a session and changes nothing; their seal is not verified.
-- These constants are prepended when the policy is compiled:
--   SEAL, EXPIRES  the names of cookies that every session has
--   REFRESH        that of the cookie by which a session is prolonged, or nil

local PAGES_OWN = { cors = true, ["same-origin"] = true, websocket = true }

local function has_session(handle, header)
  local known = {}
  for name, value in (header or ""):gmatch("([^;=%s]+)=([^;]*)") do
    known[name] = value
  end
  local expires_s = tonumber(known[EXPIRES] or "")
  if known[SEAL] and expires_s and expires_s > handle:timestamp() / 1000 then
    return true
  end
  return REFRESH ~= nil and known[REFRESH] ~= nil
end

-- Whether a redirect to a login can be followed.
local function follows(headers)
  local method = headers:get(":method")
  return (method == "GET" or method == "HEAD")
    and (headers:get("x-requested-with") or ""):lower() ~= "xmlhttprequest"
    and not PAGES_OWN[headers:get("sec-fetch-mode") or ""]
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if not has_session(handle, headers:get("cookie")) then
    report(handle, follows(headers) and "redirects to log in" or "login required")
  end
end
