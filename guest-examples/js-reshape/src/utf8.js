// Text and its bytes. A handler's JavaScript has no TextDecoder.

// Throws at what is not UTF-8.
export function decode(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const lead = bytes[at++];
    if (lead < 0x80) {
      text += String.fromCharCode(lead);
      continue;
    }
    const more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    if (lead < 0xc2 || lead > 0xf4 || at + more > bytes.length) throw notUtf8(at);
    let code = lead & (0x3f >> more);
    for (const end = at + more; at < end; at++) {
      if ((bytes[at] & 0xc0) !== 0x80) throw notUtf8(at);
      code = (code << 6) | (bytes[at] & 0x3f);
    }
    // Overlong forms, surrogates, and what is above the last character.
    const least = [0x80, 0x800, 0x10000][more - 1];
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) throw notUtf8(at);
    text += String.fromCodePoint(code);
  }
  return text;
}

function notUtf8(at) {
  return new Error(`byte ${at} is not UTF-8`);
}

export function encode(text) {
  const bytes = [];
  for (const character of text) {
    let code = character.codePointAt(0);
    // Half of a pair alone is no character.
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 0x3f));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
  }
  return new Uint8Array(bytes);
}
