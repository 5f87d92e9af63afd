//! What wasmtime makes of `wit/`. Arguments are lowered from borrowed data: a call copies key and payload
//! once, into the guest.

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "segmenter:handler/message-handler",
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});
