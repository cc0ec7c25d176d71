//! A question, made ready: which columns it needs, which rows it wants, and what the rows are grouped by.

use super::QueryError;
use super::files::SliceFiles;
use super::group::Groups;
use super::rows::{CURRENCY, Rows, Wanted};
use super::words::{Codes, Words};
use arrow_array::StringArray;
use contracts::costs::{CostKey, Day, Granularity, NONE, QueryCostsRequest};
use std::collections::{BTreeSet, HashMap};
use time::{Date, Duration};

const EPOCH: Date = match Date::from_ordinal_date(1970, 1) {
    Ok(date) => date,
    Err(_) => Date::MIN,
};

#[derive(Clone, Copy, Debug)]
enum Key {
    /// A place in [`super::rows::TEXTS`].
    Text(usize),
    /// A place in [`Wanted::tags`].
    Tag(usize),
    Connection,
    Period,
}

/// Which values are let through; none is one.
type Values = BTreeSet<Option<String>>;

/// See the module. Groups have as keys: the time, if the granularity is not the total; then what was asked for; then the currency.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) wanted: Wanted,
    pub(super) granularity: Granularity,
    keys: Vec<Key>,
    /// Days since 1970, both included.
    pub(super) days: Option<(i32, i32)>,
    pub(super) texts: Vec<(usize, Values)>,
    tags: Vec<(usize, Values)>,
}

impl Plan {
    pub(super) fn of(request: &QueryCostsRequest) -> Self {
        let mut wanted = Wanted { costs: if request.all_costs { 4 } else { 2 }, ..Wanted::default() };
        let mut tag = |key: &String| match wanted.tags.iter().position(|known| known == key) {
            Some(at) => at,
            None => {
                wanted.tags.push(key.clone());
                wanted.tags.len() - 1
            }
        };
        let mut keys: Vec<Key> = Vec::new();
        for key in &request.by {
            keys.push(match key {
                CostKey::Service => Key::Text(0),
                CostKey::Account => Key::Text(1),
                CostKey::Region => Key::Text(2),
                CostKey::ChargeCategory => Key::Text(3),
                CostKey::Connection => Key::Connection,
                CostKey::Period => Key::Period,
                CostKey::Tag(key) => Key::Tag(tag(key)),
            });
        }
        keys.push(Key::Text(CURRENCY));
        let values = |list: &[String]| list.iter().map(|text| (text != NONE).then(|| text.clone())).collect::<Values>();
        let tags = request.tags.iter().map(|filter| (tag(&filter.key), values(&filter.values))).collect();
        let lists = [&request.services, &request.accounts, &request.regions, &request.charge_categories];
        let texts: Vec<_> = lists
            .into_iter()
            .enumerate()
            .filter(|(_, list)| !list.is_empty())
            .map(|(place, list)| (place, values(list)))
            .collect();
        let grouped = keys.iter().filter_map(|key| if let Key::Text(place) = key { Some(*place) } else { None });
        for place in grouped.chain(texts.iter().map(|(place, _)| *place)) {
            if let Some(is_wanted) = wanted.texts.get_mut(place) {
                *is_wanted = true;
            }
        }
        let number = |day: Day| i32::try_from((day.date() - EPOCH).whole_days()).unwrap_or_default();
        let days = request.days.map(|range| (number(range.first), number(range.last)));
        wanted.days = days.is_some() || request.granularity != Granularity::Total;
        Self { wanted, granularity: request.granularity, keys, days, texts, tags }
    }

    /// The question whose answer is a daily summary.
    pub(super) fn summary() -> Self {
        let wanted = Wanted { texts: [true; 5], days: true, tags: Vec::new(), costs: 4 };
        let keys = (0..=CURRENCY).map(Key::Text).collect();
        Self { wanted, granularity: Granularity::Daily, keys, days: None, texts: Vec::new(), tags: Vec::new() }
    }

    /// Whether a daily summary has all that is needed.
    pub(super) fn is_of_summaries(&self) -> bool {
        self.wanted.tags.is_empty()
    }

    /// Adds what is wanted of these rows.
    ///
    /// # Errors
    /// As [`Groups::add`].
    pub(super) fn add(&self, rows: &Rows, slice: &SliceFiles, groups: &mut Groups) -> Result<(), QueryError> {
        let keep = self.keep(rows);
        let time = match (&rows.days, self.granularity) {
            (Some(days), Granularity::Daily | Granularity::Monthly) => Some(times(days, self.granularity)),
            _ => None,
        };
        let (connection, period, nothing) =
            (Words::same(Some(&slice.connection)), Words::same(Some(slice.period.as_str())), Words::same(None));
        let words = |key: &Key| match key {
            Key::Text(place) => rows.texts.get(*place).and_then(Option::as_ref).unwrap_or(&nothing),
            Key::Tag(place) => rows.tags.get(*place).unwrap_or(&nothing),
            Key::Connection => &connection,
            Key::Period => &period,
        };
        let keys: Vec<&Words> = time.iter().chain(self.keys.iter().map(words)).collect();
        groups.add(&keys, rows, keep.as_deref())
    }

    /// Which rows the filters let through; all when there is nothing to say.
    fn keep(&self, rows: &Rows) -> Option<Vec<bool>> {
        let mut keep: Option<Vec<bool>> = None;
        if let (Some((first, last)), Some(days)) = (self.days, &rows.days)
            && !days.iter().all(|day| (first..=last).contains(day))
        {
            keep = Some(days.iter().map(|day| (first..=last).contains(day)).collect());
        }
        let texts = self.texts.iter().map(|(place, values)| (rows.texts.get(*place).and_then(Option::as_ref), values));
        let tags = self.tags.iter().map(|(place, values)| (rows.tags.get(*place), values));
        for (words, values) in texts.chain(tags) {
            let lets = |text: Option<&str>| values.contains(&text.map(ToOwned::to_owned));
            // A column that is not there has no values.
            let Some(words) = words else {
                if !lets(None) {
                    return Some(vec![false; rows.count]);
                }
                continue;
            };
            let allowed: Vec<bool> = (0..words.count()).map(|code| lets(words.text(code as u32))).collect();
            let is_allowed = |code: u32| allowed.get(code as usize) == Some(&true);
            match &words.codes {
                Codes::Same(code) if is_allowed(*code) => {}
                Codes::Same(_) => return Some(vec![false; rows.count]),
                Codes::Each(codes) => {
                    let keep = keep.get_or_insert_with(|| vec![true; rows.count]);
                    keep.iter_mut().zip(codes).for_each(|(keep, code)| *keep &= is_allowed(*code));
                }
            }
        }
        keep
    }
}

/// The days or months of rows; those of one day stand mostly together.
fn times(days: &[i32], granularity: Granularity) -> Words {
    let (mut places, mut texts) = (HashMap::<i32, u32, ahash::RandomState>::default(), Vec::<String>::new());
    let mut last: Option<(i32, u32)> = None;
    let code = |day: &i32| {
        if let Some((_, code)) = last.filter(|(known, _)| known == day) {
            return code;
        }
        let code = *places.entry(*day).or_insert_with(|| {
            let text = label(*day, granularity);
            texts.iter().position(|known| *known == text).unwrap_or_else(|| {
                texts.push(text);
                texts.len() - 1
            }) as u32
        });
        last = Some((*day, code));
        code
    };
    let codes = days.iter().map(code).collect();
    Words::new(codes, texts.into_iter().map(Some).collect::<StringArray>())
}

fn label(day: i32, granularity: Granularity) -> String {
    let date = EPOCH.checked_add(Duration::days(day.into())).unwrap_or(Date::MAX);
    match granularity {
        Granularity::Monthly => format!("{:04}-{:02}", date.year(), u8::from(date.month())),
        Granularity::Daily | Granularity::Total => Day::from(date).to_string(),
    }
}

/// The day that [`Granularity::Daily`] writes, in days since 1970.
pub(super) fn day_number(text: &str) -> Option<i32> {
    let day: Day = text.parse().ok()?;
    i32::try_from((day.date() - EPOCH).whole_days()).ok()
}
