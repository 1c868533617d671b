/* SPDX-License-Identifier: MIT */
/*
 * hosts.h - where the workers of a pool are that a command brings up.
 *
 * All links of a pool share one 'rs_hosts'.  Each of them takes a host, the
 * one that has the fewest workers for what it may have, and leaves it when its
 * process has ended.  A command without hosts is one host for all workers.
 *
 *     up --> down until an instant --> up
 *
 * A host that cannot be reached is left alone for a time that grows with each
 * failure; meanwhile workers go to hosts that have room.  Where none has, the
 * failures of all are told in one text.  A host that was reached before is
 * tried again for some seconds before that, since it may come back.
 */
#ifndef RS_HOSTS_H
#define RS_HOSTS_H

#include <stdbool.h>

#include "runspace.h"

typedef struct rs_hosts rs_hosts;

typedef struct rs_host {
  const char *name;        /* constant, as the next two */
  const char *const *words;  /* the command that brings up a worker there */
  bool ssh;                /* that command is ssh */
  struct rs_berth *own;    /* of hosts.c */
} rs_host;

/* Make the hosts of a pool.  RS_OK or RS_ENOMEM. */
int rs_hosts_new (const rs_pool_options *options, rs_hosts **out,
                  rs_error *err);
void rs_hosts_free (rs_hosts *hosts);

/*
 * Take a host for a worker.  RS_OK; RS_EBUSY: look again in '*pause' seconds,
 * since as many workers as may are coming up now, or a host that was reached
 * before 'patience' is over may come back; RS_EFAILED: none is there, and
 * 'err' tells why.  'patience' is an instant.
 */
int rs_hosts_take (rs_hosts *hosts, double patience, const rs_host **out,
                   double *pause, rs_error *err);

/* Tell how the worker came up there: 'failure' is NULL, or says why it did
   not; then the host is left, too.  'again': the host is well, and is to be
   tried again soon. */
void rs_hosts_tell (rs_hosts *hosts, const rs_host *host, const char *failure,
                    bool again);

/* Write which hosts could not be reached when they were tried last, and why;
   "": all could be.  Any thread. */
void rs_hosts_trouble (rs_hosts *hosts, char *text, size_t size);

/* As 'rs_pool_hosts'. */
size_t rs_hosts_get (rs_hosts *hosts, rs_host_info *out, size_t room);

/* The process of a worker that came up has ended. */
void rs_hosts_leave (rs_hosts *hosts, const rs_host *host);

#endif
