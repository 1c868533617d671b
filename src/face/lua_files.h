/* SPDX-License-Identifier: MIT */
/*
 * lua_files.h - the Lua part of the module 'parallel', inside the program.
 *
 * The build turns each file under lua/parallel/ into one entry of
 * 'rs_lua_files', so that the program does not search a build tree or an
 * installation for these files.  'build-aux/embed.lua' writes the definition,
 * 'src/face/lua_files.c', into the build directory.
 */
#ifndef RS_LUA_FILES_H
#define RS_LUA_FILES_H

#include <stddef.h>

typedef struct rs_lua_file {
  const char *module;     /* name: "parallel.map", "parallel.init" */
  const char *chunkname;  /* "=parallel/map.lua" */
  const char *source;     /* text, zero-terminated; starts with no '#' line */
  size_t size;            /* bytes of 'source', without the final zero */
} rs_lua_file;

/* Files, sorted by 'module'; an entry whose 'module' is NULL is the end. */
extern const rs_lua_file rs_lua_files[];

#endif
