/* SPDX-License-Identifier: MIT */
/*
 * place.c - where Lua's code lies in the program.
 *
 * This is linked first, and the Lua library next, which so begins 16 bytes
 * behind a boundary of 4096, whatever the rest of the program is.  A loop of
 * floating point takes up to a sixth longer at other places (n-body of
 * bench/tax.lua: 0.33 s here, as in lua5.4, and up to 0.38).
 */
void rs_place (void);

__attribute__ ((aligned (4096))) void
rs_place (void)
{
}
