//! Random and hostile input for everything that reads what a stranger wrote: no panic, no bad host accepted, nothing taken for what it is not.
//!
//! A short run is part of `cargo test`. The long one, its findings and how to repeat it are in `docs/fuzzing.md`: `PROPTEST_CASES` is the number
//! of cases, `PROPTEST_RNG_SEED` (printed by each run) makes a run come out the same. What is right is judged here by rules written down anew,
//! never by asking the code under test: see [`urls::goes_to_the_bucket`].

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

mod arns;
mod callbacks;
mod envelopes;
mod mutations;
mod subjects;
mod urls;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};

/// Cases of each target in a run that names no number.
const SHORT: u32 = 20_000;

/// What became of the cases: a run in which nothing was ever accepted, or nothing ever refused, has shown nothing.
#[derive(Default)]
pub(crate) struct Tally(RefCell<BTreeMap<&'static str, u64>>);

impl Tally {
    pub(crate) fn count(&self, what: &'static str) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }
}

/// Runs `check` on cases of `strategy`, and tells what became of them; at least one case in 200 must have come to each of `expected`.
pub(crate) fn fuzz<S: Strategy>(
    name: &str,
    strategy: &S,
    expected: &[&'static str],
    check: impl Fn(S::Value, &Tally) -> Result<(), TestCaseError>,
) {
    let given = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = given("PROPTEST_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(SHORT);
    let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let seed = given("PROPTEST_RNG_SEED").unwrap_or_else(|| u64::try_from(since % u128::from(u32::MAX)).unwrap_or(1));
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let (tally, start) = (Tally::default(), Instant::now());
    let ended = TestRunner::new(config).run(strategy, |case| check(case, &tally));
    let counts = tally.0.into_inner();
    let all: u64 = counts.values().sum();
    eprintln!("fuzz {name}: {all} cases, seed {seed}, {:.1} s, {counts:?}", start.elapsed().as_secs_f64());
    if let Err(found) = ended {
        panic!("{name}, PROPTEST_RNG_SEED={seed}: {found}");
    }
    assert!(all >= u64::from(cases), "{name}: {all} cases were judged, of {cases}");
    for what in expected {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(count * 200 >= all, "{name}: {count} of {all} cases were {what}: the generator misses its aim");
    }
}
