//! The language of the mapping files: what an expression is, and how it is read.
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
use std::collections::HashMap;
use std::rc::Rc;
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

/// Reads an expression; `named` are the `let` lines before it.
///
/// # Errors
/// What is wrong, with the rest of the text.
pub(super) fn parse(text: &str, named: &HashMap<String, (usize, Arc<Expr>)>) -> Result<Expr, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, named };
    let expr = parser.sum()?;
    if parser.at < parser.tokens.len() { Err(parser.wrong("the end")) } else { Ok(expr) }
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

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(Rc<str>),
    Quoted(Rc<str>),
    Text(Rc<str>),
    Number(Rc<str>),
    Sign(Rc<str>),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let taken = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        let (token, length) = match first {
            '\'' | '`' => {
                let inner = rest.get(1..).unwrap_or_default();
                let end = inner.find(first).ok_or_else(|| format!("a quote is not closed: {rest}"))?;
                let inner: Rc<str> = inner.get(..end).unwrap_or_default().into();
                (if first == '\'' { Token::Text(inner) } else { Token::Quoted(inner) }, end + 2)
            }
            c if c.is_ascii_alphabetic() || c == '_' || c == '$' => {
                let end = taken(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
                (Token::Word(rest.get(..end).unwrap_or_default().into()), end)
            }
            c if c.is_ascii_digit() => {
                let end = taken(|c| c.is_ascii_digit() || c == '.');
                (Token::Number(rest.get(..end).unwrap_or_default().into()), end)
            }
            _ => {
                let two = ["<>", "<=", ">="].into_iter().find(|two| rest.starts_with(two));
                let sign = two.or_else(|| rest.get(..first.len_utf8())).unwrap_or_default();
                (Token::Sign(sign.into()), sign.len())
            }
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    named: &'a HashMap<String, (usize, Arc<Expr>)>,
}

impl Parser<'_> {
    fn wrong(&self, wanted: &str) -> String {
        format!("{wanted} is expected at token {} ({:?})", self.at + 1, self.tokens.get(self.at))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Word(found)) if &**found == word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Sign(found)) if &**found == sign);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, found: bool, wanted: &str) -> Result<(), String> {
        if found { Ok(()) } else { Err(self.wrong(wanted)) }
    }

    fn need_word(&mut self, word: &str) -> Result<(), String> {
        let found = self.word(word);
        self.need(found, word)
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), String> {
        let found = self.sign(sign);
        self.need(found, sign)
    }

    fn text(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Text(text)) => {
                let text = text.to_string();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wrong("a text in quotes")),
        }
    }

    fn texts(&mut self) -> Result<Vec<String>, String> {
        let mut all = vec![self.text()?];
        while self.sign(",") {
            all.push(self.text()?);
        }
        Ok(all)
    }

    fn number(&mut self) -> Result<Amount, String> {
        let negative = self.sign("-");
        match self.tokens.get(self.at) {
            Some(Token::Number(text)) => {
                let text = if negative { format!("-{text}") } else { text.to_string() };
                self.at += 1;
                Amount::parse(&text).map(|read| read.amount).map_err(|error| format!("{text}: {error}"))
            }
            _ => Err(self.wrong("a number")),
        }
    }

    fn column(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Word(name) | Token::Quoted(name)) => {
                let name = name.to_string();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.wrong("a column")),
        }
    }

    fn sum(&mut self) -> Result<Expr, String> {
        let mut left = self.product()?;
        loop {
            let op = match () {
                () if self.sign("+") => Op::Add,
                () if self.sign("-") => Op::Sub,
                () => return Ok(left),
            };
            left = Expr::Math(op, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expr, String> {
        let mut left = self.atom()?;
        loop {
            let op = match () {
                () if self.sign("*") => Op::Mul,
                () if self.sign("/") => Op::Div,
                () => return Ok(left),
            };
            left = Expr::Math(op, Box::new(left), Box::new(self.atom()?));
        }
    }

    fn atom(&mut self) -> Result<Expr, String> {
        if self.sign("(") {
            let inner = self.sum()?;
            self.need_sign(")")?;
            return Ok(inner);
        }
        match self.tokens.get(self.at).cloned() {
            Some(Token::Text(_)) => self.text().map(Expr::Text),
            Some(Token::Number(_)) => self.number().map(Expr::Number),
            Some(Token::Sign(sign)) if &*sign == "-" => self.number().map(Expr::Number),
            Some(Token::Word(word)) if &*word == "case" => {
                self.at += 1;
                self.case()
            }
            Some(Token::Word(word)) if &*word == "null" => {
                self.at += 1;
                Ok(Expr::Null)
            }
            Some(Token::Word(word)) if word.starts_with('$') => {
                self.at += 1;
                let name = word.trim_start_matches('$');
                let (number, expr) = self.named.get(name).ok_or_else(|| format!("${name} is not named before"))?;
                Ok(Expr::Named(*number, Arc::clone(expr)))
            }
            Some(Token::Word(word)) if self.tokens.get(self.at + 1) == Some(&Token::Sign("(".into())) => {
                self.at += 2;
                let call = self.call(&word)?;
                self.need_sign(")")?;
                Ok(call)
            }
            _ => {
                let name = self.column()?;
                if !self.sign("[") {
                    return Ok(Expr::Column(name));
                }
                let key = self.text()?;
                self.need_sign("]")?;
                Ok(Expr::Key(name, key))
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Expr>, String> {
        let mut all = vec![self.sum()?];
        while self.sign(",") {
            all.push(self.sum()?);
        }
        Ok(all)
    }

    fn call(&mut self, name: &str) -> Result<Expr, String> {
        Ok(match name {
            "first" => Expr::First(self.list()?),
            "concat" => Expr::Concat(self.list()?),
            "lower" | "upper" => Expr::Cased(name == "upper", Box::new(self.sum()?)),
            "open_end" => Expr::Moved(Move::OpenEnd, Box::new(self.sum()?)),
            "month_start" => Expr::Moved(Move::MonthStart, Box::new(self.sum()?)),
            "month_end" => Expr::Moved(Move::MonthEnd, Box::new(self.sum()?)),
            "tags" => Expr::Tags(self.column()?),
            "tag_columns" => Expr::TagColumns(self.text()?),
            "part" => {
                let of = self.sum()?;
                self.need_sign(",")?;
                let separator = self.text()?;
                self.need_sign(",")?;
                let number = self.number()?.to_string();
                let number = number.parse::<usize>().ok().filter(|n| *n > 0).ok_or("parts are counted from 1")?;
                Expr::Part(Box::new(of), separator, number)
            }
            "lookup" => {
                let table = self.text()?;
                let table = super::tables::named(&table).ok_or_else(|| format!("there is no table {table}"))?;
                self.need_sign(",")?;
                let of = self.sum()?;
                let other = if self.sign(",") { self.text()? } else { String::new() };
                Expr::Lookup(table, Box::new(of), other)
            }
            "json" => {
                let column = self.column()?;
                self.need_sign(",")?;
                Expr::Json(column, self.texts()?)
            }
            other => return Err(format!("there is no function {other}")),
        })
    }

    fn case(&mut self) -> Result<Expr, String> {
        if matches!(self.tokens.get(self.at), Some(Token::Word(word)) if &**word == "when") {
            let mut arms = Vec::new();
            while self.word("when") {
                let cond = self.any()?;
                self.need_word("then")?;
                arms.push((cond, self.sum()?));
            }
            let other = Box::new(if self.word("else") { self.sum()? } else { Expr::Null });
            self.need_word("end")?;
            return Ok(Expr::When(arms, other));
        }
        let on = Box::new(self.sum()?);
        let mut arms = Vec::new();
        while self.word("when") {
            let texts = self.texts()?;
            self.need_word("then")?;
            arms.push((texts, self.sum()?));
        }
        let other = Box::new(if self.word("else") { self.sum()? } else { Expr::Null });
        self.need_word("end")?;
        Ok(Expr::Switch(on, arms, other))
    }

    fn any(&mut self) -> Result<Cond, String> {
        let mut left = self.all()?;
        while self.word("or") {
            left = Cond::Or(Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Cond, String> {
        let mut left = self.cond()?;
        while self.word("and") {
            left = Cond::And(Box::new(left), Box::new(self.cond()?));
        }
        Ok(left)
    }

    fn cond(&mut self) -> Result<Cond, String> {
        if self.word("not") {
            return Ok(Cond::Not(Box::new(self.cond()?)));
        }
        if self.sign("(") {
            let inner = self.any()?;
            self.need_sign(")")?;
            return Ok(inner);
        }
        if self.word("exported") {
            self.need_sign("(")?;
            let column = self.column()?;
            self.need_sign(")")?;
            return Ok(Cond::Exported(column));
        }
        let of = self.sum()?;
        if self.word("is") {
            let not = self.word("not");
            self.need_word("null")?;
            let missing = Cond::Missing(of);
            return Ok(if not { Cond::Not(Box::new(missing)) } else { missing });
        }
        if self.word("in") {
            self.need_sign("(")?;
            let texts = self.texts()?;
            self.need_sign(")")?;
            return Ok(Cond::In(of, texts));
        }
        if self.word("like") {
            let pattern = self.text()?;
            return Ok(Cond::Like(of, pattern.split('%').map(str::to_owned).collect()));
        }
        let signs = [
            ("=", [false, true, false]),
            ("<>", [true, false, true]),
            ("<=", [true, true, false]),
            (">=", [false, true, true]),
            ("<", [true, false, false]),
            (">", [false, false, true]),
        ];
        let Some((sign, fits)) = signs.into_iter().find(|(sign, _)| self.sign(sign)) else {
            return Err(self.wrong("a comparison"));
        };
        if matches!(self.tokens.get(self.at), Some(Token::Text(_))) {
            let same = Cond::In(of, vec![self.text()?]);
            return match sign {
                "=" => Ok(same),
                "<>" => Ok(Cond::Not(Box::new(same))),
                _ => Err("texts are compared with = and <> alone".to_owned()),
            };
        }
        Ok(Cond::Compare(of, fits, self.number()?))
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
