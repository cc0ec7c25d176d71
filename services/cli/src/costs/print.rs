//! Answers about costs for people and for spreadsheets.
//!
//! Names come from customers' files: on a terminal they must not move the cursor, and in a spreadsheet they must not be formulas.

use std::io::IsTerminal as _;

use contracts::costs::{Amount, Cost, CostLine, CostSum, QueriedCosts};

use crate::show;

/// Columns of text when nobody says: standard output is no terminal.
const WIDTH: usize = 100;
/// Columns of the longest bar.
const BARS: std::ops::RangeInclusive<usize> = 8..=40;
/// Columns of a name.
const NAME: usize = 48;

/// What is drawn on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas {
    width: usize,
    blocks: bool,
}

impl Canvas {
    /// As wide as the terminal; with block characters where the locale has them.
    pub(super) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        let named = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok());
        let locale = named.into_iter().find(|locale| !locale.is_empty()).unwrap_or_default().to_lowercase();
        let blocks = locale.contains("utf-8") || locale.contains("utf8");
        Self { width: terminal.map_or(WIDTH, |(width, _)| usize::from(width.0)), blocks }
    }
}

fn cost(sum: &CostSum, of: Cost) -> Amount {
    match of {
        Cost::Billed => sum.billed,
        Cost::Effective => sum.effective,
        Cost::List => sum.list.unwrap_or_default(),
        Cost::Contracted => sum.contracted.unwrap_or_default(),
    }
}

fn amounts(sum: &CostSum) -> Vec<String> {
    let always = [Some(sum.billed), Some(sum.effective)];
    always.into_iter().chain([sum.list, sum.contracted]).flatten().map(|amount| amount.to_string()).collect()
}

fn heads(costs: &QueriedCosts) -> Vec<String> {
    let time = costs.lines.iter().any(|line| line.time.is_some()).then(|| "time".to_owned());
    let all = costs.totals.iter().any(|sum| sum.list.is_some());
    let amounts =
        ["billed", "effective"].into_iter().chain(if all { &["list", "contracted"][..] } else { &[] }.iter().copied());
    let keys = costs.by.iter().map(ToString::to_string);
    time.into_iter().chain(keys).chain(["currency".to_owned()]).chain(amounts.map(ToOwned::to_owned)).collect()
}

/// Lines in columns with a bar each, then the totals.
pub(super) fn table(costs: &QueriedCosts, rank: Cost, canvas: Canvas) -> String {
    let cells = |line: &CostLine| -> Vec<String> {
        let keys = line.of.iter().map(|name| calm(name));
        line.time.iter().cloned().chain(keys).chain([line.sum.currency.to_string()]).chain(amounts(&line.sum)).collect()
    };
    let mut rows: Vec<Vec<String>> = costs.lines.iter().map(cells).collect();
    let mut heads: Vec<String> = heads(costs).iter().map(|head| calm(head).to_uppercase()).collect();
    let names = heads.len().saturating_sub(1 + costs.totals.first().map_or(2, |sum| amounts(sum).len()));
    for sum in &costs.totals {
        let mut total: Vec<String> = vec![String::new(); names];
        match total.first_mut() {
            Some(first) => "total".clone_into(first),
            None if costs.lines.is_empty() => {}
            // By no key at all, the lines are the totals.
            None => break,
        }
        total.push(sum.currency.to_string());
        total.extend(amounts(sum));
        rows.push(total);
    }
    let plain = show::table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    let used = plain.lines().map(|line| line.chars().count()).max().unwrap_or(0) + 2;
    let room = canvas.width.saturating_sub(used);
    if room >= *BARS.start() {
        heads.push(String::new());
        for (row, line) in rows.iter_mut().zip(&costs.lines) {
            row.push(bar(costs, line, rank, room.min(*BARS.end()), canvas.blocks));
        }
    }
    let mut text = show::table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    let periods: Vec<_> = costs.periods.iter().map(ToString::to_string).collect();
    let periods = if periods.is_empty() { "none".to_owned() } else { periods.join(", ") };
    text.push_str(&format!("{} rows, billing periods: {periods}\n", costs.rows));
    if costs.next.is_some() {
        text.push_str("there are more lines: ask with --lines, or with --top for the dearest\n");
    }
    text
}

/// As long as the line's cost is large, beside the largest of its currency. It is a picture: only here do amounts become floats.
fn bar(costs: &QueriedCosts, line: &CostLine, rank: Cost, room: usize, blocks: bool) -> String {
    let size = |sum: &CostSum| cost(sum, rank).to_string().parse::<f64>().map_or(0.0, f64::abs);
    let same = costs.lines.iter().filter(|other| other.sum.currency == line.sum.currency);
    let largest = same.map(|other| size(&other.sum)).fold(0.0, f64::max);
    if largest == 0.0 {
        return String::new();
    }
    let share = size(&line.sum) / largest;
    let is_negative = cost(&line.sum, rank).decimal().is_sign_negative();
    if is_negative || !blocks {
        let mark = if is_negative { "-" } else { "#" };
        return mark.repeat((share * room as f64).round() as usize);
    }
    let eighths = (share * room as f64 * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or_default();
    format!("{}{part}", "█".repeat(eighths / 8))
}

/// A name that does nothing on a terminal, and is not too wide.
fn calm(name: &str) -> String {
    // Control characters, and those that turn the direction of writing.
    let is_wild = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let calm: String = name.chars().map(|c| if is_wild(c) { '\u{fffd}' } else { c }).collect();
    match calm.char_indices().nth(NAME) {
        None => calm,
        Some(_) => calm.chars().take(NAME - 1).chain(['…']).collect(),
    }
}

/// One record a line, with a header; no totals, so that a column can be added up.
pub(super) fn csv(costs: &QueriedCosts) -> String {
    let mut heads: Vec<String> = heads(costs).iter().map(|head| field(head)).collect();
    heads.push("rows".to_owned());
    let mut text = format!("{}\r\n", heads.join(","));
    for line in &costs.lines {
        let names = line.time.iter().chain(&line.of).map(|name| field(name));
        let rest =
            [line.sum.currency.to_string()].into_iter().chain(amounts(&line.sum)).chain([line.sum.rows.to_string()]);
        text.push_str(&names.chain(rest).collect::<Vec<_>>().join(","));
        text.push_str("\r\n");
    }
    text
}

/// A text of somebody else's: quoted where RFC 4180 asks for it, and with `'` in front where a spreadsheet would begin to calculate
/// ([OWASP](https://owasp.org/www-community/attacks/CSV_Injection)). Amounts are ours, and stay numbers.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n', '\'']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> QueriedCosts {
        serde_json::from_value(serde_json::json!({
            "version": 3, "from_summary": true, "rows": 7, "periods": ["2026-10"],
            "totals": [
                {"currency": "EUR", "billed": "-2.5", "effective": "-2.5", "rows": 1},
                {"currency": "USD", "billed": "150.25", "effective": "140", "rows": 6}
            ],
            "by": ["service"],
            "lines": [
                {"of": ["=cmd|'/C calc'!A0"], "currency": "EUR", "billed": "-2.5", "effective": "-2.5", "rows": 1},
                {"of": ["Amazon \"EC2\", Linux"], "currency": "USD", "billed": "100.25", "effective": "90", "rows": 4},
                {"of": ["\u{1b}[31mred"], "currency": "USD", "billed": "50", "effective": "50", "rows": 2}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn a_table_has_bars_within_a_currency_and_totals_of_each() {
        let text = table(&costs(), Cost::Billed, Canvas { width: 80, blocks: true });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("SERVICE") && lines[0].contains("BILLED"), "{text}");
        assert!(lines[1].ends_with("--"), "{text}");
        let blocks = |line: &str| line.chars().filter(|c| *c == '█').count();
        let (longest, half) = (blocks(lines[2]), blocks(lines[3]));
        assert!(longest >= 8 && half.abs_diff(longest / 2) <= 1, "{text}");
        assert!(lines[4].starts_with("total") && lines[4].contains("EUR") && lines[4].contains("-2.5"), "{text}");
        assert!(lines[5].starts_with("total") && lines[5].contains("USD") && lines[5].contains("150.25"), "{text}");
        assert!(!text.contains('\u{1b}'), "a name must not speak to the terminal");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!table(&costs(), Cost::Billed, Canvas { width: 20, blocks: true }).contains('█'), "no room, no bars");
        assert!(table(&costs(), Cost::Billed, Canvas { width: 80, blocks: false }).contains("####"));
    }

    #[test]
    fn csv_is_quoted_and_holds_no_formula() {
        let text = csv(&costs());
        assert_eq!(
            text,
            "service,currency,billed,effective,rows\r\n\"'=cmd|'/C calc'!A0\",EUR,-2.5,-2.5,1\r\n\"Amazon \"\"EC2\"\", Linux\",USD,100.25,90,4\r\n\u{1b}[31mred,USD,50,50,2\r\n"
        );
    }
}
