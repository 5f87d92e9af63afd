// Whether bytes are UTF-8. Keys and reasons must be: the host ends a call that makes one that is not.
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool is_utf8(const uint8_t *at, size_t length) {
  const uint8_t *end = at + length;
  while (at < end) {
    uint8_t lead = *at++;
    if (lead < 0x80) continue;
    // How many bytes follow, and what the first of them may be: no overlong form, no surrogate, no more
    // than U+10FFFF.
    int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead < 0xc2 || lead > 0xf4 || end - at < more) return false;
    if (*at < low || *at > high) return false;
    at++;
    while (--more > 0)
      if ((*at++ & 0xc0) != 0x80) return false;
  }
  return true;
}

#endif
