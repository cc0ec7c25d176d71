//! Under load for minutes: does memory stay where it is?

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use messaging::seal::SealSeed;
use sandbox::Service;
use serde_json::{Value, json};

use crate::{
    load,
    stage::{Stage, subject},
};

const CONNECTIONS: usize = 10;
const IN_FLIGHT: usize = 16;
/// After this part of the time the memory counts as settled.
const WARM: f64 = 0.2;

/// Asks for `seconds`, now and then with a new key, and looks at the broker's resident memory each second.
///
/// # Errors
/// Something does not answer.
pub(crate) async fn measure(stage: &mut Stage, seconds: u64) -> Result<Value> {
    let mut subjects = Vec::new();
    for _ in 0..CONNECTIONS {
        let one = stage.connect().await?;
        subjects.push(subject(one.tenant, one.connection.connection));
    }
    let pid = stage.system.service(Service::RoleChainBroker)?.id().context("the broker has ended")?;
    let (client, whole) = (stage.asker.client().clone(), Duration::from_secs(seconds));
    let (began, mut requests, mut memory) = (Instant::now(), 0, Vec::new());
    let mut next = subjects.iter().cycle();
    while began.elapsed() < whole {
        stage.seed = SealSeed::generate()?;
        let (request, subject) = (Bytes::from(stage.request()?), next.next().context("a subject")?);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(1) {
            load::run(1_000, IN_FLIGHT, || async { load::ask(&client, subject, request.clone()).await.map(drop) })
                .await?;
            requests += 1_000;
        }
        memory.push((began.elapsed(), resident_kib(pid)?));
    }
    let settled: Vec<u64> = memory.iter().filter(|(at, _)| *at > whole.mul_f64(WARM)).map(|(_, kib)| *kib).collect();
    let half = settled.split_at(settled.len() / 2);
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len().max(1) as f64 / 1024.0;
    Ok(json!({ "seconds": seconds, "requests": requests, "in_flight": IN_FLIGHT, "connections": CONNECTIONS,
        "first_mib": memory.first().map(|(_, kib)| *kib as f64 / 1024.0),
        "settled_mean_mib": mean(half.0), "end_mean_mib": mean(half.1), "growth": mean(half.1) / mean(half.0),
        "peak_mib": settled.iter().max().map(|kib| *kib as f64 / 1024.0) }))
}

/// Resident memory of a process.
fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
