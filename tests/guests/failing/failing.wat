(module $failing
  (import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
    (func $after (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:random/insecure@0.2.0" "get-insecure-random-u64" (func $random (result i64)))
  (import "segmenter:handler/context@0.1.0" "lease-epoch" (func $epoch (result i64)))
  (memory (export "memory") 2)
  (table $table 1 funcref)
  (global $heap (mut i32) (i32.const 8192))
  (global $handled (mut i32) (i32.const 0))
  (global $i (mut i32) (i32.const 0))
  ;; 16: what a retry and a reject say; 64: no UTF-8
  (data (i32.const 16) "asked to fail")
  (data (i32.const 64) "bad \ff\fe bytes\n")

  ;;START

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32) (local $pages i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    ;; Pages that are missing up to there.
    (local.set $pages (i32.sub
      (i32.shr_u (i32.add (global.get $heap) (i32.const 65535)) (i32.const 16))
      (memory.size)))
    (if (i32.gt_s (local.get $pages) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))))
    (local.get $at))

  (func $panics (call $panics_inside))
  (func $panics_inside unreachable)
  (func $recurses (result i32) (i32.add (i32.const 1) (call $recurses)))
  (func $spins (loop $l (br $l)))
  ;; An hour, in nanoseconds.
  (func $waits (call $block (call $after (i64.const 3600000000000))))
  (func $hoards
    (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)
  (func $grows_table
    (loop $l
      (br_if $l (i32.ne (table.grow $table (ref.null func) (i32.const 100)) (i32.const -1))))
    unreachable)
  (func $floods (param $key i32) (param $length i32)
    (global.set $i (i32.const 0))
    (loop $l
      (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get $key) (local.get $length))
      (global.set $i (i32.add (global.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (global.get $i) (i32.const 10000)))))

  ;; Results lie at 256, as the canonical ABI lays them out.
  (func $ok (result i32) (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256))
  (func $failure (param $kind i32) (result i32)
    (i32.store8 (i32.const 256) (i32.const 1))
    (i32.store8 (i32.const 260) (local.get $kind))
    (i32.store (i32.const 264) (i32.const 16))
    (i32.store (i32.const 268) (i32.const 13))
    (i32.const 256))
  (func $retry (param $has_delay i32) (result i32)
    (i32.store8 (i32.const 272) (local.get $has_delay))
    (i32.store (i32.const 276) (i32.const 70))
    (call $failure (i32.const 0)))

  (func $is (param $wish i32) (param $letter i32) (result i32)
    (i32.eq (local.get $wish) (local.get $letter)))

  ;; What is not a failure returns.
  (func $does (param $wish i32) (param $key i32) (param $length i32) (result i32)
    (if (call $is (local.get $wish) (i32.const 0x70)) (then (call $panics)))
    (if (call $is (local.get $wish) (i32.const 0x73)) (then (drop (call $recurses))))
    (if (call $is (local.get $wish) (i32.const 0x6c)) (then (call $spins)))
    (if (call $is (local.get $wish) (i32.const 0x62)) (then (call $waits)))
    (if (call $is (local.get $wish) (i32.const 0x6d)) (then (call $hoards)))
    (if (call $is (local.get $wish) (i32.const 0x74)) (then (call $grows_table)))
    (if (call $is (local.get $wish) (i32.const 0x78)) (then (call $exit (i32.const 1))))
    (if (call $is (local.get $wish) (i32.const 0x6a)) (then (return (call $failure (i32.const 1)))))
    (if (call $is (local.get $wish) (i32.const 0x64)) (then (return (call $retry (i32.const 1)))))
    (if (call $is (local.get $wish) (i32.const 0x72)) (then (return (call $retry (i32.const 0)))))
    (if (call $is (local.get $wish) (i32.const 0x66))
      (then (call $floods (local.get $key) (local.get $length))))
    (if (call $is (local.get $wish) (i32.const 0x75))
      (then (call $write (call $stdout) (i32.const 64) (i32.const 13) (i32.const 512))))
    (call $ok))

  (func $handle (export "segmenter:handler/handler@0.1.0#handle")
    (param $ms i64) (param $seq i64) (param $partition i32) (param $attempt i32)
    (param $key i32) (param $key_length i32) (param $payload i32) (param $payload_length i32)
    (param $attributes i32) (param $attributes_length i32) (result i32)
    (global.set $heap (i32.const 8192))
    (if (i32.lt_u (local.get $attempt)
                  (i32.sub (i32.load8_u offset=1 (local.get $payload)) (i32.const 0x30)))
      (then (return (call $does (i32.load8_u (local.get $payload))
                                (local.get $key) (local.get $key_length)))))
    ;; The letter goes where the payload's first was; it is read no more.
    (i32.store8 (local.get $payload) (i32.add (i32.const 0x61) (global.get $handled)))
    (global.set $handled (i32.add (global.get $handled) (i32.const 1)))
    (call $log (i32.const 2) (local.get $payload) (i32.const 1) (local.get $key) (local.get $key_length))
    (call $ok)))
