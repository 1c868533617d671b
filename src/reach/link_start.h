/* SPDX-License-Identifier: MIT */
/*
 * link_start.h - a link: how its process is started, and its state opened.
 */
#ifndef RS_LINK_START_H
#define RS_LINK_START_H

#include "reach/link_io.h"

/* Where processes die at once, wait longer each time.  False when the state is
   not wanted any more. */
bool rs_link_pause (rs_link *k, rs_errand *e);

/* Start a process, and open its state, when it is time.  The errand says what
   stops that; its 'call' is NULL.  RS_OK, RS_ENOMEM, RS_EFAILED or
   RS_ESTOPPED.  The thread of the worker. */
int rs_link_start (rs_link *k, rs_errand *e, rs_error *err);

#endif
