"""What happens in Redis, as Lua: each script is one atomic step.

    kafetrain:tasks                      sorted set  id by due time (of a claimed task: the end of its lease)
    {kafetrain:tasks}:priority           sorted set  the same of priority tasks
    {kafetrain:tasks}:task:ID            hash        c content, p progress, s state, o order, k token of the claim
    {kafetrain:tasks}:state:STATE        sorted set  id by time of acceptance, or of the end
    {kafetrain:tasks}:minute:MINUTE      hash        name -> count

The braces keep all of them in the slot of the first key, so a cluster runs the scripts too.
"""

from __future__ import annotations

__all__ = ["ADD", "CLAIM", "DELETE", "FINISH", "PREFIX", "PRIORITY", "PURGE", "PUT", "QUEUE", "RENEW"]

QUEUE = "kafetrain:tasks"
PREFIX = "{kafetrain:tasks}:"
PRIORITY = PREFIX + "priority"

_HEAD = """
local normal, prefix = KEYS[1], '{' .. KEYS[1] .. '}:'
local priority = prefix .. 'priority'
local function key_of(id) return prefix .. 'task:' .. id end
local function index_of(state) return prefix .. 'state:' .. state end
local function write(key, id, state, queue, due, order, progress)
    local before = redis.call('HGET', key, 's')
    if before ~= state then
        redis.call('ZREM', index_of(before), id)
        redis.call('ZADD', index_of(state), order, id)
    end
    redis.call('HSET', key, 's', state, 'p', progress)
    redis.call('HDEL', key, 'k')
    if queue == 'none' then
        redis.call('ZREM', normal, id)
        redis.call('ZREM', priority, id)
    else
        redis.call('ZADD', queue == 'priority' and priority or normal, due, id)
    end
end
"""

ADD = (
    _HEAD
    + """
local results = {}
for i = 1, #ARGV, 7 do
    local id, content, progress, state = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local key = key_of(id)
    local there = redis.call('HGET', key, 'c')
    if not there then
        redis.call('HSET', key, 'c', content, 'p', progress, 's', state)
        redis.call('ZADD', index_of(state), ARGV[i + 6], id)
        redis.call('ZADD', ARGV[i + 4] == 'priority' and priority or normal, ARGV[i + 5], id)
        results[#results + 1] = 0
    elseif there == content then
        results[#results + 1] = 1
    else
        results[#results + 1] = 2
    end
end
return results
"""
)

CLAIM = (
    _HEAD
    + """
local now, limit, lease_end, token, room = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local function due(queue, count)
    return redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, count)
end
local others = due(normal, limit)
local first = due(priority, math.max(limit - math.floor(limit / 4), limit - #others))
local found = {}
local function take(queue, ids, most, least)
    for i = 1, math.min(#ids, most) do
        local key = key_of(ids[i])
        if room <= least then return end
        local stored = redis.call('HMGET', key, 'c', 'p')
        if stored[1] then
            room = room - #stored[1]
            redis.call('ZADD', queue, lease_end, ids[i])
            redis.call('HSET', key, 'k', token)
            found[#found + 1] = stored
        else
            redis.call('ZREM', queue, ids[i])
        end
    end
end
local quarter = room / 4
take(priority, first, #first, #others > 0 and quarter or 0)
room = math.max(room, quarter)
take(normal, others, limit - #first, 0)
local a = redis.call('ZRANGE', normal, 0, 0, 'WITHSCORES')[2]
local b = redis.call('ZRANGE', priority, 0, 0, 'WITHSCORES')[2]
if not a or (b and tonumber(b) < tonumber(a)) then a = b end
return {a or '', found}
"""
)

RENEW = (
    _HEAD
    + """
for i = 2, #ARGV, 3 do
    if redis.call('HGET', key_of(ARGV[i]), 'k') == ARGV[i + 1] then
        redis.call('ZADD', ARGV[i + 2] == 'priority' and priority or normal, 'XX', ARGV[1], ARGV[i])
    end
end
return 0
"""
)

FINISH = (
    _HEAD
    + """
for i = 1, #ARGV, 7 do
    local id = ARGV[i]
    local key = key_of(id)
    if redis.call('HGET', key, 'k') == ARGV[i + 1] then
        write(key, id, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    end
end
return 0
"""
)

PUT = (
    _HEAD
    + """
local id, now, revision = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local key = key_of(id)
local stored = redis.call('HMGET', key, 'p', 'k')
if stored[1] ~= revision then return 0 end
if stored[2] then
    local lease_end = redis.call('ZSCORE', normal, id) or redis.call('ZSCORE', priority, id)
    if lease_end and tonumber(lease_end) > now then return 0 end
end
write(key, id, ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
return 1
"""
)

DELETE = (
    _HEAD
    + """
local id = ARGV[1]
local state = redis.call('HGET', key_of(id), 's')
if not state then return 0 end
redis.call('ZREM', index_of(state), id)
redis.call('ZREM', normal, id)
redis.call('ZREM', priority, id)
redis.call('DEL', key_of(id))
return 1
"""
)

PURGE = (
    _HEAD
    + """
local count = 0
for i = 1, #ARGV, 2 do
    local index = index_of(ARGV[i])
    local ids = redis.call('ZRANGEBYSCORE', index, '-inf', '(' .. ARGV[i + 1], 'LIMIT', 0, 1000)
    for _, id in ipairs(ids) do
        redis.call('DEL', key_of(id))
        redis.call('ZREM', index, id)
    end
    count = count + #ids
end
return count
"""
)
