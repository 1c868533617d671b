/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - the CPUs that this process may use: 'rs_cpus', and this.
 */
#ifndef RS_CPU_H
#define RS_CPU_H

#include "runspace.h"

/* Let the calling thread stay on the CPU of this number, from 0, of those that
   it may use; counted round.  Where the system does not let it, it stays
   free. */
void rs_cpu_pin (unsigned number);

#endif
