//! What expressions are evaluated over: columns of one batch, held once for each distinct value wherever that can be.
//!
//! Cost files repeat themselves: a month of two million lines has a dozen line item types and a few thousand descriptions. Text is therefore a key for
//! each row and one array of values, and whatever is done to text is done to the values. A column that is the same in every row is one value.

use arrow_array::builder::StringBuilder;
use arrow_array::{Array as _, StringArray};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// A value for each row.
#[derive(Clone, Debug)]
pub enum Many<T> {
    /// The same in every row.
    One(T),
    /// One for each row.
    Each(Rc<Vec<T>>),
}

/// A type that has a value of its own for "none".
pub trait Nullable: Copy + PartialEq {
    /// Stands for null.
    const NONE: Self;
}

impl Nullable for u32 {
    const NONE: Self = Self::MAX;
}

impl Nullable for i64 {
    const NONE: Self = Self::MIN;
}

impl Nullable for i128 {
    const NONE: Self = Self::MIN;
}

impl<T: Copy> Many<T> {
    /// One for each row.
    pub fn each(values: Vec<T>) -> Self {
        Self::Each(Rc::new(values))
    }

    /// That of a row. Rows are always below the batch's count.
    pub fn at(&self, row: usize) -> Option<T> {
        match self {
            Self::One(value) => Some(*value),
            Self::Each(values) => values.get(row).copied(),
        }
    }

    /// Turns each value into another.
    pub fn map<U>(&self, change: impl Fn(T) -> U) -> Many<U> {
        match self {
            Self::One(value) => Many::One(change(*value)),
            Self::Each(values) => Many::Each(Rc::new(values.iter().map(|value| change(*value)).collect())),
        }
    }

    /// Puts two together, row by row.
    pub fn zip<U: Copy, V>(&self, other: &Many<U>, join: impl Fn(T, U) -> V) -> Many<V> {
        match (self, other) {
            (Self::One(a), Many::One(b)) => Many::One(join(*a, *b)),
            (Self::One(a), Many::Each(b)) => Many::Each(Rc::new(b.iter().map(|b| join(*a, *b)).collect())),
            (Self::Each(a), Many::One(b)) => Many::Each(Rc::new(a.iter().map(|a| join(*a, *b)).collect())),
            (Self::Each(a), Many::Each(b)) => {
                Many::Each(Rc::new(a.iter().zip(b.iter()).map(|(a, b)| join(*a, *b)).collect()))
            }
        }
    }
}

impl<T: Nullable> Many<T> {
    /// Of each row the branch that it chose; a branch that nobody chose may be missing.
    pub fn choose(rows: usize, choice: &Many<u8>, branches: &[Option<Self>]) -> Self {
        let branch = |at: u8| branches.get(usize::from(at)).and_then(Option::as_ref);
        match choice {
            Many::One(at) => branch(*at).cloned().unwrap_or(Self::One(T::NONE)),
            Many::Each(at) => {
                let value = |(row, at): (usize, &u8)| branch(*at).and_then(|branch| branch.at(row)).unwrap_or(T::NONE);
                Self::each(at.iter().enumerate().take(rows).map(value).collect())
            }
        }
    }

    /// Whether any row has no value.
    pub fn has_none(&self) -> bool {
        match self {
            Self::One(value) => *value == T::NONE,
            Self::Each(values) => values.contains(&T::NONE),
        }
    }

    /// Which rows have a value.
    pub fn present(&self) -> Many<bool> {
        self.map(|value| value != T::NONE)
    }
}

/// Text: a key for each row into distinct values; no value is empty.
#[derive(Clone, Debug)]
pub struct Text {
    /// Places in `values`.
    pub keys: Many<u32>,
    /// The values; some may be used by no row.
    pub values: StringArray,
}

impl Text {
    /// The same text in every row.
    pub fn constant(text: Option<&str>) -> Self {
        match text.filter(|text| !text.is_empty()) {
            Some(text) => Self { keys: Many::One(0), values: StringArray::from(vec![text]) },
            None => Self { keys: Many::One(u32::NONE), values: StringArray::from(Vec::<&str>::new()) },
        }
    }

    /// Whose values are `values` at `keys`, where an empty or absent value is none.
    pub fn new(keys: Many<u32>, values: StringArray) -> Self {
        let empty = |at: usize| values.is_null(at) || values.value_length(at) == 0;
        let bad: Vec<bool> = (0..values.len()).map(empty).collect();
        let keys = if bad.contains(&true) {
            keys.map(|key| if bad.get(key as usize).copied().unwrap_or(true) { u32::NONE } else { key })
        } else {
            keys
        };
        Self { keys, values }
    }

    /// The text of a row.
    pub fn at(&self, row: usize) -> Option<&str> {
        self.value(self.keys.at(row)?)
    }

    /// The text of a key.
    pub fn value(&self, key: u32) -> Option<&str> {
        let at = key as usize;
        let there = at < self.values.len() && self.values.is_valid(at);
        there.then(|| self.values.value(at)).filter(|text| !text.is_empty())
    }

    /// Changes each distinct value; one that becomes none or empty is none.
    pub fn change(&self, change: impl Fn(&str) -> Option<String>) -> Self {
        let mut builder = StringBuilder::new();
        for key in 0..self.values.len() {
            builder.append_value(self.value(key as u32).and_then(&change).unwrap_or_default());
        }
        Self::new(self.keys.clone(), builder.finish())
    }

    /// Asks each distinct value, and says the answer for each row; `none` is that of rows without a value.
    pub fn ask<T: Copy>(&self, none: T, ask: impl Fn(&str) -> T) -> Many<T> {
        let answers: Vec<T> = (0..self.values.len()).map(|key| self.value(key as u32).map_or(none, &ask)).collect();
        self.keys.map(|key| answers.get(key as usize).copied().unwrap_or(none))
    }

    /// As [`Many::choose`].
    pub fn choose(rows: usize, choice: &Many<u8>, branches: &[Option<Self>]) -> Self {
        if let Many::One(at) = choice {
            return branches.get(usize::from(*at)).and_then(Clone::clone).unwrap_or_else(|| Self::constant(None));
        }
        let (mut keys, mut values) = (Vec::with_capacity(branches.len()), Vec::new());
        let mut before = 0_u32;
        for branch in branches {
            let Some(branch) = branch else {
                keys.push(None);
                continue;
            };
            let offset = before;
            keys.push(Some(branch.keys.map(|key| if key == u32::NONE { key } else { key.saturating_add(offset) })));
            before = before.saturating_add(branch.values.len() as u32);
            values.push(&branch.values);
        }
        let mut builder = StringBuilder::new();
        for text in values.into_iter().flat_map(StringArray::iter) {
            builder.append_option(text);
        }
        Self { keys: Many::choose(rows, choice, &keys), values: builder.finish() }
    }

    /// Two texts put together; none where either is.
    pub fn join(&self, other: &Self, rows: usize) -> Self {
        let mut pairs = Distinct::default();
        let pair = |a: u32, b: u32| (a != u32::NONE && b != u32::NONE).then_some((a, b));
        let keys = match (&self.keys, &other.keys) {
            (Many::One(a), Many::One(b)) => Many::One(pair(*a, *b).map_or(u32::NONE, |pair| pairs.key(pair))),
            _ => {
                let of = |row| pair(self.keys.at(row)?, other.keys.at(row)?);
                Many::each((0..rows).map(|row| of(row).map_or(u32::NONE, |pair| pairs.key(pair))).collect())
            }
        };
        let mut builder = StringBuilder::new();
        for (a, b) in pairs.values {
            let text = self.value(a).unwrap_or_default().to_owned() + other.value(b).unwrap_or_default();
            builder.append_value(text);
        }
        Self::new(keys, builder.finish())
    }
}

/// Sets of key and value, such as tags: a key for each row into distinct sets.
#[derive(Clone, Debug)]
pub struct Maps {
    /// Places in `sets`.
    pub keys: Many<u32>,
    /// The distinct sets.
    pub sets: Rc<Vec<Pairs>>,
}

/// Key and value pairs in the order of their keys, each key once.
pub type Pairs = Vec<(String, String)>;

impl Maps {
    /// The value of this key in each row.
    pub fn get(&self, key: &str) -> Text {
        let mut builder = StringBuilder::new();
        for set in self.sets.iter() {
            let found = set.iter().find(|(name, _)| name == key);
            builder.append_value(found.map(|(_, value)| value.as_str()).unwrap_or_default());
        }
        Text::new(self.keys.clone(), builder.finish())
    }

    /// Changes each distinct set.
    pub fn change(&self, change: impl Fn(&Pairs) -> Pairs) -> Self {
        Self { keys: self.keys.clone(), sets: Rc::new(self.sets.iter().map(change).collect()) }
    }

    /// Each set as a JSON object; an empty one is none.
    pub fn to_text(&self) -> Text {
        let mut builder = StringBuilder::new();
        for set in self.sets.iter() {
            builder.append_value(if set.is_empty() { String::new() } else { to_json(set) });
        }
        Text::new(self.keys.clone(), builder.finish())
    }
}

/// Pairs as a JSON object.
pub fn to_json(pairs: &Pairs) -> String {
    let object: serde_json::Map<_, _> =
        pairs.iter().map(|(key, value)| (key.clone(), serde_json::Value::String(value.clone()))).collect();
    serde_json::Value::Object(object).to_string()
}

/// The pairs of a JSON object, or of a list of objects with `key` and `value`; values that are no text are taken as they are written. `None` if it is neither.
pub fn from_json(text: &str) -> Option<Pairs> {
    let object = match serde_json::from_str(text).ok()? {
        serde_json::Value::Object(object) => object,
        serde_json::Value::Array(list) => list.into_iter().map(pair).collect::<Option<_>>()?,
        _ => return None,
    };
    let plain = |value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Null => None,
        other => Some(other.to_string()),
    };
    Some(sorted(object.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect()))
}

/// `{"key": "team", "value": "red"}`, as some exports list tags.
fn pair(item: serde_json::Value) -> Option<(String, serde_json::Value)> {
    let serde_json::Value::Object(mut item) = item else { return None };
    let mut take = |name: &str, other: &str| item.remove(name).or_else(|| item.remove(other));
    let (key, value) = (take("key", "Key")?, take("value", "Value").unwrap_or_default());
    Some((key.as_str()?.to_owned(), value))
}

/// In the order of keys; of a key that comes twice the last counts.
pub(super) fn sorted(mut pairs: Pairs) -> Pairs {
    pairs.reverse();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.dedup_by(|a, b| a.0 == b.0);
    pairs
}

/// Numbers distinct things in the order in which they come.
pub(super) struct Distinct<K> {
    known: HashMap<K, u32, ahash::RandomState>,
    /// The things.
    pub(super) values: Vec<K>,
}

impl<K> Default for Distinct<K> {
    fn default() -> Self {
        Self { known: HashMap::default(), values: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash> Distinct<K> {
    /// The number of a thing that is known.
    pub(super) fn find<Q: ?Sized + Eq + Hash>(&self, thing: &Q) -> Option<u32>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.known.get(thing).copied()
    }

    /// The number of this thing.
    pub(super) fn key(&mut self, thing: K) -> u32 {
        if let Some(known) = self.known.get(&thing) {
            return *known;
        }
        let key = self.values.len() as u32;
        self.known.insert(thing.clone(), key);
        self.values.push(thing);
        key
    }
}
