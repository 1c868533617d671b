/* SPDX-License-Identifier: MIT */
/*
 * broker_run.h - the runner that hands calls to a broker.
 */
#ifndef RS_BROKER_RUN_H
#define RS_BROKER_RUN_H

#include "pool/runner.h"

/* The kind of a runner behind the broker that 'broker' of the pool's options
   names.  All of a pool share an 'rs_broker'. */
extern const rs_runner_kind rs_broker_kind;

#endif
