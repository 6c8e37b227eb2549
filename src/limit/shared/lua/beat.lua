-- A sign of life of one instance.
-- ARGV: instance; the epoch it has told its accounts under, or nothing; the epoch that begins if there is none.
-- Answer: the epoch, now, the instances seen of late.

local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[3]
  redis.call('SET', KEYS[1], epoch)
end
if epoch == ARGV[2] then redis.call('ZADD', KEYS[2], text(now), ARGV[1]) end
-- Seen before the clock was set back is seen now: it is missed as soon as any other.
for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now), '+inf')) do
  redis.call('ZADD', KEYS[2], text(now), instance)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - 20 * SEEN))
return {epoch, now, redis.call('ZRANGEBYSCORE', KEYS[2], text(now - SEEN), '+inf')}
