#!/bin/sh
# SPDX-License-Identifier: MIT
#
# installed.sh DESTDIR BINDIR LIBDIR LUAEXECDIR PKGCONFIGDIR [BROKER]
#
# Use an installation as its three kinds of user do: the program, the module
# in a stock lua5.4, and a C program that knows nothing but 'pkg-config'.
# BROKER is the module for brokers, if there is one.
# Prints 'N passed, N failed'; its status tells the same.  The environment
# has LUA, CC, PKG_CONFIG and RUNSPACE_SRCDIR.

destdir=$1
bindir=$1$2
libdir=$1$3
luaexecdir=$1$4
pkgconfigdir=$1$5

module=$luaexecdir/parallel.so
passed=0
failed=0

scratch=$(mktemp -d "${TMPDIR:-/tmp}/runspace-installed.XXXXXX") || exit 99
trap 'rm -rf "$scratch"' EXIT
trap 'exit 99' HUP INT TERM

if test ! -f "$module"; then
  echo "$module is not there: run 'make install' with the same DESTDIR first"
  echo "0 passed, 1 failed"
  exit 1
fi

# expect NAME WANTED COMMAND... - what it prints, whole, and its status.
expect () {
  name=$1
  wanted=$2
  shift 2
  got=$("$@" 2>&1)
  code=$?
  if test $code -eq 0 && test "$got" = "$wanted"; then
    passed=$((passed + 1))
    echo "ok     $name"
  else
    failed=$((failed + 1))
    echo "FAIL   $name"
    printf 'wanted, with status 0:\n%s\ngot, with status %s:\n%s\n' \
      "$wanted" "$code" "$got"
  fi
}

squares='for i, v in ipairs(parallel.map({1, 2, 3}, function (x)
           return x * x
         end)) do io.write(v, i < 3 and " " or "\n") end'

# ---- the program, from a directory where nothing else is to be found
host () {
  cd "$scratch" && "$bindir/runspace" -e "$squares"
}
expect "runspace runs a map" "1 4 9" host

# ---- the module in stock Lua
stock () {
  cd "$scratch" &&
  LUA_PATH=';;' LUA_CPATH="$luaexecdir/?.so" \
    "$LUA" -e "parallel = require 'parallel' $squares" "$@"
}
expect "lua5.4 loads the module and runs a map" "1 4 9" stock

libraries () {
  ldd "$module" | grep -i 'liblua' || :
}
expect "the module brings no Lua library" "" libraries

# exported FILE PATTERN - what it exports that does not match.
exported () {
  # Without the names of versions.
  nm -D --defined-only "$1" |
    awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | grep -v "$2" || :
}
expect "the module exports its opener only" "" \
  exported "$module" '^luaopen_parallel$'
expect "the library exports its interface only" "" \
  exported "$libdir/librunspace.so" '^rs_[a-z]\|^luaopen_parallel$'

# ---- the module for brokers; below DESTDIR nobody looks for it
if test $# -gt 5; then
  RUNSPACE_BROKER_MODULE=${destdir:+$destdir$6}
  export RUNSPACE_BROKER_MODULE
  broker () {
    "$bindir/runspace" -e "
      local _, why = pcall(parallel.pool, {broker = 'amqp://h:x', queue = 'q'})
      print(tostring(why):match 'this is no URL' or why)"
  }
  expect "the module for brokers exports its table only" "" \
    exported "$destdir$6" '^rs_amqp_module_table$'
  expect "a pool finds the module for brokers" "this is no URL" broker
fi

# ---- a C program; below DESTDIR the .pc file's paths are not real yet
sed "s|^\([a-z_]*\)=/|\1=$destdir/|" "$pkgconfigdir/runspace.pc" \
  > "$scratch/runspace.pc"
embedding=$RUNSPACE_SRCDIR/examples/embed.c
PKG_CONFIG_PATH=$scratch${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH

# build COMPILER PACKAGES FLAGS SOURCE OUTPUT
build () {
  # As a shell reads them: a directory's name may have spaces.
  flags=$($PKG_CONFIG --cflags --libs $2) || return
  source=$4 output=$scratch/$5
  eval "$1 $3 -o \"\$output\" \"\$source\" $flags"
}
expect "examples/embed.c builds with pkg-config's flags" "" \
  build "$CC" runspace -Wall "$embedding" embed

# What it prints stands in the comment at its top, behind 'Prints:'.
printed=$(sed -n '/Prints:$/,/^ \*\//s/^ \*     //p' "$embedding")
embed () {
  cd "$scratch" && LD_LIBRARY_PATH=$libdir ./embed
}
expect "examples/embed.c runs" "$printed" embed

# ---- a 'parallel.so' on the cpath leaves the work to the library
support=$RUNSPACE_SRCDIR/spec/support
lua=$($PKG_CONFIG --print-requires runspace | sed 's/[ <=>].*//' | sort -u)
wide="-Wall -Wextra -Werror"
expect "a program builds that is linked to the library" "" \
  build "$CC" runspace "$wide -DPROGRAM" "$support/engines.c" program
version=$("$bindir/runspace" -e 'print(parallel.version)')
one_engine="library: $version
host: $version, timed_out
job mine: $version, timed_out
loop: timed_out
job mine: $version, timed_out
workers that were lost: 0"
installed () {
  cd "$scratch" && LD_LIBRARY_PATH=$libdir "$@"
}
check_engines () {
  expect "a plugin builds that is linked to the library" "" \
    build "$CC" runspace "$wide -DPLUGIN -fPIC -shared" "$support/engines.c" \
    plugin.so
  expect "a program builds that loads the plugin" "" \
    build "$CC" "$lua" "$wide -Wl,--no-as-needed" "$support/engines.c" loader

  # The module of another version.
  other=$(echo "$version" | tr 0-9 1-90)
  mkdir "$scratch/other"
  LC_ALL=C sed "s/$(echo "$version" | sed 's/[.]/[.]/g')/$other/g" "$module" \
    >"$scratch/other/parallel.so"
  other_version () {
    cd "$scratch" && LUA_CPATH="$scratch/other/?.so" \
      "$LUA" -e "print(require('parallel').version)"
  }
  expect "a module of another version is another version" "$other" \
    other_version

  for path in "$luaexecdir" "$scratch/other"; do
    test "$path" = "$luaexecdir" && what="its" || what="another"
    expect "a program and a module of $what version are one engine" \
      "$one_engine" installed ./program "$path/?.so"
    for scope in local global; do
      expect "a plugin, $scope, and a module of $what version are one engine" \
        "$one_engine" installed ./loader "$path/?.so" ./plugin.so $scope
    done
  done
}
if ldd "$scratch/program" | grep -q liblua; then
  check_engines
else
  echo "skip   plugins, and modules on the cpath: Lua is no shared library"
fi

# ---- the lines of C in the comments of the header
taken () {
  sed -n "$1" "$RUNSPACE_SRCDIR/src/runspace.h" |
    sed 's|^ \*||; s|-- \(.*\)$|/* \1 */|'
}
taken '/^ \*     rs_pool \*pool;$/,/^ \*     rs_pool_unref(pool);$/p' \
  >"$scratch/first.h"
taken '/^ \*     struct pollfd fds/,/^ \*     }$/p' >"$scratch/loop.h"
expect "the lines in runspace.h build" "" \
  build "$CC" runspace "$wide -I\"\$scratch\"" "$support/snippets.c" snippets
expect "the lines in runspace.h run" "1 value, 144
5 records, 15" installed ./snippets

# ---- a program in C++
cxx=${CXX:-$(echo "$CC" | sed 's/clang/clang++/; t; s/^[^ ]*/g++/')}
if command -v "${cxx%% *}" >/dev/null 2>&1; then
  expect "a program in C++ builds" "" \
    build "$cxx" runspace "-std=c++17 $wide" "$support/embed.cc" embed++
  expect "a program in C++ runs" "square completed 1 144 module" \
    installed ./embed++
else
  echo "skip   a program in C++: there is no ${cxx%% *}"
fi

echo "$passed passed, $failed failed"
test "$failed" -eq 0
