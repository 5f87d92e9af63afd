//! What Redis may answer, to the reader and to every script: any tree of values ends as a reply or as an
//! error.
//!
//! The input is a tree in the manner of RESP without lengths, one value a line: `*N` a list of the N that
//! follow, `%N` a map of N pairs, `:N` a number, `$TEXT` bytes, `+TEXT` a word, `-TEXT` an error, `_`
//! nothing; what has no such sign is bytes.

use redis::Value;
use segmenter_core::limits;
use segmenter_redis::fuzz;

use super::entry::understood;

/// The client refuses deeper ones.
const DEPTH_MAX: u32 = 100;

pub fn replies(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        fuzz::texts(text);
    }
    let mut lines = input.split(|byte| *byte == b'\n');
    let answer = tree(&mut lines, 0).unwrap_or(Value::Nil);
    fuzz::replies(&answer);
    for (_, entries) in fuzz::xread(answer).into_iter().flatten() {
        for entry in entries {
            understood(entry, limits::PAYLOAD_BYTES_MAX);
        }
    }
}

/// `None`: the input is at its end.
fn tree<'a>(lines: &mut impl Iterator<Item = &'a [u8]>, depth: u32) -> Option<Value> {
    let line = lines.next()?;
    let Some((sign, rest)) = line.split_first() else {
        return Some(Value::BulkString(Vec::new()));
    };
    let text = String::from_utf8_lossy(rest);
    let mut some = |n: usize| -> Vec<Value> {
        let all = (0..n).map_while(|_| tree(lines, depth + 1));
        all.collect()
    };
    Some(match sign {
        b'*' | b'%' if depth == DEPTH_MAX => Value::Nil,
        b'*' => Value::Array(some(text.parse().unwrap_or(0))),
        b'%' => {
            let n = text.parse::<usize>().unwrap_or(0);
            let mut flat = some(n.saturating_mul(2)).into_iter();
            let pairs = std::iter::from_fn(|| Some((flat.next()?, flat.next()?)));
            Value::Map(pairs.collect())
        }
        b':' => Value::Int(text.parse().unwrap_or(0)),
        b'$' => Value::BulkString(rest.to_vec()),
        b'+' => Value::SimpleString(text.into_owned()),
        b'-' => redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).ok()?,
        b'_' => Value::Nil,
        _ => Value::BulkString(line.to_vec()),
    })
}
