//! The numbers that a producer gives its messages, so that sending them again does not double them. Knows
//! what may be typed and which number a line has; must not know what a target does with them.

use std::str::FromStr;

use segmenter_core::names::ProducerName;

/// `PRODUCER:NUMBER`, or `PRODUCER` if every line has a number of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbering {
    pub(super) producer: ProducerName,
    pub(super) first: Option<u64>,
}

impl FromStr for Numbering {
    type Err = String;
    fn from_str(text: &str) -> Result<Numbering, String> {
        let (producer, first) = match text.rsplit_once(':') {
            None => (text, None),
            Some((producer, number)) => {
                let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                let number = digits.then(|| number.parse().ok()).flatten();
                let why = || {
                    format!(
                        "what follows the colon is no number from 0 to {}; write PRODUCER:NUMBER, such as checkout:17",
                        u64::MAX
                    )
                };
                (producer, Some(number.ok_or_else(why)?))
            }
        };
        let producer = ProducerName::new(producer).map_err(|e| e.to_string())?;
        Ok(Numbering { producer, first })
    }
}

/// Which number a line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Numbers {
    /// Nobody numbers them.
    #[default]
    None,
    /// If somebody does, it is of no use here.
    Ignored,
    /// Line 1 has this one, and every line, also a blank one, one more than the line before.
    From(u64),
    /// Each line its own; the last one was this.
    Own(Option<u64>),
}

impl Numbers {
    pub(super) fn of(numbering: Option<&Numbering>) -> Numbers {
        match numbering {
            None => Numbers::None,
            Some(Numbering { first: None, .. }) => Numbers::Own(None),
            Some(Numbering { first: Some(n), .. }) => Numbers::From(*n),
        }
    }

    /// Of line `line`, counted from 1, which says `own`.
    pub(super) fn next(&mut self, line: u64, own: Option<u64>) -> Result<Option<u64>, String> {
        match (self, own) {
            (Numbers::None, None) | (Numbers::Ignored, _) => Ok(None),
            (Numbers::None, Some(_)) => {
                Err("it has an id, but nobody says of which producer; use --id PRODUCER".to_owned())
            }
            (Numbers::From(first), None) => match first.checked_add(line - 1) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("its number would be above {}", u64::MAX)),
            },
            (Numbers::From(_), Some(own)) => Err(format!(
                "it has the id {own}, and --id numbers the lines, too; use --id PRODUCER without a number"
            )),
            (Numbers::Own(_), None) => Err(
                "it has no id; give every line one, or number the lines with --id PRODUCER:FIRST"
                    .to_owned(),
            ),
            // A target would take a lower one for done already, and nobody would notice.
            (Numbers::Own(Some(last)), Some(own)) if own <= *last => Err(format!(
                "its id {own} is not above {last}, that of the message before; ids must rise"
            )),
            (Numbers::Own(last), Some(own)) => {
                *last = Some(own);
                Ok(Some(own))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_has_a_name_and_perhaps_a_number() {
        let of = |text: &str| {
            let numbering: Numbering = text.parse().unwrap();
            (numbering.producer.to_string(), numbering.first)
        };
        assert_eq!(of("checkout:17"), ("checkout".to_owned(), Some(17)));
        assert_eq!(of("checkout"), ("checkout".to_owned(), None));
        let most = format!("p:{}", u64::MAX);
        assert_eq!(of(&most), ("p".to_owned(), Some(u64::MAX)));
        for (text, says) in [
            ("", "empty"),
            (":1", "empty"),
            ("p:", "no number"),
            ("p:-1", "no number"),
            ("p:+1", "no number"),
            ("p:1.5", "no number"),
            ("p:18446744073709551616", "no number"),
            ("a:b:1", "':'"),
            ("a/b:1", "'/'"),
        ] {
            let refused = text.parse::<Numbering>().unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn lines_are_numbered_from_the_first_on() {
        let mut numbers = Numbers::From(u64::MAX - 2);
        assert_eq!(numbers.next(1, None), Ok(Some(u64::MAX - 2)));
        assert_eq!(numbers.next(3, None), Ok(Some(u64::MAX)));
        assert!(numbers.next(4, None).unwrap_err().contains("above"));
        assert!(numbers.next(1, Some(7)).unwrap_err().contains("id 7"));
    }

    #[test]
    fn own_numbers_must_be_there_and_rise() {
        let mut numbers = Numbers::Own(None);
        assert_eq!(numbers.next(1, Some(0)), Ok(Some(0)));
        assert_eq!(numbers.next(2, Some(5)), Ok(Some(5)));
        for own in [5, 4] {
            let why = numbers.next(3, Some(own)).unwrap_err();
            assert!(why.contains("not above 5"), "{why}");
        }
        assert!(numbers.next(4, None).unwrap_err().contains("no id"));
        assert_eq!(numbers.next(5, Some(6)), Ok(Some(6)));
    }

    #[test]
    fn a_number_without_a_producer_is_refused() {
        let mut numbers = Numbers::None;
        assert_eq!(numbers.next(1, None), Ok(None));
        assert!(
            numbers
                .next(2, Some(1))
                .unwrap_err()
                .contains("--id PRODUCER")
        );
    }
}
