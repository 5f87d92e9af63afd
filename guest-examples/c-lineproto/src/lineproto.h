// InfluxDB's line protocol: one line in, one point out. Knows nothing of messages.
#ifndef LINEPROTO_H
#define LINEPROTO_H

#include <stdbool.h>
#include <stddef.h>

// What one line may have.
#define TAGS_MAX 64
#define FIELDS_MAX 256

// A part of the line as it stands there, its escapes still in it.
typedef struct {
  const char *at;
  size_t length;
} part;

typedef enum { FIELD_FLOAT, FIELD_INTEGER, FIELD_UNSIGNED, FIELD_BOOLEAN, FIELD_STRING } field_kind;

typedef struct {
  part key, value;
} tag;

typedef struct {
  part key, value;  // the value without quotes and without the letter that tells its kind
  field_kind kind;
} field;

typedef struct {
  part series;  // measurement and tags
  part measurement;
  tag tags[TAGS_MAX];
  size_t tag_count;
  field fields[FIELDS_MAX];
  size_t field_count;
  part time;  // empty if the line has none
} point;

typedef enum {
  LINE_OK = 0,
  LINE_NO_MEASUREMENT,
  LINE_BAD_TAG,
  LINE_TOO_MANY_TAGS,
  LINE_NO_FIELDS,
  LINE_BAD_FIELD,
  LINE_TOO_MANY_FIELDS,
  LINE_BAD_NUMBER,
  LINE_OPEN_STRING,
  LINE_BAD_TIME,
} line_error;

// Parses one line, which must be neither empty nor a comment.
line_error parse_line(const char *line, size_t length, point *point);

// What is wrong, for people.
const char *line_error_text(line_error error);

#endif
