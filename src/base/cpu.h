/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - the CPUs that this process may use: 'rs_cpus', and this.
 */
#ifndef RS_CPU_H
#define RS_CPU_H

#include "runspace.h"

#define RS_CPU_ANY 65536u

/* CPUs that the quota of the control groups of this process is worth, rounded
   up, from 1; RS_CPU_ANY: there is none.  Files are looked for below 'root',
   "" for those of the system. */
unsigned rs_cpu_quota (const char *root);

/* Let the calling thread stay on the CPU of this number, from 0, of those that
   it may use; counted round.  Where the system does not let it, it stays
   free. */
void rs_cpu_pin (unsigned number);

#endif
