-- SPDX-License-Identifier: MIT
--- What a stopped job waits for is stopped with it, wherever it runs.
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

--- Parents: each lets children stand at the gate, and waits for them.  They
--- are called with what a child does.
local PARENTS <const> = {
  { "run in its own pool", 1, function (child) parallel.run(child) end },
  { "map in its own pool", 2, function (child)
    parallel.map({ 1, 2 }, child, { chunk = 1 })
  end },
}

local STOPS <const> = {
  { "cancelled", function (job) job:cancel { grace = 60 } end },
  { "stopped by force", function (job) job:cancel { grace = 0 } end },
}

describe("a child", function ()
  for _, parent in ipairs(PARENTS) do
    for _, stop in ipairs(STOPS) do
      it("ends when its parent is " .. stop[1] .. " in " .. parent[1],
         function ()
        local pool <close> = parallel.pool { min = 3, max = 3 }
        local gate <close> = gates.new()
        local pass <const> = gate.pass
        local start <const> = parent[3]
        local job <const> = pool:spawn(function () start(pass) end)
        gate:await(parent[2])
        stop[2](job, pool)
        assert.equal("cancelled", job:wait(60))
        -- The gate stays closed: only a stop ends who stands there.
        assert.is_true(gates.eventually(function ()
          return pool:info().running == 0
        end))
      end)
    end
  end

  it("that nobody waits for goes on", function ()
    local pool <close> = parallel.pool { max = 3 }
    local gate <close> = gates.new()
    local stays <close> = gates.new()
    local pass <const>, stay <const> = gate.pass, stays.pass
    local job <const> = pool:spawn(function ()
      parallel.spawn(function ()
        pass()
        parallel.task.emit "child ends"
        stay()
      end)
      parallel.task.sleep(600)
    end)
    gate:await(1)
    job:cancel()
    assert.equal("cancelled", job:wait(60))
    gate:open()
    stays:await(1)
  end)
end)
