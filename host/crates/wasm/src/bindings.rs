//! What wasmtime makes of `wit/`: one world of all that a host can offer to any component, linked
//! interface by interface. What a component exports, and what only some may import, is with its kind.

wasmtime::component::bindgen!({
    path: "../../../wit",
    inline: "
        package segmenter:host;
        world everything {
            import segmenter:handler/context@0.1.0;
            import segmenter:handler/state@0.1.0;
            import segmenter:handler/emit@0.1.0;
            import wasi:logging/logging@0.1.0-draft;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:keyvalue/store@0.2.0-draft;
            import wasi:keyvalue/atomics@0.2.0-draft;
            import wasi:keyvalue/batch@0.2.0-draft;
        }
    ",
    world: "segmenter:host/everything",
    imports: {
        // They may have to load state first, and they trap on what no error of theirs can say.
        "segmenter:handler/state": async | trappable,
        "segmenter:handler/emit": trappable,
        "wasi:keyvalue/store": async | trappable,
        "wasi:keyvalue/atomics": async | trappable,
        "wasi:keyvalue/batch": async | trappable,
    },
    with: { "wasi:keyvalue/store.bucket": crate::capabilities::keyvalue::Bucket },
});
