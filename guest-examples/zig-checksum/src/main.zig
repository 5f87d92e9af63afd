//! A filter: each message whose attribute `crc32` is the checksum of its payload passes on to the stream
//! `checked`, as it is; any other is rejected.

const std = @import("std");
const segmenter = @import("segmenter.zig");

/// Traps, which the host reports and takes for a retry; it would print through WASI otherwise.
pub const panic = std.debug.no_panic;

const to = "checked";

const Failure = error{ ChecksumMissing, ChecksumMalformed, ChecksumDiffers } || segmenter.EmitError;

/// What is emitted is committed together with the ack, or not at all.
fn handle(message: *const segmenter.Message) Failure!void {
    const given = message.attribute("crc32") orelse return error.ChecksumMissing;
    if (given.len != 8) return error.ChecksumMalformed;
    const expected = std.fmt.parseInt(u32, given, 16) catch return error.ChecksumMalformed;
    if (std.hash.Crc32.hash(message.payload.slice()) != expected) return error.ChecksumDiffers;
    try segmenter.emit(to, message.key.slice(), message.payload.slice(), message.attributes.slice());
}

/// What the host makes of an error: a dead letter now, or the same message again.
fn verdict(failure: Failure) segmenter.Verdict {
    return switch (failure) {
        error.ChecksumMissing => .{ .reject = "it has no attribute crc32" },
        error.ChecksumMalformed => .{ .reject = "its crc32 is not 8 hex digits" },
        error.ChecksumDiffers => .{ .reject = "its payload has another crc32" },
        error.NotGranted => .{ .reject = "emitting to " ++ to ++ " is not granted" },
        error.TooLarge => .{ .reject = "it is too large to be emitted" },
        // One message a call is never too many: if it is, a host with other limits may take it.
        error.TooMany => .{ .retry = .{ .reason = "no more can be emitted now", .after_ms = 1_000 } },
    };
}

export fn exports_segmenter_handler_handler_handle(
    message: *segmenter.Message,
    answer: *segmenter.Failure,
) bool {
    // The host made the message in our memory; it is ours to give back.
    defer segmenter.free(message);
    handle(message) catch |failure| return answer.set(verdict(failure));
    return true;
}
