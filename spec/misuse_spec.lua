-- SPDX-License-Identifier: MIT
--- What is said to who calls a function of the module in a wrong way: which
--- function, which argument, and what to do instead; at the line that called,
--- and with no frame of the module's own in the traceback.

local parallel <const> = require "parallel"
local run_script <const> = require "support.script"
local tree <const> = require "support.tree"

local function square (x) return x * x end

--- What the chunks of the rows see as globals.
local things <const> = setmetatable({
  parallel = parallel, task = parallel.task, fn = square,
  pool = parallel.pool { max = 1 }, job = parallel.spawn(square, 3),
  jobs = parallel.manager(1),
  report = select(2, parallel.collect({ 1, 2 }, square)),
  nan = 0 / 0, long = ("x"):rep(1000),
  proxy = setmetatable({}, { __index = { 1, 2, 3 } }),
}, { __index = _G })
things.job:wait()
things.jobs:start(square, { 2 }, "two"):wait()
teardown(function ()
  things.pool:close()
  things.jobs:close()
end)

--- Each row: a chunk; what its message must contain.  A function's name comes
--- first, between quotes.
local ROWS <const> = {
  -- one argument too many, or several
  { "parallel.map({1}, fn, nil, {limit = 2})", "'map'", "argument 4",
    "got a table", "parallel.map(items, fn [, options])" },
  { "parallel.map({1}, fn, {}, 1)", "'map'", "argument 4", "got 1" },
  { "parallel.filter({1}, fn, nil, {})", "'filter'", "argument 4",
    "parallel.filter(items, predicate [, options])" },
  { "parallel.collect({1}, fn, {}, true)", "'collect'", "argument 4",
    "parallel.collect(items, fn [, options])" },
  { "parallel.each({1}, fn, {}, 'x')", "'each'", "argument 4", "got 'x'",
    "parallel.each(items, fn [, options])" },
  { "parallel.reduce({1}, fn, 0, {}, {limit = 2})", "'reduce'", "argument 5",
    "parallel.reduce(items, fn [, init [, options]])" },
  { "parallel.invoke(fn, {}, {}, 3)", "'invoke'", "argument 4",
    "parallel.invoke(fn, calls [, options])" },
  { "parallel.submit({fn}, 1)", "'submit'", "argument 2",
    "parallel.submit{fn, ...}" },
  { "parallel.pool({}, {max = 2})", "'pool'", "argument 2",
    "parallel.pool{max =, ...}" },
  { "parallel.initial_state({}, {})", "'initial_state'", "argument 2",
    "parallel.initial_state{" },
  { "parallel.wait(job, {}, 1)", "'wait'", "argument 3",
    "parallel.wait(jobs [, {timeout =, mode =, ...}])" },
  { "parallel.range(1, 2, 3, 4)", "'range'", "argument 4", "got 4",
    "parallel.range(first, last [, step])" },
  { "parallel.cpus(1)", "'cpus'", "argument 1", "parallel.cpus()" },
  { "parallel.now(1)", "'now'", "argument 1", "parallel.now()" },
  { "parallel.jobs(1)", "'jobs'", "argument 1", "parallel.jobs()" },
  { "parallel.stats(1)", "'stats'", "argument 1", "parallel.stats()" },
  { "parallel.fileno(1)", "'fileno'", "argument 1", "parallel.fileno()" },
  { "parallel.poll(0, 1)", "'poll'", "argument 2",
    "parallel.poll([timeout])" },
  { "parallel.on('x', fn, 1)", "'on'", "argument 3",
    "parallel.on(name, fn)" },
  { "parallel.off('x', fn, 1)", "'off'", "argument 3",
    "parallel.off(name [, fn])" },
  { "parallel.once('x', fn, 1)", "'once'", "argument 3",
    "parallel.once(name, fn)" },
  { "parallel.manager(1, 2)", "'manager'", "argument 2",
    "parallel.manager{max =, ...}" },
  { "parallel.group({}, 1)", "'group'", "argument 2",
    "parallel.group([options])" },
  { "parallel.sh('ls {}', {1}, {}, 1)", "'sh'", "argument 4",
    "parallel.sh(template, items [, options])" },
  { "parallel.iter(fn, 1, 2, nil, 5)", "'iter'", "argument 5",
    "parallel.iter(f [, state [, control [, closing]]])" },
  { "pool:group({}, 1)", "'group'", "argument 2", "pool:group([options])" },
  { "pool:sh('ls {}', {1}, {}, 1)", "'sh'", "argument 4", "pool:sh(" },
  { "job:once('finished', fn, 1)", "'once'", "argument 3",
    "job:once(event, fn)" },
  { "parallel.compare({fn = fn, items = {}}, 1)", "'compare'", "argument 2",
    "parallel.compare{" },
  { "pool:map({1}, fn, nil, {limit = 2})", "'map'", "argument 4",
    "pool:map(items, fn [, options])" },
  { "pool:filter({1}, fn, nil, 0)", "'filter'", "argument 4", "pool:filter(" },
  { "pool:collect({1}, fn, nil, 0)", "'collect'", "argument 4",
    "pool:collect(" },
  { "pool:each({1}, fn, nil, 0)", "'each'", "argument 4", "pool:each(" },
  { "pool:reduce({1}, fn, nil, nil, 0)", "'reduce'", "argument 5",
    "pool:reduce(" },
  { "pool:invoke(fn, {}, nil, 0)", "'invoke'", "argument 4", "pool:invoke(" },
  { "pool:submit({fn}, 0)", "'submit'", "argument 2", "pool:submit{" },
  { "pool:try_submit({fn}, 0)", "'try_submit'", "argument 2",
    "pool:try_submit{" },
  { "pool:cancel({}, 0)", "'cancel'", "argument 2",
    "pool:cancel([{grace = seconds}])" },
  { "pool:close(0, 1)", "'close'", "argument 2", "pool:close([timeout])" },
  { "pool:info(1)", "'info'", "argument 1", "pool:info()" },
  { "job:wait(1, 2)", "'wait'", "argument 2", "got 2", "job:wait([timeout])" },
  { "job:join(1, 2)", "'join'", "argument 2", "job:join([timeout])" },
  { "job:get(1, 2)", "'get'", "argument 2", "job:get([timeout])" },
  { "job:get(nil, 2)", "'get'", "argument 2", "job:get([timeout])" },
  { "job:fetch(1)", "'fetch'", "argument 1", "job:fetch()" },
  { "job:info(1)", "'info'", "argument 1", "job:info()" },
  { "job:cancel({}, 1)", "'cancel'", "argument 2",
    "job:cancel([{grace = seconds}])" },
  { "job:remove(true)", "'remove'", "argument 1", "job:remove()" },
  { "job:records(true)", "'records'", "argument 1", "job:records()" },
  { "job:on('finished', fn, 1)", "'on'", "argument 3", "job:on(event, fn)" },
  { "job:off('finished', fn, 1)", "'off'", "argument 3",
    "job:off(event [, fn])" },
  { "jobs:start(fn, {}, 'x', 1)", "'start'", "argument 4",
    "manager:start(fn [, arguments [, name]])" },
  { "jobs:get('two', 1)", "'get'", "argument 2", "manager:get(name)" },
  { "jobs:wait('two', 1, 2)", "'wait'", "argument 3",
    "manager:wait(name [, timeout])" },
  { "jobs:wait_all(1, 2)", "'wait_all'", "argument 2",
    "manager:wait_all([timeout])" },
  { "jobs:all(1)", "'all'", "argument 1", "manager:all()" },
  { "jobs:running(1)", "'running'", "argument 1", "manager:running()" },
  { "jobs:queued(1)", "'queued'", "argument 1", "manager:queued()" },
  { "jobs:completed(1)", "'completed'", "argument 1", "manager:completed()" },
  { "jobs:remove('two', 1)", "'remove'", "argument 2",
    "manager:remove(name)" },
  { "jobs:close(1)", "'close'", "argument 1", "manager:close()" },
  { "report:count('state', 1)", "'count'", "argument 2", "report:count(key)" },
  { "report:group('state', 1)", "'group'", "argument 2", "report:group(key)" },
  { "report:table(nil, {}, 1)", "'table'", "argument 3",
    "report:table([columns [, {width =}]])" },
  { "task.sleep(0, 1)", "'sleep'", "argument 2",
    "parallel.task.sleep(seconds)" },
  { "task.checkpoint(1)", "'checkpoint'", "argument 1",
    "parallel.task.checkpoint()" },
  { "task.warning('a', 'b')", "'warning'", "argument 2", "got 'b'",
    "parallel.task.warning(value)" },
  { "task.verbose('a', 'b')", "'verbose'", "argument 2",
    "make a table of them" },
  { "task.error('a', 'b')", "'error'", "argument 2" },
  { "task.debug('a', 'b')", "'debug'", "argument 2" },
  { "task.information('a', 'b')", "'information'", "argument 2" },
  { "task.progress('a', 'b')", "'progress'", "argument 2" },
  { "task.execute('cat', {stdin = 'x'})", "'execute'", "argument 2",
    "got a table", "parallel.task.execute{'cat', ...}" },
  { "task.execute('ls', '-l')", "'execute'", "argument 2", "got '-l'",
    "array of words" },
  { "task.execute({'ls'}, 1)", "'execute'", "argument 2" },

  -- without the object, or with the module for one
  { "parallel:map({1}, fn)", "'map'", "got the module itself",
    "parallel.map(items, fn [, options])" },
  { "parallel:filter({1}, fn)", "'filter'", "got the module itself" },
  { "parallel:collect({1}, fn)", "'collect'", "got the module itself" },
  { "parallel:each({1}, fn)", "'each'", "got the module itself" },
  { "parallel:reduce({1}, fn)", "'reduce'", "got the module itself" },
  { "parallel:invoke(fn, {})", "'invoke'", "got the module itself" },
  { "parallel:submit{fn}", "'submit'", "got the module itself" },
  { "parallel:pool{}", "'pool'", "got the module itself" },
  { "parallel:range(3)", "'range'", "got the module itself" },
  { "parallel:wait(job)", "'wait'", "got the module itself" },
  { "parallel:manager(2)", "'manager'", "got the module itself" },
  { "parallel:group()", "'group'", "got the module itself" },
  { "parallel:sh('ls {}', {1})", "'sh'", "got the module itself" },
  { "parallel:iter(fn)", "'iter'", "got the module itself" },
  { "parallel:once('x', fn)", "'once'", "got the module itself" },
  { "pool.group({})", "'group'", "pool:group(...)" },
  { "pool.sh('ls {}', {1})", "'sh'", "pool:sh(...)" },
  { "job.once('finished', fn)", "'once'", "job:once(...)" },
  { "parallel:poll(0)", "'poll'", "got the module itself" },
  { "parallel:run(fn, 1)", "'run'", "parallel.run(...)" },
  { "parallel:spawn(fn, 1)", "'spawn'", "parallel.spawn(...)" },
  { "task:sleep(0)", "'sleep'", "parallel.task.sleep(...)" },
  { "task:checkpoint()", "'checkpoint'", "parallel.task.checkpoint(...)" },
  { "task:emit('x')", "'emit'", "parallel.task.emit(...)" },
  { "task:warning('x')", "'warning'", "parallel.task.warning(...)" },
  { "task:progress('x')", "'progress'", "parallel.task.progress(...)" },
  { "task:output('x')", "'output'", "parallel.task.output(...)" },
  { "pool.map({1}, fn)", "'map'", "a pool expected, got a table",
    "pool:map(...)" },
  { "pool.filter({1}, fn)", "'filter'", "pool:filter(...)" },
  { "pool.collect({1}, fn)", "'collect'", "pool:collect(...)" },
  { "pool.each({1}, fn)", "'each'", "pool:each(...)" },
  { "pool.reduce({1}, fn)", "'reduce'", "pool:reduce(...)" },
  { "pool.invoke(fn, {})", "'invoke'", "got a function", "pool:invoke(...)" },
  { "pool.run(fn, 1)", "'run'", "got a function", "pool:run(...)" },
  { "pool.spawn(fn, 1)", "'spawn'", "got a function", "pool:spawn(...)" },
  { "pool.submit{fn}", "'submit'", "pool:submit(...)" },
  { "pool.try_submit{fn}", "'try_submit'", "pool:try_submit(...)" },
  { "pool.cancel()", "'cancel'", "got nil", "pool:cancel(...)" },
  { "pool.info()", "'info'", "a pool expected, got nil", "pool:info(...)" },
  { "pool.close(1)", "'close'", "a pool expected, got 1", "pool:close(...)" },
  { "pool.map(io.stdout, {1}, fn)", "'map'", "got a FILE*" },
  { "pool.info(job)", "'info'", "got a parallel.job" },
  { "job.wait(1)", "'wait'", "a job expected, got 1", "job:wait(...)" },
  { "job.get()", "'get'", "a job expected, got nil", "job:get(...)" },
  { "job.join(2)", "'join'", "a job expected, got 2", "job:join(...)" },
  { "job.fetch()", "'fetch'", "job:fetch(...)" },
  { "job.info('x')", "'info'", "got 'x'", "job:info(...)" },
  { "job.cancel()", "'cancel'", "job:cancel(...)" },
  { "job.remove()", "'remove'", "job:remove(...)" },
  { "job.records()", "'records'", "job:records(...)" },
  { "job.on('finished', fn)", "'on'", "job:on(...)" },
  { "job.off('finished')", "'off'", "job:off(...)" },
  { "job.wait(io.stdout)", "'wait'", "got a FILE*" },
  { "jobs.all()", "'all'", "manager:all(...)" },
  { "jobs.start(fn)", "'start'", "manager:start(...)" },
  { "jobs.close()", "'close'", "manager:close(...)" },
  { "report.count('state')", "'count'", "report:count(...)" },
  { "report.table()", "'table'", "report:table(...)" },

  -- in another order
  { "parallel.map(fn, {1, 2})", "'map'", "'fn'", "got a table",
    "the items come first: parallel.map(items, fn)" },
  { "parallel.map('return ...', {1, 2})", "'map'", "the items come first" },
  { "parallel.map(fn, parallel.range(3))", "'map'", "the items come first" },
  { "parallel.filter(fn, {1})", "'filter'",
    "parallel.filter(items, predicate)" },
  { "parallel.collect(fn, {1})", "'collect'", "the items come first" },
  { "parallel.each(fn, {1})", "'each'", "the items come first" },
  { "parallel.reduce(fn, {1})", "'reduce'", "the items come first" },
  { "pool:map(fn, {1})", "'map'", "the items come first" },
  { "parallel.reduce({1}, 0, fn)", "'reduce'", "'fn'",
    "the function comes before the initial value" },
  { "parallel.invoke({a = {1}}, fn)", "'invoke'", "the function comes first" },
  { "jobs:start('two two', fn)", "'start'", "the function comes first" },
  { "parallel.submit(fn)", "'submit'", "got a function",
    "submit{fn, arguments = {...}}" },
  { "parallel.submit{fn, 1, 2}", "'submit'", "got the key ",
    "arguments = {...}" },
  { "parallel.on(fn, 'x')", "'on'", "'event'", "the name of an event" },
  { "parallel.wait(job, job)", "'wait'", "got a parallel.job",
    "parallel.wait{job, job}" },
  { "parallel.wait(job, 5)", "'wait'", "got 5", "{timeout = 5}" },
  { "parallel.pool(4)", "'pool'", "got 4", "parallel.pool{max = 4}" },
  { "task.execute{'ls', '-l'}", "'execute'", "got the key 2",
    "execute{{\"ls\", \"-l\"}}" },

  -- options and values that are taken for one another
  { "parallel.reduce({1}, fn, {limit = 2})", "'reduce'", "'init'",
    "the option 'limit'", "reduce(items, fn, nil, {limit = ...})",
    "pass {} as options" },
  { "pool:reduce({1}, fn, {chunk = 2})", "'reduce'", "'init'", "'chunk'" },
  { "parallel.invoke(fn, {limit = 2})", "'invoke'", "key 'limit'",
    "invoke(fn, calls, options)" },
  { "parallel.map({1}, fn, 5)", "'map'", "'options'", "got 5" },
  { "parallel.map({1}, fn, {5})", "'map'", "got the key 1" },
  { "pool:cancel(1)", "'cancel'", "'options'", "a table expected, got 1" },
  { "job:cancel(0.5)", "'cancel'", "'options'", "a table expected, got 0.5" },
  { "job:cancel{grace = -1}", "'cancel'", "'grace'", "got -1" },
  { "job:cancel{garce = 1}", "'cancel'", "did you mean 'grace'?" },

  -- items
  { "parallel.map(nil, fn)", "'map'", "'items'", "got nil" },
  { "parallel.map('abc', fn)", "'map'", "'items'", "got 'abc'" },
  { "parallel.map({a = 1}, fn)", "'map'", "'items'", "the key 'a'" },
  { "parallel.map({n = -1}, fn)", "'map'", "'n'", "got -1" },
  { "parallel.map({n = nan}, fn)", "'map'", "'n'", "a length expected" },
  { "parallel.map(proxy, fn)", "'map'", "'items'", "got 0", "__len" },
  { "parallel.map(pairs {}, fn)", "'map'", "'items'", "'pairs'",
    "pass parallel.iter(pairs(t))" },
  { "parallel.map(ipairs {}, fn)", "'map'", "'items'", "'ipairs'",
    "pass the array itself" },
  { "parallel.compare{fn = fn, items = {a = 1}}", "'compare'", "'items'" },

  -- functions
  { "parallel.map({1})", "'map'", "'fn'", "got nil" },
  { "parallel.map({1}, 'print')", "'map'", "'fn'",
    "pass it without quotes" },
  { "parallel.map({1}, 'x x')", "'map'", "'fn'", "syntax error" },
  { "parallel.run()", "'run'", "'fn'", "got nil" },
  { "parallel.run({})", "'run'", "'fn'", "got a table" },
  { "parallel.spawn(7)", "'spawn'", "'fn'", "got 7" },
  { "pool:run(7)", "'run'", "'fn'", "got 7" },
  { "pool:spawn()", "'spawn'", "'fn'", "got nil" },
  { "parallel.submit{}", "'submit'", "'fn'", "got nil" },
  { "parallel.submit{7}", "'submit'", "'fn'", "got 7" },
  { "parallel.submit{fn, fn = fn}", "'submit'", "given twice" },

  -- values of options
  { "parallel.map({1}, fn, {limit = nan})", "'map'", "'limit'",
    "a positive integer" },
  { "parallel.map({1}, fn, {limit = 2^60})", "'map'", "'limit'",
    "from 1 to 4294967295" },
  { "parallel.map({1}, fn, {retries = 2^32})", "'map'", "'retries'",
    "from 0 to 4294967295" },
  { "parallel.map({1}, fn, {memory = '18014398509481985K'})", "'map'",
    "'memory'", "'64M'" },
  { "parallel.map({1}, fn, {name = 'a\\0b'})", "'map'", "'name'",
    "without '\\0'" },
  { "parallel.map({1}, fn, {name = ''})", "'map'", "'name'", "not empty" },
  { "parallel.submit{fn, name = ''}", "'submit'", "'name'", "not empty" },
  { "jobs:start(fn, {}, '')", "'start'", "'name'" },
  { "parallel.map({1}, fn, {on_error = long})", "'map'", "'on_error'",
    "xxx...'" },
  { "parallel.map({1}, fn, {on_error = 'a\\27[31mb\\n'})", "'map'",
    "got 'a\\x1B[31mb\\n'" },
  { "parallel.map({1}, fn, {['li\\27mit'] = 1})", "'map'", "'li\\x1Bmit'" },
  { "parallel.map({1}, fn, {[long] = 1})", "'map'", "xxx...' to 'map'" },
  { "parallel.map({1}, fn, {retry_on = 'error'})", "'map'", "'retry_on'",
    "give retries = 1" },
  { "parallel.submit{fn, retry_on = 'error'}", "'submit'", "'retry_on'",
    "give retries = 1" },
  { "parallel.map({1}, fn, {retries = 1, retry_on = {'error', [3] = 'x'}})",
    "'map'", "'retry_on'", "the key 3" },
  { "parallel.map({1}, fn, {arguments = {1, [4] = 2}})", "'map'",
    "'arguments'", "a hole before the key 4", "its length as 'n'" },
  { "parallel.map({1}, fn, {arguments = {n = 1e8}})", "'map'",
    "'arguments'", "at most 250000 values" },
  { "pool:start(fn, {priority = 100})", "priority (100)", "from -10 to 10" },
  { "pool:start(fn, {timeout = -1})", "timeout (-1)", "positive" },
  { "parallel.map({1}, fn, {arguments = {}, params = {}})", "'map'",
    "'params'", "give params or arguments" },
  { "parallel.map({1}, fn, {params = {y = 1}})", "'map'", "parameter 'y'",
    "the function has: x" },
  { "parallel.invoke(function (a, b) end, {db1 = {b = 1, c = 2}})", "invoke",
    "(key 'db1')", "'c'", "the function has: a, b" },
  { "parallel.map({1}, fn, {streams = {wraning = true}})", "'map'",
    "'streams'", "did you mean 'warning'?" },
  { "parallel.map({1}, fn, {streams = {warning = 1}})", "'map'", "'streams'",
    "the stream 'warning'" },
  { "parallel.map({1}, fn, {progress = 5})", "'map'", "'progress'",
    "true, a title, a function or a table" },
  { "parallel.map({1}, fn, {max_failures = 1})", "'map'", "'max_failures'",
    "on_error = 'continue'" },
  { "pool:map({1}, fn, {init = 'x = 1'})", "'map'", "'init'",
    "give it to parallel.pool" },
  { "parallel.map({1}, fn, {sandbox = {file = 'read'}})", "'map'", "'sandbox'",
    "did you mean 'files'?" },
  { "parallel.map({1}, fn, {initial_state = {moduls = {}}})", "'map'",
    "did you mean 'modules'?" },
  { "parallel.pool{max = 65537}", "'pool'", "'max'", "from 1 to 65536" },
  { "parallel.pool{min = 0}", "'pool'", "'min'", "from 1 to 65536" },
  { "parallel.pool{queue = {jobs = 0}}", "'pool'", "'queue'",
    "a positive integer for jobs" },
  { "parallel.pool{queue_jobs = 1}", "'pool'", "'queue_jobs'", "queue" },
  { "parallel.pool{queue = {jbs = 1}}", "'pool'", "'queue'",
    "the field 'jbs'" },
  { "parallel.pool{signal = 'TERM'}", "'pool'", "'signal'", "got 'TERM'" },
  { "parallel.pool{memory = -1}", "'pool'", "'memory'", "'64M'" },
  { "parallel.pool{idle = nan}", "'pool'", "'idle'", "seconds" },
  { "parallel.pool{pin = 1}", "'pool'", "'pin'", "true or false" },
  { "parallel.pool{reset = 'all'}", "'pool'", "'reset'", "'fresh'" },
  { "parallel.pool{variables = {5}}", "'pool'", "'variables'", "the key 1" },
  { "parallel.manager{max = 0}", "'manager'", "'max'", "from 1 to 65536" },
  { "parallel.manager{mx = 4}", "'manager'", "did you mean 'max'?" },
  { "parallel.manager('4')", "'manager'", "'max'", "got '4'" },
  { "job:once('finish', fn)", "'once'", "did you mean 'finished'?" },
  { "job:once('finished')", "'once'", "'handler'", "got nil" },
  { "parallel.once(fn, 'x')", "'once'", "'event'", "the name of an event" },
  { "parallel.manager(0)", "'manager'", "'max'", "from 1 to 65536" },
  { "parallel.initial_state()", "'initial_state'", "'spec'", "got nil" },
  { "parallel.initial_state{modules = {7}}", "'initial_state'",
    "'modules[1]'", "got 7" },
  { "parallel.wait({job, [3] = job})", "'wait'", "'jobs'",
    "the key 3 behind a hole" },
  { "parallel.wait({a = job})", "'wait'", "'jobs'", "the key 'a'" },
  { "parallel.wait({1})", "'wait'", "'jobs[1]'", "got 1" },
  { "parallel.wait(job, {mode = 'some'})", "'wait'", "'mode'", "'any'" },
  { "parallel.wait(job, {timeout = -1})", "'wait'", "'timeout'", "got -1" },
  { "parallel.range(1.5)", "'range'", "an integer expected, got 1.5" },
  { "parallel.range(1, 2, 0)", "'range'", "'step'", "other than 0" },
  { "parallel.range('3')", "'range'", "an integer expected, got '3'" },
  { "parallel.poll(-1)", "'poll'", "'timeout'", "got -1" },
  { "parallel.off(5)", "'off'", "'event'", "got 5" },
  { "job:wait('1')", "'wait'", "'timeout'", "seconds expected, got '1'" },
  { "job:wait{timeout = 1}", "'wait'", "'timeout'", "got a table" },
  { "job:wait(nan)", "'wait'", "'timeout'", "a non-negative number" },
  { "job:wait(-1)", "'wait'", "'timeout'", "got -1" },
  { "job:join(-1)", "'join'", "'timeout'", "got -1" },
  { "job:get('x')", "'get'", "'timeout'", "got 'x'" },
  { "pool:close(-1)", "'close'", "'timeout'", "got -1" },
  { "pool:close{}", "'close'", "'timeout'", "got a table" },
  { "job:on('finish', fn)", "'on'", "did you mean 'finished'?" },
  { "job:on('finished')", "'on'", "'handler'", "got nil" },
  { "jobs:get('x\\27y')", "'x\\x1By' not found" },
  { "jobs:get(7)", "'get'", "'name'", "got 7" },
  { "jobs:wait('two', 'x')", "'wait'", "'timeout'", "got 'x'" },
  { "jobs:start(fn, 5)", "'start'", "'arguments'", "got 5" },
  { "report:count()", "'count'", "'key'", "got nil" },
  { "report:count('stat')", "'count'", "did you mean 'state'?" },
  { "report:count('zzzzz')", "'count'",
    "known are attempts, command, duration" },
  { "report:table{input = 'Host'}", "'table'", "'columns'", "the key 'input'",
    "{\"Host\", \"input\"}" },
  { "report:table({'input'}, {width = 0})", "'table'", "'width'" },
  { "parallel.compare{fn = fn}", "'compare'", "'items'", "got nil" },
  { "parallel.compare{fn = fn, items = {}, isolation = {'none', [3] = 'job'}}",
    "'compare'", "'isolation'", "the key 3" },
  { "task.sleep('1')", "'sleep'", "'seconds'", "got '1'" },
  { "task.sleep()", "'sleep'", "'seconds'", "got nil" },
  { "task.sleep(nan)", "'sleep'", "'seconds'", "a non-negative number" },
  { "task.warning()", "'warning'", "'value'", "got none" },
  { "task.emit()", "'emit'", "'name'", "got nil" },
  { "task.emit('')", "'emit'", "'name'", "got ''" },
  { "task.emit('finished')", "'emit'", "the module's own",
    "one of another name" },
  { "task.progress(5)", "'progress'", "got 5" },
  { "task.progress{percnt = 5}", "'progress'", "'percnt'",
    "known are activity, status and percent" },
  { "task.progress{percent = 'x'}", "'progress'", "'percent'",
    "a number expected, got 'x'" },
  { "task.name = 'x'", "'name' of parallel.task cannot be set" },
  { "task.execute()", "'execute'", "'options'", "a table expected" },
  { "task.execute{}", "'execute'", "'command'", "got nil" },
  { "task.execute{'x', command = 'y'}", "'execute'", "'command'",
    "given twice" },
  { "task.execute{'x', stdn = 'y'}", "'execute'", "'stdn'",
    "known are command" },
  { "task.execute{'x', timeout = 0}", "'execute'", "'timeout'",
    "a positive number" },
  { "task.execute{'x', env = {['A=B'] = '1'}}", "'execute'", "'env'",
    "'A=B'" },
}

--- What a chunk says, in two lines of which the second one is wrong.
---@param code string
---@param around fun(fn: function, handler: function): boolean, string
---@return string message
local function said (code, around)
  local chunk <const> = assert(load("local _ = 0\n" .. code .. "\nreturn 1",
                                    "@user.lua", "t", things))
  local ok, message = around(chunk, debug.traceback)
  assert.is_false(ok, "no error")
  assert.equal("string", type(message))
  return message
end

--- Does the message contain all that the row has, behind the position?
local function check (row, message)
  local first <const> = message:match "^(.-)\nstack traceback:" or message
  assert.equal("user.lua:2: ", first:match "^user.lua:%d+: ", first)
  for i = 2, #row do
    assert.is_truthy(first:find(row[i], 1, true),
                     "no \"" .. row[i] .. "\" in: " .. first)
  end
  assert.is_nil(first:find("[%c\x7f]"), first)
  assert.is_nil(message:find("parallel/", 1, true), message)
end

describe("misuse", function ()
  for _, row in ipairs(ROWS) do
    it("is told: " .. row[1], function ()
      check(row, said(row[1], xpcall))
    end)
  end

  it("is told at the same line in a coroutine", function ()
    for _, row in ipairs(ROWS) do
      check(row, said(row[1], function (fn)
        return coroutine.resume(coroutine.create(fn))
      end))
    end
  end)

  it("is told at the line of a pcall", function ()
    for _, call in ipairs {
      "parallel.map, nil, fn", "job.wait, 1", "pool.info", "parallel.cpus, 1",
      "task.sleep, 'x'", "task.emit, ''", "pool.map, pool, fn, {1}",
      "parallel.run", "jobs.get, jobs, 7", "job.get, job, -1",
    } do
      local message <const> =
        said("error(select(2, pcall(" .. call .. ")), 0)", pcall)
      assert.matches("^user.lua:2: .", message)
    end
  end)

  it("is told in a job at the job's line", function ()
    for _, row in ipairs(ROWS) do
      if row[1]:find "^parallel" and not row[1]:find "[^%w.:]job%f[%W]"
         and not row[1]:find "proxy" then
        local chunk <const> =
          "local fn, nan, long = math.abs, 0 / 0, ('x'):rep(1000)\n" .. row[1]
        local _, problem = parallel.spawn(chunk):join()
        local first <const> = problem.error
        assert.matches("^%(chunk%):2: ", first)
        for i = 2, #row do
          if not row[i]:find "function has" and row[i] ~= "parameter 'y'" then
            assert.is_truthy(first:find(row[i], 1, true), first)
          end
        end
        assert.is_nil(problem.traceback:find("parallel/", 1, true),
                      problem.traceback)
      end
    end
  end)

  it("is told where there is no library 'debug'", function ()
    local pool <close> = parallel.pool {
      max = 1, libs = { "base", "package", "table", "string", "math" },
    }
    for _, call in ipairs {
      "parallel.map(nil, print)", "parallel.map({1}, print, {limt = 1})",
      "parallel.run(7)", "parallel.range(1, 2, 0)",
      "parallel.submit{print, params = 5}", "parallel.task.sleep(-1)",
    } do
      local ok, problem = pool:spawn("local x\nx = " .. call):join()
      assert.is_false(ok)
      assert.matches("^%(chunk%):2: %a+ %a+ '", problem.error)
      assert.is_nil(problem.traceback:find("parallel/", 1, true))
    end
  end)

  it("is told where a library is missing that the module needs", function ()
    local pool <close> = parallel.pool { max = 1, libs = { "base", "table" } }
    local _, problem = pool:spawn("local x\nx = parallel.map"):join()
    assert.equal("(chunk):2: the module 'parallel' needs the library "
                 .. "'package': name it in 'libs'", problem.error)
  end)

  it("is told of the right one of two calls on the way", function ()
    local chunk <const> = assert(load([[
      local function inner ()
        return (parallel.map({ 1 }, fn, { limt = 1 }))
      end
      local sum = parallel.map(function () inner() end, fn)]], "@user.lua",
      "t", things))
    local _, message = pcall(chunk)
    assert.matches("^user.lua:2: unknown option 'limt' to 'map'", message)
  end)

  it("is not one where what is too much is nil", function ()
    assert.same({ 1, n = 1 }, parallel.map({ 1 }, square, nil, nil, nil))
    assert.equal("completed", things.job:wait(1, nil))
  end)

  it("is not one where a chunk's file is called like the module", function ()
    local chunk <const> = assert(load("parallel.map(nil, fn)",
                                      "@parallel/mine.lua", "t", things))
    local _, message = xpcall(chunk, debug.traceback)
    assert.matches("^parallel/mine.lua:1: bad argument 'items'", message)
    assert.matches("\n\tparallel/mine.lua:1: in ", message)
  end)
end)

describe("a suggestion", function ()
  local function two (a, b) return a, b end
  local function named (host, port) return host, port end

  --- Each row: the function, the name that is given, the one that is near.
  for _, row in ipairs {
    { two, "d" }, { two, "A" }, { two, "ab" }, { named, "x" }, { named, "h" },
    { named, "hosts", "host" }, { named, "prt", "port" },
    { named, "PORT", "port" }, { named, "hsot", "host" }, { named, "path" },
    { named, "address" }, { named, ("host"):rep(10000) },
  } do
    it("is made when it is near: " .. row[2]:sub(1, 10), function ()
      local _, message = pcall(parallel.map, { 1 }, row[1],
                               { params = { [row[2]] = 1 } })
      assert.equal(row[3], message:match "did you mean '(.-)'%?")
      assert.is_truthy(#message < 300)
    end)
  end
end)

describe("an initial value", function ()
  local function keep (a) return a end

  it("may be a table that could be no options", function ()
    for _, value in ipairs { {}, { 1 }, { limit = 1, other = 2 } } do
      assert.same(value, parallel.reduce({ n = 0 }, keep, value))
      assert.same(value, parallel.reduce({ 1, 2 }, keep, value))
    end
    local object <const> = setmetatable({ limit = 2 }, { __name = "mine" })
    assert.equal(object, parallel.reduce({ n = 0 }, keep, object))
  end)

  it("may be one that could, when options are there", function ()
    assert.same({ limit = 2 }, parallel.reduce({ 1, 2 }, keep, { limit = 2 },
                                               {}))
  end)
end)

describe("what cannot travel", function ()
  local socket <const> = require "socket"
  local directory <const> = require "lfs".dir

  --- Each row: a value; what is proposed.
  for _, row in ipairs {
    { io.stdout, "open the file in the job, by its name, or in 'init'" },
    { coroutine.create(square), "make the coroutine in the job" },
    { socket.tcp(), "make the connection in the job, or in 'init'" },
    { socket.udp(), "make the connection in the job, or in 'init'" },
    { require "lpeg".P(1), "make it in the job, or in 'init' of a pool" },
    { select(2, directory "/"), "open the directory in the job" },
    { things.job, "pass what job:get() returns" },
    { things.pool, "in a job the verbs of 'parallel' work on its own pool" },
    { ("x"):gmatch "x", "require that in the job" },
  } do
    it("is told with the way out: " .. row[2], function ()
      for _, call in ipairs {
        function () return (parallel.run(square, row[1])) end,
        function () return (parallel.map({ 1, { x = row[1] } }, square)) end,
        function () return (things.pool:spawn(square, row[1])) end,
        function () return (parallel.pool { variables = { v = row[1] } }) end,
      } do
        local ok, message = pcall(call)
        assert.is_false(ok)
        assert.matches("^[^\n]*misuse_spec.lua:%d+: [^\n]*cannot transfer a ",
                       message)
        assert.is_truthy(message:find("; " .. row[2], 1, true)
                         or message:find(row[2], 1, true), message)
      end
    end)
  end
end)

describe("items", function ()
  it("have a length of their own, not what their metatable says", function ()
    local Stack <const> = { n = 7, size = 2 }
    Stack.__index = Stack
    assert.same({ 1, 4, n = 2 },
                parallel.map(setmetatable({ 1, 2 }, Stack), square))
    assert.same({ 1, 4, n = 2 },
                parallel.map(setmetatable({ 1, 2 }, {
                  __index = function (_, key) error("asked for " .. key) end,
                }), square))
    assert.equal(3, parallel.map(setmetatable({ 1, 2, n = 3 }, Stack),
                                 square, { on_error = "continue" }).n)
  end)

  it("may be a proxy that tells its length", function ()
    local behind <const> = { 1, 2, 3 }
    local proxy <const> = setmetatable({}, {
      __index = behind, __len = function () return #behind end,
    })
    for _, verb in ipairs { "map", "filter" } do
      assert.equal(3, parallel[verb](proxy, square).n)
    end
    assert.equal(6, parallel.reduce(proxy, function (a, b) return a + b end))
  end)

  --- Each row: a call whose first result needs the second one.
  for _, code in ipairs {
    "utf8.codes 'abc'", "require 'lfs'.dir '.'",
    "(function () return function (s, i) i = (i or 0) + 1 "
      .. "if s[i] then return i end end, {1}, 0 end)()",
    "(function () return function (s) return s:gsub('x', 'y') end, 'x' end)()",
  } do
    it("that need their state are explained: " .. code, function ()
      for _, verb in ipairs { "map", "collect", "filter", "reduce" } do
        local message <const> =
          said("parallel." .. verb .. "((" .. code .. "), fn)", pcall)
        assert.matches("user.lua:2: ", message)
        assert.matches("its state.*only the first value arrives", message)
        assert.matches("parallel.iter packs all of it", message)
      end
    end)
  end

  it("that need none raise what they raise", function ()
    local problem <const> = {}
    for _, iterator in ipairs {
      function () error(problem) end,
      function (_) error(problem) end,
      coroutine.wrap(function () error(problem) end),
    } do
      local _, raised = pcall(parallel.map, iterator, square)
      assert.equal(problem, raised)
    end
    assert.equal(3, parallel.map(("a b c"):gmatch "%a", string.upper).n)
    assert.is_truthy(parallel.map(io.lines(tree.source "LICENSE"),
                                  string.len).n > 10)
  end)
end)

describe("a table of records", function ()
  it("shows the fields of a value in one order", function ()
    local value <const> = {}
    for c in ("hgfedcba"):gmatch "." do value[c] = c:byte() end
    value[10], value[2.5], value[true] = 1, 2, 3
    local _, all = parallel.collect({ 1 }, function () return value end)
    assert.matches("{%[2.5%] = 2, %[10%] = 1, a = 97, b = 98, c = 99}",
                   all:table({ "result" }, { width = 100 }))
  end)
end)

describe("parallel.task", function ()
  it("tells its fields to 'pairs', in the host and in a job", function ()
    local function list ()
      local names = {}
      for name in pairs(require "parallel".task) do
        names[#names + 1] = name
      end
      table.sort(names)
      return table.concat(names, " ")
    end
    local functions <const> = "checkpoint debug emit error execute "
      .. "information output progress sleep verbose warning"
    assert.equal(functions, list())
    assert.equal("attempt checkpoint debug emit error execute id information "
                 .. "name output progress sleep stopping verbose warning "
                 .. "worker", parallel.run(list))
  end)

  it("is shown with them at the prompt", function ()
    local text <const> = require "parallel.show".format(parallel.task)
    for _, name in ipairs { "checkpoint", "emit", "execute", "warning" } do
      assert.is_truthy(text:find("\n  " .. name .. " = function", 1, true))
    end
  end)
end)

describe("the module in a job", function ()
  it("tells its names to 'pairs' before any was used", function ()
    local names = parallel.run(function ()
      local names = {}
      for name in pairs(require "parallel") do names[name] = true end
      return names
    end)
    for name in pairs(parallel) do assert.is_true(names[name], name) end
  end)
end)

describe("a function of the module", function ()
  it("has one name in tracebacks, in the host and in jobs", function ()
    local function named ()
      local map <const> = require "parallel".map
      local _, text = xpcall(map, debug.traceback, nil)
      local names <const> = {}
      for key, module in pairs(package.loaded) do
        if type(module) == "table" and rawget(module, "map") == map then
          names[#names + 1] = key
        end
      end
      return text:match "in function '([^']*)'", #names, names[1]
    end
    assert.same({ "parallel.map", 1, "parallel" }, { named() })
    assert.same({ "parallel.map", 1, "parallel" }, { parallel.run(named) })
  end)
end)

describe("the traceback that the program prints", function ()
  --- Each row: a script whose last line is wrong.
  for _, code in ipairs {
    "parallel.map({1}, print, {limt = 1})",
    "parallel.map({1, io.stdout}, tostring)",
    "parallel.map({1}, function () return io.stdout:write() == f end)",
    "local f = io.stdout parallel.each({1}, function () f:write() end)",
    "parallel.run(print, io.stdout)",
    "local p = parallel.pool{} p:close() p:collect({1}, print)",
    "parallel.pool{modules = {'no.such'}}",
    "parallel.pool{init = 'error \"x\"'}",
    "parallel.map(utf8.codes 'x', print)",
  } do
    it("begins in the script: " .. code, function ()
      local text <const>, status <const> = run_script("\n" .. code .. "\n")
      if status == 0 then return end  -- it may be right after all
      assert.equal(1, status)
      local at <const> = text:match "^[^\n]-: ([^\n]-:%d+): "
      assert.matches(":2$", at)
      assert.is_nil(text:find("parallel/", 1, true), text)
    end)
  end
end)
