-- Returns for each group: how many entries are undelivered (if the budget does not allow to know: minus the
-- number of those that were counted), the id of the first undelivered entry, and the cost.
--
-- Only entries up to the stream's last entry at the time of its state count, so that lag and state agree.
-- Counting goes from the group's position to the end. If that is too far, it goes from the start of the
-- stream to the group's position, and XLEN gives the rest. The cost of an entry is 1, and 1 more for every
-- 512 bytes; the cost of the latest entries decides how many more the budget allows.
--
-- KEYS: the stream of each group. ARGV: entries to count at most; budget; then for each group its last
-- delivered id, the last id of the stream, and 1 if its entries are to be counted.
local most, budget, price = ARGV[1] + 1, tonumber(ARGV[2]), nil
local function page(key, from, to, count)
  if not price then count = 1 end
  if count > 1 then count = math.max(math.min(count, 100, math.floor(budget / price)), 1) end
  local entries = redis.pcall('XRANGE', key, from, to, 'COUNT', count)
  local last = entries[#entries]
  if last then
    price = 1
    for _, word in ipairs(last[2]) do price = price + #word / 512 end
    budget = budget - price * #entries
  end
  return entries, #entries < count
end
local function count(key, to, entries, ended)
  local counted = #entries
  while not ended and counted < most and budget > 0 do
    entries, ended = page(key, '(' .. entries[#entries][1], to, most - counted)
    counted = counted + #entries
  end
  return ended and counted, counted
end
local results = {}
for i, key in ipairs(KEYS) do
  local delivered, newest, wanted, before = ARGV[3 * i], ARGV[1 + 3 * i], ARGV[2 + 3 * i] == '1', budget
  local entries, ended = page(key, '(' .. delivered, newest, wanted and budget > 0 and most or 1)
  if entries.err then
    results[i] = entries
  elseif not entries[1] then
    results[i] = {0, false, 0}
  else
    local lag, least = false, 1
    if wanted then lag, least = count(key, newest, entries, ended) end
    if wanted and not lag and budget > 0 then
      local behind = count(key, delivered, page(key, '-', delivered, most))
      local newer = behind and count(key, '+', page(key, '(' .. newest, '+', most))
      lag = newer and redis.call('XLEN', key) - behind - newer
    end
    results[i] = {lag or -least, entries[1][1], math.ceil(before - budget)}
  end
end
return results
