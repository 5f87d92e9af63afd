//! Components of several messages a call and of other hosts' worlds, one file per kind of `src/kinds/`; what
//! kinds have in common is tested with our own.

mod batch;
mod spin_redis;
mod wasi_messaging;
mod wasmcloud;

use std::path::Path;

use segmenter_core::effects::{Effects, Emit};
use segmenter_core::message::{Content, Message};
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Instance, LoadError, Module};
use wit_parser::Resolve;

use crate::guests::{LIMITS, World, encode, engine, load};

/// A component of another host's world.
#[derive(Default)]
struct Foreign<'a> {
    /// Its file in `wit/foreign/`.
    wit: &'a str,
    /// What is there that this file has not: behind which text, and its text.
    more: (&'a str, &'a str),
    /// Items of its world.
    world: &'a str,
    /// What it exports to be called, and the core type of that, up to the pointer that it returns.
    export: &'a str,
    ty: &'a str,
    /// Imports and functions of the core module.
    parts: &'a str,
    body: &'a str,
}

impl Foreign<'_> {
    fn component(&self) -> Vec<u8> {
        let Foreign {
            wit,
            more: (behind, more),
            world,
            export,
            ty,
            parts,
            body,
        } = self;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
        let mut resolve = Resolve::default();
        resolve
            .push_dir(folder.join("deps/logging"))
            .expect("a dependency");
        let text = std::fs::read_to_string(folder.join("foreign").join(wit)).expect("its WIT");
        let text = text.replacen(behind, &format!("{behind}{more}"), 1);
        resolve.push_str(wit, &text).expect("it is WIT");
        let world = format!(
            "package test:guest;\nworld guest {{ import wasi:logging/logging@0.1.0-draft; {world} }}"
        );
        let package = resolve.push_str("guest.wit", &world).expect("its world");
        let world = resolve.select_world(&[package], Some("guest"));
        let core = format!(
            r#"(module $guest {parts}
  (memory (export "memory") 4)
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $handle (export "{export}") {ty} (result i32)
    {body})
  (func (export "cabi_post_{export}") (param i32) (global.set $heap (i32.const 8192))))"#
        );
        encode(&resolve, world.expect("the world"), &core, false)
    }

    fn granted(&self, grants: Grants) -> World {
        let module = Module::load(&engine(), &self.component(), LIMITS, grants);
        World::of(module.unwrap_or_else(|error| panic!("{error}")))
    }

    /// What is told, without any grant, of an import that is not there.
    fn refused(&self) -> String {
        match load(&self.component(), LIMITS) {
            Err(LoadError::MissingImport { import, why }) => format!("{import} {why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was loaded"),
        }
    }
}

fn emit() -> Grants {
    Grants {
        emit: ["invoices", "invoices.eu", "small"]
            .map(|name| name.parse().unwrap())
            .into(),
        ..Grants::default()
    }
}

/// With this key, payload and attributes.
fn came(key: &str, payload: impl Into<Vec<u8>>, attributes: &[(&str, &str)]) -> Message {
    let attributes = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let content = Content::new(key, payload.into(), attributes.collect(), 1 << 20);
    Message {
        content: content.expect("a message"),
        ..crate::guests::message()
    }
}

/// What the guest logged and changed in a call that ends well.
async fn does(world: &World, instance: &mut Instance, message: &Message) -> (Vec<String>, Effects) {
    match world.call(instance, message).await {
        (Outcome::Ok(effects), lines) => (lines, effects),
        (other, lines) => panic!("{other:?} {lines:?}"),
    }
}

fn emitted(to: &str, key: &str, payload: &[u8], attributes: &[(&str, &str)]) -> Emit {
    Emit {
        to: to.parse().unwrap(),
        content: came(key, payload, attributes).content,
    }
}

/// Why a call ended by a trap.
fn trapped(outcome: Outcome) -> String {
    match outcome {
        Outcome::Broken { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}
