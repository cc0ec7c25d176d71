//! Tables for people, JSON for programs.

use contracts::{Page, Timestamp};
use serde::Serialize;

use crate::error::CliError;

/// How answers are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One thing: JSON, or its lines of name and value.
    pub(crate) fn one<T: Serialize>(self, thing: &T, lines: &[(&str, String)]) -> Result<(), CliError> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(thing)?);
            return Ok(());
        }
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in lines {
            println!("{name:width$}  {value}");
        }
        Ok(())
    }

    /// A page: JSON, or a table with the way to the next page.
    pub(crate) fn page<T: Serialize>(
        self,
        page: &Page<T>,
        head: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(page)?);
            return Ok(());
        }
        print!("{}", table(head, &page.items.iter().map(row).collect::<Vec<_>>()));
        if let Some(next) = &page.next {
            println!("more with --after {next}");
        }
        Ok(())
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }
}

/// Columns as wide as their widest cell; numbers (cells that begin with a digit or a minus and hold a point) are set to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let length = |text: &str| text.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell));
        cells.chain(head.get(column).map(|title| length(title))).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.enumerate().map(|(column, cell)| {
            let pad = " ".repeat(width(column) - length(cell));
            let is_number =
                cell.contains('.') && cell.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
            if is_number { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// An instant for a table; a dash when there is none.
pub(crate) fn instant(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// A kebab-case word of the wire.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows =
            vec![vec!["EC2".to_owned(), "10.50".to_owned()], vec!["Simple Storage".to_owned(), "-1.5".to_owned()]];
        assert_eq!(
            table(&["service", "billed"], &rows),
            "service         billed\nEC2              10.50\nSimple Storage    -1.5\n"
        );
    }
}
