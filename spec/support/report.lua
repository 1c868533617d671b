-- SPDX-License-Identifier: MIT
--- The output handler of the specs: plain lines, complete as they come.
--
-- A log that ends in the middle (a crash, a hang that was ended from
-- outside) shows which test was running: the one after the last line.

local counts <const> = require "support.counts"

local function say (...)
  io.stdout:write(...)
  io.stdout:write("\n")
  io.stdout:flush()
end

local function indent (text)
  return "       " .. tostring(text):gsub("\n", "\n       ")
end

local function describe_error (message)
  if type(message) == "string" or message == nil then return message end
  local meta = getmetatable(message)
  if meta and meta.__tostring then return tostring(message) end
  return require "pl.pretty".write(message)
end

return function (options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  local function failed (element, _, message, trace)
    counts.failed = counts.failed + 1
    say("FAIL   ", handler.getFullName(element))
    say(indent(describe_error(message)))
    if trace and trace.traceback and options.verbose then
      say(indent(trace.traceback))
    elseif trace and trace.short_src then
      say(indent(trace.short_src .. ":" .. trace.currentline))
    end
    return nil, true
  end

  local function test_end (element, _, status)
    if status == "success" then
      counts.passed = counts.passed + 1
      say("ok     ", handler.getFullName(element))
    elseif status == "pending" then
      counts.pending = counts.pending + 1
      say("skip   ", handler.getFullName(element))
    end
    return nil, true
  end

  local function suite_end ()
    if counts.passed + counts.failed == 0 then
      say("no test has run")
      counts.failed = 1
    end
    if counts.pending > 0 then say(counts.pending, " pending") end
    say(counts.passed, " passed, ", counts.failed, " failed")
    return nil, true
  end

  busted.subscribe({ "failure" }, failed)
  busted.subscribe({ "error" }, failed)
  busted.subscribe({ "test", "end" }, test_end,
                   { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, suite_end)

  return handler
end
