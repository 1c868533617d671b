-- SPDX-License-Identifier: MIT
--- What people come from, written as those write who are new to Lua: all
--- functions and variables are globals.  Each program runs as it stands.

local tree <const> = require "support.tree"

--- Run a program: its lines, with '|' for each tab.
---@param name string
---@param sorted? boolean  where the order of the lines is not certain
---@return string[]
local function program (name, sorted)
  local pipe <close> = assert(io.popen(("timeout -k 1 200 '%s' '%s' 2>&1")
    :format(tree.runspace, tree.source("spec/newcomer/" .. name))))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line:gsub("\t", "|") end
  local _, _, status = pipe:close()
  if sorted then table.sort(list) end
  assert.equal(0, status, table.concat(list, "\n"))
  return list
end

--- Where a line stands in a list.
local function place (list, line)
  for i, one in ipairs(list) do
    if one == line then return i end
  end
  error("no line '" .. line .. "'")
end

describe("a program with global functions and variables", function ()
  it("calls a function by keys", function ()
    assert.same({
      "web1: visited http://first.example:80",
      "web2: visited http://second.example:8080",
      "warning: web3: nothing listens on third.example",
      "later web1: visited https://first.example:80",
      "later web2: visited https://second.example:8080",
      "later web3: nothing listens on third.example",
    }, program "keyed_jobs.lua")
  end)

  it("asks servers in a pool", function ()
    assert.same({
      "server1|CLOCK", "server2|MAIL", "server3|WEB", "server4|CLOCK",
      "server5|MAIL", "server6|WEB", "server7|CLOCK",
      "server8|server8 cannot be reached", "server9|WEB", "server10|CLOCK",
    }, program "server_pool.lua")
  end)

  it("collects a record for each item", function ()
    assert.same({
      '{"n":4}|completed|12.0 m', '{"n":7}|completed_with_errors|21.0 m',
      "no json|failed|nothing", '{"n":10}|completed|30.0 m', "3 of 4",
    }, program "processing.lua")
  end)

  it("scans ports", function ()
    assert.same({
      "open port|Open|true", "closed port|Closed|true",
      "bad port|Error|true", "open 1, closed 1, filtered 0, errors 1",
    }, program "network_scan.lua")
  end)

  it("manages jobs by name", function ()
    local list <const> = program "job_manager.lua"
    -- What the job wrote to its stream of errors is shown when it comes.
    local shown = 1
    while not assert(list[shown], "no error"):find "^ERROR: Job_" do
      shown = shown + 1
    end
    assert.matches(": Zoe is late$", table.remove(list, shown))
    list[6] = list[6]:gsub("^Job_" .. ("%w"):rep(8) .. "|", "Job_8|")
    assert.same({
      "ann|completed|hello Ann",
      "false|Job with name 'ann' already exists",
      "false|Job 'bob' not found",
      "ann|completed|hello Ann",
      "nobody|failed|whom?",
      "Job_8|completed_with_errors|hello Zoe",
      "false|Job 'forever' timed out after 0.01 seconds",
      "3|0",
    }, list)
  end)

  it("works in batches", function ()
    assert.same({
      "many|1000|1000|996|4|10|100|99.6 %",
      "250|250 will not do", "500|500 will not do", "750|750 will not do",
      "1000|1000 will not do",
      "none|0|0|0|0|0|100|100.0 %",
    }, program "batches.lua")
  end)

  it("runs jobs in processes", function ()
    assert.same({
      "sum|completed|5050", "lines|completed_with_errors|no lines",
      "lines|/no/such/file: No such file or directory",
      "exit|lost|no result", "left: 0",
    }, program "background_job.lua")
  end)

  it("installs on servers", function ()
    assert.same({
      "(one has failed)", "(restart needed)", "4 done, 1 warning",
      "completed|Install-east: editor copied to east",
      "completed|Install-north: editor copied to north",
      "completed|Install-west: editor copied to west",
      "failed|Install-south: no space on south",
    }, program("install.lua", true))
  end)

  it("reports what completes", function ()
    local list <const> = program "as_completed.lua"
    local first <const> = table.move(list, 1, 4, 1, {})
    table.sort(first)
    assert.same({ "done: alpha|true", "done: beta|true", "done: delta|true",
                  "done: gamma|true" }, first)
    assert.same({
      "server  state      result         error",
      "------  ---------  -------------  ----------------------------",
      "alpha   completed  alpha.example",
      "beta    completed  beta.example",
      "gamma   failed                    no answer from gamma.example",
      "delta   completed  delta.example",
      "", "4 servers|true",
    }, table.move(list, 5, #list, 1, {}))
  end)

  it("starts more jobs than there are workers", function ()
    assert.same({
      "1|completed|1001", "2|completed|1004", "3|failed|not 3",
      "4|completed|1016", "5|completed|1025", "6|completed|1036",
      "7|completed|1049", "8|completed|1064", "7 good, 1 bad|true|true",
    }, program "thread_jobs.lua")
  end)

  it("compares ways", function ()
    assert.same({
      "none|true|true", "runspace|true|true", "job|true|true",
      "fresh|true|true", "process|true|true", "true",
    }, program "compare.lua")
  end)

  it("watches the machine", function ()
    local list <const> = program "monitor.lua"
    assert.same({ "machine|true|true|true",
                  "pools|0|running|0|queued|0|done|nil",
                  "machine|true|true|true" }, table.move(list, 1, 3, 1, {}))
    -- A worker may have told of its job's end, and not yet have left it.
    assert.matches("^pools|1|running|%d|queued|0|done|6$", list[4])
    assert.equal("6021|true", list[5])
    assert.equal(5, #list)
  end)

  it("hears of its jobs", function ()
    local list <const> = program("events.lua")
    assert.equal("left: 0", list[#list])
    local function before (one, other)
      assert.is_true(place(list, one) < place(list, other))
    end
    before("one has 2", "one is completed|1")
    before("one has 2", "three has 6")
    before("three has 6", "three is completed|3")
    before("two has 4", "two is completed|2")
    before("minus has -2", "minus is failed|below zero: -1")
    assert.equal(9, #list)
  end)
end)
