//! Reading expressions of the mapping files from text: see `expression` for the language.

use super::expression::{Cond, Expr, Move, Op};
use crate::money::Amount;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Reads an expression; `named` are the `let` lines before it.
///
/// # Errors
/// What is wrong, with the rest of the text.
pub(super) fn parse(text: &str, named: &HashMap<String, (usize, Arc<Expr>)>) -> Result<Expr, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, named };
    let expr = parser.sum()?;
    if parser.at < parser.tokens.len() { Err(parser.wrong("the end")) } else { Ok(expr) }
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
