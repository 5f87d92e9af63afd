//! Who made a file: what its `producers` sections say, those of all modules and components inside taken
//! together. Hints of toolchains for people; nothing may depend on them, and a file may say anything.

use std::collections::BTreeSet;

use wasmparser::{KnownCustom, Parser, Payload, ProducersSectionReader};

/// Names and versions of one file that are looked at; those beyond are left out.
const TOOLS_MAX: usize = 1_000;
/// Characters of a name or version; what is longer is cut.
const TEXT_CHARS_MAX: usize = 200;

/// Each in the order of their names, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    pub languages: BTreeSet<Tool>,
    pub processed_by: BTreeSet<Tool>,
    pub sdks: BTreeSet<Tool>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    pub name: String,
    /// Empty: it does not say.
    pub version: String,
}

impl Producers {
    /// Of any bytes. What cannot be read ends it: what was read until then is told.
    pub fn of(bytes: &[u8]) -> Producers {
        let mut found = Producers::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let Ok(payload) = payload else { break };
            if let Payload::CustomSection(section) = payload
                && let KnownCustom::Producers(section) = section.as_known()
            {
                // A section that is wrong says nothing; the next may be right.
                let _ = found.add(section);
            }
        }
        found
    }

    fn add(&mut self, section: ProducersSectionReader<'_>) -> wasmparser::Result<()> {
        for field in section {
            let field = field?;
            for tool in field.values {
                let tool = tool?;
                if self.len() >= TOOLS_MAX {
                    return Ok(());
                }
                let into = match field.name {
                    "language" => &mut self.languages,
                    "sdk" => &mut self.sdks,
                    _ => &mut self.processed_by,
                };
                into.insert(Tool {
                    name: cut(tool.name),
                    version: cut(tool.version),
                });
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.languages.len() + self.processed_by.len() + self.sdks.len()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> String {
        let Producers {
            languages,
            processed_by,
            sdks,
        } = Producers::of(bytes);
        let all = |tools: &BTreeSet<Tool>| {
            let tools = tools.iter().map(|t| format!("{} {}", t.name, t.version));
            tools.collect::<Vec<_>>().join(",")
        };
        [all(&languages), all(&processed_by), all(&sdks)].join("; ")
    }

    #[test]
    fn modules_inside_of_a_component_are_looked_at_too() {
        let text = r#"(component
            (core module (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))
            (core module (@producers (language "C11" "") (processed-by "clang" "20"))))"#;
        let bytes = wat::parse_str(text).unwrap();
        assert_eq!(said(&bytes), "C11 ,Rust ; clang 20,rustc 1.95.0; ");
    }

    #[test]
    fn any_bytes_are_read_as_far_as_they_go() {
        let text = r#"(module (@producers (sdk "a" "1")))"#;
        let whole = wat::parse_str(text).unwrap();
        assert_eq!(said(&whole), "; ; a 1");
        for end in 0..whole.len() {
            said(&whole[..end]);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            said(&damaged);
        }
        assert_eq!(said(b"#!/bin/sh"), "; ; ");
    }
}
