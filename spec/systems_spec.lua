-- SPDX-License-Identifier: MIT
--- The examples for what people come from: each is run as they would run it,
--- and what it prints is checked.

local socket <const> = require "socket"
local rabbitmq <const> = require "support.rabbitmq"
local serve <const> = require "support.serve"
local sshd <const> = require "support.sshd"
local tree <const> = require "support.tree"

--- Run an example: what it printed on both streams, and its status.
local function example (name, arguments)
  local command = ("'%s' -j 2 '%s' %s 2>&1"):format(
    tree.runspace, tree.source("examples/" .. name), arguments or "")
  local pipe <close> = assert(io.popen(command))
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return output, status
end

--- The lines of a text, sorted where their order is not told.
local function lines (text, sorted)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  if sorted then table.sort(list) end
  return list
end

describe("the example", function ()
  it("keyed_arguments.lua", function ()
    assert.equal("broken\tfailed: port 0 cannot be reached\n"
                 .. "web1\thttp://10.0.0.1:80/index.html\n"
                 .. "web2\thttp://10.0.0.2:8080/index.html\n"
                 .. "async\tweb1\thttp://10.0.0.1:80/\n"
                 .. "async\tbroken\tfalse\tport 0 cannot be reached\n",
                 (example "keyed_arguments.lua"))
  end)

  it("server_pool.lua", function ()
    local list = lines((example "server_pool.lua"))
    assert.equal(11, #list)
    for i = 1, 10 do
      local server <const> = "server" .. i
      if i == 7 then
        assert.equal("server7\tERROR: does not answer", list[i])
      else
        assert.matches("^" .. server .. "\t{", list[i])
        assert.matches('"name":"srv:' .. server:upper() .. '"', list[i], 1,
                       true)
        assert.matches('"up":true', list[i], 1, true)
      end
    end
    assert.equal("9 of 10 servers, up to 5 at a time", list[11])
  end)

  it("processing.lua", function ()
    assert.equal([[
Input  Status     Result  Error
-----  ---------  ------  --------------
    1  Success        10
   20  Error         200  above 100: 200
   -3  Exception          negative: -3
    4  Success        40
3 of 4 succeeded, 1 of them with errors
]], (example "processing.lua"))
  end)

  it("job_manager.lua", function ()
    assert.equal((([[
taken|false|Job with name 'home' already exists
home|300 files of /home
home|completed|300 files of /home
srv|completed|20 files of /srv
root|failed|permission denied: /root
left|2
gone|false|Job 'root' not found
]]):gsub("|", "\t")), (example "job_manager.lua"))
  end)

  it("batches.lua", function ()
    assert.equal((([[
TotalItems|1000
ProcessedItems|1000
SuccessfulItems|998
ErrorItems|2
Batches|10
SuccessRate|99.80 %
  item 500 is a bad one
  item 1000 is a bad one
]]):gsub("|", "\t")), (example("batches.lua", "1000")))
    local text, status = example("batches.lua", "many")
    assert.matches("whole number", text)
    assert.equal(1, status)
    assert.matches("SuccessRate\t100.00 %%", (example("batches.lua", "0")))
  end)

  it("install_servers.lua", function ()
    local list = lines((example "install_servers.lua"), true)
    local text <const> = table.concat(list, "\n")
    for _, line in ipairs {
      "  Install-alpha    completed  nginx installed",
      "  Install-gamma    failed     disk full on gamma",
      "  warning: delta wants a restart",
      "  completed\t4", "  failed\t1",
    } do
      assert.matches(line, text, 1, true)
    end
    for i = 1, 5 do assert.matches("  " .. i .. " of 5: ", text, 1, true) end
    assert.matches("of 5: gamma failed", text)
  end)

  it("as_completed.lua", function ()
    local list = lines((example "as_completed.lua"))
    -- On a busy machine another one may be done first.
    local done <const> = {}
    for i = 1, 3 do
      local name <const> =
        list[i]:match "^(%a+) +checked (%a+) after %d+%.%d+ s$"
      assert(name, list[i])
      done[name] = true
    end
    assert.same({ quick = true, middling = true, slow = true }, done)
    assert.matches("^slow +completed +%d$", list[5])
    -- Who is quick may be done before the last worker has started.
    assert.matches("^3 servers, [23] workers$", list[8])
  end)

  it("thread_jobs.lua", function ()
    local list = lines((example "thread_jobs.lua"))
    assert.equal("1\tcompleted\t500500", list[1])
    assert.equal("4\tfailed\tfour is refused", list[4])
    assert.equal("8\tcompleted\t32004000", list[8])
    assert.matches("^7 succeeded, 1 failed, .* workers: up to 5$", list[9])
  end)

  it("background_jobs.lua", function ()
    local text <const>, status <const> = example "background_jobs.lua"
    for _, line in ipairs {
      "  count\tcompleted\n", "  missing\tcompleted_with_errors\n",
      "  crash\tlost\n",
    } do
      assert.matches(line, text:match "^states:\n.*stopped:\n", 1, true)
    end
    local path <const> = tree.source "examples/background_jobs.lua"
    local n = 0
    for _ in io.lines(path) do n = n + 1 end
    assert.equal(([[
stopped:
  watch|round 1
  watch|cancelled
received:
  count|%d
  count|verbose: reading %s
  missing|0
  missing|verbose: reading no/such/file
  missing|error: cannot read no/such/file: No such file or directory
  crash|the worker process was killed by SIGKILL
  crash|warning: this will not end well
jobs left: 0
]]):format(n, path):gsub("|", "\t"), text:match "stopped:.*")
    assert.equal(0, status)
  end)

  it("compare_methods.lua", function ()
    local list = lines((example "compare_methods.lua"))
    assert.matches("^isolation +time +speed%-up$", list[1])
    for i, word in ipairs { "none", "runspace", "job", "fresh",
                              "process" } do
      assert.matches("^" .. word .. " +%d", list[i + 2])
    end
    assert.is_nil(list[8]:find "none")
    assert.matches("^fastest: %a+$", list[8])
  end)

  it("monitor.lua", function ()
    local list = lines((example("monitor.lua", "1")))
    assert.matches("^cpu .* memory .* MiB free  load ", list[1])
    local workers, running, free = list[3]:match(
      "^  pool: (%d) of 2 workers, (%d) running, (%d) free, 0 queued, 20 done")
    assert.equal(tonumber(workers), running + free)
    assert.equal(3, #list)
  end)

  it("job_events.lua", function ()
    local text <const> = example "job_events.lua"
    assert.same({
      "hundred completed: 5050", "hundred is half way, at 50", "jobs left: 0",
      "million completed: 500000500000", "million is half way, at 500000",
      "minus failed: cannot count to -1",
    }, lines(text, true))
    assert.matches("hundred is half.*hundred completed", text)
    assert.matches("million is half.*million completed", text)
  end)

  it("remote_events.lua", function ()
    local server <close>, why <const> = sshd.start()
    if server == nil then
      pending("left out, since " .. why)
      return
    end
    local function remote (hosts)
      return example("remote_events.lua", ("-F %s/client -r '%s' %s"):format(
        server.dir, tree.program(), hosts))
    end
    local text, status = remote "web1 web2"
    assert.same({
      "New value from EventTestJob1: 1\tHOST runs Linux",
      "New value from EventTestJob2: 4\tHOST runs Linux", "jobs left: 0",
    }, lines(text:gsub("web[12]", "HOST"), true))
    assert.equal(0, status)
    text, status = remote "closed"
    assert.matches("closed: no connection: ", text, 1, true)
    assert.equal(1, status)
    assert.matches("missing argument 'host'", (remote ""))
  end)

  it("cluster.lua", function ()
    local why <const> = serve.missing()
    if why then
      pending("left out, since " .. why)
      return
    end
    local server <const> = assert(rabbitmq.shared())
    local text, status = example("cluster.lua", ("'%s' -r '%s' -q 'c %d'")
      :format(server.url, tree.program(), io.open "/proc/self/stat":read "n"))
    assert.same({ "17984 primes below 200000", "a worker was killed" },
                lines(text, true))
    assert.equal(0, status)
    server:close()
    text, status = example("cluster.lua", "amqp://guest:hidden@127.0.0.1:1/")
    assert.matches("no broker at 127.0.0.1:1", text, 1, true)
    assert.is_nil(text:find "hidden")
    assert.equal(1, status)
  end)

  for _, how in ipairs { "luv", "poll" } do
    it("event_loop.lua with " .. how, function ()
      local text, status = example("event_loop.lua", how)
      assert.same({ "done by " .. how, "job 1\t1000001", "job 2\t1000002",
                    "job 3\t1000003" }, lines(text, true))
      assert.equal(0, status)
    end)
  end

  it("streams.lua", function ()
    local text <const> = example "streams.lua"
    for _, part in ipairs {
      "heard: opening the list", "printed by the job\n",
      "result\tresult\nstate\tcompleted_with_errors\terror_stream\n"
      .. "error\tunreadable\tline 3\nwarnings\t1\tthe list is old\n"
      .. "1\tverbose\topening the list\n2\toutput\tfirst\n",
      "5\tprogress\treading: list 50 %\n", "\n1 4 9 16 25 end\n",
    } do
      assert.matches(part, text, 1, true)
    end
  end)
end)

describe("the example network_scan.lua", function ()
  --- A listener on loopback.
  local function listen (backlog)
    local server = assert(socket.tcp4())
    assert(server:bind("127.0.0.1", 0))
    assert(server:listen(backlog))
    local _, port = server:getsockname()
    return server, math.tointeger(tonumber(port))
  end

  --- One whose queue is full, so that it answers nobody.
  local function listen_deaf ()
    local server, port = listen(0)
    local clients = {}
    repeat
      local client = socket.tcp4()
      client:settimeout(0)
      client:connect("127.0.0.1", port)
      clients[#clients + 1] = client
      local _, writable = socket.select(nil, { client }, 0.2)
    until writable[1] == nil or #clients > 50
    assert(#clients <= 50, "the queue does not fill")
    return { server, table.unpack(clients) }, port
  end

  local function close (sockets)
    for _, s in ipairs(sockets) do s:close() end
  end

  it("tells open, closed and filtered ports, and names that are none",
     function ()
    local open, open_port = listen(8)
    local closed, closed_port = listen(1)
    closed:close()
    local deaf, deaf_port = listen_deaf()
    local text, status = example("network_scan.lua", (
      "--all --timeout 150 -p %d,%d,%d 127.0.0.1 no-such-host.invalid")
      :format(open_port, closed_port, deaf_port))
    local function row (port, host)
      local state, ms = text:match((host or "127%.0%.0%.1") .. " +" .. port
                                   .. "  (%a+) +([%d.]*)")
      return state, tonumber(ms)
    end
    local state, ms = row(open_port)
    assert.equal("Open", state)
    assert.is_true(ms >= 0 and ms < 150)
    state, ms = row(closed_port)
    assert.equal("Closed", state)
    assert.is_true(ms >= 0 and ms < 150)
    state, ms = row(deaf_port)
    assert.equal("Filtered", state)
    assert.is_true(ms >= 149)
    assert.equal("Error", (row(open_port, "no%-such%-host%.invalid")))
    assert.matches("Hosts 2, ports 6: 1 open, 1 closed, 1 filtered, 3 errors "
                   .. "in %d+%.%d%d s\n$", text)
    assert.equal(0, status)
    open:close()
    close(deaf)
  end)

  it("takes ranges of ports and of addresses, and lists what is open",
     function ()
    local open, port = listen(8)
    local text = example("network_scan.lua",
                         ("-p %d-%d,%d 127.0.0.1-2"):format(port, port, port))
    assert.matches("127%.0%.0%.1 +" .. port .. "  Open", text)
    assert.is_nil(text:find "Closed")
    assert.matches("Hosts 2, ports 2: 1 open, 1 closed, 0 filtered", text)
    open:close()
  end)

  for _, row in ipairs {
    { "-p 0 x", "bad ports '0'" },
    { "-p 5-4 x", "bad ports '5%-4'" },
    { "-p 70000 x", "bad ports" },
    { "-p , x", "no ports" },
    { "-t soon x", "a number above 0 expected, got 'soon'" },
    { "-l 0 x", "from 1 to 4096 expected" },
    { "", "missing argument 'host'" },
  } do
    it("refuses '" .. row[1] .. "'", function ()
      local text, status = example("network_scan.lua", row[1])
      assert.matches(row[2], text)
      assert.not_equal(0, status)
    end)
  end
end)
