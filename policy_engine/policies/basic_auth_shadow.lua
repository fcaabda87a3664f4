-- Looks at the credentials of HTTP basic authentication and changes nothing.
-- These constants and sha256.lua are prepended when the policy is compiled:
--   DIGEST    SHA-256 of the only good credentials in base64
--   OPTIONAL  whether requests without credentials would pass

function envoy_on_request(handle)
  local value = handle:headers():get("authorization")
  if value == nil then
    if not OPTIONAL then
      report(handle, "no_credential")
    end
    return
  end
  local given = value:match("^[Bb][Aa][Ss][Ii][Cc] +(.*)$")
  if given == nil then
    report(handle, "invalid_scheme")
  elseif #given > 4096 or sha256(given) ~= DIGEST then
    report(handle, "invalid_credential")
  end
end
