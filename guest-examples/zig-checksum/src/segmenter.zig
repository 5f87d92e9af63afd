//! The contract in Zig: the structures of `bindings/guest.h`, with the methods that a handler needs. Knows
//! nothing of what a handler does.

/// `guest_string_t`, and lists in general.
pub fn List(comptime Item: type) type {
    return extern struct {
        ptr: [*]Item,
        len: usize,

        pub fn slice(list: @This()) []const Item {
            return list.ptr[0..list.len];
        }

        /// For a call only: what is called does not change it.
        pub fn of(items: []const Item) @This() {
            return .{ .ptr = @constCast(items.ptr), .len = items.len };
        }
    };
}

pub const String = List(u8);

pub const Attribute = extern struct { name: String, value: String };

pub const EntryId = extern struct { ms: u64, seq: u64 };

pub const Message = extern struct {
    id: EntryId,
    partition: u32,
    attempt: u32,
    key: String,
    payload: List(u8),
    attributes: List(Attribute),

    pub fn attribute(message: *const Message, name: []const u8) ?[]const u8 {
        for (message.attributes.slice()) |pair| {
            if (equal(pair.name.slice(), name)) return pair.value.slice();
        }
        return null;
    }
};

fn equal(a: []const u8, b: []const u8) bool {
    if (a.len != b.len) return false;
    for (a, b) |x, y| if (x != y) return false;
    return true;
}

/// What a handler may answer instead of ok. Null: the host's backoff decides when.
pub const Verdict = union(enum) {
    reject: []const u8,
    retry: struct { reason: []const u8, after_ms: ?u32 },
};

/// `segmenter_handler_types_failure_t`, as the bindings read it.
pub const Failure = extern struct {
    tag: u8,
    value: extern union {
        retry: extern struct {
            reason: String,
            after_ms: extern struct { is_some: bool, value: u32 },
        },
        reject: String,
    },

    /// Answers false, which is what a call that failed returns.
    pub fn set(failure: *Failure, verdict: Verdict) bool {
        switch (verdict) {
            .retry => |retry| {
                failure.tag = 0;
                failure.value = .{ .retry = .{
                    .reason = undefined,
                    .after_ms = .{ .is_some = retry.after_ms != null, .value = retry.after_ms orelse 0 },
                } };
                guest_string_dup_n(&failure.value.retry.reason, retry.reason.ptr, retry.reason.len);
            },
            .reject => |reason| {
                failure.tag = 1;
                failure.value = .{ .reject = undefined };
                guest_string_dup_n(&failure.value.reject, reason.ptr, reason.len);
            },
        }
        return false;
    }
};

pub const EmitError = error{ NotGranted, TooLarge, TooMany };

/// A message to another stream.
pub fn emit(to: []const u8, key: []const u8, payload: []const u8, attributes: []const Attribute) EmitError!void {
    var stream = String.of(to);
    var name = String.of(key);
    var bytes = List(u8).of(payload);
    var pairs = List(Attribute).of(attributes);
    var refused: EmitRefused = undefined;
    if (segmenter_handler_emit_send(&stream, &name, &bytes, &pairs, &refused)) return;
    return switch (refused.tag) {
        0 => error.NotGranted,
        1 => error.TooLarge,
        else => error.TooMany,
    };
}

/// A line of the host's log.
pub fn log(level: Level, text: []const u8) void {
    var context = String.of("");
    var line = String.of(text);
    wasi_logging_logging_log(@intFromEnum(level), &context, &line);
}

pub const Level = enum(u8) { trace, debug, info, warn, @"error", critical };

pub fn free(message: *Message) void {
    exports_segmenter_handler_handler_message_free(message);
}

const EmitRefused = extern struct {
    tag: u8,
    value: extern union { too_large: u64, too_many: u32 },
};

extern fn segmenter_handler_emit_send(*String, *String, *List(u8), *List(Attribute), *EmitRefused) bool;
extern fn wasi_logging_logging_log(u8, *String, *String) void;
extern fn guest_string_dup_n(*String, [*]const u8, usize) void;
extern fn exports_segmenter_handler_handler_message_free(*Message) void;
