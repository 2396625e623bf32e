-- Returns the state of each stream in KEYS: the values of XINFO STREAM and XINFO GROUPS in a fixed order.
--
-- XINFO STREAM returns the first and the last entry whole, however large they are. Only their ids leave
-- the server. The script asks for TYPE first, because an error would count in the server's errorstats.
-- Streams whose groups do not fit the limit return the number of their groups instead.
--
-- ARGV: milliseconds after which a consumer is stale; consumers to read at most (-1 for none); groups to
-- read at most.
local stale_after, room, left = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function map_of(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end
local function id_of(entry)
  return entry and entry[1] or false
end
-- Returns how many of the consumers with pending entries are stale, and the longest idle time.
-- Before Redis 7.2 (no field inactive) idle grows even while a consumer polls in vain. A consumer that is
-- idle for long may be alive then, and the result is -1.
local function idle_consumers(key, group)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
  if consumers.err then
    room = -1
    return false, false
  end
  local stale, longest, reliable = 0, 0, true
  for _, flat in ipairs(consumers) do
    local consumer = map_of(flat)
    if consumer.pending > 0 then
      longest = math.max(longest, consumer.idle)
      if consumer.idle >= stale_after then stale = stale + 1 end
      reliable = reliable and consumer.inactive
    end
  end
  room = room - #consumers
  if not reliable then return stale == 0 and 0 or -1, -1 end
  return stale, longest
end
local function group_of(key, flat)
  local group = map_of(flat)
  local stale, longest = false, false
  if group.pending > 0 and group.consumers <= room then
    stale, longest = idle_consumers(key, group.name)
  end
  return {group.name, group.consumers, group.pending, group['last-delivered-id'],
    group['entries-read'] or false, group.lag or false, stale, longest}
end
local states = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'stream' then
    states[i] = kind
  else
    local stream, groups = redis.pcall('XINFO', 'STREAM', key), false
    if not stream.err then
      local info = map_of(stream)
      groups = info.groups or 0
      stream = {info.length, info.groups or false, info['radix-tree-keys'] or false,
        info['radix-tree-nodes'] or false, info['last-generated-id'] or false,
        info['max-deleted-entry-id'] or false, info['entries-added'] or false,
        id_of(info['first-entry']), id_of(info['last-entry'])}
    end
    if groups and groups <= left then
      left = left - groups
      groups = redis.pcall('XINFO', 'GROUPS', key)
      for j = 1, #groups do groups[j] = group_of(key, groups[j]) end
    end
    states[i] = {stream, groups}
  end
end
return states
