-- SPDX-License-Identifier: MIT
--- A private Slurm: a controller and one node, on loopback, with ports and a
--- configuration of their own, that end with the spec.
--
--     local cluster <close> = slurm.start()
--     parallel.pool{command = cluster:worker(PROGRAM), ...}

local gates <const> = require "support.gate"
local servers <const> = require "support.server"

local contents <const>, read <const> = servers.contents, servers.read
local sh <const> = servers.sh

local slurm = {}

local cluster = {}
cluster.__index = cluster

local CONFIG <const> = [[
ClusterName=spec
SlurmctldHost=HOST(127.0.0.1)
SlurmctldPort=%d
SlurmdPort=%d
SlurmUser=USER
SlurmdUser=USER
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_res
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
KillWait=2
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool
SlurmctldPidFile=DIR/slurmctld.pid
SlurmdPidFile=DIR/slurmd.pid
SlurmctldLogFile=DIR/slurmctld.log
SlurmdLogFile=DIR/slurmd.log
NodeName=HOST NodeAddr=127.0.0.1 CPUs=32 State=UNKNOWN
PartitionName=spec Nodes=HOST Default=YES MaxTime=INFINITE State=UP
]]

local PROGRAMS <const> = { "slurmctld", "slurmd", "salloc", "srun", "sinfo",
                           "squeue" }
local PATH <const> = "PATH=$PATH:/usr/sbin"

--- A command with one of the programs.
---@param name string
---@param more? string  words behind the name
---@return string
local function tool (self, name, more)
  return ("%s SLURM_CONF=%s/slurm.conf %s %s"):format(PATH, self.dir, name,
                                                      more or "")
end

--- Start a cluster.  nil and a reason where that is not possible.
---@return table?
---@return string? why
function slurm.start ()
  for _, program in ipairs(PROGRAMS) do
    if read(PATH .. " command -v " .. program) == "" then
      return nil, program .. " is not installed: packages slurmctld, slurmd, "
                  .. "slurm-client"
    end
  end
  local new <const> = setmetatable({ dir = servers.folder() }, cluster)
  sh("mkdir %s/state %s/spool", new.dir, new.dir)
  local names <const> = {
    DIR = new.dir, HOST = read "hostname -s", USER = read "id -un"
  }
  local up
  for _ = 1, 5 do
    local port <const> = math.random(20000, 60000)
    local config <const> = CONFIG:format(port, port + 1)
    servers.write(new.dir .. "/slurm.conf",
                  (config:gsub("%u%u%u%u?", names)))
    if os.execute(tool(new, "slurmctld", "-c >/dev/null 2>&1"))
       and os.execute(tool(new, "slurmd", "-c >/dev/null 2>&1")) then
      -- The node is idle when it has registered.
      up = gates.eventually(function ()
        return read(tool(new, "sinfo", "-h -o %t 2>/dev/null")) == "idle"
            or contents(new.dir .. "/slurmctld.log"):find("fatal", 1, true)
            or contents(new.dir .. "/slurmd.log"):find("fatal", 1, true)
      end) == true
    end
    if up then break end
    new:stop()
  end
  -- Workers are steps of one job: an allocation for each of them may fail on a
  -- busy machine.
  if up and os.execute(tool(new, "salloc",
                            "-Q --no-shell -n32 >/dev/null 2>&1")) then
    new.job = read(tool(new, "squeue", "-h -o %i"))
    return new
  end
  local why <const> = read(("tail -n 2 %s/slurm*.log"):format(new.dir))
  new:close()
  return nil, "Slurm does not start: " .. why
end

--- The words of a command that starts the worker 'program' as a step, which
--- says nothing of its own.
---@param program string
---@return string[]
function cluster:worker (program)
  return { "env", "SLURM_CONF=" .. self.dir .. "/slurm.conf", "srun", "-Q",
           "--jobid=" .. self.job, "--overlap", "-n1", "-u", program,
           "--worker" }
end

function cluster:stop ()
  for _, name in ipairs { "slurmd", "slurmctld" } do
    local pid <const> = servers.pid(self.dir .. "/" .. name .. ".pid")
    if pid ~= nil then
      sh("kill %d 2>/dev/null", pid)
      gates.eventually(function ()
        return contents(("/proc/%d/stat"):format(pid)) == ""
      end)
    end
  end
end

function cluster:close ()
  self:stop()
  sh("rm -rf %s", self.dir)
end

cluster.__close = cluster.close

return slurm
