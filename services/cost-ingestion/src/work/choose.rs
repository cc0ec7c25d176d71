//! Which export serves a period, and which period is read next. Rules alone: no storage, no clock of its own.
//!
//! Exports of one connection that tell the bill of the same billing account and period are alternatives: they would count twice. The best format
//! serves, and of equals the one whose name comes first, which does not change from day to day. Exports of other accounts or periods are added up.
//!
//! Cost Explorer does not name the billing account: of a member account, an export names the organization's payer, and Cost Explorer the member. So it gives
//! way to any export of the connection and period, whatever account that names.

use super::ledger::{Entry, FoundExport, FoundUnit, Superseded};
use crate::export::Export;
use contracts::Timestamp;
use contracts::costs::BillingPeriod;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Formats, the best first: what tells more of a bill, and more exactly.
const RANKS: [&str; 5] = ["focus-1.2", "focus-1.0", "cur-2.0", "legacy-cur", "cost-explorer"];

fn rank(format: &str) -> usize {
    RANKS.iter().position(|known| *known == format).unwrap_or(RANKS.len())
}

/// The periods that more than one export has: only there does anybody have to look which of them serves.
#[must_use]
pub fn contested(exports: &[FoundExport]) -> BTreeSet<BillingPeriod> {
    let mut counts: BTreeMap<&BillingPeriod, usize> = BTreeMap::new();
    for unit in exports.iter().flat_map(|export| &export.units) {
        *counts.entry(&unit.period).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(period, _)| period.clone()).collect()
}

/// Says of each unit whether another one serves instead. A unit that nobody could look at stands for itself: it fails, and is shown.
pub fn supersede(exports: &mut [FoundExport]) {
    let mut best: BTreeMap<(BillingPeriod, String), (usize, String, String)> = BTreeMap::new();
    for export in exports.iter() {
        for unit in &export.units {
            let Some((payer, format)) = told(unit) else { continue };
            let candidate = (rank(format), export.export.clone(), format.to_owned());
            let served = best.entry((unit.period.clone(), payer.to_owned())).or_insert_with(|| candidate.clone());
            if (candidate.0, &candidate.1) < (served.0, &served.1) {
                *served = candidate;
            }
        }
    }
    let in_place = in_place_of_cost_explorer(exports);
    for export in exports.iter_mut() {
        for unit in &mut export.units {
            let any = in_place.get(&unit.period).filter(|_| Export::named(&export.export).is_cost_explorer());
            let served = any.or_else(|| best.get(&(unit.period.clone(), told(unit)?.0.to_owned())));
            unit.superseded = served.filter(|(_, by, _)| *by != export.export).map(|(_, by, format)| Superseded {
                by: by.clone(),
                reason: format!("{by} ({format}) tells the same costs, and serves instead"),
            });
        }
    }
}

/// For each period, the first of all exports that can be read.
fn in_place_of_cost_explorer(exports: &[FoundExport]) -> BTreeMap<BillingPeriod, (usize, String, String)> {
    let mut found = BTreeMap::new();
    for export in exports.iter().filter(|export| !Export::named(&export.export).is_cost_explorer()) {
        for unit in export.units.iter().filter(|unit| unit.fingerprint.is_some()) {
            let format = told(unit).map_or("an export", |(_, format)| format).to_owned();
            found.entry(unit.period.clone()).or_insert_with(|| (0, export.export.clone(), format));
        }
    }
    found
}

/// Whose bill a unit tells, and in which format, if somebody looked.
fn told(unit: &FoundUnit) -> Option<(&str, &str)> {
    let look = unit.look.as_ref()?;
    Some((look.payer.as_deref()?, look.format.as_str()))
}

/// What is to be done about a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It can be read now.
    Now,
    /// Not before then.
    At(Timestamp),
    /// Nothing, for now.
    Never,
}

/// What is to be done about a unit, by what the ledger says of it. A version that was given up stays so until its time has come.
#[must_use]
pub fn due(unit: &FoundUnit, entry: &Entry) -> Due {
    let Some(fingerprint) = unit.fingerprint.filter(|_| unit.superseded.is_none()) else { return Due::Never };
    if entry.holds(fingerprint) {
        return Due::Never;
    }
    match entry.attempt_at(fingerprint) {
        Some(attempt) if attempt.next.has_passed() => Due::Now,
        Some(attempt) if attempt.given_up => Due::Never,
        Some(attempt) => Due::At(attempt.next),
        None => Due::Now,
    }
}

/// All units in the order in which they are read: the newest period first, of all exports.
#[must_use]
pub fn in_order(exports: &[FoundExport]) -> Vec<(&FoundExport, &FoundUnit)> {
    let mut all: Vec<_> =
        exports.iter().flat_map(|export| export.units.iter().map(move |unit| (export, unit))).collect();
    all.sort_by(|(a, x), (b, y)| (Reverse(&x.period), &a.export).cmp(&(Reverse(&y.period), &b.export)));
    all
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Attempt, Looked, Version};
    use super::*;
    use crate::table::Fingerprint;
    use contracts::costs::{ExportLocation, PeriodVersion};
    use std::time::Duration;

    fn unit(period: &str, format: &str, payer: &str) -> FoundUnit {
        let look = Some(Looked { format: format.to_owned(), payer: Some(payer.to_owned()) });
        let fingerprint = Some(Fingerprint::of([period, format]));
        let period = period.parse().unwrap();
        FoundUnit {
            period,
            fingerprint,
            files: 1,
            bytes: 1,
            mixed: false,
            manifest: None,
            look,
            failure: None,
            superseded: None,
        }
    }

    fn export(name: &str, units: Vec<FoundUnit>) -> FoundExport {
        let place = ExportLocation { bucket: "costs".to_owned(), prefix: String::new() };
        FoundExport { export: name.to_owned(), place, region: "eu-central-1".parse().unwrap(), units }
    }

    fn serving(exports: &mut [FoundExport]) -> Vec<(String, String)> {
        supersede(exports);
        let serving = in_order(exports).into_iter().filter(|(_, unit)| unit.superseded.is_none());
        serving.map(|(export, unit)| (unit.period.to_string(), export.export.clone())).collect()
    }

    #[test]
    fn the_best_format_serves_and_of_equals_the_first_name() {
        let (a, b) = ("111111111111", "222222222222");
        let formats = ["focus-1.2", "focus-1.0", "cur-2.0", "legacy-cur", "cost-explorer"];
        for pair in formats.windows(2) {
            let mut exports =
                [export("a", vec![unit("2026-10", pair[1], a)]), export("b", vec![unit("2026-10", pair[0], a)])];
            assert_eq!(serving(&mut exports), [("2026-10".to_owned(), "b".to_owned())]);
            let reason = &exports[0].units[0].superseded.as_ref().unwrap().reason;
            assert!(reason.contains("b (") && reason.contains(pair[0]), "{reason}");
        }
        let mut equals = [
            export("b", vec![unit("2026-10", "cur-2.0", a)]),
            export("a", vec![unit("2026-10", "cur-2.0", a)]),
            export("c", vec![unit("2026-10", "legacy-cur", b), unit("2026-09", "legacy-cur", a)]),
        ];
        let wanted = [("2026-10", "a"), ("2026-10", "c"), ("2026-09", "c")].map(|(p, e)| (p.to_owned(), e.to_owned()));
        assert_eq!(serving(&mut equals), wanted, "other accounts and periods are added up");
        assert_eq!(contested(&equals), BTreeSet::from(["2026-10".parse().unwrap()]));
        equals[1].units.clear();
        assert_eq!(serving(&mut equals)[0].1, "b", "what went away no longer serves");
    }

    #[test]
    fn cost_explorer_gives_way_to_any_export_of_the_period_that_can_be_read() {
        let (member, payer) = ("222222222222", "111111111111");
        let both = || vec![unit("2026-11", "cost-explorer", member), unit("2026-10", "cost-explorer", member)];
        let mut exports = [export("cost-explorer", both()), export("s3://a", vec![unit("2026-10", "cur-2.0", payer)])];
        let wanted = [("2026-11", "cost-explorer"), ("2026-10", "s3://a")].map(|(p, e)| (p.to_owned(), e.to_owned()));
        assert_eq!(serving(&mut exports), wanted);
        exports[1].units[0].fingerprint = None;
        assert_eq!(serving(&mut exports).len(), 3, "its files cannot be told: both stand");
    }

    #[test]
    fn a_version_is_due_until_it_is_held_and_one_that_failed_not_before_its_time() {
        let unit = unit("2026-10", "cur-2.0", "111111111111");
        let fingerprint = unit.fingerprint.unwrap();
        let seen = PeriodVersion { at: Timestamp::now(), rows: 1, totals: vec![], bytes: 1, table_version: 1 };
        let version = Version { fingerprint, seen, formats: String::new() };
        assert_eq!(due(&unit, &Entry::default()), Due::Now);
        let mut held = Entry { versions: vec![version], ..Entry::default() };
        assert_eq!(due(&unit, &held), Due::Never);
        held.taken_by = Some("another".to_owned());
        assert_eq!(due(&unit, &held), Due::Now, "its rows are gone");
        let next = Timestamp::now().plus(Duration::from_secs(60));
        let attempt = |fingerprint| Attempt {
            fingerprint,
            since: Timestamp::now(),
            tries: 1,
            running: false,
            given_up: true,
            reason: None,
            next,
            said: None,
        };
        held.attempt = Some(attempt(fingerprint));
        assert_eq!(due(&unit, &held), Due::Never, "it is given up for now");
        held.attempt = Some(Attempt { given_up: false, ..attempt(fingerprint) });
        assert_eq!(due(&unit, &held), Due::At(next));
        held.attempt = Some(Attempt { next: Timestamp::now(), ..attempt(fingerprint) });
        assert_eq!(due(&unit, &held), Due::Now, "its time has come");
        held.attempt = Some(attempt(Fingerprint::of(["older"])));
        assert_eq!(due(&unit, &held), Due::Now, "another version is another chance");
        let other = FoundUnit { superseded: Some(Superseded { by: "x".into(), reason: "y".into() }), ..unit };
        assert_eq!(due(&other, &Entry::default()), Due::Never);
    }
}
