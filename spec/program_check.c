/* SPDX-License-Identifier: MIT */
/*
 * program_check.c - the programs of 'task.execute' end with the process.
 *
 * This process adopts all orphans among its descendants, so when it has no
 * child left, nothing is left of the host that it has started: no program,
 * none of those that a program has started, and no keeper.
 */
#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lparallel.h"

static char directory[] = "/tmp/program_check.XXXXXX";
static char bell[64];      /* a pipe with that name: a byte for each arrival */
static int bell_end;

/* ------------------------------------------ a child that is no program yet */

/* In memory that all processes here share. */
static struct {
  bool shut;               /* a program waits before it is one */
  pid_t pid;               /* of the one that waits, or has begun */
  sem_t arrived, open;
  bool well;               /* with a process that was forked */
} *hall;

int __real_execve (const char *, char *const [], char *const []);
int __wrap_execve (const char *, char *const [], char *const []);

int
__wrap_execve (const char *name, char *const argv[], char *const env[])
{
  if (strcmp(name, "/bin/sleep") == 0) {
    hall->pid = getpid();
    sem_post(&hall->arrived);
    while (hall->shut && sem_wait(&hall->open) != 0)
      ;
  }
  return __real_execve(name, argv, env);
}

/* --------------------------------------------------------------- the hosts */

/* Wait for 'n' arrivals. */
static void
await (int n)
{
  char byte;
  while (n > 0)
    n -= read(bell_end, &byte, 1) == 1;
}

/* Wait until nobody is left.  The status of 'host'. */
static int
await_all (pid_t host)
{
  int status, result = -1;
  pid_t pid;
  while ((pid = wait(&status)) > 0 || errno == EINTR) {
    if (pid == host)
      result = status;
  }
  return result;
}

/* Programs that jobs start. */
static const char programs[] =
  "local bell = ...\n"
  "pool = parallel.pool { max = 3 }\n"
  "local function start (command)\n"
  "  pool:spawn(function () parallel.task.execute(command) end)\n"
  "end\n"
  "start('echo > ' .. bell .. '; exec sleep 1000')\n"
  "start('sleep 1000 & echo > ' .. bell .. '; sleep 1000')\n"
  "start('trap \"\" TERM HUP INT; echo > ' .. bell\n"
  "      .. '; while :; do sleep 1000; done')\n"
  "function ring () io.open(bell, 'w'):write('x'):close() end\n";

/* The program 'runspace' with these, and 'rest'. */
static pid_t
run_host (const char *rest)
{
  const char *const runspace = getenv("RUNSPACE");
  char script[96];
  snprintf(script, sizeof script, "%s/script.lua", directory);
  FILE *const f = fopen(script, "w");
  REQUIRE(f != NULL);
  fprintf(f, "%s%s", programs, rest);
  fclose(f);
  const pid_t pid = fork();
  if (pid == 0) {
    execl(runspace != NULL ? runspace : "./runspace", "runspace", script,
          bell, (char *) NULL);
    _exit(127);
  }
  REQUIRE(pid > 0);
  return pid;
}

/* A program of its own that embeds Lua runs 'source'.  True when all is
   well. */
static bool
embed (const char *source)
{
  lua_State *const L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_pop(L, 1);
  REQUIRE(luaL_loadstring(L, source) == LUA_OK);
  lua_pushstring(L, bell);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK)
    return true;
  fprintf(stderr, "%s\n", lua_tostring(L, -1));
  return false;
}

/* ---------------------------------------------------------------- the ends */

/* Each row: what ends the host, which rings before each signal. */
static const struct {
  const char *rest;        /* of its script, when the programs run */
  int signals[2];
} ends[] = {
  { "ring() parallel.task.sleep(1000)", { SIGTERM } },
  { "ring() parallel.task.sleep(1000)", { SIGHUP } },
  { "ring() parallel.task.sleep(1000)", { SIGKILL } },
  { "ring() parallel.task.sleep(1000)", { SIGABRT } },
  { "ring() parallel.task.sleep(1000)", { SIGSEGV } },
  { "ring() parallel.task.sleep(1000)", { SIGINT } },
  { "pcall(function () ring() parallel.task.sleep(1000) end)\n"
    "ring() parallel.task.sleep(1000)", { SIGINT, SIGINT } },
  { "os.exit(0)", { 0 } },
  { "os.exit(0, true)", { 0 } },
  { "error 'x'", { 0 } },
  { "pool:close(0)", { 0 } },
  { "pool:cancel()", { 0 } },
};

static void
check_ends (void)
{
  char go[96], rest[512];
  snprintf(go, sizeof go, "%s/go", directory);
  REQUIRE(mkfifo(go, 0600) == 0);
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    snprintf(rest, sizeof rest, "io.open('%s'):close()\n%s", go,
             ends[i].rest);
    const pid_t host = run_host(rest);
    await(3);
    close(open(go, O_WRONLY));  /* when it opens it, too */
    for (int k = 0; k < 2 && ends[i].signals[k] != 0; k++) {
      await(1);
      kill(host, ends[i].signals[k]);
    }
    printf("%s, signal %d\n", ends[i].rest, ends[i].signals[0]);
    fflush(stdout);
    CHECK(await_all(host) != -1);
  }
  unlink(go);
}

/* An embedding program that exits while its jobs run. */
static void
check_embedded (void)
{
  const pid_t host = fork();
  if (host == 0) {
    embed(programs);
    await(3);
    _exit(5);
  }
  const int status = await_all(host);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

/* A host that is killed when a child was made that is no program yet. */
static void
check_killed_between (void)
{
  int status = 0;
  hall->shut = true;
  const pid_t host = fork();
  if (host == 0) {
    embed("parallel.task.execute{{'/bin/sleep', '1000'}}");
    _exit(1);
  }
  sem_wait(&hall->arrived);
  kill(host, SIGKILL);
  CHECK(waitpid(host, &status, 0) == host && WIFSIGNALED(status));
  hall->shut = false;
  sem_post(&hall->open);
  CHECK(waitpid(hall->pid, &status, 0) == hall->pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  await_all(0);
}

/* A host that ends while a process that it has forked, and that starts
   programs, too, goes on. */
static void
check_forked (void)
{
  int status = 0, fds[2];
  REQUIRE(pipe(fds) == 0);
  const pid_t host = fork();
  if (host == 0) {
    embed("parallel.spawn(function ()\n"
          "  parallel.task.execute{{'/bin/sleep', '1000'}}\n"
          "end)");
    sem_wait(&hall->arrived);
    close(fds[1]);
    if (fork() == 0) {
      char byte;
      hall->well = embed("assert(parallel.task.execute 'exit 3' == 3)");
      _exit(read(fds[0], &byte, 1) == 0 ? 0 : 1);  /* until that is closed */
    }
    _exit(0);
  }
  CHECK(waitpid(host, &status, 0) == host);
  CHECK(waitpid(hall->pid, &status, 0) == hall->pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  close(fds[1]);
  await_all(0);
  CHECK(hall->well);
  close(fds[0]);
}

int
main (void)
{
  const struct rlimit no_core = { 0, 0 };
  setrlimit(RLIMIT_CORE, &no_core);
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) == 0);
  hall = mmap(NULL, sizeof *hall, PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(hall != MAP_FAILED);
  sem_init(&hall->arrived, 1, 0);
  sem_init(&hall->open, 1, 0);
  REQUIRE(mkdtemp(directory) != NULL);
  snprintf(bell, sizeof bell, "%s/bell", directory);
  REQUIRE(mkfifo(bell, 0600) == 0);
  bell_end = open(bell, O_RDWR | O_CLOEXEC);
  REQUIRE(bell_end >= 0);

  check_ends();
  check_embedded();
  check_killed_between();
  check_forked();

  unlink(bell);
  char script[96];
  snprintf(script, sizeof script, "%s/script.lua", directory);
  unlink(script);
  rmdir(directory);
  return report();
}
