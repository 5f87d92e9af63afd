// See README.md beside this file's original, in tests/guests/echo.
#include "../bindings/guest.h"

#include <stdlib.h>
#include <string.h>

typedef exports_segmenter_handler_handler_message_t message_t;
typedef exports_segmenter_handler_handler_failure_t failure_t;

static bool equals(const guest_string_t *string, const char *text) {
  return string->len == strlen(text) && memcmp(string->ptr, text, string->len) == 0;
}

static guest_string_t *attribute(message_t *message, const char *name) {
  for (size_t i = 0; i < message->attributes.len; i++)
    if (equals(&message->attributes.ptr[i].f0, name)) return &message->attributes.ptr[i].f1;
  return NULL;
}

static volatile uint32_t summed;

static bool echo(message_t *message, failure_t *failure) {
  guest_string_t *how = message->attempt < 3 ? attribute(message, "fail") : NULL;
  if (how != NULL && equals(how, "retry")) {
    failure->tag = SEGMENTER_HANDLER_TYPES_FAILURE_RETRY;
    guest_string_dup(&failure->val.retry.reason, "asked to");
    failure->val.retry.after_ms = (guest_option_u32_t){.is_some = true, .val = 10};
    return false;
  }
  if (how != NULL && equals(how, "reject")) {
    failure->tag = SEGMENTER_HANDLER_TYPES_FAILURE_REJECT;
    guest_string_dup(&failure->val.reject, "asked to");
    return false;
  }
  if (how != NULL) abort();

  guest_string_t *to = attribute(message, "to");
  segmenter_handler_emit_emit_error_t error;
  if (to == NULL) {
    uint32_t sum = 0;
    for (size_t i = 0; i < message->payload.len; i++) sum = sum * 31 + message->payload.ptr[i];
    summed = sum;
  } else if (!segmenter_handler_emit_send(to, &message->key, &message->payload, &message->attributes, &error)) {
    failure->tag = SEGMENTER_HANDLER_TYPES_FAILURE_REJECT;
    guest_string_dup(&failure->val.reject, "not emitted");
    return false;
  }
  return true;
}

bool exports_segmenter_handler_handler_handle(message_t *message, failure_t *failure) {
  bool ok = echo(message, failure);
  exports_segmenter_handler_handler_message_free(message);
  return ok;
}
