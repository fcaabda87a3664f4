-- Sends the caller to another place, for requests that meet a condition.
-- These constants are prepended when the policy is compiled:
--   STATUS              the status
--   SCHEME, HOST, PORT  of the new place, or nil
--   FULL                the new path, or nil
--   PREFIX, VALUE       a Lua pattern of what VALUE replaces in the path, or nil

local function new_path(path)
  local plain, query = path:match("^([^?]*)(.*)$")
  if FULL ~= nil then
    return FULL .. query
  end
  if PREFIX ~= nil then
    local _, last = plain:find(PREFIX)
    local rest = last and plain:sub(last + 1)
    if rest == "" or (rest and rest:sub(1, 1) == "/") then
      plain = VALUE .. rest
      if plain == "" then
        plain = "/"
      end
    end
  end
  return plain .. query
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local place = new_path(headers:get(":path"))
  if HOST or PORT or (SCHEME and SCHEME ~= headers:get(":scheme")) then
    local host = HOST or headers:get(":authority"):gsub(":%d+$", "")
    if PORT then
      host = host .. ":" .. PORT
    end
    place = (SCHEME or headers:get(":scheme")) .. "://" .. host .. place
  end
  handle:respond({[":status"] = STATUS, ["location"] = place}, "")
end
