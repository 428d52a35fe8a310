"""Atomic operations of Valkey, as Lua scripts. All keys of a script are in one slot.

A session has four keys: a hash with its title, its head and the bodies of its turns; its log, a
stream of pieces, each with the number of its newest event as its id; and two lists, of its ended
turns and of its transcript.
"""

SAVE = """
local owner, token, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local whole, release, ms = ARGV[4] == '1', ARGV[5] == '1', ARGV[6]
local has = redis.call('HMGET', KEYS[1], 'owner', 'token', 'number', 'over', 'first')
if has[2] then
  local newest = tonumber(has[2])
  if newest > token or (newest == token and (has[4] or has[1] ~= owner)) then
    return 'FENCED'
  end
  if whole then
    if newest == token and tonumber(has[3]) >= number then return 'OUTDATED' end
  elseif newest ~= token or tonumber(has[3]) ~= number - 1 then
    return 'OUTDATED'
  end
elseif not whole then
  return 'OUTDATED'
end
if whole then redis.call('DEL', unpack(KEYS)) end
redis.call('HSET', KEYS[1], 'owner', release and '' or owner, 'token', token, 'number', number,
  'head', ARGV[7], 'first', ARGV[9])
local at = 13
local function list()
  local count = tonumber(ARGV[at])
  local items = {}
  for i = 1, count do items[i] = ARGV[at + i] end
  at = at + count + 1
  return items
end
local turns, gone, ended, said = list(), list(), list(), list()
for i = 1, #turns, 2 do redis.call('HSET', KEYS[1], 't:' .. turns[i], turns[i + 1]) end
for i = 1, #gone do redis.call('HDEL', KEYS[1], 't:' .. gone[i]) end
local function add(key, items, most)
  for i = 1, #items do redis.call('RPUSH', key, items[i]) end
  if most == '0' then redis.call('DEL', key) else redis.call('LTRIM', key, '-' .. most, -1) end
  redis.call('PEXPIRE', key, ms)
end
add(KEYS[3], ended, ARGV[11])
add(KEYS[4], said, ARGV[12])
if ARGV[10] ~= '' then redis.call('XADD', KEYS[2], ARGV[8] .. '-0', 'e', ARGV[10]) end
if has[5] ~= ARGV[9] then redis.call('XTRIM', KEYS[2], 'MINID', ARGV[9]) end
redis.call('PEXPIRE', KEYS[2], ms)
redis.call('PEXPIRE', KEYS[1], ms)
return 'OK'
"""
"""Keys: the session's.

Arguments: owner, token, number, whole, release, milliseconds until it expires, head, the newest
and the oldest event's number, events, how many ended turns and exchanges are kept; then lists, each
after its length: ids and bodies of turns, ids of removed turns, ended turns, exchanges.
"""

CLAIM = """
local has = redis.call('HMGET', KEYS[1], 'owner', 'token', 'over')
if not has[2] or has[3] or has[1] ~= ARGV[1] or has[2] ~= ARGV[2] then return false end
redis.call('HSET', KEYS[1], 'owner', ARGV[3], 'token', tonumber(ARGV[2]) + 1)
return {redis.call('HGETALL', KEYS[1]), redis.call('XRANGE', KEYS[2], '-', '+'),
  redis.call('LRANGE', KEYS[3], 0, -1), redis.call('LRANGE', KEYS[4], 0, -1)}
"""
"""Keys: the session's. Arguments: previous owner, previous token, new owner."""

DELETE = """
local token = redis.call('HGET', KEYS[1], 'token')
if token and tonumber(token) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[1], 'owner', '', 'token', ARGV[1], 'over', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
"""Keys: the session's.

Arguments: token, milliseconds for which the end of the session is remembered.
"""

BEAT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
redis.call('ZADD', KEYS[1], now, ARGV[1])
local beats = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #beats, 2 do beats[i] = tostring(now - tonumber(beats[i])) end
return {tostring(now), beats}
"""
"""Keys: the replicas. Argument: the replica that is alive."""

POST = """
local count = 0
for i = 2, #ARGV do count = redis.call('RPUSH', KEYS[1], ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return count
"""
"""Keys: an inbox. Arguments: seconds until it expires, letters."""

COUNT = """
local given = {}
for i = 2, #KEYS do given[KEYS[i]] = true end
local all = redis.call('SMEMBERS', KEYS[1])
for i = 1, #all do
  if not given[all[i]] then return {false, all} end
end
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[2])
elseif redis.call('EXISTS', KEYS[2]) == 0 then
  return 'OUTDATED'
end
redis.call('SADD', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], '', 0)
local had = {}
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    had[#had + 1] = KEYS[i]
  else
    redis.call('SREM', KEYS[1], KEYS[i])
  end
end
local granted = {}
for i = 3, #ARGV, 4 do
  local what, here, wanted = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if wanted > 0 then
    local room = tonumber(ARGV[i + 3]) - here
    for j = 1, #had do room = room - (redis.call('HGET', had[j], what) or 0) end
    wanted = math.max(0, math.min(wanted, room))
  end
  if here + wanted > 0 then
    redis.call('HSET', KEYS[2], what, here + wanted)
  else
    redis.call('HDEL', KEYS[2], what)
  end
  granted[#granted + 1] = wanted
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {granted}
"""
"""Keys: the set of all replicas' keys; this replica's key, a hash with an additional field that
makes it exist without counts; and the keys of all other replicas. If one of those is missing here,
nothing is counted, and all keys are returned.

Arguments: milliseconds until this replica's counts expire, whether they replace all previous ones;
and for each count its name, this replica's number, how many more it requests, and the maximum of
all replicas.
"""

USE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local last = 0
local left = {}
for i = 1, #ARGV / 2 do
  local before = tonumber(redis.call('HGET', KEYS[1], i) or now)
  local seconds = math.max(0, before - now) + ARGV[2 * i] / ARGV[2 * i - 1]
  if seconds > 0 then
    redis.call('HSET', KEYS[1], i, string.format('%.6f', now + seconds))
    last = math.max(last, seconds)
  end
  left[i] = string.format('%.6f', seconds)
end
if last > 0 then redis.call('PEXPIRE', KEYS[1], math.ceil(last * 1000)) end
return left
"""
"""Keys: a hash of the times when buckets are full again.

Arguments: for each bucket its rate a second, and the amount that was used.
"""

ALL = (SAVE, CLAIM, DELETE, BEAT, POST, COUNT, USE)
