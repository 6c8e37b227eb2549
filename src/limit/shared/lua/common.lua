-- What every script begins with. Times are whole microseconds of the server's clock; numbers are stored as "%.0f", since Lua
-- would write large ones as 1.8e+15.
-- KEYS[1]: the epoch. KEYS[2]: the instances and when they were last seen. KEYS[3]: an account.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local DAY = 86400000000
local today = math.floor(now / DAY)
-- An instance that was not seen for longer holds nothing any more.
local SEEN = 3000000
-- As far as nodes count a day's units.
local MOST = 4294967295

local function text(number)
  return string.format('%.0f', number)
end

-- The state of a bucket that goes on under another shape; as `Shape::carry` of the gateway.
local function carry(tat, old_interval, old_burst, interval, burst)
  if tat <= now or (old_interval == interval and old_burst == burst) then return tat end
  local used = math.min(tat - now, old_interval * old_burst)
  local larger = math.max(burst - old_burst, 0) * old_interval
  local product = (used + larger) * interval
  local carried = math.ceil(product / old_interval)
  -- Beyond 2^53 the product was rounded: never downwards.
  if product > 9007199254740992 then carried = carried + 1 end
  return now + math.min(carried, interval * burst)
end

-- When the bucket `name` of the account is full; `mine` is what the node knows of it.
local function bucket(name, interval, burst, mine, owed)
  local stored = redis.call('HMGET', KEYS[3], name, name .. 'i', name .. 'b', name .. 't')
  local tat = now
  if stored[1] then
    local written = tonumber(stored[1])
    local back = tonumber(stored[4]) - now
    if back > 0 then
      -- The clock was set back: what was used stays used, and comes back from here on.
      written = written - back
      redis.call('HSET', KEYS[3], name, text(written), name .. 't', text(now))
    end
    tat = math.max(now, carry(written, tonumber(stored[2]), tonumber(stored[3]), interval, burst))
  end
  if owed or not stored[1] then tat = math.max(tat, now + mine) end
  return tat
end

-- The units used today; `my_used` on `my_day` is what the node knows of them.
local function day(my_day, my_used, owed)
  local stored = redis.call('HMGET', KEYS[3], 'd', 'u')
  local used = 0
  -- A clock that was set back gives nothing back.
  if stored[1] and tonumber(stored[1]) >= today then used = tonumber(stored[2]) end
  if (owed or not stored[1]) and my_day >= today then used = math.max(used, my_used) end
  return used
end

local function keep_bucket(name, interval, burst, tat)
  redis.call('HSET', KEYS[3], name, text(tat), name .. 'i', text(interval), name .. 'b', text(burst),
    name .. 't', text(now))
end

local function keep_day(used)
  redis.call('HSET', KEYS[3], 'd', text(today), 'u', text(used))
end

-- Keeps the account for at least so many microseconds.
local function keep_for(micros)
  local millis = math.ceil(micros / 1000) + 1000
  if redis.call('PTTL', KEYS[3]) < millis then redis.call('PEXPIRE', KEYS[3], text(millis)) end
end

local function day_left()
  return (today + 1) * DAY - now
end

-- Open streams are told anew every ten seconds.
local STREAMS_KEPT = 60000000

-- An instance's open streams as its own field has them: the number of the change, and how many.
local function streams_of(field)
  local version, count = string.match(field or '0:0', '^(%d+):(%d+)$')
  return tonumber(version), tonumber(count)
end
