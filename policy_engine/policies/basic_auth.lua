-- Looks at the credentials of HTTP basic authentication: calls `report(handle, reason)` if they are
-- not good, `passed(headers)` if they are.
-- These constants and sha256.lua are prepended when the policy is compiled:
--   DIGEST    SHA-256 of the only good credentials in base64, without padding
--   OPTIONAL  whether requests without credentials pass

local LONGEST = 8192 -- bytes; nothing longer is hashed

local function wrong_with(value)
  local given = value:match("^[Bb][Aa][Ss][Ii][Cc] +([%w+/]*)=*$")
  if given == nil then
    return value:find("^[Bb][Aa][Ss][Ii][Cc] ") and "invalid_format" or "invalid_scheme"
  end
  if #given > LONGEST or sha256(given) ~= DIGEST then
    return "invalid_credential"
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local value = headers:get("authorization")
  if value == nil then
    if not OPTIONAL then
      report(handle, "no_credential")
    end
    return
  end
  local understood, wrong = pcall(wrong_with, value) -- Envoy lets pass where a program breaks off
  if wrong or not understood then
    report(handle, wrong)
  else
    passed(headers)
  end
end
