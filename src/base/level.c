/* SPDX-License-Identifier: MIT */
/*
 * level.c - Lua's stack: the level where the code of a script begins, and room
 * for more slots.
 *
 * The chunks of the module 'parallel' are named "=parallel/map.lua", like no
 * file: a script of that name is "@parallel/map.lua".
 */
#include "base/level.h"

#include <string.h>

#include <lauxlib.h>

#include "base/status.h"

static const char sources[] = "=parallel/";

bool
rs_level_is_ours (const lua_Debug *ar)
{
  return strncmp(ar->source, sources, sizeof sources - 1) == 0;
}

/* True for a text with a position inside the module: an error of its own. */
static bool
is_own_error (const char *message)
{
  return message != NULL
      && strncmp(message, sources + 1, sizeof sources - 2) == 0;
}

int
rs_level_user (lua_State *L, int level, const char *message)
{
  lua_Debug ar;
  bool seen = false;
  if (is_own_error(message))
    return level;
  for (int l = level; lua_getstack(L, l, &ar); l++) {
    lua_getinfo(L, "S", &ar);
    if (rs_level_is_ours(&ar))
      seen = true;
    else if (*ar.what != 'C')
      return seen ? l : level;
  }
  return level;
}

/* What stands at a level of the stack. */
typedef enum { NOTHING, SCRIPT, OURS, IN_C } frame;

static frame
look (lua_State *L, int level)
{
  lua_Debug ar;
  if (!lua_getstack(L, level, &ar))
    return NOTHING;
  lua_getinfo(L, "S", &ar);
  return *ar.what == 'C' ? IN_C : rs_level_is_ours(&ar) ? OURS : SCRIPT;
}

/* [-0, +0, m]  True when the function in C at 'level' has a global name, such
   as 'pcall', that is not the module's. */
static bool
is_known (lua_State *L, int level)
{
  static const char known[] = "\n\t[C]: in function '", own[] = "parallel.";
  luaL_traceback(L, L, NULL, level);
  const char *const line = strchr(lua_tostring(L, -1), '\n');
  const bool is = line != NULL && strncmp(line, known, sizeof known - 1) == 0
               && strncmp(line + sizeof known - 1, own, sizeof own - 1) != 0;
  lua_pop(L, 1);
  return is;
}

/*
 * [-0, +0, m]  Given that functions in C stand at 'level' and below, return
 * how many of them are of the module.  The frame above is 'inner'.  All are,
 * if the module has called them; if they have called the module, those up to
 * the script's way there, such as 'pcall'.
 */
static int
count_ours (lua_State *L, int level, frame inner)
{
  int n = 0;
  while (look(L, level + n) == IN_C)
    n++;
  if (look(L, level + n) == OURS)
    return n;
  int ours = inner == OURS;
  while (ours > 0 && ours < n && !is_known(L, level + ours))
    ours++;
  return ours;
}

/* [-0, +1, m]  Push the line of the frame at 'level', a function of the script
   that the module has called: by the place of the function, since its name is
   one of the module's. */
static void
push_called (lua_State *L, int level)
{
  lua_Debug ar;
  lua_getstack(L, level, &ar);
  lua_getinfo(L, "Sl", &ar);
  lua_pushfstring(L, "\n\t%s:%d: in function <%s:%d>", ar.short_src,
                  ar.currentline, ar.short_src, ar.linedefined);
}

/* [-0, +0, m]  Append the lines that 'luaL_traceback' has for 'level', unless
   the frame is hidden: that of the frame, and the one that tells of calls
   before it which are not known. */
static void
add_frame (lua_State *L, luaL_Buffer *b, int level, const bool *hidden)
{
  static const char calls[] = "\n\t(...tail calls...)";
  const int top = lua_gettop(L);
  luaL_traceback(L, L, NULL, level);
  const char *const line = strchr(lua_tostring(L, -1), '\n');
  const char *const end = line != NULL ? strstr(line + 1, "\n\t") : NULL;
  const bool tail = !hidden[0] && end != NULL
                 && strncmp(end, calls, sizeof calls - 1) == 0;
  if (line == NULL || hidden[0])
    lua_pushliteral(L, "");
  else {
    lua_pushlstring(L, line, end != NULL ? (size_t) (end - line)
                                         : strlen(line));
    if (hidden[1] && !tail && look(L, level) == SCRIPT
        && strstr(lua_tostring(L, -1), ": in function ") == NULL
        && strstr(lua_tostring(L, -1), ": in main chunk") == NULL)
      push_called(L, level);
  }
  lua_pushstring(L, tail ? calls : "");
  lua_concat(L, 2);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  luaL_addvalue(b);
}

enum {
  FIRST = 10, LAST = 11,  /* frames that are shown, as 'luaL_traceback' does */
  MOST = 1000             /* frames that are looked at */
};

/* [-0, +0, -]  True when the module has a frame from 'level' on. */
static bool
has_ours (lua_State *L, int level)
{
  frame f;
  for (int i = 0; i < MOST && (f = look(L, level + i)) != NOTHING; i++)
    if (f == OURS)
      return true;
  return false;
}

/* [-0, +0, m]  Find out which of the frames from 'level' on are hidden; return
   how many frames there are. */
static int
survey (lua_State *L, int level, bool bare, bool *hidden)
{
  frame f, inner = NOTHING;
  int n = 0;
  while (n < MOST && (f = look(L, level + n)) != NOTHING) {
    int run = 1, ours = f == OURS;
    if (f == IN_C) {
      ours = count_ours(L, level + n, inner);
      while (look(L, level + n + run) == IN_C)
        run++;
    }
    if (f == IN_C && bare && look(L, level + n + run) == NOTHING)
      ours = run;
    inner = f != IN_C ? f : inner;
    for (; run > 0 && n < MOST; run--)
      hidden[n++] = ours-- > 0;
  }
  return n;
}

void
rs_level_traceback (lua_State *L, const char *message, int level, bool bare)
{
  bool hidden[MOST + 1];
  const bool plain = is_own_error(message) || (!bare && !has_ours(L, level));
  const int n = plain ? MOST : survey(L, level, bare, hidden);
  if (n == MOST) {  /* or too much to look at */
    luaL_traceback(L, L, message, level);
    return;
  }
  hidden[n] = false;
  int shown = 0;
  for (int i = 0; i < n; i++)
    shown += !hidden[i];
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (message != NULL) {
    luaL_addstring(&b, message);
    luaL_addchar(&b, '\n');
  }
  if (shown > 0 || !bare)
    luaL_addstring(&b, "stack traceback:");
  for (int i = 0, at = 0; i < n && shown > 0; i++) {
    at += !hidden[i];
    if (shown <= FIRST + LAST || at <= FIRST || at > shown - LAST)
      add_frame(L, &b, level + i, &hidden[i]);
    else if (at == FIRST + 1 && !hidden[i]) {
      lua_pushfstring(L, "\n\t...\t(skipping %d levels)",
                      shown - FIRST - LAST);
      luaL_addvalue(&b);
    }
  }
  luaL_pushresult(&b);
}

/* A stack is full with a million slots: in one call, in many calls, or both.
   A stack with few slots in this call, and few calls, is not full: then memory
   ran out. */
void
rs_level_full (lua_State *L, int slots, const char *message)
{
  enum { SLOTS = 10000, LEVELS = 2000 };
  lua_Debug ar;
  if (slots < SLOTS && lua_gettop(L) < SLOTS
      && !lua_getstack(L, LEVELS, &ar)) {
    lua_pushstring(L, rs_status_message(RS_ENOMEM));  /* Lua always has this
                                                         string */
    lua_error(L);
  }
  luaL_checkstack(L, slots, message);
}
