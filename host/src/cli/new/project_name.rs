//! The name of a new project, which takes the place of its example's. Knows what the tools of all languages
//! take for a name.

/// Characters.
const NAME_CHARS_MAX: usize = 64;

/// Names that a crate cannot have beside those that it uses.
const TAKEN: &[&str] = &[
    "alloc",
    "core",
    "proc-macro",
    "proc_macro",
    "std",
    "test",
    "wit-bindgen",
];

/// Lower-case letters, digits, `-` and `_`, a letter first: a crate, a package of npm and a handler may all be
/// called so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectName(String);

impl ProjectName {
    pub(crate) fn new(text: &str) -> Result<ProjectName, String> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > NAME_CHARS_MAX {
            "it has more than 64 characters"
        } else if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            "it does not begin with a lower-case letter"
        } else if !text.chars().all(legal) {
            "only lower-case letters, digits, - and _ may be in it"
        } else if TAKEN.contains(&text) {
            "a library that a project uses is called so"
        } else {
            return Ok(ProjectName(text.to_owned()));
        };
        Err(format!("{text:?} cannot be a project's name: {why}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// In the place of an example's name, also where a crate's file is called after it. What is not text has
    /// no name in it.
    pub(super) fn put_into(&self, bytes: &[u8], example: &str) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return bytes.to_vec();
        };
        let file = |name: &str| name.replace('-', "_");
        text.replace(example, &self.0)
            .replace(&file(example), &file(&self.0))
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_for_every_tool() {
        for name in ["a", "totals", "my-totals_2", &"x".repeat(64)] {
            assert_eq!(ProjectName::new(name).unwrap().as_str(), name);
        }
        for (name, says) in [
            ("", "empty"),
            ("2nd", "begin"),
            ("-a", "begin"),
            ("Totals", "begin"),
            ("my totals", "only"),
            ("ключ", "begin"),
            ("a.b", "only"),
            ("a/b", "only"),
            ("std", "library"),
            (&"x".repeat(65), "64"),
        ] {
            let error = ProjectName::new(name).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn an_examples_name_gives_place_and_bytes_stay() {
        let name = ProjectName::new("my-shop").unwrap();
        let renamed = |bytes: &[u8]| name.put_into(bytes, "order-totals");
        assert_eq!(
            renamed(b"name = \"order-totals\" # order_totals.wasm"),
            b"name = \"my-shop\" # my_shop.wasm"
        );
        assert_eq!(renamed(b"\xfforder-totals"), b"\xfforder-totals");
    }
}
