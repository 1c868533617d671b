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

/* Start a child, and let it open its state, without a wait for it;
   'rs_link_start' goes on from there.  'joined': its program is known to use
   the ring, so that it can be spoken to now.  False: there is no child. */
bool rs_link_begin (rs_link *k, bool joined);

/* Let the process, which is well, close its state and open another one.  As
   'rs_link_start'; RS_ECLOSED: it has died.  On failure the process has
   ended. */
int rs_link_reopen (rs_link *k, rs_errand *e, rs_error *err);

#endif
