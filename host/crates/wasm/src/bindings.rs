//! What wasmtime makes of `wit/`: one world of all that a host can offer, linked interface by interface.
//! Arguments are lowered from borrowed data: a call copies key and payload once, into the guest.

wasmtime::component::bindgen!({
    path: "../../../wit",
    inline: "
        package segmenter:host;
        world everything {
            include segmenter:handler/message-handler-full@0.1.0;
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
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(crate) use {Everything as MessageHandler, EverythingPre as MessageHandlerPre};
