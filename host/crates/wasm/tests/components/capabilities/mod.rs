//! Each capability with real components, granted and not. A file of `src/capabilities/` without one here
//! is found by the test below; one here that is not compiled is no test, so it is looked for, too.

mod config;
mod context;
mod emit;
mod env;
mod files;
mod http;
mod keyvalue;
mod logging;
mod state;

use std::collections::BTreeSet;
use std::path::Path;

fn files(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let names = std::fs::read_dir(folder).expect("the folder");
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "mod.rs").collect()
}

#[test]
fn every_capability_is_tested_granted_and_not() {
    let capabilities = files("src/capabilities");
    assert_eq!(capabilities, files("tests/components/capabilities"));
    let this = include_str!("mod.rs");
    for file in &capabilities {
        let name = file.strip_suffix(".rs").expect("only code is here");
        assert!(
            this.contains(&format!("\nmod {name};")),
            "{file} is not compiled"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/components/capabilities")
            .join(file);
        let text = std::fs::read_to_string(path).expect("the tests");
        assert!(
            text.contains("#[tokio::test]"),
            "{file} has no test that calls"
        );
        // These two need no grant.
        if !["context", "logging"].contains(&name) {
            assert!(text.contains("fn without_the_grant"), "{file}");
            assert!(text.contains("Grants {"), "{file}");
        }
    }
}
