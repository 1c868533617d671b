/* SPDX-License-Identifier: MIT */
/*
 * traceback.c - where a call stands, as a text.
 *
 * 'luaL_traceback' needs memory of the state, and looks for the names of
 * functions in 'package.loaded'.  A job that is asked where it stands must
 * notice nothing of it, and may be in C, so all here only reads.  What is
 * written is plain text without control characters, which a terminal would
 * obey.
 *
 * Runs in the thread that runs the call: in a hook, or in a signal handler.
 */
#include "state/traceback.h"

#include <stdbool.h>
#include <string.h>

#include "base/level.h"

enum {
  FIRST = 10, LAST = 11,  /* lines that are written of more, as
                             'luaL_traceback' does */
  NAME = 64               /* bytes of a function's name at most */
};

/* A text that grows, with a zero at its end; what does not fit is left out. */
typedef struct text {
  char *at;
  size_t left;  /* bytes, one for the zero included */
} text;

static void
add_some (text *t, const char *s, size_t most)
{
  for (; *s != '\0' && most > 0 && t->left > 1; s++, most--, t->left--) {
    const unsigned char c = (unsigned char) *s;
    *t->at++ = (c < ' ' && c != '\n' && c != '\t') || c == 127 ? '?' : *s;
  }
  *t->at = '\0';
}

static void
add (text *t, const char *s)
{
  add_some(t, s, (size_t) -1);
}

static void
add_number (text *t, int n)
{
  char digits[12];
  char *p = digits + sizeof digits;
  *--p = '\0';
  do
    *--p = (char) ('0' + n % 10);
  while ((n /= 10) > 0);
  add(t, p);
}

int
rs_traceback_depth (lua_State *L)
{
  lua_Debug ar;
  int low = 0, high = 1;
  while (lua_getstack(L, high, &ar)) {
    low = high;
    high *= 2;
  }
  if (!lua_getstack(L, low, &ar))
    return 0;
  while (high - low > 1) {  /* 'low' is there, 'high' is not */
    const int middle = low + (high - low) / 2;
    if (lua_getstack(L, middle, &ar))
      low = middle;
    else
      high = middle;
  }
  return low + 1;
}

/* What stands at a level. */
typedef enum kind { NOTHING, SCRIPT, OURS, IN_C } kind;

static kind
look (lua_State *L, int level, lua_Debug *ar)
{
  if (!lua_getstack(L, level, ar) || !lua_getinfo(L, "S", ar))
    return NOTHING;
  return *ar->what == 'C' ? IN_C : rs_level_is_ours(ar) ? OURS : SCRIPT;
}

/* Levels above 'level' that are of the module, if they end with a function of
   it that the script has called: they make one line. */
static int
count_ours (const rs_levels *part, int level)
{
  lua_Debug ar;
  kind k = NOTHING;
  bool ours = false;
  int n = 0;
  while (level + n < part->until
         && (k = look(part->L, level + n, &ar)) != SCRIPT && k != NOTHING) {
    ours |= k == OURS;
    n++;
  }
  return ours ? n : 0;
}

/* The end of what is shown of the part: the levels in C and of the module from
   there on have called the script.  A part without any level of a script is
   shown whole. */
static int
end_of (const rs_levels *part)
{
  lua_Debug ar;
  int until = part->until;
  while (until > part->from && look(part->L, until - 1, &ar) != SCRIPT)
    until--;
  return until > part->from ? until : part->until;
}

static void
add_name (text *t, const char *name)
{
  add(t, "'");
  add_some(t, name, NAME);
  add(t, "'");
}

/* Write the line of the level; 'called': of a function of the module that the
   script has called. */
static void
add_level (text *t, lua_State *L, int level, bool called)
{
  lua_Debug ar;
  if (!lua_getstack(L, level, &ar) || !lua_getinfo(L, "Slnt", &ar))
    return;
  const bool in_c = called || *ar.what == 'C';
  add(t, "\n\t");
  if (in_c)
    add(t, "[C]: in ");
  else {
    add(t, ar.short_src);
    if (ar.currentline > 0) {
      add(t, ":");
      add_number(t, ar.currentline);
    }
    add(t, ": in ");
  }
  if (*ar.namewhat != '\0' && ar.name != NULL) {
    const bool plain = in_c || strcmp(ar.namewhat, "global") == 0;
    add(t, plain ? "function" : ar.namewhat);
    add(t, " ");
    add_name(t, ar.name);
  }
  else if (*ar.what == 'm')
    add(t, "main chunk");
  else if (in_c)
    add(t, "?");
  else {
    add(t, "function <");
    add(t, ar.short_src);
    add(t, ":");
    add_number(t, ar.linedefined);
    add(t, ">");
  }
  if (ar.istailcall && !called)
    add(t, "\n\t(...tail calls...)");
}

void
rs_traceback_write (const rs_levels *parts, int n, char *to, size_t size)
{
  text t = { to, size };
  add(&t, "stack traceback:");
  for (int i = 0; i < n; i++) {
    lua_State *const L = parts[i].L;
    const int from = parts[i].from, until = end_of(&parts[i]);
    if (i > 0)
      add(&t, "\n\t(the coroutine above was resumed by)");
    for (int level = from; level < until; level++) {
      const int skip = until - LAST - level;
      const int ours = count_ours(&parts[i], level);
      if (ours > 0)
        level += ours - 1;
      add_level(&t, L, level, ours > 0);
      if (level - from + 1 >= FIRST && skip > 1 && level < until - LAST - 1) {
        add(&t, "\n\t...\t(skipping ");
        add_number(&t, until - LAST - level - 1);
        add(&t, " levels)");
        level = until - LAST - 1;
      }
    }
  }
}
