-- Above stand: CONTEXT, the API's context or ""; MEMORY, the namespace of what is kept for later
-- parts; RUN, whether this part runs "always", decides ("decide") or follows a decision ("follow");
-- CONDITIONS and STEPS, see request_rewrite.py. What needs RE2 is put into a private header;
-- `header_to_metadata` behind this part answers it.

local SUBJECT = "x-signalbox-rewrite-"
local TOO_LONG = '{"error":"URI Too Long","message":"The request is too long to be rewritten"}'
local CONTROL = '{"error":"Bad Request","message":"A query parameter holds control characters"}'
local TWICE = '{"error":"Bad Request","message":"A query parameter must not be given more than once"}'

local function decoded(text)
  return (text:gsub("%+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function encoded(text)
  return (text:gsub("[^%w%-%._~!$'()*,;:@/]", function(one) return ("%%%02X"):format(one:byte()) end))
end

local function url(handle)
  local whole = handle:headers():get(":path")
  local path, query = whole:match("^([^?]*)%?(.*)$")
  return path or whole, query
end

local function write(handle, path, query)
  handle:headers():replace(":path", query and query ~= "" and path .. "?" .. query or path)
end

local function parameters(query)
  local found = {}
  for pair in (query or ""):gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=(.*)$")
    found[#found + 1] = {raw = pair, name = decoded(name or pair), value = decoded(value or "")}
  end
  return found
end

local function joined(found)
  local pairs = {}
  for at, one in ipairs(found) do pairs[at] = one.raw end
  return table.concat(pairs, "&")
end

local function pair(name, value)
  return {raw = encoded(name) .. "=" .. encoded(value), name = name, value = value}
end

local function named(found, name)
  local places = {}
  for at, one in ipairs(found) do
    if one.name == name then places[#places + 1] = at end
  end
  return places
end

local function header(handle, name)
  local headers, values = handle:headers(), {}
  for at = 0, headers:getNumValues(name) - 1 do values[#values + 1] = headers:getAtIndex(name, at) end
  return values[1] and table.concat(values, ",")
end

local function value_of(handle, condition)
  if condition.header then return header(handle, condition.header) end
  local _, query = url(handle)
  local found = parameters(query)
  local places = named(found, condition.query)
  local values = {}
  for at, place in ipairs(places) do values[at] = found[place].value end
  return values[1] and table.concat(values, ",")
end

local function remembered(handle)
  return handle:streamInfo():dynamicMetadata():get(MEMORY) or {}
end

local function refuse(handle, status, body)
  handle:respond({[":status"] = status, ["content-type"] = "application/json"}, body)
end

local function ask(handle, number, subject)
  if subject:find("[%c\127]") then return refuse(handle, "400", CONTROL) end
  if subject ~= "" then handle:headers():replace(SUBJECT .. number, subject) end
end

local function matches(handle, memory, condition)
  local value = value_of(handle, condition)
  if not value then return false end
  if condition.exact then return value == condition.exact end
  if not condition.number then return true end
  if value == "" then return condition.empty end
  local before, after = memory["s" .. condition.number], memory["m" .. condition.number]
  if not before then return nil end
  return before ~= after
end

-- The subject after RE2 has replaced; nil when it was or became too long.
local function replaced(memory, step, subject)
  if subject == "" then return step.empty end
  local result = memory["r" .. step.number]
  if result then return result end
  return memory["m" .. step.number] and "" or nil
end

local function below(path)
  return path:sub(1, #CONTEXT) == CONTEXT and path:sub(#CONTEXT + 1) or path
end

local function set_path(handle, path)
  local _, query = url(handle)
  write(handle, CONTEXT .. (path:sub(1, 1) == "/" and path or "/" .. path), query)
end

local function edit_query(handle, edit)
  local path, query = url(handle)
  local found = parameters(query)
  if edit(found) == nil then write(handle, path, joined(found)) end
end

local actions = {}

function actions.full(handle, step) set_path(handle, step.value) end

function actions.prefix(handle, step)
  local path = url(handle)
  local first, last = below(path):find(step.pattern)
  local rest = first and below(path):sub(last + 1)
  if rest and (rest == "" or rest:sub(1, 1) == "/") then set_path(handle, step.value .. rest) end
end

function actions.remove(handle, step)
  edit_query(handle, function(found)
    local places = named(found, step.name)
    for at = #places, 1, -1 do table.remove(found, places[at]) end
  end)
end

function actions.replace(handle, step)
  edit_query(handle, function(found)
    local places = named(found, step.name)
    for at = #places, 2, -1 do table.remove(found, places[at]) end
    found[places[1] or #found + 1] = pair(step.name, step.value)
  end)
end

function actions.add(handle, step)
  edit_query(handle, function(found) found[#found + 1] = pair(step.name, step.value) end)
end

function actions.append(handle, step)
  edit_query(handle, function(found)
    local place = named(found, step.name)[1]
    local value = place and found[place].value .. step.separator .. step.value or step.value
    found[place or #found + 1] = pair(step.name, value)
  end)
end

function actions.method(handle, step)
  -- the connection to the caller knows by the method it read that this answer has no body
  if handle:headers():get(":method") ~= "HEAD" then handle:headers():replace(":method", step.value) end
end

function actions.ask_path(handle, step) ask(handle, step.number, below((url(handle)))) end

function actions.path(handle, step, memory)
  local path = replaced(memory, step, below((url(handle))))
  if not path then return refuse(handle, "414", TOO_LONG) end
  set_path(handle, path)
end

function actions.ask_query(handle, step)
  local _, query = url(handle)
  local found = parameters(query)
  local places = named(found, step.name)
  if #places > 1 then return refuse(handle, "400", TWICE) end
  if places[1] then ask(handle, step.number, found[places[1]].value) end
end

function actions.query(handle, step, memory)
  local long = false
  edit_query(handle, function(found)
    local place = named(found, step.name)[1]
    if not place then return false end
    local value = replaced(memory, step, found[place].value)
    if not value then long = true return false end
    found[place] = pair(step.name, value)
  end)
  if long then refuse(handle, "414", TOO_LONG) end
end

function actions.ask_condition(handle, step) ask(handle, step.number, value_of(handle, step) or "") end

function envoy_on_request(handle)
  local memory = remembered(handle)
  if RUN == "decide" then
    for _, condition in ipairs(CONDITIONS) do
      local holds = matches(handle, memory, condition)
      if holds == nil then return refuse(handle, "414", TOO_LONG) end
      if not holds then return end
    end
    handle:streamInfo():dynamicMetadata():set(MEMORY, "on", true)
  elseif RUN == "follow" and not memory.on then
    return
  end
  for _, step in ipairs(STEPS) do actions[step.action](handle, step, memory) end
end
