/* SPDX-License-Identifier: MIT */
/*
 * repl.c - the prompt of the host program.
 *
 * A chunk is one line, or as many as it takes until it compiles; it is tried
 * as an expression first.  Its results go through 'parallel.show', which
 * makes texts of tables, to the global 'print'.
 *
 * Standard input is read with read(2) only, by this file or by readline: a
 * thread in a stdio read holds the lock of 'stdin', and a C module of a
 * runspace that flushes all streams waits for that lock.  The stream is
 * unbuffered besides, so that an 'io.read' in a chunk takes its line and
 * leaves the next one to the prompt.
 *
 * At a terminal, SIGINT drops what was typed.  While a line is edited, the
 * console keeps what jobs print, and tells the prompt by a pipe.  Only the
 * main thread runs here.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sigaction, pselect, strdup */
#endif
#include "program/repl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_READLINE
#include <readline/history.h>
#include <readline/readline.h>
#endif

#include <lauxlib.h>

#include "base/console.h"
#include "base/level.h"
#include "program/cli.h"
#include "lparallel.h"

/* Outcome of asking for a line. */
typedef enum {
  LINE_READ,
  LINE_END,         /* no more input */
  LINE_INTERRUPTED  /* SIGINT: forget the chunk */
} line_status;

static volatile sig_atomic_t interrupted;

static void
note_interrupt (int signal)
{
  (void) signal;
  interrupted = 1;
}

/* -------------------------------------------- the Lua part of the module */

/* [-0, +0, -]  Return a reference to a function of the module, or to nothing:
   the prompt does without it then. */
static int
require_function (lua_State *L, const char *module, const char *name)
{
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1)) {
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    return luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_pop(L, 1);
  return LUA_NOREF;
}

/* ------------------------------------------------------ what jobs tell */

static int
dispatch_body (lua_State *L)
{
  rs_parallel_dispatch(L);
  return 0;
}

static int
report_body (lua_State *L)
{
  rs_parallel_report(L);
  return 0;
}

/* [-0, +0, -]  Call the body, and show an error of it. */
static void
call_body (lua_State *L, lua_CFunction body)
{
  lua_pushcfunction(L, body);
  rs_cli_report(L, rs_cli_call(L, 0, 0), NULL);
}

/* [-0, +0, -]  Run the handlers of what jobs have told. */
static void
dispatch (lua_State *L)
{
  call_body(L, dispatch_body);
}

/* --------------------------------------------------------- a plain line */

/* Wait until stdin can be read, which others may have made non-blocking.
   False when that cannot be waited for. */
static bool
await_input (void)
{
  struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
  return poll(&input, 1, -1) >= 0 || errno == EINTR;
}

/*
 * [-0, +(1|0), m]  Read a line without its newline, byte by byte, so that what
 * follows the line stays unread.
 */
static line_status
read_plain (lua_State *L, const char *prompt, bool echo)
{
  luaL_Buffer line;
  bool any = false;
  char c;

  fputs(prompt, stdout);
  fflush(stdout);
  luaL_buffinit(L, &line);
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n == 1 && c == '\n')
      break;
    if (n == 1) {
      any = true;
      luaL_addchar(&line, c);
    }
    else if (n == 0 || (errno != EINTR && errno != EAGAIN)
                    || (errno == EAGAIN && !await_input())) {
      if (any)  /* a last line without a newline? */
        break;
      luaL_pushresult(&line);
      lua_pop(L, 1);
      return LINE_END;
    }
    else if (interrupted) {
      luaL_pushresult(&line);
      lua_pop(L, 1);
      return LINE_INTERRUPTED;
    }
  }
  luaL_pushresult(&line);
  if (echo) {  /* a transcript reads as if it had been typed */
    puts(lua_tostring(L, -1));
    fflush(stdout);
  }
  return LINE_READ;
}

/* -------------------------------------------------------- an edited line */

#ifdef HAVE_READLINE

enum { HISTORY_MAX = 1000 };  /* entries in memory, lines in the file */
enum { HISTORY_BYTES = 1 << 20 };  /* of the file that are looked at */

/* The state of the editor: readline calls back without a context. */
static struct {
  lua_State *L;    /* the state whose globals are completed */
  int names;       /* reference to 'parallel.names.of', or LUA_NOREF */
  char *line;      /* malloc'ed; NULL at the end of input */
  bool done;       /* 'line' is valid */
  char *history;   /* path of the file; malloc'ed; NULL: none */
  int told[2];     /* a pipe that tells that jobs have printed; -1: none */
} editor = { .told = { -1, -1 } };

static void
take_line (char *line)
{
  editor.line = line;
  editor.done = true;
  rl_callback_handler_remove();  /* or the prompt is printed again */
}

/* True when the pipe tells that jobs have printed; takes that out of the
   pipe. */
static bool
take_told (void)
{
  char bytes[64];
  return editor.told[0] >= 0
      && read(editor.told[0], bytes, sizeof bytes) > 0;
}

/* Keep what jobs print from now on, if the pipe can tell of that: its
   descriptor has to be one that pselect(2) can watch. */
static void
hold_console (void)
{
  take_told();  /* what was printed before is on the terminal */
  if (editor.told[1] >= 0 && editor.told[0] < FD_SETSIZE)
    rs_console_hold(editor.told[1]);
}

/* Let out what jobs print above the line that is being edited, and run
   handlers. */
static void
dispatch_above_line (lua_State *L)
{
  const bool printed = take_told();
  const bool pending = rs_parallel_pending(L);
  if (!printed && !pending)
    return;
  rl_clear_visible_line();
  fflush(rl_outstream);
  rs_console_release();
  if (pending) {
    rl_deprep_terminal();  /* a handler may end the program */
    dispatch(L);
    rl_prep_terminal(1);
    fflush(stdout);
    rs_cli_forgive();
  }
  hold_console();
  rl_forced_update_display();
}

/* Add a descriptor, unless it is none, to those that are waited for; 'last' is
   the greatest. */
static void
watch (int fd, fd_set *set, int *last)
{
  if (fd < 0 || fd >= FD_SETSIZE)
    return;
  FD_SET(fd, set);
  if (fd > *last)
    *last = fd;
}

/*
 * Wait for a key, a signal, or what jobs tell.  All signals are blocked
 * between the look at what has come and the wait, so that none is slept over.
 * False when stdin cannot be read any more.
 */
static bool
edit_step (void)
{
  sigset_t all, normal;
  fd_set input;
  int ready = 0, last = STDIN_FILENO;

  const int jobs = rs_events_fileno(rs_parallel_events(editor.L));
  FD_ZERO(&input);
  FD_SET(STDIN_FILENO, &input);
  watch(jobs, &input, &last);
  watch(editor.told[0], &input, &last);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &normal);
  const bool pending = interrupted || rl_pending_signal() != 0;
  if (!pending)
    ready = pselect(last + 1, &input, NULL, NULL, NULL, &normal);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &normal, NULL);

  if (ready > 0) {
    const bool typed = FD_ISSET(STDIN_FILENO, &input);
    if (!typed || ready > 1)
      dispatch_above_line(editor.L);
    if (typed)
      rl_callback_read_char();
  }
  else {
    const bool stop = rl_pending_signal() == SIGTSTP;
    rl_check_signals();
    if (stop)  /* the screen shows other things after a stop */
      rl_forced_update_display();
  }
  return ready >= 0 || error == EINTR;
}

/* [-0, +(1|0), m]  Let the user edit a line at the terminal. */
static line_status
read_edited (lua_State *L, const char *prompt)
{
  editor.line = NULL;
  editor.done = false;
  hold_console();
  rl_callback_handler_install(prompt, take_line);
  while (!editor.done && !interrupted)
    if (!edit_step())
      break;
  if (!editor.done) {
    rl_callback_handler_remove();
    if (interrupted)
      fputc('\n', stdout);
  }
  rs_console_release();
  if (!editor.done && interrupted)
    return LINE_INTERRUPTED;
  if (editor.line == NULL)
    return LINE_END;
  lua_pushstring(L, editor.line);
  free(editor.line);
  return LINE_READ;
}

/* ------------------------------------------------------------ completion */

enum { INDEX_DEPTH = 10 };  /* '__index' tables that are followed */

/* [-1, +1, -]  Replace the value by its field 'key', looked up without
   metamethods: in itself, if it is a table, then along '__index' tables. */
static void
raw_field (lua_State *L, const char *key, size_t length)
{
  for (int depth = 0; depth < INDEX_DEPTH; depth++) {
    if (lua_istable(L, -1)) {
      lua_pushlstring(L, key, length);
      if (lua_rawget(L, -2) != LUA_TNIL) {
        lua_remove(L, -2);
        return;
      }
      lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
      break;
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  lua_pushnil(L);
}

static bool
is_name (const char *s)
{
  if (*s == '\0' || strchr("0123456789", *s) != NULL)
    return false;
  return s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* The text that is completed, and what was found. */
typedef struct {
  const char *text;
  const char *stem;  /* the end of 'text': the beginning of the names to be
                        found */
  int found;         /* stack slot of a table: the texts completed, as keys */
} completion;

/* [-0, +0, m]  Add the name at 'index', a key of any type, to what was found
   if it begins with the stem. */
static void
add_match (lua_State *L, const completion *c, int index)
{
  if (lua_type(L, index) != LUA_TSTRING)
    return;
  lua_pushvalue(L, index);
  const char *name = lua_tostring(L, -1);
  if (strncmp(name, c->stem, strlen(c->stem)) == 0 && is_name(name)) {
    lua_pushlstring(L, c->text, (size_t) (c->stem - c->text));
    lua_pushvalue(L, -2);
    lua_concat(L, 2);
    lua_pushboolean(L, true);
    lua_rawset(L, c->found);
  }
  lua_pop(L, 1);
}

/* [-0, +(1|0), e]  Push the names that the module has for the value on top,
   and whether each is a function; false when the value is not one of the
   module's. */
static bool
push_names (lua_State *L)
{
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, editor.names) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, -2);
  lua_call(L, 1, 1);
  if (lua_istable(L, -1))
    return true;
  lua_pop(L, 1);
  return false;
}

/* [-1, +0, e]  Find names of fields of the value on top.  After a colon, only
   functions count. */
static void
find_matches (lua_State *L, const completion *c)
{
  const bool methods = c->stem > c->text && c->stem[-1] == ':';
  if (push_names(L)) {
    lua_pushnil(L);
    while (lua_next(L, -2)) {
      if (!methods || lua_toboolean(L, -1))
        add_match(L, c, -2);
      lua_pop(L, 1);
    }
    lua_pop(L, 2);
    return;
  }
  for (int depth = 0; depth < INDEX_DEPTH; depth++) {
    if (lua_istable(L, -1)) {
      lua_pushnil(L);
      while (lua_next(L, -2)) {
        if (!methods || lua_isfunction(L, -1))
          add_match(L, c, -2);
        lua_pop(L, 1);
      }
    }
    if (luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
      break;
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
}

/* [-1, +1, e]  Take the text (light userdata), return the set of matches. */
static int
collect_matches (lua_State *L)
{
  const char *const text = lua_touserdata(L, 1);
  const char *name = text;
  lua_newtable(L);
  lua_pushglobaltable(L);
  for (;;) {
    const size_t length = strcspn(name, ".:");
    if (name[length] == '\0')
      break;
    raw_field(L, name, length);
    name += length + 1;
  }
  find_matches(L, &(completion) { text, name, 2 });
  return 1;
}

/* Readline asks for one match after the other; the set is on top of the
   stack and the previous key above it. */
static char *
next_match (const char *text, int again)
{
  lua_State *const L = editor.L;
  (void) text;
  if (!again)
    lua_pushnil(L);
  if (!lua_next(L, -2))
    return NULL;
  lua_pop(L, 1);
  return strdup(lua_tostring(L, -1));
}

static char **
complete (const char *text, int start, int end)
{
  lua_State *const L = editor.L;
  char **matches = NULL;
  (void) start;
  (void) end;
  if (rl_completion_quote_character != 0)
    return NULL;  /* in a string: names of files */
  rl_attempted_completion_over = 1;
  rl_completion_append_character = '\0';
  const int top = lua_gettop(L);
  lua_pushcfunction(L, collect_matches);
  lua_pushlightuserdata(L, (void *) text);
  if (lua_checkstack(L, 10) && lua_pcall(L, 1, 1, 0) == LUA_OK)
    matches = rl_completion_matches(text, next_match);
  lua_settop(L, top);
  return matches;
}

/* rl_completion_word_break_hook: in a string all but quotes belongs to the
   name of a file, above all a '/' or a '~' in front. */
static char *
choose_breaks (void)
{
  static char names[] = " \t\n\"\\'><=;+-*/%^~#{}()[],&|", quotes[] = "\"'";
  char quote = '\0';
  for (int i = 0; i < rl_point; i++) {
    const char c = rl_line_buffer[i];
    if (quote != '\0' && c == '\\')
      i++;
    else if (c == quote)
      quote = '\0';
    else if (quote == '\0' && (c == '"' || c == '\''))
      quote = c;
  }
  return quote != '\0' ? quotes : names;
}

/* Tab indents at the start of a line, and completes elsewhere. */
static int
indent_or_complete (int count, int key)
{
  if ((int) strspn(rl_line_buffer, " ") >= rl_point)
    return rl_insert_text("  "), 0;
  (void) count;
  (void) key;
  return rl_complete_internal(rl_completion_mode(indent_or_complete));
}

/* --------------------------------------------------------------- history */

/* Make the directories above 'path' that are missing; 0700, as XDG asks. */
static void
make_directories (char *path)
{
  for (char *slash = strchr(path + 1, '/'); slash != NULL;
       slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0700);  /* if it fails, so does opening the file */
    *slash = '/';
  }
}

/* Return the path of the history's file, malloc'ed, or NULL if there is no
   place for it. */
static char *
history_path (void)
{
  const char *home = getenv("HOME");
  const char *state = getenv("XDG_STATE_HOME");
  const char *rest = "/runspace/history";
  if (state == NULL || state[0] != '/') {  /* XDG: a relative one is void */
    if (home == NULL || home[0] != '/')
      return NULL;
    state = home;
    rest = "/.local/state/runspace/history";
  }
  char *path = malloc(strlen(state) + strlen(rest) + 1);
  if (path != NULL)
    strcat(strcpy(path, state), rest);
  return path;
}

/* Open the file of the history.  -1 when there is none, or it is no plain
   file: a FIFO, for one, may block the thread that opens or reads it. */
static int
open_history (int flags)
{
  struct stat info;
  const int file = open(editor.history, flags | O_NONBLOCK | O_CLOEXEC, 0600);
  if (file < 0 || (fstat(file, &info) == 0 && S_ISREG(info.st_mode)))
    return file;
  close(file);
  return -1;
}

/* Cut a file that is too long to be read: only its end is left, from the
   beginning of an entry on.  False when that cannot be done. */
static bool
shorten_history (int file)
{
  struct stat info;
  if (fstat(file, &info) != 0)
    return false;
  if (info.st_size <= HISTORY_BYTES)
    return true;
  char *const end = malloc(HISTORY_BYTES + 1);
  const ssize_t n = end == NULL ? -1
    : pread(file, end, HISTORY_BYTES, info.st_size - HISTORY_BYTES);
  bool good = n >= 0;
  if (good) {
    end[n] = '\0';
    const char *const before = strstr(end, "\n#");
    const char *const first = before != NULL ? before + 1 : "";
    const size_t rest = strlen(first);
    good = pwrite(file, first, rest, 0) == (ssize_t) rest
        && ftruncate(file, (off_t) rest) == 0;
  }
  free(end);
  return good;
}

/* Load the history.  Entries of several lines are told apart by the time
   before each. */
static void
load_history (void)
{
  using_history();
  stifle_history(HISTORY_MAX);
  history_comment_char = '#';
  history_write_timestamps = 1;
  editor.history = history_path();
  if (editor.history == NULL)
    return;
  make_directories(editor.history);
  int file = open_history(O_RDWR);
  if (file < 0)  /* the file may be for reading only */
    file = open_history(O_RDONLY);
  const bool good = file >= 0 && shorten_history(file);
  if (file >= 0)
    close(file);
  if (good && read_history(editor.history) == 0)
    history_truncate_file(editor.history, HISTORY_MAX);
}

/*
 * Remember a chunk.  It is appended to the file at once and by one write, so
 * that prompts side by side keep each other's, and nothing is lost when the
 * process ends by other ways.  Without a file, the history is the session's.
 */
static void
save_history (const char *chunk)
{
  const HIST_ENTRY *last = history_length > 0
                           ? history_get(history_base + history_length - 1)
                           : NULL;
  if (chunk[strspn(chunk, " \t\n")] == '\0'
      || (last != NULL && strcmp(last->line, chunk) == 0))
    return;
  add_history(chunk);
  if (editor.history == NULL)
    return;
  const int file = open_history(O_WRONLY | O_APPEND | O_CREAT);
  const size_t room = strlen(chunk) + 40;
  char *entry = malloc(room);
  if (file >= 0 && entry != NULL) {
    const int n = snprintf(entry, room, "#%lld\n%s\n",
                           (long long) time(NULL), chunk);
    if (write(file, entry, (size_t) n) < n) {
      free(editor.history);  /* a full disk, say: leave it alone */
      editor.history = NULL;
    }
  }
  free(entry);
  if (file >= 0)
    close(file);
}

static void
start_editor (lua_State *L)
{
  editor.L = L;
  editor.names = require_function(L, "parallel.names", "of");
  rl_readline_name = "runspace";
  rl_persistent_signal_handlers = 1;  /* also while we wait, not readline */
  rl_attempted_completion_function = complete;
  rl_completion_word_break_hook = choose_breaks;
  rl_completer_quote_characters = "\"'";
  rl_bind_key('\t', indent_or_complete);
  if (pipe2(editor.told, O_CLOEXEC | O_NONBLOCK) != 0)
    editor.told[0] = editor.told[1] = -1;  /* lines go out as they are then */
  load_history();
}

static void
stop_editor (void)
{
  clear_history();
  luaL_unref(editor.L, LUA_REGISTRYINDEX, editor.names);
  for (int i = 0; i < 2; i++) {
    if (editor.told[i] >= 0)
      close(editor.told[i]);
    editor.told[i] = -1;
  }
  free(editor.history);
  editor.history = NULL;
}

#else

static line_status
read_edited (lua_State *L, const char *prompt)
{
  return read_plain(L, prompt, false);
}

static void save_history (const char *chunk) { (void) chunk; }
static void start_editor (lua_State *L) { (void) L; }
static void stop_editor (void) { }

#endif

/* --------------------------------------------------------------- a chunk */

/* The surroundings of the prompt. */
typedef struct {
  bool input_tty;   /* a user types */
  bool edit;        /* with line editing */
  int show;         /* reference to 'parallel.show', or LUA_NOREF */
} repl;

/* [-0, +1, e]  Push the text of the prompt that the program chose. */
static const char *
push_prompt (lua_State *L, bool first)
{
  if (lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2") == LUA_TNIL) {
    lua_pop(L, 1);
    return lua_pushstring(L, first ? "> " : ">> ");
  }
  const char *text = luaL_tolstring(L, -1, NULL);
  lua_remove(L, -2);
  return text;
}

/* [-0, +(1|0), e]  Read a line, with its prompt. */
static line_status
read_line (lua_State *L, const repl *r, bool first)
{
  const struct sigaction action = { .sa_handler = note_interrupt };
  struct sigaction before;
  const char *prompt = push_prompt(L, first);

  interrupted = 0;
  rs_cli_forgive();
  if (r->input_tty)
    sigaction(SIGINT, &action, &before);
  const line_status status = r->edit
    ? read_edited(L, prompt)
    : read_plain(L, prompt, !(r->input_tty && isatty(STDOUT_FILENO)));
  if (r->input_tty)
    sigaction(SIGINT, &before, NULL);
  lua_remove(L, status == LINE_READ ? -2 : -1);  /* the prompt */
  return status;
}

/* [-0, +0, -]  True when the error on top is that of a chunk that only wants
   more. */
static bool
wants_more (lua_State *L, int status)
{
  static const char mark[] = "<eof>";
  size_t length;
  if (status != LUA_ERRSYNTAX)
    return false;
  const char *message = lua_tolstring(L, -1, &length);
  return length >= sizeof mark - 1
      && strcmp(message + length - (sizeof mark - 1), mark) == 0;
}

/* [-(0|1), +0, -]  Do 'wants_more', and pop the error if it is true. */
static bool
incomplete (lua_State *L, int status)
{
  if (!wants_more(L, status))
    return false;
  lua_pop(L, 1);
  return true;
}

static int
load_text (lua_State *L, int index)
{
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  return luaL_loadbuffer(L, text, length, "=stdin");
}

/* [-0, +1, e]  Compile the text at 'index', as an expression if it is one, or
   the beginning of one, and leave the function or the error.  A Lua status. */
static int
load_chunk (lua_State *L, int index)
{
  lua_pushfstring(L, "return %s", lua_tostring(L, index));
  const int status = load_text(L, -1);
  lua_remove(L, -2);
  if (status == LUA_OK)
    return LUA_OK;
  const bool begun = wants_more(L, status);
  const int other = load_text(L, index);
  if (other != LUA_OK && begun && !wants_more(L, other)) {
    lua_pop(L, 1);
    return status;
  }
  lua_remove(L, -2);
  return other;
}

/*
 * [-0, +(1|0), e]  Read a chunk, and push it, compiled, or the error of
 * compiling it; '*status' is the Lua status of that.  The stack is empty
 * before.
 */
static line_status
read_chunk (lua_State *L, const repl *r, int *status)
{
  line_status line = read_line(L, r, true);
  if (line != LINE_READ)
    return line;
  if (lua_tostring(L, 1)[0] == '=') {  /* "=value", as in Lua 5.0 to 5.2 */
    lua_pushfstring(L, "return %s", lua_tostring(L, 1) + 1);
    lua_replace(L, 1);
  }
  while (*status = load_chunk(L, 1), incomplete(L, *status)) {
    line = read_line(L, r, false);
    if (line == LINE_INTERRUPTED)
      return line;
    if (line == LINE_END) {  /* what is missing is an error then */
      *status = load_chunk(L, 1);
      break;
    }
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);  /* text, newline, line */
  }
  if (r->edit)
    save_history(lua_tostring(L, 1));
  lua_remove(L, 1);
  return LINE_READ;
}

/* --------------------------------------------------------------- results */

/* Return the columns of the terminal. */
static int
columns (void)
{
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return 80;
}

/* [-n, +m, -]  Replace the values on the stack by what 'print' is to show of
   them; they stay as they are when there is no 'parallel.show' or it fails. */
static void
make_readable (lua_State *L, const repl *r)
{
  const int n = lua_gettop(L);
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, r->show) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return;
  }
  lua_pushinteger(L, columns());
  for (int i = 1; i <= n; i++)
    lua_pushvalue(L, i);
  if (rs_cli_pcall(L, n + 1, LUA_MULTRET, 0) != LUA_OK) {
    lua_pop(L, 1);
    return;
  }
  for (int i = 1; i <= n; i++)
    lua_remove(L, 1);
}

/* [-n, +0, e]  Print the values on the stack, if any. */
static void
print_results (lua_State *L, const repl *r)
{
  if (lua_gettop(L) == 0)
    return;
  rs_level_room(L, 2 * lua_gettop(L) + LUA_MINSTACK,
                "too many results to print");
  lua_getglobal(L, "print");
  const bool own = lua_iscfunction(L, -1);  /* Lua's own, not the program's? */
  lua_pop(L, 1);
  if (own)
    make_readable(L, r);
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  if (rs_cli_pcall(L, lua_gettop(L) - 1, 0, 0) != LUA_OK)
    rs_cli_message(NULL, lua_pushfstring(L, "error calling 'print' (%s)",
                                         lua_tostring(L, -1)));
}

void
rs_repl_prepare (void)
{
  setvbuf(stdin, NULL, _IONBF, 0);
}

void
rs_repl_run (lua_State *L)
{
  repl r = { .input_tty = isatty(STDIN_FILENO) };
  int status;
  line_status line;

  lua_settop(L, 0);
  r.show = require_function(L, "parallel.show", "results");
  r.edit = r.input_tty && isatty(STDOUT_FILENO);
  if (r.edit)
    start_editor(L);
  while (line = read_chunk(L, &r, &status), line != LINE_END) {
    if (line == LINE_READ) {
      if (status == LUA_OK)
        status = rs_cli_call(L, 0, LUA_MULTRET);
      if (rs_cli_report(L, status, NULL) == LUA_OK)
        print_results(L, &r);
    }
    lua_settop(L, 0);
    dispatch(L);
    call_body(L, report_body);  /* above the next prompt */
  }
  if (r.edit)
    stop_editor();
  luaL_unref(L, LUA_REGISTRYINDEX, r.show);
  puts("");
  fflush(stdout);
}
