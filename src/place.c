/* SPDX-License-Identifier: MIT */
/*
 * place.c - where Lua's code lies in the program.
 *
 * This is linked first, and the Lua library next, which so begins 16 bytes
 * behind a boundary of 4096, whatever the rest of the program is.  A loop of
 * floating point takes up to an eighth longer at other places: n-body of
 * bench/tax.lua, 20,000 steps, 34 ms here, as in lua5.4, and up to 38.  These
 * are means over twelve states, since where the fields of a table lie, which
 * follows from a number that each state draws, makes as much.
 */
void rs_place (void);

__attribute__ ((aligned (4096))) void
rs_place (void)
{
}
