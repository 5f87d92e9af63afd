//! The known word that somebody probably meant.

/// The nearest of `known`, if it is near at all: a third of its letters may differ.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|k| (distance(word, k), *k));
    let (distance, best) = scored.min()?;
    (distance <= best.len().max(word.len()).div_ceil(3)).then_some(best)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_it_is_near() {
        let known = ["partitions", "capacity", "retain", "name"];
        assert_eq!(nearest("partitons", &known), Some("partitions"));
        assert_eq!(nearest("capcaity", &known), Some("capacity"));
        assert_eq!(nearest("nmae", &known), Some("name"));
        assert_eq!(nearest("zzzzzzz", &known), None);
    }
}
