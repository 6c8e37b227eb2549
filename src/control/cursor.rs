//! Where the next page of a list begins, by time and id: opaque to those who hand it back, and not moved by what is added.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::clock::Timestamp;

/// After this one.
pub(super) fn write(at: Timestamp, id: Uuid) -> String {
    let mut bytes = at.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What [`write`] wrote.
pub(super) fn read(text: &str) -> Option<(Timestamp, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    Some((Timestamp(i64::from_be_bytes(*at)), Uuid::from_slice(id).ok()?))
}

/// Cuts `rows`, of which one more than `limit` was asked for, to `limit`; the cursor of the next page, if there is one.
pub(super) fn page<T>(rows: &mut Vec<T>, limit: u32, of: impl Fn(&T) -> (Timestamp, Uuid)) -> Option<String> {
    let limit = limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let (at, id) = rows.last().filter(|_| more).map(of)?;
    Some(write(at, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nonsense_does_not() {
        let id = Uuid::now_v7();
        for at in [Timestamp(0), Timestamp(-5), Timestamp(1_700_000_000_000_001)] {
            assert_eq!(read(&write(at, id)), Some((at, id)));
        }
        for bad in ["", "x", "AAAA", &write(Timestamp(1), id)[1..]] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_that_is_not_the_last_tells_where_the_next_begins() {
        let of = |n: &i64| (Timestamp(*n), Uuid::from_u128(7));
        let mut rows = vec![3, 2, 1];
        assert_eq!(page(&mut rows, 2, of).as_deref().and_then(read), Some(of(&2)));
        assert_eq!(rows, [3, 2]);
        assert_eq!(page(&mut rows, 2, of), None);
    }
}
