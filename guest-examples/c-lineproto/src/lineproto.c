// measurement[,tag=value]… field=value[,field=value]… [time]
#include "lineproto.h"

#include <string.h>

// The end of a part: the first of `stops` that no backslash stands before.
static const char *part_end(const char *at, const char *end, const char *stops) {
  for (; at < end; at++) {
    if (*at == '\\' && at + 1 < end) at++;
    else if (strchr(stops, *at) != NULL) break;
  }
  return at;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static const char *digits_end(const char *at, const char *end) {
  while (at < end && is_digit(*at)) at++;
  return at;
}

// [-+]digits[.digits][e[-+]digits], with digits on one side of the point at least.
static bool is_float(part text) {
  const char *at = text.at, *end = at + text.length;
  if (at < end && (*at == '-' || *at == '+')) at++;
  const char *whole = digits_end(at, end);
  size_t digits = (size_t)(whole - at);
  if (whole < end && *whole == '.') {
    at = whole + 1;
    whole = digits_end(at, end);
    digits += (size_t)(whole - at);
  }
  if (digits == 0) return false;
  if (whole < end && (*whole == 'e' || *whole == 'E')) {
    at = whole + 1;
    if (at < end && (*at == '-' || *at == '+')) at++;
    whole = digits_end(at, end);
    if (whole == at) return false;
  }
  return whole == end;
}

// Decimal, not above `most` (or, below zero, not beyond `least`), which are written without leading zeros.
static bool is_integer(part text, const char *most, const char *least) {
  const char *at = text.at, *end = at + text.length;
  const char *limit = most;
  if (at < end && *at == '-') {
    if (least == NULL) return false;
    limit = least;
    at++;
  }
  if (at == end || digits_end(at, end) != end) return false;
  while (at + 1 < end && *at == '0') at++;
  size_t length = (size_t)(end - at), limit_length = strlen(limit);
  if (length != limit_length) return length < limit_length;
  return memcmp(at, limit, length) <= 0;
}

static bool is_int64(part text) { return is_integer(text, "9223372036854775807", "9223372036854775808"); }

static bool is_uint64(part text) { return is_integer(text, "18446744073709551615", NULL); }

static bool is_word(part text, const char *word) {
  return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

static bool is_boolean(part text) {
  static const char *const words[] = {"t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (is_word(text, words[i])) return true;
  return false;
}

// A value that is no string: its last letter tells its kind.
static line_error classify(field *field) {
  if (field->value.length == 0) return LINE_BAD_FIELD;
  if (is_boolean(field->value)) {
    field->kind = FIELD_BOOLEAN;
    return LINE_OK;
  }
  char last = field->value.at[field->value.length - 1];
  if (last == 'i' || last == 'u') {
    field->value.length--;
    field->kind = last == 'i' ? FIELD_INTEGER : FIELD_UNSIGNED;
    bool good = last == 'i' ? is_int64(field->value) : is_uint64(field->value);
    return good ? LINE_OK : LINE_BAD_NUMBER;
  }
  field->kind = FIELD_FLOAT;
  return is_float(field->value) ? LINE_OK : LINE_BAD_NUMBER;
}

// The value of a field from `at`, moving `at` behind it. A string may hold commas and spaces.
static line_error parse_value(const char **at, const char *end, field *field) {
  if (*at < end && **at == '"') {
    const char *begin = *at + 1;
    const char *close = part_end(begin, end, "\"");
    if (close == end) return LINE_OPEN_STRING;
    field->value = (part){begin, (size_t)(close - begin)};
    field->kind = FIELD_STRING;
    *at = close + 1;
    return LINE_OK;
  }
  const char *begin = *at;
  *at = part_end(begin, end, ", ");
  field->value = (part){begin, (size_t)(*at - begin)};
  return classify(field);
}

static line_error parse_tags(const char **at, const char *end, point *point) {
  while (*at < end && **at == ',') {
    const char *key = *at + 1;
    const char *equals = part_end(key, end, "=, ");
    if (equals == key || equals == end || *equals != '=') return LINE_BAD_TAG;
    const char *value = equals + 1;
    *at = part_end(value, end, "=, ");
    if (*at == value || (*at < end && **at == '=')) return LINE_BAD_TAG;
    if (point->tag_count == TAGS_MAX) return LINE_TOO_MANY_TAGS;
    tag *tag = &point->tags[point->tag_count++];
    tag->key = (part){key, (size_t)(equals - key)};
    tag->value = (part){value, (size_t)(*at - value)};
  }
  return LINE_OK;
}

static line_error parse_fields(const char **at, const char *end, point *point) {
  do {
    const char *key = *at + 1;
    const char *equals = part_end(key, end, "=, ");
    if (equals == key || equals == end || *equals != '=') return LINE_BAD_FIELD;
    if (point->field_count == FIELDS_MAX) return LINE_TOO_MANY_FIELDS;
    field *field = &point->fields[point->field_count++];
    field->key = (part){key, (size_t)(equals - key)};
    *at = equals + 1;
    line_error error = parse_value(at, end, field);
    if (error != LINE_OK) return error;
  } while (*at < end && **at == ',');
  return LINE_OK;
}

line_error parse_line(const char *line, size_t length, point *point) {
  const char *at = line, *end = line + length;
  point->tag_count = point->field_count = 0;

  at = part_end(line, end, ", ");
  if (at == line) return LINE_NO_MEASUREMENT;
  point->measurement = (part){line, (size_t)(at - line)};
  line_error error = parse_tags(&at, end, point);
  if (error != LINE_OK) return error;
  point->series = (part){line, (size_t)(at - line)};

  if (at == end || *at != ' ') return LINE_NO_FIELDS;
  error = parse_fields(&at, end, point);
  if (error != LINE_OK) return error;

  while (at < end && *at == ' ') at++;
  while (end > at && end[-1] == ' ') end--;
  point->time = (part){at, (size_t)(end - at)};
  // Behind a field only a space may follow.
  if (at < end && at[-1] != ' ') return LINE_BAD_FIELD;
  return at == end || is_int64(point->time) ? LINE_OK : LINE_BAD_TIME;
}

const char *line_error_text(line_error error) {
  switch (error) {
    case LINE_OK: return "nothing is wrong";
    case LINE_NO_MEASUREMENT: return "it has no measurement";
    case LINE_BAD_TAG: return "a tag is not NAME=VALUE";
    case LINE_TOO_MANY_TAGS: return "it has more than 64 tags";
    case LINE_NO_FIELDS: return "it has no fields";
    case LINE_BAD_FIELD: return "a field is not NAME=VALUE";
    case LINE_TOO_MANY_FIELDS: return "it has more than 256 fields";
    case LINE_BAD_NUMBER: return "a field's value is no number, boolean or string";
    case LINE_OPEN_STRING: return "a string has no end";
    case LINE_BAD_TIME: return "the time is no 64-bit number";
  }
  return "unknown";
}
