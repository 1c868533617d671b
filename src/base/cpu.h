/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - the CPUs that this process may use; 'rs_cpus' is in runspace.h.
 */
#ifndef RS_CPU_H
#define RS_CPU_H

#include "runspace.h"

#define RS_CPU_ANY 65536u

/* The quota of the control groups of this process, in CPUs, rounded up, at
   least 1; RS_CPU_ANY: there is none.  Files are looked for below 'root', ""
   for those of the system. */
unsigned rs_cpu_quota (const char *root);

/* Pin the calling thread to CPU 'number' of those that the process may use,
   counted from 0 and round.  Where the system refuses that, the thread stays
   free. */
void rs_cpu_pin (unsigned number);

/* Let the process be sent SIGXCPU when it has used 'seconds' of CPU from now
   on; up to a second later, since the system counts whole ones.  INFINITY:
   never.  Any thread. */
void rs_cpu_limit (double seconds);

#endif
