-- Keeps the cookies of a session from the upstream; SESSION, their names, stands before.

local OURS = {}
for _, name in ipairs(SESSION) do OURS[name] = true end

function envoy_on_request(handle)
  local headers = handle:headers()
  local all = headers:get("cookie")
  if not all then return end
  local kept = {}
  for part in all:gmatch("[^;]+") do
    local name = part:match("^%s*([^=%s]+)")
    -- those of a login under way end with its number
    if name and not OURS[name] and not OURS[name:match("^([^.]+)%.") or ""] then
      kept[#kept + 1] = part:match("^%s*(.-)%s*$")
    end
  end
  if #kept > 0 then headers:replace("cookie", table.concat(kept, "; ")) else headers:remove("cookie") end
end
