// Counts the lines of each payload and logs one line per message. In C, without any help from WASI.
#include "bindings/message_handler.h"

#include <string.h>

// Writes `number` in decimal behind `text` and returns the new end.
static char *put_number(char *text, size_t number) {
  char digits[20];
  size_t count = 0;
  do {
    digits[count++] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  while (count > 0) *text++ = digits[--count];
  return text;
}

static char *put_text(char *text, const char *more) {
  size_t length = strlen(more);
  memcpy(text, more, length);
  return text + length;
}

bool exports_segmenter_handler_handler_handle(exports_segmenter_handler_handler_message_t *message,
                                              exports_segmenter_handler_handler_failure_t *failure) {
  (void)failure;
  size_t lines = 0;
  for (size_t i = 0; i < message->payload.len; i++) lines += message->payload.ptr[i] == '\n';

  char text[64];
  char *end = put_number(put_text(text, "lines="), lines);
  end = put_number(put_text(end, " bytes="), message->payload.len);
  message_handler_string_t context = {(uint8_t *)"", 0};
  message_handler_string_t line = {(uint8_t *)text, (size_t)(end - text)};
  wasi_logging_logging_log(WASI_LOGGING_LOGGING_LEVEL_INFO, &context, &line);

  // The host made key, payload and attributes in our memory; they are ours to give back.
  exports_segmenter_handler_handler_message_free(message);
  return true;
}
