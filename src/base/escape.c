/* SPDX-License-Identifier: MIT */
/*
 * escape.c - foreign text in one line of our own.
 *
 * Names, keys and values that a script has made appear in error texts and on
 * terminals.  Characters that would end the line, or move the cursor, are
 * written as escapes of a Lua string.
 */
#include "base/escape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The bytes of the UTF-8 character that begins at 's', of 'size' bytes, and
   its code; 0 when there is no valid one. */
static size_t
read_character (const unsigned char *s, size_t size, uint32_t *code)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  const size_t n = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2
                 : *s < 0xf0 ? 3 : *s < 0xf5 ? 4 : 0;
  if (n == 0 || n > size)
    return 0;
  uint32_t c = n == 1 ? *s : *s & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80)
      return 0;
    c = c << 6 | (s[i] & 0x3fu);
  }
  if (n > 1 && (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)))
    return 0;
  *code = c;
  return n;
}

/* Write the escape for a control character, or for a byte that is no valid
   UTF-8 ('bytes' is 0). */
static size_t
write_escape (char *out, size_t room, size_t bytes, uint32_t code)
{
  if (bytes == 0)
    return (size_t) snprintf(out, room, "\\x%02X", (unsigned) code);
  switch (code) {
    case '\n': return (size_t) snprintf(out, room, "\\n");
    case '\r': return (size_t) snprintf(out, room, "\\r");
    case '\t': return (size_t) snprintf(out, room, "\\t");
  }
  return (size_t) snprintf(out, room, code < 0x80 ? "\\x%02X" : "\\u{%X}",
                           (unsigned) code);
}

size_t
rs_escape (const char *text, size_t size, char *out, size_t room)
{
  static const unsigned char none[1];
  const unsigned char *s = text != NULL ? (const unsigned char *) text : none;
  const unsigned char *const end = text != NULL ? s + size : s;
  size_t total = 0;    /* bytes of the whole result */
  size_t written = 0;  /* bytes in 'out'; no character is cut */
  while (s < end) {
    char shown[16];
    uint32_t code = *s;
    const size_t bytes = read_character(s, (size_t) (end - s), &code);
    size_t n = bytes;
    if (bytes == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
      n = write_escape(shown, sizeof shown, bytes, code);
    else
      memcpy(shown, s, bytes);
    if (out != NULL && written == total && total + n < room) {
      memcpy(out + total, shown, n);
      written += n;
    }
    total += n;
    s += bytes > 0 ? bytes : 1;
  }
  if (out != NULL && room > 0)
    out[written] = '\0';
  return total;
}
