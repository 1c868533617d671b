/* SPDX-License-Identifier: MIT */
/*
 * cache.h - memory that moves between CPUs.
 *
 * A CPU gets memory that another CPU has written line by line, 0.1 us each.
 */
#ifndef RS_CACHE_H
#define RS_CACHE_H

enum { RS_LINE = 64 };  /* bytes of a line, which move together */

#endif
