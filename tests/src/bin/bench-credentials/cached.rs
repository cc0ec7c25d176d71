//! Cached credentials: beside a bare echo of the same size, which is the limit, and beside a token-checked read of OpenBao.

use anyhow::{Result, ensure};
use bytes::Bytes;
use contracts::credentials::{IssuedCredentials, SealedCredentials};
use serde_json::{Value, json};

use crate::{
    bao::Bao,
    echo::Echo,
    load::{self, Figures, Took},
    stage::{ECHO, Stage, subject},
};

const ROUNDS: usize = 10;
/// Requests in a round, one by one and with 64 in flight.
const ONE_BY_ONE: usize = 1_000;
const MANY: usize = 20_000;
const IN_FLIGHT: usize = 64;
/// OpenBao is slower by far.
const MANY_OF_BAO: usize = 4_000;

#[derive(Default)]
struct Pair {
    alone: Took,
    many: Took,
}

impl Pair {
    fn figures(&self) -> Result<(Figures, Figures)> {
        Ok((self.alone.figures()?, self.many.figures()?))
    }
}

/// # Errors
/// Something does not answer.
pub(crate) async fn measure(stage: &mut Stage) -> Result<Value> {
    let connected = stage.connect().await?;
    let (issue, request) = (subject(connected.tenant, connected.connection.connection), Bytes::from(stage.request()?));
    let client = stage.asker.client().clone();
    let answer = load::ask(&client, &issue, request.clone()).await?;
    opens(stage, &answer)?;
    let _echo = Echo::start(stage, answer.len())?;
    until_it_answers(&client, &request).await;
    let bao = Bao::start(answer.len()).await?;

    let (mut ours, mut echo, mut vault) = (Pair::default(), Pair::default(), Pair::default());
    for round in 0..ROUNDS {
        for (subject, pair) in [(ECHO, &mut echo), (issue.as_str(), &mut ours)] {
            let ask = || async { load::ask(&client, subject, request.clone()).await.map(drop) };
            pair.alone.add(load::run(ONE_BY_ONE, 1, ask).await?);
            pair.many.add(load::run(MANY, IN_FLIGHT, ask).await?);
        }
        vault.alone.add(load::run(ONE_BY_ONE, 1, || bao.read()).await?);
        vault.many.add(load::run(MANY_OF_BAO, IN_FLIGHT, || bao.read()).await?);
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    opens(stage, &load::ask(&client, &issue, request.clone()).await?)?;
    let (ours, echo, vault) = (ours.figures()?, echo.figures()?, vault.figures()?);
    Ok(json!({
        "answer_bytes": answer.len(),
        "one_by_one": { "ours": ours.0, "echo": echo.0, "openbao": vault.0,
            "p50_to_echo": ours.0.p50_us / echo.0.p50_us, "aim_p50_to_echo": 1.2,
            "p99_to_echo": ours.0.p99_us / echo.0.p99_us, "aim_p99_to_echo": 2.0 },
        "in_flight_64": { "ours": ours.1, "echo": echo.1, "openbao": vault.1,
            "throughput_to_echo": ours.1.per_second / echo.1.per_second, "aim_throughput_to_echo": 0.7,
            "p99_to_echo": ours.1.p99_us / echo.1.p99_us, "aim_p99_to_echo": 2.0,
            "throughput_to_openbao": ours.1.per_second / vault.1.per_second, "aim_throughput_to_openbao": 6.0 },
    }))
}

/// What was answered are credentials that we can open.
fn opens(stage: &Stage, answer: &[u8]) -> Result<()> {
    let issued: IssuedCredentials = serde_json::from_slice(answer)?;
    ensure!(issued.broker_key == *stage.system.sealing_key(), "another broker answered");
    let plain = stage.seed.open(&issued.broker_key, &issued.sealed)?;
    let inside: SealedCredentials = serde_json::from_slice(&plain)?;
    ensure!(!inside.secret_access_key.expose().is_empty(), "no credentials were inside");
    Ok(())
}

async fn until_it_answers(client: &async_nats::Client, request: &Bytes) {
    while load::ask(client, ECHO, request.clone()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
