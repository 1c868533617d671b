-- SPDX-License-Identifier: MIT
--- Run specs with busted inside this interpreter.
--
--     ./runspace spec/support/run_spec.lua FILE... [busted's options]
--
-- Prints a line for each test, what went wrong under the ones that failed,
-- and 'N passed, N failed' as its last line.  Ends with status 0 when all
-- passed, 1 when a test failed or none ran, and 99, which automake's test
-- driver shows as ERROR, when busted is not there.

local support <const> = arg[0]:match "^(.*)[/\\][^/\\]*$" or "."

-- Specs say 'require "support.tree"', wherever they are run from.
package.path = support .. "/../?.lua;" .. package.path

local found, runner = pcall(require, "busted.runner")
if not found then
  io.stdout:write("busted cannot be loaded; on Debian it is the package ",
                  "lua-busted\n", tostring(runner), "\n",
                  "0 passed, 1 failed\n")
  os.exit(99, true)
end

local report <const> = support .. "/report.lua"
runner { standalone = false, output = report }

-- busted has ended the process itself if anything failed; what is left to
-- fail is that nothing was run at all.
local counts <const> = require "support.counts"
os.exit(counts.passed > 0 and counts.failed == 0, true)
