/* SPDX-License-Identifier: MIT */
/*
 * link.h - the runner that is a worker process, behind frames.
 *
 * The thread of the worker writes a call as frames, and reads frames until the
 * call has ended.  The far side runs the call in a state of its own, and stops
 * it as a thread does; this side passes on the requests, and kills the process
 * that does not obey.
 */
#ifndef RS_LINK_H
#define RS_LINK_H

#include "pool/runner.h"

/* The kind of a runner that is a child process.  'options' of the pool say
   which program that is ('runspace'). */
extern const rs_runner_kind rs_process_kind;

/* The kind of a runner that a command brings up, here or on another host:
   'command' or 'hosts' of the pool's options.  All of a pool share an
   'rs_hosts'. */
extern const rs_runner_kind rs_command_kind;

#endif
