//! The language of the mapping files: what an expression is. How it is read from text says `parse`.
//!
//! ```text
//! name                      a column of the source (`...` in back quotes where it has odd characters); absent columns are empty
//! name['key']               the value of a key in a map column
//! 'text'   1.5   null       constants
//! $name                     what a `let` line has named
//! a + b   a - b   a * b   a / b      decimals; none where either is none; exact, but for division, which keeps 18 digits
//! case x when 'a', 'b' then e ... else e end        by the text of x
//! case when condition then e ... else e end         the first condition that holds
//! first(a, b, ...)          the first that has a value
//! concat(a, b, ...)         put together; none where any is none
//! lower(a)  upper(a)  part(a, 'separator', 1)       the parts of a text are counted from 1
//! lookup('table', a, 'otherwise')                   a table of names: service-category, region-name
//! open_end(t)  month_start(t)  month_end(t)         of instants; an end at :59 becomes the open end that FOCUS asks for
//! tags(map)  tag_columns('prefix')                  tags in FOCUS's form
//! json(map, 'key', ...)     the keys that are there, as a JSON object
//! ```
//! Conditions: `x is null`, `x is not null`, `x = 'a'`, `x <> 'a'`, `x in ('a', 'b')`, `x like '%a%'`, comparisons of decimals with a number (`x < 0`),
//! `exported(column)`, `not`, `and`, `or`, parentheses.
//!
//! An expression has no type of its own: the FOCUS column that it fills (or what it is compared with) says whether it is text, an amount, an instant or tags.

use crate::money::Amount;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    /// A source column.
    Column(String),
    /// A key of a map column.
    Key(String, String),
    /// A constant text.
    Text(String),
    /// A constant number.
    Number(Amount),
    /// No value.
    Null,
    /// What a `let` line has named, and its number.
    Named(usize, Arc<Expr>),
    /// The first with a value.
    First(Vec<Expr>),
    /// Texts put together.
    Concat(Vec<Expr>),
    /// By the text of an expression; the last branch is `else`.
    Switch(Box<Expr>, Vec<(Vec<String>, Expr)>, Box<Expr>),
    /// By conditions; the last branch is `else`.
    When(Vec<(Cond, Expr)>, Box<Expr>),
    /// Decimals.
    Math(Op, Box<Expr>, Box<Expr>),
    /// Upper or lower case.
    Cased(bool, Box<Expr>),
    /// The n-th part of a text.
    Part(Box<Expr>, String, usize),
    /// A table's entry.
    Lookup(&'static super::tables::Table, Box<Expr>, String),
    /// An instant moved.
    Moved(Move, Box<Expr>),
    /// Tags of a map column.
    Tags(String),
    /// Tags of the columns with a prefix.
    TagColumns(String),
    /// Keys of a map column as JSON.
    Json(String, Vec<String>),
}

/// Arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

/// What is done to instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    OpenEnd,
    MonthStart,
    MonthEnd,
}

/// What holds or does not.
#[derive(Clone, Debug)]
pub(super) enum Cond {
    /// The text is one of these.
    In(Expr, Vec<String>),
    /// The text looks so.
    Like(Expr, Vec<String>),
    /// There is no value.
    Missing(Expr),
    /// The amount compares so: whether less, equal, more fit.
    Compare(Expr, [bool; 3], Amount),
    /// The file has the column.
    Exported(String),
    Not(Box<Cond>),
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
}

/// The source columns that an expression reads, and whether it reads them as a map.
pub(super) fn columns(expr: &Expr, found: &mut dyn FnMut(&str, bool)) {
    match expr {
        Expr::Column(name) => found(name, false),
        Expr::Key(name, _) | Expr::Tags(name) | Expr::Json(name, _) => found(name, true),
        Expr::Text(_) | Expr::Number(_) | Expr::Null | Expr::TagColumns(_) => {}
        Expr::Named(_, expr) => columns(expr, found),
        Expr::First(all) | Expr::Concat(all) => all.iter().for_each(|expr| columns(expr, found)),
        Expr::Switch(on, arms, other) => {
            columns(on, found);
            arms.iter().for_each(|(_, expr)| columns(expr, found));
            columns(other, found);
        }
        Expr::When(arms, other) => {
            for (cond, expr) in arms {
                cond_columns(cond, found);
                columns(expr, found);
            }
            columns(other, found);
        }
        Expr::Math(_, a, b) => {
            columns(a, found);
            columns(b, found);
        }
        Expr::Cased(_, a) | Expr::Part(a, ..) | Expr::Lookup(_, a, _) | Expr::Moved(_, a) => columns(a, found),
    }
}

fn cond_columns(cond: &Cond, found: &mut dyn FnMut(&str, bool)) {
    match cond {
        Cond::In(expr, _) | Cond::Like(expr, _) | Cond::Missing(expr) | Cond::Compare(expr, ..) => columns(expr, found),
        Cond::Exported(name) => found(name, false),
        Cond::Not(cond) => cond_columns(cond, found),
        Cond::And(a, b) | Cond::Or(a, b) => {
            cond_columns(a, found);
            cond_columns(b, found);
        }
    }
}

/// Whether a text looks like the parts of a pattern between its `%`.
pub(super) fn like(text: &str, parts: &[String]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some(mut text) = text.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return text.is_empty() };
    for part in middle {
        match text.find(part.as_str()) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    text.ends_with(last.as_str())
}
