/* SPDX-License-Identifier: MIT */
/*
 * confine.h - what a worker process does to itself before it runs anything
 * for its host: directory, niceness, memory, and the inner part of a wall.
 */
#ifndef RS_CONFINE_H
#define RS_CONFINE_H

#include "runspace.h"

/*
 * Obey 'cwd', 'nice', 'memory' and 'strict' of the options.  Called once, by
 * the thread that will run the jobs.  RS_OK, or RS_EFAILED with a text that
 * names the option.
 */
int rs_confine (const rs_pool_options *o, rs_error *err);

#endif
