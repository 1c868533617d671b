/* SPDX-License-Identifier: MIT */
/*
 * serve.h - 'runspace --serve': work for a queue of a broker.
 */
#ifndef RS_PROGRAM_SERVE_H
#define RS_PROGRAM_SERVE_H

/* Serve, if the first argument is --serve, until the work or the program is
   ended.  The exit status; -1: it is another argument. */
int rs_program_serve (int argc, char **argv);

#endif
