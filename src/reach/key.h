/* SPDX-License-Identifier: MIT */
/*
 * key.h - the key that callers and workers of a queue share: a file.
 */
#ifndef RS_KEY_H
#define RS_KEY_H

#include <stddef.h>

#include "runspace.h"

/* Read the key of a file, without the end of its last line.  It has to have
   16 bytes at least, and no others may read the file.  RS_OK, RS_ENOMEM or
   RS_EFAILED. */
int rs_key_read (const char *path, unsigned char **key, size_t *size,
                 rs_error *err);

/* Forget it. */
void rs_key_free (unsigned char *key, size_t size);

#endif
