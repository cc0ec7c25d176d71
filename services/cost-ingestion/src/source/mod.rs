//! Cost sources: what one export format is, and how its rows become FOCUS rows.
//!
//! Lives here: the contract of a source, the list of them, and the typed reading of columns that they share. A new source is a folder here
//! (its column mapping in one file, its rules beside it) and one line in [`SOURCES`]. Must not live here: files, storage, the table, NATS.

mod batch;
pub mod legacy_cur;

pub use batch::{Amounts, Batch, Line};

use arrow_array::RecordBatch;
use arrow_schema::Schema;

/// Every format that is understood.
pub const SOURCES: &[&dyn CostSource] = &[&legacy_cur::LegacyCur];

/// Raised by one whenever a mapping changes its output: it is part of what makes an ingested version, so that periods are then read anew.
pub const MAPPING_VERSION: u32 = 1;

/// One export format.
pub trait CostSource: Send + Sync {
    /// Its name in logs, reasons and the table's history.
    fn name(&self) -> &'static str;
    /// Whether a file with these columns is of this format.
    fn recognises(&self, schema: &Schema) -> bool;
    /// The source column that holds the start of the billing period.
    fn period_column(&self) -> &'static str;
    /// Whether this source column is read at all.
    fn wants(&self, column: &str) -> bool;
    /// Turns a batch of source rows into a batch of [`crate::focus::SCHEMA`], row by row, in order.
    ///
    /// # Errors
    /// When a column that FOCUS requires cannot be filled, or a value is not of its type.
    fn map(&self, batch: &RecordBatch) -> Result<Mapped, SourceError>;
}

/// What came of a batch.
#[derive(Debug)]
pub struct Mapped {
    /// Rows in [`crate::focus::SCHEMA`].
    pub rows: RecordBatch,
    /// Numbers with more than 18 digits after the point, which were rounded.
    pub rounded: u64,
}

/// Why rows are refused. Values are never quoted.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file's columns fit no source.
    #[error("the file's columns fit no known cost export (known: {})", known())]
    UnknownFormat,
    /// A column that the mapping cannot do without.
    #[error("column {column} is missing")]
    MissingColumn {
        /// The source's column.
        column: &'static str,
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
    /// A sum over columns of one row is too large.
    #[error("a computed {column} has more than 20 digits before the point")]
    TooLarge {
        /// The FOCUS column.
        column: &'static str,
    },
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
    SOURCES.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ")
}

/// The source whose format this is.
///
/// # Errors
/// [`SourceError::UnknownFormat`].
pub fn recognise(schema: &Schema) -> Result<&'static dyn CostSource, SourceError> {
    SOURCES.iter().copied().find(|source| source.recognises(schema)).ok_or(SourceError::UnknownFormat)
}
