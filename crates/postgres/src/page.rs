//! Cursors of pages.

/// The cursor after a page that may not be the last.
pub(crate) fn next<C>(found: usize, limit: u32, cursor: impl FnOnce() -> Option<C>) -> Option<C> {
    if u32::try_from(found).is_ok_and(|found| found < limit) { None } else { cursor() }
}

/// The numbers of a cursor, separated by spaces; `first` for the beginning, or for a cursor that
/// this program did not make.
pub(crate) fn numbers<const N: usize>(cursor: Option<&str>, first: [i64; N]) -> [i64; N] {
    let Some(cursor) = cursor else { return first };
    let mut numbers = first;
    let mut parts = cursor.splitn(N, ' ');
    for number in &mut numbers {
        match parts.next().and_then(|part| part.parse().ok()) {
            Some(part) => *number = part,
            None => return first,
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        assert_eq!(numbers(Some("3 -4"), [0, 0]), [3, -4]);
        assert_eq!(numbers(Some("3"), [1, 2]), [1, 2]);
        assert_eq!(numbers(Some("x y"), [1, 2]), [1, 2]);
        assert_eq!(numbers(None, [7]), [7]);
        assert_eq!(next(2, 3, || Some(())), None);
        assert_eq!(next(3, 3, || Some(())), Some(()));
    }
}
