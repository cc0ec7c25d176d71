//! Evaluating expressions over a batch: see `expression` for what they mean, `value` for what comes out.

use super::SourceError;
use super::batch::Batch;
use super::compute::{math, moved};
use super::expression::{Cond, Expr, like};
use super::value::{Many, Maps, Nullable, Pairs, Text, sorted};
use crate::money::Amount;
use arrow_array::Array as _;
use arrow_array::builder::StringBuilder;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Evaluates over one batch. What `let` lines have named is evaluated once.
pub(super) struct Evaluator<'a> {
    batch: &'a Batch<'a>,
    texts: RefCell<HashMap<usize, Text>>,
    amounts: RefCell<HashMap<usize, Many<i128>>>,
}

impl<'a> Evaluator<'a> {
    /// Over `batch`.
    pub(super) fn new(batch: &'a Batch<'a>) -> Self {
        Self { batch, texts: RefCell::default(), amounts: RefCell::default() }
    }

    fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// As text.
    ///
    /// # Errors
    /// As all of these: when a column's values are not of its type, or a number grows too large.
    pub(super) fn text(&self, expr: &Expr) -> Result<Text, SourceError> {
        Ok(match expr {
            Expr::Column(name) => self.batch.text(name)?,
            Expr::Key(name, key) => self.batch.maps(name)?.get(key),
            Expr::Text(text) => Text::constant(Some(text)),
            Expr::Number(number) => Text::constant(Some(&number.to_string())),
            Expr::Null => Text::constant(None),
            Expr::Named(number, expr) => {
                if let Some(known) = self.texts.borrow().get(number) {
                    return Ok(known.clone());
                }
                let made = self.text(expr)?;
                self.texts.borrow_mut().insert(*number, made.clone());
                made
            }
            Expr::First(all) => {
                let mut best = Text::constant(None);
                for next in all {
                    if !best.keys.has_none() {
                        break;
                    }
                    let choice = best.keys.present().map(|there| u8::from(!there));
                    best = Text::choose(self.rows(), &choice, &[Some(best), Some(self.text(next)?)]);
                }
                best
            }
            Expr::Concat(all) => {
                let mut whole: Option<Text> = None;
                for next in all {
                    let next = self.text(next)?;
                    whole = Some(match whole {
                        None => next,
                        Some(whole) => whole.join(&next, self.rows()),
                    });
                }
                whole.unwrap_or_else(|| Text::constant(None))
            }
            Expr::Switch(on, arms, other) => self.switch_text(on, arms, other)?,
            Expr::When(arms, other) => {
                let (choice, branches) = self.when(arms, other)?;
                let branches = self.branches(&choice, &branches, |expr| self.text(expr))?;
                Text::choose(self.rows(), &choice, &branches)
            }
            Expr::Cased(up, of) => {
                self.text(of)?.change(|text| Some(if *up { text.to_uppercase() } else { text.to_lowercase() }))
            }
            Expr::Part(of, separator, number) => {
                self.text(of)?.change(|text| text.split(separator.as_str()).nth(number - 1).map(str::to_owned))
            }
            Expr::Lookup(table, of, other) => {
                let found = |text: &str| table.get(text).map_or_else(|| other.clone(), |found| found.clone());
                self.text(of)?.change(|text| Some(found(text)).filter(|found| !found.is_empty()))
            }
            Expr::Math(..) => amounts_as_text(&self.amounts(expr)?),
            Expr::Json(name, keys) => {
                let wanted = |set: &Pairs| set.iter().filter(|(key, _)| keys.contains(key)).cloned().collect();
                self.batch.maps(name)?.change(wanted).to_text()
            }
            Expr::Tags(_) | Expr::TagColumns(_) => self.maps(expr)?.to_text(),
            Expr::Moved(..) => Text::constant(None),
        })
    }

    /// By the value of a text: where all branches are constants, each distinct value is looked up once and rows only change their keys.
    fn switch_text(&self, on: &Expr, arms: &[(Vec<String>, Expr)], other: &Expr) -> Result<Text, SourceError> {
        let (choice, branches) = self.switch(on, arms, other)?;
        let constant = |expr: &&Expr| match expr {
            Expr::Text(text) => Some(Some(text.clone())),
            Expr::Null => Some(None),
            _ => None,
        };
        if let Some(constants) = branches.iter().map(constant).collect::<Option<Vec<_>>>() {
            let mut builder = StringBuilder::new();
            constants.iter().for_each(|text| builder.append_value(text.as_deref().unwrap_or_default()));
            return Ok(Text::new(choice.map(u32::from), builder.finish()));
        }
        let branches = self.branches(&choice, &branches, |expr| self.text(expr))?;
        Ok(Text::choose(self.rows(), &choice, &branches))
    }

    /// As amounts, in units of 10^-18.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub(super) fn amounts(&self, expr: &Expr) -> Result<Many<i128>, SourceError> {
        Ok(match expr {
            Expr::Column(name) => self.batch.amounts(name)?,
            Expr::Number(number) => Many::One(number.units()),
            Expr::Null => Many::One(i128::NONE),
            Expr::Named(number, expr) => {
                if let Some(known) = self.amounts.borrow().get(number) {
                    return Ok(known.clone());
                }
                let made = self.amounts(expr)?;
                self.amounts.borrow_mut().insert(*number, made.clone());
                made
            }
            Expr::First(all) => self.first(all, |expr| self.amounts(expr))?,
            Expr::Switch(on, arms, other) => {
                let (choice, branches) = self.switch(on, arms, other)?;
                let branches = self.branches(&choice, &branches, |expr| self.amounts(expr))?;
                Many::choose(self.rows(), &choice, &branches)
            }
            Expr::When(arms, other) => {
                let (choice, branches) = self.when(arms, other)?;
                let branches = self.branches(&choice, &branches, |expr| self.amounts(expr))?;
                Many::choose(self.rows(), &choice, &branches)
            }
            Expr::Math(op, a, b) => math(*op, &self.amounts(a)?, &self.amounts(b)?)?,
            // Text of any other making, such as a value of a map.
            _ => {
                let text = self.text(expr)?;
                let bad = |why| SourceError::BadAmount { column: "(computed)".to_owned(), why };
                let read = |key| match text.value(key) {
                    None | Some("") => Ok(i128::NONE),
                    Some(text) => Amount::parse(text).map(|read| read.amount.units()).map_err(bad),
                };
                let all = (0..text.values.len() as u32).map(read).collect::<Result<Vec<_>, _>>()?;
                text.keys.map(|key| all.get(key as usize).copied().unwrap_or(i128::NONE))
            }
        })
    }

    /// As instants, in microseconds.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub(super) fn instants(&self, expr: &Expr) -> Result<Many<i64>, SourceError> {
        Ok(match expr {
            Expr::Column(name) => self.batch.instants(name)?,
            Expr::Named(_, expr) => self.instants(expr)?,
            Expr::First(all) => self.first(all, |expr| self.instants(expr))?,
            Expr::Moved(how, of) => {
                let of = self.instants(of)?;
                // Few distinct instants stand in long runs: each is moved once.
                let last = std::cell::Cell::new((i64::NONE, i64::NONE));
                of.map(|at| {
                    if last.get().0 != at {
                        last.set((at, moved(*how, at)));
                    }
                    last.get().1
                })
            }
            Expr::When(arms, other) => {
                let (choice, branches) = self.when(arms, other)?;
                let branches = self.branches(&choice, &branches, |expr| self.instants(expr))?;
                Many::choose(self.rows(), &choice, &branches)
            }
            _ => Many::One(i64::NONE),
        })
    }

    /// As sets of key and value.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub(super) fn maps(&self, expr: &Expr) -> Result<Maps, SourceError> {
        Ok(match expr {
            Expr::Column(name) => self.batch.maps(name)?,
            Expr::Tags(name) => {
                let named =
                    |set: &Pairs| sorted(set.iter().map(|(key, value)| (tag_key(key), value.clone())).collect());
                self.batch.maps(name)?.change(named)
            }
            Expr::TagColumns(prefix) => self.tag_columns(prefix)?,
            _ => Maps { keys: Many::One(u32::NONE), sets: Rc::default() },
        })
    }

    /// Every column with the prefix is one tag, and each combination of their values one set.
    fn tag_columns(&self, prefix: &str) -> Result<Maps, SourceError> {
        let mut columns = Vec::new();
        for (name, label) in self.batch.layout().with_prefix(prefix) {
            let text = self.batch.text(name)?;
            if text.keys.present().map(|there| there.then_some(())).any() {
                // The CSV's label has the key as the customer wrote it.
                let key =
                    label.split_once('/').map_or_else(|| name.get(prefix.len()..).unwrap_or(name), |(_, key)| key);
                columns.push((tag_key(key), text));
            }
        }
        let mut distinct = super::value::Distinct::<Box<[u32]>>::default();
        let mut ids = Vec::with_capacity(columns.len());
        let mut keys = Vec::with_capacity(self.rows());
        for row in 0..self.rows() {
            ids.clear();
            ids.extend(columns.iter().map(|(_, text)| text.keys.at(row).unwrap_or(u32::NONE)));
            keys.push(match distinct.find(ids.as_slice()) {
                Some(key) => key,
                None => distinct.key(ids.clone().into_boxed_slice()),
            });
        }
        let set = |ids: &[u32]| {
            let pairs = columns.iter().zip(ids.iter());
            let pairs = pairs.filter_map(|((key, text), id)| Some((key.clone(), text.value(*id)?.to_owned())));
            sorted(pairs.collect())
        };
        Ok(Maps { keys: Many::each(keys), sets: Rc::new(distinct.values.iter().map(|ids| set(ids)).collect()) })
    }

    fn cond(&self, cond: &Cond) -> Result<Many<bool>, SourceError> {
        Ok(match cond {
            Cond::In(of, texts) => self.text(of)?.ask(false, |text| texts.iter().any(|known| known == text)),
            Cond::Like(of, parts) => self.text(of)?.ask(false, |text| like(text, parts)),
            Cond::Missing(of) => self.present(of)?.map(|there| !there),
            Cond::Compare(of, fits, number) => {
                let [less, equal, more] = *fits;
                let number = number.units();
                self.amounts(of)?.map(|units| match units.cmp(&number) {
                    _ if units == i128::NONE => false,
                    std::cmp::Ordering::Less => less,
                    std::cmp::Ordering::Equal => equal,
                    std::cmp::Ordering::Greater => more,
                })
            }
            Cond::Exported(name) => Many::One(self.batch.layout().has(name)),
            Cond::Not(cond) => self.cond(cond)?.map(|holds| !holds),
            Cond::And(a, b) => self.cond(a)?.zip(&self.cond(b)?, |a, b| a && b),
            Cond::Or(a, b) => self.cond(a)?.zip(&self.cond(b)?, |a, b| a || b),
        })
    }

    /// Numbers are there or not as numbers are; everything else as text is.
    fn present(&self, expr: &Expr) -> Result<Many<bool>, SourceError> {
        match expr {
            Expr::Column(name) if self.batch.is_number(name) => Ok(self.batch.amounts(name)?.present()),
            Expr::Math(..) => Ok(self.amounts(expr)?.present()),
            Expr::Named(_, expr) => self.present(expr),
            Expr::Switch(on, arms, other) => self.branch_present(self.switch(on, arms, other)?),
            Expr::When(arms, other) => self.branch_present(self.when(arms, other)?),
            _ => Ok(self.text(expr)?.keys.present()),
        }
    }

    fn branch_present(&self, (choice, branches): (Many<u8>, Vec<&Expr>)) -> Result<Many<bool>, SourceError> {
        let flag = |expr: &Expr| Ok(self.present(expr)?.map(|there| if there { 0 } else { u32::NONE }));
        let branches = self.branches(&choice, &branches, flag)?;
        Ok(Many::<u32>::choose(self.rows(), &choice, &branches).present())
    }

    fn first<T: Nullable>(
        &self,
        all: &[Expr],
        make: impl Fn(&Expr) -> Result<Many<T>, SourceError>,
    ) -> Result<Many<T>, SourceError> {
        let mut best = Many::One(T::NONE);
        for next in all {
            if !best.has_none() {
                break;
            }
            best = best.zip(&make(next)?, |best, next| if best == T::NONE { next } else { best });
        }
        Ok(best)
    }

    fn switch<'e>(
        &self,
        on: &Expr,
        arms: &'e [(Vec<String>, Expr)],
        other: &'e Expr,
    ) -> Result<(Many<u8>, Vec<&'e Expr>), SourceError> {
        let last = arms.len() as u8;
        let place = |text: &str| arms.iter().position(|(texts, _)| texts.iter().any(|known| known == text));
        let choice = self.text(on)?.ask(last, |text| place(text).map_or(last, |at| at as u8));
        Ok((choice, arms.iter().map(|(_, expr)| expr).chain([other]).collect()))
    }

    fn when<'e>(&self, arms: &'e [(Cond, Expr)], other: &'e Expr) -> Result<(Many<u8>, Vec<&'e Expr>), SourceError> {
        let last = arms.len() as u8;
        let mut choice = Many::One(last);
        for (at, (cond, _)) in arms.iter().enumerate() {
            let holds = self.cond(cond)?;
            choice = choice.zip(&holds, |known, holds| if known == last && holds { at as u8 } else { known });
        }
        Ok((choice, arms.iter().map(|(_, expr)| expr).chain([other]).collect()))
    }

    /// The branches that some row has chosen.
    fn branches<V>(
        &self,
        choice: &Many<u8>,
        branches: &[&Expr],
        make: impl Fn(&Expr) -> Result<V, SourceError>,
    ) -> Result<Vec<Option<V>>, SourceError> {
        let mut wanted = vec![false; branches.len()];
        let mut want = |at: u8| {
            if let Some(wanted) = wanted.get_mut(usize::from(at)) {
                *wanted = true;
            }
        };
        match choice {
            Many::One(at) => want(*at),
            Many::Each(all) => all.iter().for_each(|at| want(*at)),
        }
        branches.iter().zip(wanted).map(|(expr, wanted)| wanted.then(|| make(expr)).transpose()).collect()
    }
}

fn amounts_as_text(amounts: &Many<i128>) -> Text {
    let text = |units: i128| Amount::from_units(units).map(|amount| amount.to_string()).unwrap_or_default();
    match amounts {
        Many::One(units) => Text::constant(Some(text(*units)).filter(|text| !text.is_empty()).as_deref()),
        Many::Each(all) => {
            let mut builder = StringBuilder::new();
            all.iter().for_each(|units| builder.append_value(text(*units)));
            Text::new(Many::each((0..all.len() as u32).collect()), builder.finish())
        }
    }
}

/// FOCUS: tags of the provider keep its prefix, those of the customer have none. The exports write `user_` or `user:` before the latter.
fn tag_key(key: &str) -> String {
    match key.strip_prefix("user_").or_else(|| key.strip_prefix("user:")) {
        Some(own) => own.to_owned(),
        None => key.strip_prefix("aws_").map_or_else(|| key.to_owned(), |own| format!("aws:{own}")),
    }
}

impl Many<Option<()>> {
    fn any(&self) -> bool {
        match self {
            Self::One(value) => value.is_some(),
            Self::Each(values) => values.iter().any(Option::is_some),
        }
    }
}
