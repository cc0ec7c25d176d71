//! A mapping file: one source's columns to FOCUS, one line for each column of the table.
//!
//! ```text
//! source cur-2.0                     its name
//! recognise a b !c                   a file with columns a and b and without c is of this format; several lines: any of them
//! require a b                        without these a file is refused
//! let x = expression                 a name for an expression, used as $x
//! BilledCost = expression            one for each column of the table, in any order
//! ```
//! A line that begins with blanks continues the one before; `#` begins a comment. The expressions are described in `expression`.

use super::batch::{Batch, Layout, folded, has_prefix};
use super::eval::Evaluator;
use super::expression::{self, Expr};
use super::value::{Many, Maps, Text};
use super::{SourceError, parse, tables};
use crate::focus::{self, Column, Kind};
use arrow_array::RecordBatch;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One export format, as its file says.
#[derive(Debug)]
pub struct Mapping {
    name: String,
    /// Alternatives of (columns that must be there, columns that must not).
    recognise: Vec<(Vec<String>, Vec<String>)>,
    require: Vec<String>,
    /// In the order of [`focus::COLUMNS`].
    columns: Vec<Expr>,
    /// Folded names.
    reads: BTreeSet<String>,
    prefixes: Vec<String>,
    digest: [u8; 32],
}

/// A mapping file that cannot be used; only a mistake of ours makes one.
#[derive(Debug, thiserror::Error)]
#[error("the mapping file, line {line}: {why}")]
pub struct MappingError {
    /// Where.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// A column of the table, made of a batch.
#[derive(Debug)]
pub enum Made {
    /// [`Kind::Text`].
    Text(Text),
    /// [`Kind::Amount`].
    Amounts(Many<i128>),
    /// [`Kind::Instant`].
    Instants(Many<i64>),
    /// [`Kind::Tags`].
    Tags(Maps),
}

/// What came of a batch: the table's columns in their order.
#[derive(Debug)]
pub struct Mapped {
    /// How many rows.
    pub rows: usize,
    /// In the order of [`focus::COLUMNS`].
    pub columns: Vec<Made>,
    /// Numbers with more than 18 digits after the point, which were rounded.
    pub rounded: u64,
}

impl Mapped {
    /// One of the table's columns.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Made> {
        focus::COLUMNS.iter().position(|column| column.name == name).and_then(|at| self.columns.get(at))
    }
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let mut mapping = Self {
            name: String::new(),
            recognise: Vec::new(),
            require: Vec::new(),
            columns: Vec::new(),
            reads: BTreeSet::new(),
            prefixes: Vec::new(),
            digest: [0; 32],
        };
        let (mut named, mut made) = (HashMap::new(), HashMap::new());
        let mut digest = Sha256::new();
        for (line, statement) in statements(text) {
            digest.update(statement.as_bytes());
            digest.update([0]);
            let wrong = |why: String| MappingError { line, why };
            let (head, rest) = statement.split_once(char::is_whitespace).unwrap_or((&statement, ""));
            let words = || rest.split_whitespace().map(str::to_owned);
            match head {
                "source" => mapping.name = rest.trim().to_owned(),
                "recognise" => {
                    let (not, must): (Vec<_>, Vec<_>) = words().partition(|word| word.starts_with('!'));
                    let not = not.into_iter().map(|word| word.trim_start_matches('!').to_owned()).collect();
                    mapping.recognise.push((must, not));
                }
                "require" => mapping.require.extend(words()),
                _ => {
                    let definition = if head == "let" { rest } else { statement.as_str() };
                    let (name, expr) = definition.split_once('=').ok_or_else(|| wrong("= is expected".to_owned()))?;
                    let (name, expr) = (name.trim().to_owned(), parse::parse(expr, &named).map_err(wrong)?);
                    let known = if head == "let" {
                        let number = named.len();
                        named.insert(name.clone(), (number, Arc::new(expr))).is_some()
                    } else {
                        made.insert(name.clone(), expr).is_some()
                    };
                    if known {
                        return Err(wrong(format!("{name} stands there twice")));
                    }
                }
            }
        }
        for column in focus::COLUMNS {
            let why = || MappingError { line: 0, why: format!("{} has no line", column.name) };
            mapping.columns.push(made.remove(column.name).ok_or_else(why)?);
        }
        if let Some(name) = made.keys().next() {
            return Err(MappingError { line: 0, why: format!("{name} is no column of the table") });
        }
        let columns = std::mem::take(&mut mapping.columns);
        columns.iter().for_each(|expr| mapping.note(expr));
        mapping.columns = columns;
        mapping.reads.extend(mapping.require.iter().map(|name| folded(name)));
        mapping.digest = digest.finalize().into();
        Ok(mapping)
    }

    fn note(&mut self, expr: &Expr) {
        if let Expr::TagColumns(prefix) = expr {
            self.prefixes.push(prefix.clone());
        }
        expression::columns(expr, &mut |name, _| {
            self.reads.insert(folded(name));
        });
    }

    /// Its name in logs, reasons and the table's history.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes whenever the mapping does.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// Whether a file with these columns is of this format.
    #[must_use]
    pub fn recognises(&self, layout: &Layout) -> bool {
        let fits = |(must, not): &(Vec<String>, Vec<String>)| {
            must.iter().all(|name| layout.has(name)) && !not.iter().any(|name| layout.has(name))
        };
        self.recognise.iter().any(fits)
    }

    /// Whether this source column (as mappings call it, in whatever case) is read at all.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.reads.contains(&folded(name)) || self.prefixes.iter().any(|prefix| has_prefix(name, prefix))
    }

    /// Whether this source column is read to tell the billing period.
    #[must_use]
    pub fn wants_for_period(&self, name: &str) -> bool {
        let mut found = false;
        if let Some(expr) = self.expr("BillingPeriodStart") {
            expression::columns(expr, &mut |read, _| found |= folded(read) == folded(name));
        }
        found
    }

    fn expr(&self, column: &str) -> Option<&Expr> {
        let at = focus::COLUMNS.iter().position(|known| known.name == column)?;
        self.columns.get(at)
    }

    /// Makes sure that a file has the columns without which a cost would be a guess.
    ///
    /// # Errors
    /// [`SourceError::MissingColumn`].
    pub fn check(&self, layout: &Layout) -> Result<(), SourceError> {
        match self.require.iter().find(|name| !layout.has(name)) {
            Some(column) => Err(SourceError::MissingColumn { column: column.clone() }),
            None => Ok(()),
        }
    }

    /// The starts of the billing period of each row.
    ///
    /// # Errors
    /// When they are no instants.
    pub fn periods(&self, rows: &RecordBatch, layout: &Layout) -> Result<Many<i64>, SourceError> {
        let batch = Batch::new(rows, layout);
        let expr = self.expr("BillingPeriodStart").unwrap_or(&Expr::Null);
        Evaluator::new(&batch).instants(expr)
    }

    /// Turns a batch of source rows into the table's columns, row by row, in order.
    ///
    /// # Errors
    /// When a column that FOCUS requires cannot be filled, or a value is not of its type.
    pub fn map(&self, rows: &RecordBatch, layout: &Layout) -> Result<Mapped, SourceError> {
        let batch = Batch::new(rows, layout);
        let evaluator = Evaluator::new(&batch);
        let make = |(column, expr): (&Column, &Expr)| {
            let (made, none) = match column.kind {
                Kind::Text => {
                    let text = evaluator.text(expr)?;
                    let none = column.required && text.keys.has_none();
                    (Made::Text(text), none)
                }
                Kind::Amount => {
                    let amounts = evaluator.amounts(expr)?;
                    let none = column.required && amounts.has_none();
                    (Made::Amounts(amounts), none)
                }
                Kind::Instant => {
                    let instants = evaluator.instants(expr)?;
                    let none = column.required && instants.has_none();
                    (Made::Instants(instants), none)
                }
                Kind::Tags => (Made::Tags(evaluator.maps(expr)?), false),
            };
            if none && batch.rows() > 0 { Err(SourceError::Empty { column: column.name }) } else { Ok(made) }
        };
        let columns = focus::COLUMNS.iter().zip(&self.columns).map(make).collect::<Result<_, _>>()?;
        Ok(Mapped { rows: batch.rows(), columns, rounded: batch.rounded() })
    }
}

/// Statements with the number of their first line: comments dropped, continuations joined.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut quoted = None;
        let comment = line.char_indices().find(|(_, c)| {
            match quoted {
                Some(quote) if quote == *c => quoted = None,
                None if matches!(c, '\'' | '`') => quoted = Some(*c),
                _ => {}
            }
            *c == '#' && quoted.is_none()
        });
        let line = comment.and_then(|(end, _)| line.get(..end)).unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        match found.last_mut() {
            Some((_, before)) if line.starts_with(char::is_whitespace) => {
                before.push(' ');
                before.push_str(line.trim());
            }
            _ => found.push((at + 1, line.trim().to_owned())),
        }
    }
    found
}

/// For the digest: the tables are part of every mapping.
pub(super) fn tables_digest() -> Vec<u8> {
    let mut digest = Sha256::new();
    for name in ["service-category", "region-name"] {
        let mut entries: Vec<_> = tables::named(name).into_iter().flatten().collect();
        entries.sort_unstable();
        for (name, value) in entries {
            digest.update(format!("{name}={value}\n"));
        }
    }
    digest.finalize().to_vec()
}
