#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install_check.sh - install into an empty directory, use what is there.
#
# Runs in the build directory, as a test; 'make installcheck' does the same
# to a real installation.

# Names of directories may have spaces.
root=$(mktemp -d "${TMPDIR:-/tmp}/runspace install.XXXXXX") || exit 99
trap 'rm -rf "$root"' EXIT
trap 'exit 99' HUP INT TERM

# The flags of the make that runs the tests are not for this one.
unset MAKEFLAGS MFLAGS MAKELEVEL

# ---- two releases of the same sources are the same bytes
release () {
  ( umask "$2"
    "${MAKE:-make}" -s dist distdir="$1" >"$root/dist.log" 2>&1 ||
      { echo "$2"; cat "$root/dist.log"; }
    cksum <"$1.tar.gz"
    rm -rf "$1" "$1.tar.gz" )
}
first=$(release runspace-again 022)
second=$(release runspace-again 077)
if test -z "$first" || test "$first" != "$second"; then
  printf 'FAIL   two releases are the same bytes:\n%s\n%s\n' \
    "$first" "$second"
  echo "0 passed, 1 failed"
  exit 1
fi

# ---- an installation
if ! "${MAKE:-make}" DESTDIR="$root" install > "$root/install.log" 2>&1; then
  cat "$root/install.log"
  echo "0 passed, 1 failed"
  exit 1
fi
"${MAKE:-make}" -s DESTDIR="$root" installcheck
