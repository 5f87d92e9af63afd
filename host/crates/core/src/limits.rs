//! Every bound of the product, with its unit in its name (DESIGN §7). Knows numbers only.

/// Characters of a name.
pub const NAME_CHARS_MAX: usize = 64;
/// Partitions of a stream. 4,096 is what the scale tests cover.
pub const PARTITIONS_MAX: u32 = 4_096;
/// Live members of one group: more are refused. A sync looks at each of them.
pub const MEMBERS_MAX: usize = 1_000;
/// Entries per partition that a stream can be created with.
pub const CAPACITY_ENTRIES_MAX: u64 = 1_000_000_000;
/// Payload bytes, inclusive, of a stream that was registered without a limit of its own. Descriptions that
/// do not say it mean this, so it never changes.
pub const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// The highest limit that a stream can be registered with. A message is part of one request, which must be
/// through before the answer is given up.
pub const PAYLOAD_BYTES_MOST: usize = 64 * 1024 * 1024;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Attributes of one message.
pub const ATTRIBUTES_MAX: usize = 64;
/// Bytes of an attribute's name.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 128;
/// Bytes of an attribute's value.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a source's key and of each of its field names.
pub const SOURCE_BYTES_MAX: usize = 512;
/// Messages in one append script.
pub const APPEND_BATCH_MESSAGES_MAX: usize = 512;
/// Bytes of payload in one append script, unless a single message is larger.
pub const APPEND_BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Entries that one partition holds in memory between reader and handler.
pub const QUEUE_ENTRIES_MAX: usize = 2_048;
/// Bytes that one partition holds in memory between reader and handler, before its next read; less if its
/// share of what the host may read ahead is smaller.
pub const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that an entry takes in memory beside its key, payload and attributes, about: what holds them.
pub const ENTRY_OVERHEAD_BYTES: usize = 256;
/// Bytes of messages that a host holds that are read and not yet let go, over all partitions of all its
/// handlers, unless configured otherwise.
pub const READ_AHEAD_BYTES: usize = 256 * 1024 * 1024;
/// Entries of one partition in one reply.
pub const READ_ENTRIES_MAX: usize = 1_024;
/// Bytes that one reply to a reader aims at, over all its partitions.
pub const READ_BYTES_TARGET: usize = 8 * 1024 * 1024;
/// Messages of one call of a handler that takes batches, unless configured otherwise. As many as are queued:
/// none is waited for.
pub const BATCH_MESSAGES: usize = 100;
/// The most that can be configured: a partition reads on when less is queued.
pub const BATCH_MESSAGES_MOST: usize = QUEUE_ENTRIES_MAX / 2;
/// Bytes of the messages of one call, keys and attributes included, unless configured otherwise. A single one
/// may be larger.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Where batches broke although none of their messages does alone, they carry half as many. After so many
/// calls they carry twice as many again.
pub const BATCH_GROWS_AFTER: u32 = 64;
/// Dead letters in one commit: each carries a whole message.
pub const COMMIT_DEAD_MAX: usize = 64;
/// Bytes of a reason that a handler gives.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// Bytes of guest stderr that a trap's reason carries.
pub const STDERR_TAIL_BYTES: usize = 1024;
/// Bytes of one guest log line; what is longer is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of dead letters in one commit, before the next message is handled.
pub const COMMIT_DEAD_BYTES: usize = 4 * 1024 * 1024;
/// Commits of a partition between two trims by its owner. A full partition is trimmed by append, too.
pub const COMMITS_PER_TRIM: u32 = 8;
/// The longest delay that a handler's own wish for a retry is followed to.
pub const RETRY_AFTER_MAX: std::time::Duration = std::time::Duration::from_secs(3600);
/// Bytes of a name in a handler's state.
pub const STATE_NAME_BYTES_MAX: usize = 1024;
/// Bytes of one value of a handler's state, unless configured otherwise.
pub const STATE_VALUE_BYTES: usize = 1024 * 1024;
/// Bytes of all names and values of a handler's state in one partition, unless configured otherwise. The
/// owner holds them in memory.
pub const STATE_BYTES: usize = 16 * 1024 * 1024;
/// Messages that one call emits, unless configured otherwise.
pub const EMITS_PER_CALL: usize = 1_000;
/// Bytes of all messages that one call emits, unless configured otherwise.
pub const EMIT_BYTES_PER_CALL: usize = 4 * 1024 * 1024;
/// Emitted messages in one commit, before the next message is handled.
pub const COMMIT_EMITS_MAX: usize = 1_000;
/// Values of state in one commit, before the next message is handled.
pub const COMMIT_STATE_MAX: usize = 1_000;
/// Bytes of state and emitted messages in one commit, before the next message is handled.
pub const COMMIT_EFFECT_BYTES: usize = 4 * 1024 * 1024;
/// Dead letters that a group keeps per partition. What goes beyond halts the partition: none is lost.
pub const DEAD_ENTRIES_MAX: u64 = 100_000;
/// Bytes of the dead letters that a group keeps per partition.
pub const DEAD_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Connections of one handler instance to granted HTTP servers, at once.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Bytes that the headers of one HTTP request or response take in memory.
pub const HTTP_FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Emitted messages that a partition's outbox holds before its handler waits. Soft: what one commit adds
/// comes on top, and one message a second goes through up to twice as many.
pub const OUTBOX_ENTRIES: usize = 1_000;
/// Bytes of emitted messages that a partition's outbox holds before its handler waits. Soft, too.
pub const OUTBOX_BYTES: usize = 8 * 1024 * 1024;
/// Emitted messages that lie in an outbox as one entry.
pub const PARCEL_MESSAGES_MAX: usize = 32;
/// Bytes of such messages, unless it is one alone.
pub const PARCEL_BYTES: usize = 64 * 1024;
/// Fields of such messages, unless it is one alone; a script passes on a few thousand values at once.
pub const PARCEL_FIELDS_MAX: usize = 500;
const _: () = assert!(PARCEL_MESSAGES_MAX <= COMMIT_DEAD_MAX);
/// Between two messages that are handled while the outbox is full.
pub const OUTBOX_FULL_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Entries in one answer while an outbox is loaded.
pub const OUTBOX_PAGE_ENTRIES: usize = 128;
/// Entries that are removed from an outbox in one request.
pub const OUTBOX_REMOVE_MAX: usize = 1_000;
/// Dead letters that one script moves into an outbox.
pub const REDRIVE_LETTERS_MAX: usize = 500;
/// Bytes of dead letters that one script moves, unless a single one is larger.
pub const REDRIVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Producers of numbered messages that a partition remembers, each with its last number: about 100 bytes.
/// Messages of one more are refused.
pub const PRODUCERS_MAX: u64 = 10_000;
/// Bytes of a guest's backtrace in a log line.
pub const BACKTRACE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a module that is deployed through Redis, whose values end at 512 MiB.
pub const DEPLOYED_MODULE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Versions of a handler that were current before the current one, latest first: what a rollback goes back
/// to. Their bytes are kept.
pub const PAST_VERSIONS_MAX: usize = 10;
/// Versions of a handler that were deployed last, whatever became of them. Their bytes are kept, too.
pub const RECENT_VERSIONS_MAX: usize = 10;
/// Versions of a handler that were rolled back and are marked bad; the oldest mark goes first.
pub const BAD_VERSIONS_MAX: usize = 100;
/// Entries of a handler's history; the oldest go first.
pub const HISTORY_ENTRIES_MAX: usize = 1_000;
/// How long a plain deploy is on trial.
pub const TRIAL: std::time::Duration = std::time::Duration::from_secs(5);
/// The longest trial, or shadow.
pub const TRIAL_MAX: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// Between two reports of a host while a version is on trial.
pub const REPORT_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// A host that was not heard of for so many [`REPORT_EVERY`] says nothing about a candidate any more, and
/// nobody waits for it.
pub const REPORTS_MISSED: u32 = 3;
/// A host that was not heard of for so long is forgotten.
pub const REPORT_KEPT: std::time::Duration = std::time::Duration::from_secs(30);
/// Bytes of the example in a report about a shadow; what is longer is cut.
pub const EXAMPLE_BYTES_MAX: usize = 1024;
/// Bytes of a text that says who changed something; what is longer is cut.
pub const BY_BYTES_MAX: usize = 256;
