-- Looks where a request of a browser comes from, and calls `report(handle, reason)` if it is wrong.
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

-- The listener has cut off the port that the caller named: its own port stands for it.
local function own(handle, host)
  local called = handle:headers():get(":authority") or ""
  local port = handle:streamInfo():downstreamLocalAddress():match(":%d+$") or ""
  return host == called or host == called .. port
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if not MODIFIES[headers:get(":method")] then
    return
  end
  local site = headers:get("sec-fetch-site")
  if site == "same-origin" or site == "none" then
    return
  end
  local host = host_of(headers:get("origin")) or host_of(headers:get("referer"))
  if host == nil then
    report(handle, "no origin")
  elseif not (site == nil and own(handle, host)) and not allowed(host:lower()) then
    report(handle, "origin mismatch")
  end
end
