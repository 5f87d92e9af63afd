//! `wasi:cli/environment`: the granted variables and no others, no arguments.

use std::collections::BTreeMap;

use wasmtime_wasi::WasiCtxBuilder;

pub(super) fn give(wasi: &mut WasiCtxBuilder, variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        wasi.env(name, value);
    }
}
