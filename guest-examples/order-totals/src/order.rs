//! Reads orders. Knows nothing of messages and state.

use std::fmt;

/// What an order comes to.
pub struct Order {
    pub cents: i64,
}

pub enum BadOrder {
    NotText,
    Empty,
    /// The number of the line, counted from 1, and what is wrong with it.
    Line(usize, &'static str),
    TooMuch,
}

impl Order {
    pub fn parse(payload: &[u8]) -> Result<Order, BadOrder> {
        let text = std::str::from_utf8(payload).map_err(|_| BadOrder::NotText)?;
        let mut cents = 0i64;
        let mut lines = 0;
        for (at, line) in text.lines().enumerate() {
            let item = item(line).map_err(|why| BadOrder::Line(at + 1, why))?;
            cents = cents.checked_add(item).ok_or(BadOrder::TooMuch)?;
            lines += 1;
        }
        if lines == 0 {
            return Err(BadOrder::Empty);
        }
        Ok(Order { cents })
    }
}

/// What one line comes to: `QUANTITY ITEM CENTS`, the item in one word.
fn item(line: &str) -> Result<i64, &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [quantity, _item, cents] = words[..] else {
        return Err("it is not QUANTITY ITEM CENTS");
    };
    let quantity: u32 = quantity.parse().map_err(|_| "the quantity is no number")?;
    let cents: u32 = cents.parse().map_err(|_| "the price is no number of cents")?;
    Ok(i64::from(quantity).saturating_mul(i64::from(cents)))
}

impl fmt::Display for BadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadOrder::NotText => f.write_str("the order is not UTF-8"),
            BadOrder::Empty => f.write_str("the order has no line"),
            BadOrder::Line(number, why) => write!(f, "line {number}: {why}"),
            BadOrder::TooMuch => f.write_str("the order costs more than can be counted"),
        }
    }
}
