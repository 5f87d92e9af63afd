//! A TOML table from which values are taken by key, each checked for its type and told with its line.
//! Knows TOML; must not know which settings there are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{ConfigError, units};

type Result<T> = std::result::Result<T, ConfigError>;

/// What the root table is called.
const TOP: &str = "the top level";

pub(super) struct Keys<'a> {
    text: &'a str,
    place: String,
    /// Of the table's header, or of the whole inline table.
    span: Range<usize>,
    table: DeTable<'a>,
    /// Of the value that was taken last: what an error is most likely about.
    last: Range<usize>,
}

impl<'a> Keys<'a> {
    pub(super) fn root(text: &'a str, known: &[&'static str]) -> Result<Keys<'a>> {
        let root = DeTable::parse(text)
            .map_err(|e| ConfigError(e.to_string().trim_end().to_owned()))?
            .into_inner();
        Keys::open(text, TOP.to_owned(), 0..0, root, known)
    }

    /// A table with a key that is none of `known` is refused before its values are looked at: a
    /// misspelt key would else be told as the missing right one.
    fn open(
        text: &'a str,
        place: String,
        span: Range<usize>,
        table: DeTable<'a>,
        known: &[&'static str],
    ) -> Result<Keys<'a>> {
        let keys = Keys {
            text,
            place,
            last: span.clone(),
            span,
            table,
        };
        let unknown = keys
            .table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(unknown) = unknown else {
            return Ok(keys);
        };
        let name = unknown.get_ref();
        let hint = match nearest(name, known) {
            Some(known) => format!("did you mean {known:?}?"),
            None => format!("known are: {}", known.join(", ")),
        };
        Err(keys.error_at(unknown.span(), format!("unknown key {name:?}; {hint}")))
    }

    /// About the value that was taken last, else about the table.
    pub(super) fn error(&self, why: impl Into<String>) -> ConfigError {
        self.error_at(self.last.clone(), why.into())
    }

    fn error_at(&self, span: Range<usize>, why: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        ConfigError(format!("line {line}: {}: {why}", self.place))
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        self.error_at(self.span.clone(), format!("{key} is missing"))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &str) -> Option<DeValue<'a>> {
        let value = self.table.remove(key)?;
        self.last = value.span();
        Some(value.into_inner())
    }

    /// For errors in a key that is refused whatever it holds.
    pub(super) fn refused(&mut self, key: &str, why: String) -> ConfigError {
        self.take(key);
        self.error(format!("{key} {why}"))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.into_owned())),
            Some(other) => Err(self.error(match other {
                DeValue::Integer(_) | DeValue::Float(_) => format!(
                    "{key} is the bare number {}; write it in quotes, a size or duration with its unit",
                    self.text.get(self.last.clone()).unwrap_or_default()
                ),
                _ => format!("{key} is {}, not a text in quotes", kind(&other)),
            })),
        }
    }

    pub(super) fn needed_text(&mut self, key: &str) -> Result<String> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn parsed<T: FromStr>(&mut self, key: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(key)?;
        text.map(|text| text.parse::<T>())
            .transpose()
            .map_err(|e| self.error(format!("{key}: {e}")))
    }

    pub(super) fn needed<T: FromStr>(&mut self, key: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        self.parsed(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>> {
        match self.take(key) {
            None => Ok(None),
            Some(DeValue::Integer(number)) => {
                if number.as_str().starts_with('-') {
                    return Err(self.error(format!("{key} is negative")));
                }
                u64::from_str_radix(number.as_str().trim_start_matches('+'), number.radix())
                    .map(Some)
                    .map_err(|_| self.error(format!("{key} is {number}, which is too large")))
            }
            Some(other) => {
                Err(self.error(format!("{key} is {}, not a whole number", kind(&other))))
            }
        }
    }

    pub(super) fn needed_count(&mut self, key: &str) -> Result<u64> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        default: Duration,
        min: &str,
        max: &str,
    ) -> Result<Duration> {
        let Some(text) = self.text(key)? else {
            return Ok(default);
        };
        let value = units::duration(&text).map_err(|e| self.error(format!("{key}: {e}")))?;
        let limit = |text| units::duration(text).expect("a constant of this crate");
        if value < limit(min) || value > limit(max) {
            return Err(self.error(format!("{key} is {text}; use {min} to {max}")));
        }
        Ok(value)
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(DeValue::Boolean(flag)) => Ok(Some(flag)),
            Some(other) => {
                Err(self.error(format!("{key} is {}, neither true nor false", kind(&other))))
            }
        }
    }

    /// A list of texts, each parsed.
    pub(super) fn list<T: FromStr>(&mut self, key: &str) -> Result<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        let wrong = |what: &str| format!("{key} is {what}, not a list of texts: [\"…\", \"…\"]");
        let items = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(items)) => items,
            Some(other) => return Err(self.error(wrong(kind(&other)))),
        };
        let mut list = Vec::new();
        for item in items {
            self.last = item.span();
            list.push(match item.into_inner() {
                DeValue::String(text) => text
                    .parse::<T>()
                    .map_err(|e| self.error(format!("{key}: {e}")))?,
                other => return Err(self.error(wrong(&format!("a list with {}", kind(&other))))),
            });
        }
        Ok(list)
    }

    /// A table whose keys are the user's own, with a text for each.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<BTreeMap<String, String>>> {
        let table = match self.take(key) {
            None => return Ok(None),
            Some(DeValue::Table(table)) => table,
            Some(other) => {
                return Err(self.error(format!("{key} is {}, not a table", kind(&other))));
            }
        };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            self.last = value.span();
            match value.into_inner() {
                DeValue::String(text) => {
                    texts.insert(name.into_inner().into_owned(), text.into_owned());
                }
                other => {
                    return Err(self.error(format!(
                        "{key}: {} is {}, not a text in quotes",
                        name.into_inner(),
                        kind(&other)
                    )));
                }
            }
        }
        Ok(Some(texts))
    }

    pub(super) fn size(&mut self, key: &str, min: &str, max: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let value = units::size(&text).map_err(|e| self.error(format!("{key}: {e}")))?;
        let limit = |text| units::size(text).expect("a constant of this crate");
        if value < limit(min) || value > limit(max) {
            return Err(self.error(format!("{key} is {text}; use {min} to {max}")));
        }
        Ok(Some(value))
    }

    pub(super) fn count_within(
        &mut self,
        key: &str,
        min: usize,
        max: usize,
    ) -> Result<Option<usize>> {
        let Some(count) = self.count(key)? else {
            return Ok(None);
        };
        let fits = usize::try_from(count)
            .ok()
            .filter(|n| (min..=max).contains(n));
        match fits {
            Some(count) => Ok(Some(count)),
            None => Err(self.error(format!("{key} is {count}; use {min} to {max}"))),
        }
    }

    pub(super) fn table(&mut self, key: &str, known: &[&'static str]) -> Result<Option<Keys<'a>>> {
        match self.take(key) {
            None => Ok(None),
            Some(DeValue::Table(table)) => {
                let place = match self.place.as_str() {
                    TOP => format!("[{key}]"),
                    place => format!("{place}, {key}"),
                };
                Keys::open(self.text, place, self.last.clone(), table, known).map(Some)
            }
            Some(other) => Err(self.error(format!("{key} is {}, not a table", kind(&other)))),
        }
    }

    /// `[[key]]`, each called by its name if it has one; inside of a table `key = [{…}, {…}]`.
    pub(super) fn tables(&mut self, key: &str, known: &[&'static str]) -> Result<Vec<Keys<'a>>> {
        let top = self.place == TOP;
        let wrong = |what: &str| match top {
            true => {
                format!("{key} is {what}; write [[{key}]] with double brackets, once per {key}")
            }
            false => format!("{key} is {what}, not a list of tables: [{{ … }}, {{ … }}]"),
        };
        let items = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(items)) => items,
            Some(other) => return Err(self.error(wrong(kind(&other)))),
        };
        let mut tables = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    let place = match table.get("name").map(Spanned::get_ref) {
                        _ if !top => format!("{}, {key} number {}", self.place, i + 1),
                        Some(DeValue::String(name)) => format!("[[{key}]] {name:?}"),
                        _ => format!("[[{key}]] number {}", i + 1),
                    };
                    tables.push(Keys::open(self.text, place, span, table, known)?);
                }
                other => return Err(self.error_at(span, wrong(kind(&other)))),
            }
        }
        Ok(tables)
    }
}

fn kind<'v>(value: &'v DeValue<'_>) -> &'v str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
