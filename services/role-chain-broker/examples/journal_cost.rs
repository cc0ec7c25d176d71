//! What writing an answer down costs, beside the bare write of as many bytes: `cargo run --release -p role-chain-broker --example journal_cost`.

// A program for people, and of a fault it may die.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    borrow::Cow,
    fs::OpenOptions,
    io::Write as _,
    time::{Duration, Instant},
};

use contracts::{AccountId, ConnectionId, TenantId, Timestamp, credentials::Purpose};
use role_chain_broker::journal::{Given, Journal};

const ANSWERS: u32 = 200_000;
const REQUESTERS: u32 = 1_000;
/// A record of an answer that the segment knows already, in bytes.
const RECORD: [u8; 21] = [7; 21];

fn per_answer(took: Duration) -> u128 {
    took.as_nanos() / u128::from(ANSWERS)
}

fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let journal = Journal::open(&folder.path().join("journal"), 1 << 30).unwrap();
    let (tenant, connection, expires_at) = (TenantId::new(), ConnectionId::new(), Timestamp::now());
    let account = AccountId::parse("222222222222").unwrap();
    let names: Vec<String> = (0..REQUESTERS).map(|number| format!("job-{number}")).collect();
    let answer = |name: &str| {
        let given = Given {
            tenant,
            connection,
            purpose: Purpose::CostRead,
            account: Cow::Borrowed(&account),
            requester: Cow::Borrowed(name),
            user: Some(Cow::Borrowed("job")),
            session_name: Cow::Borrowed("rolebridge.cost-read.0123456789ab"),
            expires_at,
        };
        journal.answered_from_cache(given).unwrap();
    };
    let mut bare = OpenOptions::new().append(true).create(true).open(folder.path().join("bare")).unwrap();
    names.iter().for_each(|name| answer(name));
    for round in 1..=5 {
        let began = Instant::now();
        (0..ANSWERS).for_each(|_| bare.write_all(&RECORD).unwrap());
        let written = per_answer(began.elapsed());
        let began = Instant::now();
        names.iter().cycle().zip(0..ANSWERS).for_each(|(name, _)| answer(name));
        let recorded = per_answer(began.elapsed());
        println!("round {round}: an answer {recorded} ns, the bare write {written} ns");
    }
}
