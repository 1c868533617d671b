/* SPDX-License-Identifier: MIT */
/*
 * link_life.h - a link: its memory, from the first moment to the last, and the
 * one that is to take its place.
 */
#ifndef RS_LINK_LIFE_H
#define RS_LINK_LIFE_H

#include "reach/link_io.h"

/* Make a link without a process.  RS_OK, RS_ENOMEM or RS_EFAILED. */
int rs_link_new (const rs_runner_kind *kind, const rs_state_options *options,
                 rs_link **out, rs_error *err);

/* Close the state, if there is one, end the process, and free the link. */
void rs_link_close (rs_link *k);

/* Start the child that will replace that of this link ('spare').  Where that
   fails the next one is started when it is needed. */
void rs_link_start_ahead (rs_link *k);

#endif
