-- Looks where a request of a browser comes from and changes nothing.
-- These constants are prepended when the policy is compiled:
--   HOSTS     lower-case hosts that may call beside the API's own
--   SUFFIXES  lower-case ends, with their dot, of hosts that may call at any depth

local MODIFIES = { POST = true, PUT = true, DELETE = true, PATCH = true }

local function host_of(value)
  return value and (value:match("^%a[%w+.-]*://([^/?#]*)") or value)
end

local function allowed(host)
  for _, one in ipairs(HOSTS) do
    if one == host then
      return true
    end
  end
  for _, suffix in ipairs(SUFFIXES) do
    local below = host:sub(1, -#suffix - 1)
    if host:sub(-#suffix) == suffix and below:find("^[%w_.-]+$")
      and not below:find("^%.") and not below:find("%.$") and not below:find("..", 1, true) then
      return true
    end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if not MODIFIES[headers:get(":method")] then
    return
  end
  local origin = host_of(headers:get("origin")) or host_of(headers:get("referer"))
  if origin == nil then
    report(handle, "no origin")
  elseif origin ~= headers:get(":authority") and not allowed(origin:lower()) then
    report(handle, "origin mismatch")
  end
end
