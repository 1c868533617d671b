#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Scan TCP ports of hosts, many at a time.
---
---     runspace examples/network_scan.lua [options] HOST...
---     runspace examples/network_scan.lua -p 22,80,8000-8010 web1 web2
---
--- HOST is a name, an address, or a range of addresses (10.0.0.1-20).  Each
--- port is one connect that does not block, with the milliseconds that it
--- took, and one of these states:
---
---   Open      the connection was accepted
---   Closed    it was refused
---   Filtered  nobody answered in time
---   Error     the name is not known, the network cannot be reached, ...
---
--- Open ports and errors are listed, all of them with --all.

local argparse = require "argparse"
local parallel = require "parallel"

local PORTS <const> = "22,80,135,139,443,445,3389,5985,5986"

---------------------------------------------------------- what to scan

--- "22,80,8000-8010" as a sorted list of numbers; nil and a message if it is
--- none.
local function parse_ports (text)
  local seen, ports = {}, {}
  for part in text:gmatch "[^,]+" do
    local first, last = part:match "^%s*(%d+)%s*%-%s*(%d+)%s*$"
    first = tonumber(first or part:match "^%s*(%d+)%s*$")
    last = tonumber(last) or first
    if first == nil or first < 1 or last > 65535 or first > last then
      return nil, "bad ports '" .. part .. "': 80 or 8000-8010 expected, "
                  .. "from 1 to 65535"
    end
    for port = math.tointeger(first), math.tointeger(last) do
      if not seen[port] then
        seen[port] = true
        ports[#ports + 1] = port
      end
    end
  end
  if #ports == 0 then return nil, "no ports in '" .. text .. "'" end
  table.sort(ports)
  return ports
end

--- A host, or each address of a range.
local function add_hosts (hosts, text)
  local net, first, last = text:match "^(%d+%.%d+%.%d+%.)(%d+)%-(%d+)$"
  first, last = tonumber(first), tonumber(last)
  if net ~= nil and first <= last and last <= 255 then
    for i = first, last do hosts[#hosts + 1] = net .. math.tointeger(i) end
  else
    hosts[#hosts + 1] = text
  end
end

local function positive (text)
  local n = tonumber(text)
  if n == nil or n ~= n or n <= 0 then
    return nil, "a number above 0 expected, got '" .. text .. "'"
  end
  return n
end

local parser = argparse("network_scan.lua", "Scan TCP ports of hosts.")
parser:argument("host", "Name, address, or range such as 10.0.0.1-20")
  :args "+"
parser:option("-p --ports", "Ports and ranges"):default(PORTS)
  :convert(parse_ports)
parser:option("-t --timeout", "Milliseconds for a connect"):default "1000"
  :convert(positive)
parser:option("-l --limit", "Connects at a time"):default "20"
  :convert(function (text)
    local n = math.tointeger(tonumber(text))
    if n == nil or n < 1 or n > 4096 then
      return nil, "a whole number from 1 to 4096 expected, got '" .. text
                  .. "'"
    end
    return n
  end)
parser:flag("-a --all", "List closed and filtered ports too")
local args <const> = parser:parse()

local hosts, targets = {}, {}
for _, text in ipairs(args.host) do add_hosts(hosts, text) end
for _, host in ipairs(hosts) do
  for _, port in ipairs(args.ports) do
    targets[#targets + 1] = { host = host, port = port }
  end
end

----------------------------------------------------- in the runspaces

--- Connect to one port: the state, milliseconds, and what else there is to
--- say.
local function probe (target, timeout)
  local socket = require "socket"
  local now <const> = parallel.now
  local resolved, problem = socket.dns.getaddrinfo(target.host)
  if not resolved then return { state = "Error", note = problem } end
  local address <const> = resolved[1]
  local connection = address.family == "inet6" and socket.tcp6()
                     or socket.tcp4()
  connection:settimeout(0)
  local began <const> = now()
  local ok, message = connection:connect(address.addr, target.port)
  if not ok and message == "timeout" then  -- under way
    local _, writable = socket.select(nil, { connection }, timeout)
    if writable[1] == nil then
      message = "no answer"
    else
      -- Once it is writable, a second connect tells how the first one ended.
      ok, message = connection:connect(address.addr, target.port)
      if message == "already connected" then ok = 1 end
    end
  end
  local ms <const> = (now() - began) * 1000
  connection:close()
  if ok then return { state = "Open", ms = ms } end
  if message == "connection refused" then
    return { state = "Closed", ms = ms }
  elseif message == "no answer" or message == "Connection timed out" then
    return { state = "Filtered", ms = ms }
  end
  return { state = "Error", ms = ms, note = message }
end

--------------------------------------------------------------- the scan

local records, report = parallel.collect(targets, probe, {
  limit = args.limit,
  chunk = 1,  -- each takes its time: none shall wait for another
  params = { timeout = args.timeout / 1000 },
  progress = "Scanning",
})

local counts <const> = { Open = 0, Closed = 0, Filtered = 0, Error = 0 }
local shown = {}
for i, record in ipairs(records) do
  local result = record.result or { state = "Error", note = record.error }
  counts[result.state] = counts[result.state] + 1
  if args.all or result.state == "Open" or result.state == "Error" then
    shown[#shown + 1] = ("%-24s %5d  %-8s %8s  %s"):format(
      targets[i].host, targets[i].port, result.state,
      result.ms and ("%.1f"):format(result.ms) or "", result.note or "")
  end
end
if #shown > 0 then
  print(("%-24s %5s  %-8s %8s  %s"):format("HOST", "PORT", "STATE", "MS",
                                           ""):gsub("%s+$", "") .. "")
  for _, line in ipairs(shown) do print((line:gsub("%s+$", ""))) end
  print()
end
print(("Hosts %d, ports %d: %d open, %d closed, %d filtered, %d errors "
       .. "in %.2f s"):format(#hosts, #targets, counts.Open, counts.Closed,
                              counts.Filtered, counts.Error,
                              report.duration))
