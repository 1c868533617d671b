/* SPDX-License-Identifier: MIT */
/*
 * lua_files.h - the Lua part of the module 'parallel', inside the program.
 *
 * The build turns each file under lua/parallel/ into one entry of
 * 'rs_lua_files', so that neither a build tree nor an installation has to
 * be searched for them.  'build-aux/embed.lua' writes the definition,
 * 'src/lua_files.c', into the build directory.
 */
#ifndef RS_LUA_FILES_H
#define RS_LUA_FILES_H

#include <stddef.h>

typedef struct rs_lua_file {
  const char *module;     /* "parallel.map"; "parallel.init" for init.lua */
  const char *chunkname;  /* "=parallel/map.lua" */
  const char *source;     /* text, zero-terminated; starts with no '#' line */
  size_t size;            /* of 'source', in bytes, without the final zero */
} rs_lua_file;

/* Sorted by module; an entry whose 'module' is NULL ends it. */
extern const rs_lua_file rs_lua_files[];

#endif
