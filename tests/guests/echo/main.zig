//! See README.md beside this file's original, in tests/guests/echo.

const std = @import("std");
const segmenter = @import("segmenter.zig");

pub const panic = std.debug.no_panic;

const Failure = error{ Retry, Reject } || segmenter.EmitError;

var summed: u32 = 0;

fn echo(message: *const segmenter.Message) Failure!void {
    if (message.attempt < 3) {
        if (message.attribute("fail")) |how| try fail(how);
    }
    if (message.attribute("to")) |to| {
        return segmenter.emit(to, message.key.slice(), message.payload.slice(), message.attributes.slice());
    }
    var sum: u32 = 0;
    for (message.payload.slice()) |byte| sum = sum *% 31 +% byte;
    @as(*volatile u32, &summed).* = sum;
}

fn fail(how: []const u8) Failure!void {
    if (std.mem.eql(u8, how, "retry")) return error.Retry;
    if (std.mem.eql(u8, how, "reject")) return error.Reject;
    @panic("asked to");
}

fn verdict(failure: Failure) segmenter.Verdict {
    return switch (failure) {
        error.Retry => .{ .retry = .{ .reason = "asked to", .after_ms = 10 } },
        error.Reject => .{ .reject = "asked to" },
        else => |other| .{ .reject = @errorName(other) },
    };
}

export fn exports_segmenter_handler_handler_handle(
    message: *segmenter.Message,
    answer: *segmenter.Failure,
) bool {
    defer segmenter.free(message);
    echo(message) catch |failure| return answer.set(verdict(failure));
    return true;
}
