//! What is refused, and how it is told.

use segmenter_wasm::{
    Compiled, Engine, EngineConfig, Grants, Kind, Limits, LoadError, Module, Priority, version_of,
};

use crate::guests::{Guest, LIMITS, load};

fn error(bytes: &[u8]) -> LoadError {
    match load(bytes, LIMITS) {
        Err(error) => error,
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn what_is_no_component_is_told_apart() {
    assert!(matches!(error(b""), LoadError::NotWasm));
    assert!(matches!(error(b"#!/bin/sh"), LoadError::NotWasm));
    let core = wat::parse_str("(module)").unwrap();
    let refused = error(&core);
    assert!(matches!(refused, LoadError::CoreModule));
    assert!(
        refused.to_string().contains("wasm-tools component new"),
        "{refused}"
    );
    let mut damaged = Guest::default().component();
    damaged.truncate(damaged.len() / 2);
    assert!(matches!(error(&damaged), LoadError::Compile(_)));
}

#[test]
fn a_component_of_another_world_is_told_what_is_expected() {
    let empty = wat::parse_str("(component)").unwrap();
    let refused = error(&empty);
    assert!(matches!(&refused, LoadError::NoKnownExport { found } if found.is_empty()));
    for kind in Kind::ALL {
        let told = refused.to_string().contains(&kind.to_string());
        assert!(told, "{kind}: {refused}");
    }
    assert!(refused.to_string().ends_with("it exports: nothing"));
}

const BATCH: &str = r#"(func (export "segmenter:handler/batch@0.1.0#handle") (param i32 i32) (result i32) (i32.const 512))"#;

#[test]
fn two_kinds_in_one_component_are_refused() {
    let world = "export segmenter:handler/batch@0.1.0;";
    let both = Guest {
        parts: BATCH,
        world,
        ..Guest::default()
    };
    let refused = error(&both.component());
    assert!(matches!(&refused, LoadError::TwoKinds { found } if found.len() == 2));
    for kind in [Kind::Handler, Kind::Batch] {
        let told = refused.to_string().contains(&kind.to_string());
        assert!(told, "{refused}");
    }
}

#[test]
fn an_import_that_no_grant_gives_is_named() {
    let parts = r#"(import "test:guest/odd" "ask" (func $ask))"#;
    let body = "(call $ask) (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)";
    let world = "import odd: interface { ask: func(); }";
    let parts = parts.replace("test:guest/odd", "odd");
    let refused = error(
        &Guest {
            parts: &parts,
            world,
            body,
            ..Guest::default()
        }
        .component(),
    );
    assert!(
        matches!(&refused, LoadError::MissingImport { import, .. } if import == "odd"),
        "{refused}"
    );
}

#[tokio::test]
async fn any_patch_of_the_contract_and_extra_exports_are_accepted() {
    let newer = Guest {
        version: "0.1.7",
        ..Guest::default()
    };
    newer.load(LIMITS).probe().await.expect("0.1.7 is 0.1");
    let parts = r#"(func (export "init"))"#;
    let extra = Guest {
        parts,
        world: "export init: func();",
        ..Guest::default()
    };
    extra
        .load(LIMITS)
        .probe()
        .await
        .expect("an extra export does no harm");
}

#[tokio::test]
async fn an_instance_that_cannot_be_made_says_why() {
    let parts = r#"(func $begins unreachable) (start $begins)"#;
    let module = Guest {
        parts,
        ..Guest::default()
    }
    .load(LIMITS);
    let refused = module
        .probe()
        .await
        .expect_err("its start traps")
        .to_string();
    assert!(refused.contains("unreachable"), "{refused}");
    assert!(refused.contains("guest!begins"), "{refused}");
}

#[tokio::test]
async fn a_module_that_was_compiled_before_comes_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = Guest::default().component();
    let load = || {
        let config = EngineConfig {
            cache_dir: Some(dir.path().join("modules")),
            memory_bytes_max: 1 << 20,
            table_elements_max: 1_000,
            instances_max: 4,
            core_dump_dir: None,
        };
        let engine = Engine::new(config).expect("an engine");
        let module = Module::load(&engine, &bytes, LIMITS, Grants::default()).expect("it loads");
        (engine.cache_hits(), module)
    };
    let (first, module) = load();
    let (second, again) = load();
    assert_eq!((first, second), (0, 1));
    assert_eq!(module.version(), again.version());
    assert_eq!(module.version().as_str().len(), 64);
    let made = again.probe().await;
    assert!(made.is_ok());
}

#[test]
fn what_is_wanted_by_many_at_once_is_compiled_once() {
    let cache = tempfile::tempdir().unwrap();
    // As several hosts on a machine: each has an engine, all have one cache.
    let engines: Vec<Engine> = (0..4)
        .map(|_| {
            Engine::new(EngineConfig {
                cache_dir: Some(cache.path().to_path_buf()),
                memory_bytes_max: 1 << 20,
                table_elements_max: 1_000,
                instances_max: 1,
                core_dump_dir: None,
            })
            .unwrap()
        })
        .collect();
    let bytes = Guest::default().component();
    std::thread::scope(|scope| {
        for engine in &engines {
            scope.spawn(|| {
                let version = version_of(&bytes);
                let compiled = Compiled::new(engine, &bytes, version, Priority::Aside).unwrap();
                compiled.link(LIMITS, Grants::default()).unwrap();
            });
        }
    });
    let hits: usize = engines.iter().map(Engine::cache_hits).sum();
    assert_eq!(hits, engines.len() - 1);
}

#[test]
fn code_is_compiled_once_and_linked_under_any_settings() {
    let engine = crate::guests::engine();
    let bytes = Guest::default().component();
    let compiled = Compiled::new(&engine, &bytes, version_of(&bytes), Priority::Start).unwrap();
    assert_eq!(engine.modules_live(), 0);
    let one = compiled.link(LIMITS, Grants::default()).unwrap();
    let two = compiled.link(LIMITS, Grants::default()).unwrap();
    assert_eq!((one.version(), engine.modules_live()), (two.version(), 2));
    drop((one.clone(), one));
    assert_eq!(engine.modules_live(), 1);
}

#[test]
fn limits_above_what_the_engine_was_made_for_need_a_restart() {
    let engine = crate::guests::engine();
    assert_eq!(engine.allocator(), "pooling");
    assert!(engine.fits(&LIMITS).is_ok());
    let more = Limits {
        memory_bytes: 17 << 20,
        ..LIMITS
    };
    let refused = engine.fits(&more).unwrap_err().to_string();
    assert!(
        refused.contains("limits.memory is 17825792") && refused.contains("restart"),
        "{refused}"
    );
    let more = Limits {
        table_elements: 1_001,
        ..LIMITS
    };
    assert!(engine.fits(&more).is_err());
}
