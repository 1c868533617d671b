#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install_check.sh - install into an empty directory, use what is there.
#
# Runs in the build directory, as a test; 'make installcheck' does the same
# to a real installation.

root=$(mktemp -d "${TMPDIR:-/tmp}/runspace-install.XXXXXX") || exit 99
trap 'rm -rf "$root"' EXIT
trap 'exit 99' HUP INT TERM

# The flags of the make that runs the tests are not for this one.
unset MAKEFLAGS MFLAGS MAKELEVEL

if ! "${MAKE:-make}" DESTDIR="$root" install > "$root/install.log" 2>&1; then
  cat "$root/install.log"
  echo "0 passed, 1 failed"
  exit 1
fi
"${MAKE:-make}" -s DESTDIR="$root" installcheck
