//! Pages of lists: by key, so that they stay right while rows are added, and bounded in bytes as well as in number.

use std::str::FromStr;

use contracts::{ErrorCode, Page, PageRequest};
use serde::Serialize;

use super::StoreError;

/// A reply must fit NATS's largest payload (1 MiB by default) with room to spare.
const LARGEST_BYTES: usize = 512 * 1024;

/// Where the page begins, as the key's own type.
pub(crate) fn after<K: FromStr>(request: &PageRequest) -> Result<Option<K>, StoreError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            StoreError::refused(ErrorCode::InvalidRequest, "`after` is not the `next` of a page of this list")
        })
    };
    request.after.as_ref().map(parse).transpose()
}

/// Rows to ask the database for: one more than the page holds, to see whether there is a next one.
pub(crate) fn rows_wanted(request: &PageRequest) -> u64 {
    u64::from(request.size()) + 1
}

/// Cuts `items` to the page's size in number and bytes; at least one item stays. `key` names the item after which the next page begins.
pub(crate) fn cut<T: Serialize>(request: &PageRequest, items: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
    let mut bytes = 0;
    let mut kept = 0;
    for item in items.iter().take(usize::from(request.size())) {
        bytes += serde_json::to_vec(item).map_or(0, |json| json.len() + 1);
        if kept > 0 && bytes > LARGEST_BYTES {
            break;
        }
        kept += 1;
    }
    let more = items.len() > kept;
    let mut items = items;
    items.truncate(kept);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u16, items: Vec<String>) -> Page<String> {
        cut(&PageRequest { limit: Some(limit), after: None }, items, Clone::clone)
    }

    #[test]
    fn a_page_ends_at_its_number() {
        let page = page(2, vec!["a".into(), "b".into(), "c".into()]);
        assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("b")));
    }

    #[test]
    fn the_last_page_says_so() {
        assert_eq!(page(3, vec!["a".into(), "b".into(), "c".into()]).next, None);
        assert_eq!(page(3, vec![]).next, None);
    }

    #[test]
    fn a_page_ends_at_its_bytes_but_never_stands_still() {
        let large = "x".repeat(LARGEST_BYTES / 2);
        let page_of_two = page(500, vec![large.clone(), large.clone(), large]);
        assert_eq!(page_of_two.items.len(), 1);
        assert!(page_of_two.next.is_some());
        let huge = page(500, vec!["y".repeat(LARGEST_BYTES * 2), "z".into()]);
        assert_eq!(huge.items.len(), 1);
    }
}
