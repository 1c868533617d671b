/* SPDX-License-Identifier: MIT */
/*
 * broker_module.h - the module of the broker (broker/amqp.h), loaded when it
 * is used first.
 */
#ifndef RS_BROKER_MODULE_H
#define RS_BROKER_MODULE_H

#include "broker/amqp.h"

/*
 * Load the module, which stays loaded: from where the environment's
 * RUNSPACE_BROKER_MODULE says, or from where it is installed.  NULL, and 'err'
 * filled, when it is not there.  Any thread.
 */
const rs_amqp_module *rs_broker_module (rs_error *err);

#endif
