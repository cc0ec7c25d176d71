//! From groups to lines: the order, the dearest, the rest, and pages.

use super::QueryError;
use super::group::{Groups, Sum};
use crate::money;
use crate::table::TableError;
use contracts::costs::{Amount, Cost, CostLine, CostSum, Currency, Granularity, NONE, OTHER, QueryCostsRequest};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Characters of a name that are shown.
const SHOWN: usize = 1024;
/// Bytes of one answer: NATS carries a megabyte unless told otherwise.
const PAGE_BYTES: usize = 512 << 10;

type Text = Option<Arc<str>>;

/// One line before it is written.
#[derive(Clone, Debug)]
struct Line {
    time: Text,
    /// None for the rest.
    of: Option<Vec<Text>>,
    currency: Currency,
    sum: Sum,
}

/// All lines in their order, and the totals.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether no row of the table was read for it.
    pub(super) from_summary: bool,
    pub(super) rows: u64,
    pub(super) totals: Vec<CostSum>,
    lines: Vec<Line>,
    keys: usize,
    all_costs: bool,
}

impl Answer {
    pub(super) fn of(groups: Groups, from_summary: bool, request: &QueryCostsRequest) -> Result<Self, QueryError> {
        let mut lines = Vec::new();
        for (mut key, sum) in groups.into_sums() {
            let currency = key.pop().flatten().ok_or(TableError::BadRow("BillingCurrency"))?;
            let currency: Currency = currency.parse().map_err(|_| TableError::BadRow("BillingCurrency"))?;
            let time = if request.granularity == Granularity::Total { None } else { key.drain(..1).next().flatten() };
            // A group of no rows is what the filters left of a block.
            if sum.rows > 0 {
                lines.push(Line { time, of: Some(key), currency, sum });
            }
        }
        let mut totals: BTreeMap<Currency, Sum> = BTreeMap::new();
        for line in &lines {
            totals.entry(line.currency.clone()).or_default().add(&line.sum)?;
        }
        let rank = match request.rank_by {
            Cost::Billed => 0,
            Cost::Effective => 1,
            Cost::List => 2,
            Cost::Contracted => 3,
        };
        if let Some(top) = request.top {
            lines = dearest(lines, rank, usize::from(top))?;
        }
        lines.sort_by(|a, b| {
            // What is not listed stays the last, however dear.
            let key = |line: &Line| (line.of.is_none(), Reverse(line.sum.costs.get(rank).copied()));
            (&a.time, &a.currency, key(a), &a.of).cmp(&(&b.time, &b.currency, key(b), &b.of))
        });
        let rows = totals.values().map(|sum| sum.rows).sum();
        let totals = totals.into_iter().map(|(currency, sum)| wire(currency, &sum, request.all_costs));
        let totals = totals.collect::<Result<_, TableError>>()?;
        Ok(Self { from_summary, rows, totals, lines, keys: request.by.len(), all_costs: request.all_costs })
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The lines from `start` on, at most `limit`, and fewer when they would be too many bytes.
    pub(super) fn page(&self, start: usize, limit: usize) -> Result<Vec<CostLine>, TableError> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        for line in self.lines.iter().skip(start).take(limit) {
            let of = match &line.of {
                None => vec![OTHER.to_owned(); self.keys],
                Some(of) => of.iter().map(|text| shown(text.as_deref())).collect(),
            };
            // Six bytes is the most that JSON makes of one.
            bytes += 512 + of.iter().map(|text| text.len() * 6).sum::<usize>();
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            let time = line.time.as_deref().map(ToOwned::to_owned);
            let sum = wire(line.currency.clone(), &line.sum, self.all_costs)?;
            page.push(CostLine { time, of, other: line.of.is_none(), sum });
        }
        Ok(page)
    }
}

/// The dearest keys of each currency over the whole time stay; all others become one line for each time and currency.
fn dearest(lines: Vec<Line>, rank: usize, top: usize) -> Result<Vec<Line>, QueryError> {
    let mut whole: HashMap<(Currency, Vec<Text>), i128> = HashMap::new();
    for line in &lines {
        let sum = whole.entry((line.currency.clone(), line.of.clone().unwrap_or_default())).or_default();
        let cost = line.sum.costs.get(rank).copied().unwrap_or_default();
        *sum = sum.checked_add(cost).ok_or(TableError::TooLarge)?;
    }
    let mut ranked: Vec<_> = whole.into_iter().collect();
    ranked.sort_by(|(a, a_sum), (b, b_sum)| (&a.0, Reverse(a_sum), &a.1).cmp(&(&b.0, Reverse(b_sum), &b.1)));
    let mut counts: HashMap<Currency, usize> = HashMap::new();
    let mut listed: HashSet<(Currency, Vec<Text>)> = HashSet::new();
    for (key, _) in ranked {
        let count = counts.entry(key.0.clone()).or_default();
        *count += 1;
        if *count <= top {
            listed.insert(key);
        }
    }
    let (mut stay, mut rest) = (Vec::new(), BTreeMap::<(Text, Currency), Sum>::new());
    for line in lines {
        if listed.contains(&(line.currency.clone(), line.of.clone().unwrap_or_default())) {
            stay.push(line);
        } else {
            rest.entry((line.time, line.currency)).or_default().add(&line.sum)?;
        }
    }
    stay.extend(rest.into_iter().map(|((time, currency), sum)| Line { time, of: None, currency, sum }));
    Ok(stay)
}

fn shown(text: Option<&str>) -> String {
    let Some(text) = text else { return NONE.to_owned() };
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

fn wire(currency: Currency, sum: &Sum, all_costs: bool) -> Result<CostSum, TableError> {
    let [billed, effective, list, contracted] = sum.costs;
    let amount = |units| {
        let amount = money::Amount::from_units(units).ok().and_then(money::Amount::to_decimal);
        amount.map(Amount::new).ok_or(TableError::TooLarge)
    };
    let optional = |units| if all_costs { amount(units).map(Some) } else { Ok(None) };
    Ok(CostSum {
        currency,
        billed: amount(billed)?,
        effective: amount(effective)?,
        list: optional(list)?,
        contracted: optional(contracted)?,
        rows: sum.rows,
    })
}
