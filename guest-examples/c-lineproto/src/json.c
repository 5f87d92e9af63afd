// {"measurement": …, "tags": {…}, "fields": {…}, "time": …}
#include "json.h"

#include <stdlib.h>
#include <string.h>

static void put(text *out, const char *bytes, size_t length) {
  if (out->failed) return;
  if (out->room - out->length < length) {
    size_t room = 2 * out->room + length + 256;
    char *more = realloc(out->at, room);
    if (more == NULL) {
      out->failed = true;
      return;
    }
    out->at = more;
    out->room = room;
  }
  memcpy(out->at + out->length, bytes, length);
  out->length += length;
}

static void put_text(text *out, const char *more) { put(out, more, strlen(more)); }

// In quotes, without the line protocol's escapes (those of `escaped`) and with JSON's.
static void put_string(text *out, part string, const char *escaped) {
  static const char hex[] = "0123456789abcdef";
  put_text(out, "\"");
  for (size_t i = 0; i < string.length; i++) {
    char c = string.at[i];
    if (c == '\\' && i + 1 < string.length && strchr(escaped, string.at[i + 1]) != NULL) c = string.at[++i];
    if (c == '"' || c == '\\') {
      put(out, (char[]){'\\', c}, 2);
    } else if ((unsigned char)c < 0x20) {
      put(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    } else {
      put(out, &c, 1);
    }
  }
  put_text(out, "\"");
}

// JSON has neither a plus nor a zero in front, and a digit on each side of the point.
static void put_number(text *out, part number) {
  const char *at = number.at, *end = at + number.length;
  if (*at == '-') put(out, at, 1);
  if (*at == '-' || *at == '+') at++;
  while (at + 1 < end && *at == '0' && at[1] >= '0' && at[1] <= '9') at++;
  if (*at == '.') put_text(out, "0");
  for (; at < end; at++) {
    bool bare_point = *at == '.' && (at + 1 == end || at[1] < '0' || at[1] > '9');
    put(out, at, 1);
    if (bare_point) put_text(out, "0");
  }
}

static void put_field(text *out, const field *field) {
  switch (field->kind) {
    case FIELD_STRING:
      put_string(out, field->value, "\"\\");
      break;
    case FIELD_BOOLEAN:
      put_text(out, *field->value.at == 't' || *field->value.at == 'T' ? "true" : "false");
      break;
    case FIELD_FLOAT:
    case FIELD_INTEGER:
    case FIELD_UNSIGNED:
      put_number(out, field->value);
      break;
  }
}

void point_to_json(const point *point, text *out) {
  put_text(out, "{\"measurement\":");
  put_string(out, point->measurement, ", ");
  put_text(out, ",\"tags\":{");
  for (size_t i = 0; i < point->tag_count; i++) {
    if (i > 0) put_text(out, ",");
    put_string(out, point->tags[i].key, ",= ");
    put_text(out, ":");
    put_string(out, point->tags[i].value, ",= ");
  }
  put_text(out, "},\"fields\":{");
  for (size_t i = 0; i < point->field_count; i++) {
    if (i > 0) put_text(out, ",");
    put_string(out, point->fields[i].key, ",= ");
    put_text(out, ":");
    put_field(out, &point->fields[i]);
  }
  put_text(out, "}");
  if (point->time.length > 0) {
    put_text(out, ",\"time\":");
    put_number(out, point->time);
  }
  put_text(out, "}");
}
