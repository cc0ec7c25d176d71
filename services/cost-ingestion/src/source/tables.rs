//! Tables of names that mappings look things up in: `mappings/*.table`, a line for each entry.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What is found under a name.
pub(super) type Table = HashMap<String, String>;

static SERVICE_CATEGORY: LazyLock<Table> = LazyLock::new(|| read(include_str!("mappings/service-category.table")));
static REGION_NAME: LazyLock<Table> = LazyLock::new(|| read(include_str!("mappings/region-name.table")));

/// The table of this name.
pub(super) fn named(name: &str) -> Option<&'static Table> {
    match name {
        "service-category" => Some(&SERVICE_CATEGORY),
        "region-name" => Some(&REGION_NAME),
        _ => None,
    }
}

fn read(text: &str) -> Table {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, found)| (name.to_owned(), found.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_entry() {
        for (text, table) in [
            (include_str!("mappings/service-category.table"), &*SERVICE_CATEGORY),
            (include_str!("mappings/region-name.table"), &*REGION_NAME),
        ] {
            assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), table.len());
        }
        assert_eq!(SERVICE_CATEGORY.get("AmazonEC2").map(String::as_str), Some("Compute"));
    }
}
