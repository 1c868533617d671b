/* SPDX-License-Identifier: MIT */
/*
 * place.c - where Lua's code lies in the program.
 *
 * A loop takes up to an eighth longer at other places in memory, so Lua's code
 * and constants lie in the program as they do in Debian's lua5.4: its parts in
 * the same order, with the same offset in a page.  This is linked first, and
 * the Lua library next.  What is wanted of that here is what makes the linker
 * take its parts in lua5.4's order; they begin where lua5.4's own code ends.
 *
 * All parts come in, as in lua5.4, since the libraries want them all.
 *
 * Of programs in bench/tax.lua, n-body takes as long as in lua5.4 (up to 1.11
 * at other offsets), and strings 1 to 2 % less than with the parts in the
 * library's order (31 runs in turns).  Constants that lay elsewhere took 0.5 %
 * of strings at one time, for a format of 'printf' that crossed a line of the
 * cache, and nothing that could be told from noise at another.
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

typedef void function (void);

extern function *const rs_lua_wanted[];

function *const rs_lua_wanted[] = {
  (function *) luaL_newstate, (function *) luaL_openlibs,
  (function *) luaL_checkversion_, (function *) luaL_loadbufferx,
  (function *) luaL_traceback, (function *) lua_close, (function *) lua_gc,
  (function *) lua_pcallk, (function *) lua_sethook, (function *) lua_settop,
};

/* lua5.4's own code and constants end there, behind a boundary of 4096. */
__asm__ (".text\n\t"
         ".p2align 12\n\t"
         ".skip 0x870\n\t"
         ".section .rodata\n\t"
         ".p2align 5\n\t"
         ".skip 0x3c0\n");
