//! Cost sources: what one export format is, and how its rows become FOCUS rows.
//!
//! Lives here: the mapping files (`mappings/*.mapping`, one for each source), the language they are written in and its evaluation. A new source is a
//! file there and a line in [`SOURCES`]. Must not live here: files, storage, the table, NATS.
//!
//! | where | what |
//! |---|---|
//! | `mapping` | the form of a mapping file; rows in, the table's columns out |
//! | `expression`, `parse`, `eval` | the language, its text, and its evaluation, over distinct values rather than rows |
//! | `compute` | decimals and instants |
//! | `value`, `batch` | columns in memory; the typed reading of source columns |
//! | `tables` | names that mappings look up |

mod batch;
mod compute;
mod eval;
mod expression;
mod mapping;
mod parse;
mod tables;
#[cfg(test)]
mod tests;
mod value;

pub use batch::{Layout, MAX_TEXT, plain_name};
pub use mapping::{Made, Mapped, Mapping, MappingError};
pub use value::{Many, Maps, Nullable, Pairs, Text, from_json, to_json};

use std::sync::LazyLock;

const FILES: [&str; 5] = [
    include_str!("mappings/legacy-cur.mapping"),
    include_str!("mappings/cur-2.0.mapping"),
    include_str!("mappings/focus-1.2.mapping"),
    include_str!("mappings/focus-1.0.mapping"),
    include_str!("mappings/cost-explorer.mapping"),
];

/// Every format that is understood; a file is of the first that recognises it. A file of ours that could not be read would be missing: [`check`] says so
/// at the start, and so does a test.
pub static SOURCES: LazyLock<Vec<Mapping>> =
    LazyLock::new(|| FILES.iter().filter_map(|text| Mapping::parse(text).ok()).collect());

/// Raised by one whenever the way in which mappings are evaluated changes its output.
const PIPELINE_VERSION: u32 = 2;

/// Stands for everything that decides what becomes of a source row: it is part of what makes an ingested version, so that periods are read anew when
/// any of it changes.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    use sha2::{Digest as _, Sha256};
    let mut digest = Sha256::new();
    SOURCES.iter().for_each(|source| digest.update(source.digest()));
    digest.update(mapping::tables_digest());
    let head = digest.finalize().iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    format!("{PIPELINE_VERSION}-{head:016x}")
});

/// Reads every mapping file.
///
/// # Errors
/// The first that is wrong.
pub fn check() -> Result<(), MappingError> {
    FILES.iter().try_for_each(|text| Mapping::parse(text).map(drop))
}

/// Why rows are refused. Values are never quoted.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file's columns fit no source.
    #[error(
        "the file's columns fit no known cost export (known: {}); if it is one, it needs its header and commas between its fields, and if it is none, move it out of the export's folder",
        known()
    )]
    UnknownFormat,
    /// A column that the mapping cannot do without.
    #[error("column {column} is missing, and costs cannot be told without it; add it to the columns of the export")]
    MissingColumn {
        /// The source's column.
        column: String,
    },
    /// A column of a type that its values cannot be read from.
    #[error("column {column} has the type {found}, which cannot be read as {expected}")]
    WrongType {
        /// The source's column.
        column: String,
        /// What was expected.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A value that is no amount.
    #[error("column {column} holds a value that is no amount: {why}")]
    BadAmount {
        /// The source's column.
        column: String,
        /// Why.
        why: crate::money::AmountError,
    },
    /// A value that is no map.
    #[error("column {column} holds a value that is no JSON object")]
    BadMap {
        /// The source's column.
        column: String,
    },
    /// A result over columns of one row is too large.
    #[error("a computed amount has more than 20 digits before the point")]
    TooLarge,
    /// A text that no export has.
    #[error("column {column} holds a text of more than {limit} bytes")]
    TooLong {
        /// The source's column.
        column: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A required FOCUS column is empty in some row.
    #[error("{column} is empty in a row, and a cost row must have it")]
    Empty {
        /// The FOCUS column.
        column: &'static str,
    },
    /// Arrow could not do what was asked.
    #[error("the rows could not be converted")]
    Arrow(#[source] arrow_schema::ArrowError),
}

fn known() -> String {
    SOURCES.iter().map(Mapping::name).collect::<Vec<_>>().join(", ")
}

/// The source whose format this is.
///
/// # Errors
/// [`SourceError::UnknownFormat`].
pub fn recognise(layout: &Layout) -> Result<&'static Mapping, SourceError> {
    SOURCES.iter().find(|source| source.recognises(layout)).ok_or(SourceError::UnknownFormat)
}
