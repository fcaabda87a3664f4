-- Answers preflights and tells browsers who may read answers, for requests that meet a condition.
-- These constants are prepended when the policy is compiled:
--   ANYBODY      whether every origin gets the same answer
--   ORIGINS      each with `exact`, or with `scheme` and `suffix` for subdomains at any depth, or
--                with `any`
--   CREDENTIALS  whether browsers may send credentials
--   EXPOSED      headers that pages may read, or nil
--   METHODS      methods that may be asked for, or nil for any
--   HEADERS      lower-case headers that may be asked for, or nil for any
--   PREFLIGHT    what an allowed preflight is told; `%method` and `%headers` are what was asked
--   FORWARD      whether the upstream answers preflights

local MEMORY = "signalbox.cors"

local function allowed(origin)
  for _, one in ipairs(ORIGINS) do
    if one.any or one.exact == origin then
      return true
    end
    if one.scheme and origin:sub(1, #one.scheme) == one.scheme then
      local host = origin:sub(#one.scheme + 1)
      local below = host:sub(1, -#one.suffix - 1)
      if host:sub(-#one.suffix) == one.suffix and below:find("^[%w_.-]+$")
        and not below:find("^%.") and not below:find("%.$") and not below:find("..", 1, true) then
        return true
      end
    end
  end
  return false
end

local function holds(list, name)
  for _, one in ipairs(list) do
    if one == name then
      return true
    end
  end
  return false
end

local function grants(headers, method)
  if METHODS ~= nil and not holds(METHODS, method) then
    return false
  end
  if HEADERS ~= nil then
    for name in (headers:get("access-control-request-headers") or ""):gmatch("[^%s,]+") do
      if not holds(HEADERS, name:lower()) then
        return false
      end
    end
  end
  return true
end

local function varies(vary)
  for name in vary:gmatch("[^%s,]+") do
    if name:lower() == "origin" then
      return true
    end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local origin = headers:get("origin")
  if origin == nil then
    return
  end
  local good = allowed(origin)
  local method = headers:get("access-control-request-method")
  if FORWARD or method == nil or headers:get(":method") ~= "OPTIONS" then
    if good then
      handle:streamInfo():dynamicMetadata():set(MEMORY, "origin", origin)
    end
    return
  end
  local answer = {[":status"] = "204"}
  if good and grants(headers, method) then
    local asked = headers:get("access-control-request-headers")
    for name, value in pairs(PREFLIGHT) do
      if value == "%method" then
        value = method
      elseif value == "%headers" then
        value = asked
      elseif value == "%origin" then
        value = origin
      end
      answer[name] = value
    end
  elseif not ANYBODY then
    answer["vary"] = "Origin"
  end
  handle:streamInfo():dynamicMetadata():set(MEMORY, "answered", true)
  handle:respond(answer, "")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local memory = handle:streamInfo():dynamicMetadata():get(MEMORY) or {}
  if memory["answered"] then
    return
  end
  local upstreams = {}
  if FORWARD then
    upstreams = {
      "access-control-allow-origin", "access-control-allow-credentials",
      "access-control-expose-headers",
    }
  else
    for name in pairs(headers) do
      if name:sub(1, 15) == "access-control-" then
        upstreams[#upstreams + 1] = name
      end
    end
  end
  for _, name in ipairs(upstreams) do
    headers:remove(name)
  end
  if ANYBODY then
    headers:replace("access-control-allow-origin", "*")
  else
    if not varies(headers:get("vary") or "") then
      headers:add("vary", "Origin")
    end
    if memory["origin"] == nil then
      return
    end
    headers:replace("access-control-allow-origin", memory["origin"])
    if CREDENTIALS then
      headers:replace("access-control-allow-credentials", "true")
    end
  end
  if EXPOSED ~= nil then
    headers:replace("access-control-expose-headers", EXPOSED)
  end
end
