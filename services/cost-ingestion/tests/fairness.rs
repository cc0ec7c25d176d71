//! A giant beside small ones: everybody has his turn, with one worker and with several, in one instance and in two.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::costs::CostsIngested;
use contracts::{ConnectionId, Stream};
use std::sync::Arc;
use support::report::item;
use support::yard::{Customer, Yard};

const SMALL: usize = 12;

/// The giant has so many connections of so many months. Shows by the order of the news that it has not kept the small ones waiting.
async fn a_giant_and_small_ones(instances: usize, workers: usize, connections: usize, months: usize) {
    let yard = Yard::new().await;
    let giant = Customer::new();
    let giants: Vec<_> = (0..connections).map(|_| Customer { connection: ConnectionId::new(), ..giant }).collect();
    for giant in &giants {
        for month in 0..months {
            let (year, month) = (2010 + month / 12, month % 12 + 1);
            yard.put(*giant, "cur", &format!("{year}-{month:02}"), &[item("AmazonEC2", "1")]).await;
        }
    }
    let small: Vec<_> = (0..SMALL).map(|_| Customer::new()).collect();
    for small in &small {
        yard.put(*small, "cur", "2018-11", &[item("AmazonEC2", "1")]).await;
    }
    for giant in &giants {
        yard.look(*giant).await;
    }
    let _programs: Vec<_> = (0..instances).map(|_| yard.program(workers, Arc::clone(&yard.store))).collect();
    // It is well under way when the others come.
    yard.until::<CostsIngested>(2).await;
    for small in &small {
        yard.look(*small).await;
    }
    let all = connections * months;
    let said = yard.until::<CostsIngested>(all + SMALL).await;
    let is_small = |at: &usize| said[*at].data.tenant != giant.tenant;
    let last_small = (0..said.len()).filter(is_small).max().unwrap();
    let before = (0..last_small).filter(|at| !is_small(at)).count();
    println!(
        "{instances} instances, {workers} workers: {before} of {all} periods of the giant before the last small one"
    );
    assert!(before < all, "every small one is done before the giant is");
    assert!(before <= all * 3 / 4, "{before} of {all} periods of the giant came before the last small one");
    assert_eq!(yard.held(Stream::DeadLetters).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_takes_turns() {
    a_giant_and_small_ones(1, 1, 1, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_with_two_workers_take_turns() {
    a_giant_and_small_ones(2, 2, 1, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_many_connections_leaves_a_worker_to_others() {
    a_giant_and_small_ones(1, 2, 12, 8).await;
}
