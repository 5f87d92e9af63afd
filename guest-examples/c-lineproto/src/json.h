// Writes a point as JSON. Knows nothing of messages.
#ifndef JSON_H
#define JSON_H

#include "lineproto.h"

// Text that grows. `failed` once there was no memory for more: what follows is dropped then.
typedef struct {
  char *at;
  size_t length, room;
  bool failed;
} text;

// Behind what `out` holds. Its bytes are `out->at` to `out->length`; `free(out->at)` gives them back.
void point_to_json(const point *point, text *out);

#endif
