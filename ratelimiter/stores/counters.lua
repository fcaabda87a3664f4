-- Decides groups of takes, all of them at one moment of this server's clock.
--
-- KEYS   one per take, in order
-- ARGV   per group: number of takes; per take: mode, hits, code, limit, a, b
--          mode  n consume   c check: pass if anything is left   a charge: count what fits
--                r refund: take hits back                        m merge: ARGV continues, see below
--          code  f fixed window: a = period in us
--                d calendar window: a, b = ends of this and the next period, Unix time in us
--                s sliding window: a = period in us, a multiple of 16
--                g GCRA: limit = size of the bucket, a = period in us, b = hits per period
--        mode m has three more: floor, floor_at, number of pairs; then the pairs: at, hits.
--        They were counted elsewhere while this server was away; `floor` had been counted here
--        before, and may have been lost since. `at` is the end of the window that it was in, for
--        a sliding window and GCRA the moment, Unix time in us
-- Returns {now_us, then per take: remaining, reset_us, retry_us}; retry_us is 0 when it passed.
--
-- Values   fixed and calendar   "<end_us>:<used>"
--          sliding              "<slice>=<hits>;<slice>=<hits>;..." slice = us / (period / 16)
--          GCRA                 "<us>:<level>"    hits in the bucket at that moment
local SLICES = 16
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local find, sub, format = string.find, string.sub, string.format

local function pair(value)
  local colon = find(value, ':', 1, true)
  return tonumber(sub(value, 1, colon - 1)), tonumber(sub(value, colon + 1))
end

-- Each `read_*` gives {used, ...} as of now; `left`, `wait`, `add` and `text` work on that.

local function read_window(value, code, a, b)
  local ends
  if code == 'f' then
    ends = now - now % a + a
  else
    ends = now < a and a or b
  end
  if value then
    local stored, used = pair(value)
    -- a later end than ours: this clock was set back, or another server's was ahead
    if stored == ends or (stored > ends and stored - ends <= (code == 'f' and a or b - a)) then
      return {used = used, ends = stored}
    end
  end
  return {used = 0, ends = ends}
end

local function read_sliding(value, a)
  local width = a / SLICES
  local slice = floor(now / width)
  local state = {used = 0, width = width, slice = slice, counts = {}, order = {}}
  if value then
    for index, hits in string.gmatch(value, '(%d+)=(%d+)') do
      index, hits = tonumber(index), tonumber(hits)
      if index >= slice - SLICES and index <= slice + SLICES then
        state.used = state.used + hits
        state.counts[index] = hits
        state.order[#state.order + 1] = index
      end
    end
  end
  return state
end

local function read_gcra(value, a, b)
  local level = 0
  if value then
    local last, stored = pair(value)
    level = max(0, stored - max(0, now - last) * b / a)
  end
  return {used = level, a = a, b = b}
end

local function add(state, hits, at)
  state.used = state.used + hits
  if state.counts then
    local slice = at and floor(at / state.width) or state.slice
    if not state.counts[slice] then
      state.order[#state.order + 1] = slice
      table.sort(state.order)
    end
    state.counts[slice] = (state.counts[slice] or 0) + hits
  end
end

local function give_back(state, hits)
  hits = min(hits, state.used)
  state.used = state.used - hits
  if state.counts then
    for position = #state.order, 1, -1 do
      local slice = state.order[position]
      local less = min(hits, state.counts[slice])
      state.counts[slice] = state.counts[slice] - less
      hits = hits - less
    end
  end
end

-- of a hit: what adding fractions of hits may be off; windows have whole ones
local function slack(state, limit)
  return state.b and min(1e-6, limit * 1e-10) or 0
end

-- whether what was counted elsewhere at `at` still matters
local function current(state, at, a)
  if state.ends then return at == state.ends end
  return state.b ~= nil or at > now - a
end

-- us until all has been forgotten
local function reset(state)
  if state.ends then return state.ends - now end
  if state.b then return ceil(state.used * state.a / state.b) end
  for position = #state.order, 1, -1 do
    local slice = state.order[position]
    if state.counts[slice] > 0 then return ceil((slice + SLICES + 1) * state.width - now) end
  end
  return 0
end

-- us until `over` hits have been forgotten
local function wait(state, over)
  if state.ends then return state.ends - now end
  if state.b then return max(1, ceil(over * state.a / state.b)) end
  for position = 1, #state.order do
    local slice = state.order[position]
    over = over - state.counts[slice]
    if over <= 0 then return max(1, ceil((slice + SLICES + 1) * state.width - now)) end
  end
  return max(1, reset(state))
end

local function text(state)
  if state.ends then return format('%.0f:%.0f', state.ends, state.used) end
  if state.b then return format('%.0f:%.17g', now, state.used) end
  local parts = {}
  for position = 1, #state.order do
    local slice = state.order[position]
    if state.counts[slice] > 0 then
      parts[#parts + 1] = format('%.0f=%.0f', slice, state.counts[slice])
    end
  end
  return table.concat(parts, ';')
end

local function write(key, state)
  local left_us = reset(state)
  if left_us <= 0 or state.used <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, text(state), 'PXAT', format('%.0f', ceil((now + left_us) / 1000) + 1))
  end
end

local out = {now}
local argument, key_index = 1, 0
while argument <= #ARGV do
  local size = tonumber(ARGV[argument])
  argument = argument + 1
  local takes, states, refused = {}, {}, false
  for index = 1, size do
    key_index = key_index + 1
    local key = KEYS[key_index]
    local mode, hits, code = ARGV[argument], tonumber(ARGV[argument + 1]), ARGV[argument + 2]
    local limit = tonumber(ARGV[argument + 3])
    local a, b = tonumber(ARGV[argument + 4]), tonumber(ARGV[argument + 5])
    argument = argument + 6
    local state = states[key]
    if not state then
      local value = redis.call('GET', key)
      if code == 'g' then
        state = read_gcra(value, a, b)
      elseif code == 's' then
        state = read_sliding(value, a)
      else
        state = read_window(value, code, a, b)
      end
      states[key] = state
    end
    local take = {key = key, mode = mode, hits = hits, limit = limit, state = state, retry = 0}
    takes[index] = take
    if mode == 'n' or mode == 'c' then
      local asked = mode == 'c' and 1 or hits
      local over = state.used + asked - limit
      if asked > 0 and over > slack(state, limit) then
        take.retry = asked > limit and max(1, reset(state), wait(state, over)) or wait(state, over)
        refused = true
      elseif mode == 'n' then
        add(state, hits)
        take.added = true
      end
    elseif mode == 'a' then
      add(state, max(0, min(hits, limit - state.used)))
    elseif mode == 'r' then
      give_back(state, hits)
    else
      local least, least_at = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
      local count = tonumber(ARGV[argument + 2])
      argument = argument + 3
      if state.b then
        least = max(0, least - max(0, now - least_at) * b / a)
      elseif not current(state, least_at, a) then
        least = 0
      end
      if least > state.used then add(state, min(least, limit) - state.used, least_at) end
      for _ = 1, count do
        local at, more = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
        argument = argument + 2
        if current(state, at, a) then add(state, max(0, min(more, limit - state.used)), at) end
      end
    end
  end
  for index = 1, size do
    local take = takes[index]
    if refused and take.added then
      give_back(take.state, take.hits)
    end
  end
  for index = 1, size do
    local take, state = takes[index], takes[index].state
    if take.mode ~= 'c' and not (refused and take.mode == 'n') and (take.mode ~= 'n' or take.hits > 0) then
      write(take.key, state)
    end
    out[#out + 1] = max(0, floor(take.limit - state.used + slack(state, take.limit)))
    out[#out + 1] = max(0, reset(state))
    out[#out + 1] = take.retry
  end
end
return out
