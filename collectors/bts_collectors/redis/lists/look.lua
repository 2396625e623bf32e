-- Returns for each end of a list: its length, the digests of its first elements from that end, the digests of
-- single elements, of which the last one is the element at the other end, and the number of the last element
-- that says that it was redelivered (kombu), -1 without one. No element leaves the server.
--
-- A digest is DIGEST characters of a SHA-1; an unread element has as many dashes. Of a large element only its
-- length, beginning and end count. Elements that are larger than LARGEST on average are not read, and reading
-- stops after a number of bytes, because each element is copied.
--
-- KEYS: the list of each end. ARGV for each end: L or R, how many first elements, how many elements at the other
-- end to search for redelivered ones, how many single elements, and their distances from that end.
local DIGEST, PART, LARGEST, BYTES, CHUNK = 12, 1024, 1048576, 262144, 32
local function digest(element)
  if #element > 2 * PART then
    element = #element .. ':' .. element:sub(1, PART) .. element:sub(-PART)
  end
  return redis.sha1hex(element):sub(1, DIGEST)
end
local results, at = {}, 0
for i, key in ipairs(KEYS) do
  local right, wanted = ARGV[at + 1] == 'R', tonumber(ARGV[at + 2])
  local searched, singles = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local first = at + 5
  at = at + 4 + singles
  local length = redis.pcall('LLEN', key)
  if type(length) == 'table' then
    results[i] = length
  else
    local used = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 1)
    local size = type(used) == 'number' and used / length or 1
    local left = size > LARGEST and 0 or BYTES * math.max(wanted / 256, 1)
    local function range(from, to)
      local elements
      if right then
        elements = redis.call('LRANGE', key, -1 - to, -1 - from)
      else
        elements = redis.call('LRANGE', key, from, to)
      end
      for _, element in ipairs(elements) do left = left - #element end
      return elements
    end
    local window, marks = {}, {}
    wanted = math.min(wanted, length)
    while #window < wanted and left > 0 do
      local count = math.max(math.min(CHUNK, wanted - #window, math.floor(left / size)), 1)
      local elements = range(#window, #window + count - 1)
      for n = 1, #elements do
        window[#window + 1] = digest(elements[right and #elements + 1 - n or n])
      end
    end
    for n = 0, singles do
      local rank = n < singles and tonumber(ARGV[first + n]) or length - 1
      local element = left > 0 and rank < length and range(rank, rank)[1]
      marks[n + 1] = element and digest(element) or ('-'):rep(DIGEST)
    end
    local redelivered, from = -1, math.max(length - searched, 0)
    if searched > 0 and left > 0 then
      local elements = range(from, length - 1)
      for n = 1, #elements do
        if elements[right and #elements + 1 - n or n]:find('"redelivered": ?true') then
          redelivered = from + n - 1
        end
      end
    end
    results[i] = {length, table.concat(window), table.concat(marks), redelivered}
  end
end
return results
