// Parses InfluxDB's line protocol: a message's payload is lines, each becomes a message of the stream
// `points`, its key the series, its payload JSON. A payload with a bad line is rejected as a whole.
#include "../bindings/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "utf8.h"

#define TO "points"

// What becomes of the message. The reason is for people.
typedef enum { ACK, RETRY, REJECT } outcome;
static char reason[256];

static outcome reject(size_t line, const char *why) {
  snprintf(reason, sizeof reason, "line %zu: %s", line, why);
  return REJECT;
}

static outcome emit(const point *point, size_t line) {
  text json = {0};
  point_to_json(point, &json);
  if (json.failed) {
    free(json.at);
    snprintf(reason, sizeof reason, "no memory for line %zu", line);
    return RETRY;
  }
  guest_string_t to = {(uint8_t *)TO, strlen(TO)};
  guest_string_t key = {(uint8_t *)point->series.at, point->series.length};
  guest_list_u8_t payload = {(uint8_t *)json.at, json.length};
  guest_list_tuple2_string_string_t attributes = {NULL, 0};
  segmenter_handler_emit_emit_error_t error;
  bool sent = segmenter_handler_emit_send(&to, &key, &payload, &attributes, &error);
  free(json.at);
  if (sent) return ACK;
  switch (error.tag) {
    case SEGMENTER_HANDLER_EMIT_EMIT_ERROR_NOT_GRANTED: return reject(line, "emitting to " TO " is not granted");
    case SEGMENTER_HANDLER_EMIT_EMIT_ERROR_TOO_LARGE: return reject(line, "it is too large to be emitted");
    default: return reject(line, "a message may not have so many lines");
  }
}

static outcome handle(const uint8_t *payload, size_t length) {
  static point point;
  if (!is_utf8(payload, length)) {
    snprintf(reason, sizeof reason, "the payload is not UTF-8");
    return REJECT;
  }
  const char *at = (const char *)payload, *end = at + length;
  for (size_t line = 1; at < end; line++) {
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    const char *stop = feed == NULL ? end : feed;
    size_t line_length = (size_t)(stop - at);
    if (line_length > 0 && at[line_length - 1] == '\r') line_length--;
    if (line_length > 0 && *at != '#') {
      line_error error = parse_line(at, line_length, &point);
      if (error != LINE_OK) return reject(line, line_error_text(error));
      outcome emitted = emit(&point, line);
      if (emitted != ACK) return emitted;
    }
    at = feed == NULL ? end : feed + 1;
  }
  return ACK;
}

// True is ok. What is emitted is committed together with the ack, or not at all.
bool exports_segmenter_handler_handler_handle(exports_segmenter_handler_handler_message_t *message,
                                              exports_segmenter_handler_handler_failure_t *failure) {
  outcome outcome = handle(message->payload.ptr, message->payload.len);
  // The host made key, payload and attributes in our memory; they are ours to give back.
  exports_segmenter_handler_handler_message_free(message);
  switch (outcome) {
    case ACK: return true;
    case RETRY:
      failure->tag = SEGMENTER_HANDLER_TYPES_FAILURE_RETRY;
      guest_string_dup(&failure->val.retry.reason, reason);
      failure->val.retry.after_ms.is_some = false;
      return false;
    case REJECT:
      failure->tag = SEGMENTER_HANDLER_TYPES_FAILURE_REJECT;
      guest_string_dup(&failure->val.reject, reason);
      return false;
  }
  return false;
}
