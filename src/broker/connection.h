/* SPDX-License-Identifier: MIT */
/*
 * connection.h - the functions of the module's table that have a connection;
 * amqp.h says what they do.
 */
#ifndef RS_CONNECTION_H
#define RS_CONNECTION_H

#include "broker/amqp.h"

int rs_amqp_open (const rs_amqp_options *options, rs_amqp **out,
                  rs_error *err);
int rs_amqp_publish (rs_amqp *a, const rs_amqp_message *message);
void rs_amqp_acknowledge (rs_amqp *a, uint64_t tag);
void rs_amqp_reject (rs_amqp *a, uint64_t tag, bool requeue);
void rs_amqp_quit (rs_amqp *a);
void rs_amqp_look (rs_amqp *a);
void rs_amqp_close (rs_amqp *a, double seconds);

#endif
