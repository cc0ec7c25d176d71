//! Cold credentials: beside the two bare calls that they are made of; and a thousand requests at once for one cold key.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aws_credential_types::Credentials;
use aws_sdk_sts::{Client, config::SharedCredentialsProvider};
use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    load,
    stage::{Connected, Stage, subject},
};

/// Connections, each of a tenant of its own.
const CONNECTIONS: usize = 40;
const AT_ONCE: usize = 1_000;

/// # Errors
/// Something does not answer.
pub(crate) async fn measure(stage: &mut Stage) -> Result<Value> {
    let mut connected = Vec::new();
    for _ in 0..CONNECTIONS {
        connected.push(stage.connect().await?);
    }
    let (client, request) = (stage.asker.client().clone(), Bytes::from(stage.request()?));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for one in &connected {
        let keys = own_key(stage, one).await?;
        bare.push(two_calls(stage, one, keys).await?);
        let began = Instant::now();
        load::ask(&client, &subject(one.tenant, one.connection.connection), request.clone()).await?;
        ours.push(began.elapsed());
    }
    let (ours, bare) = (median(ours), median(bare));
    Ok(json!({ "connections": CONNECTIONS, "ours_median_ms": ours, "two_bare_calls_median_ms": bare,
        "ratio": ours / bare, "aim_ratio": 1.25 }))
}

/// One more access key of the tenant's user, to call with what the broker calls with.
async fn own_key(stage: &Stage, one: &Connected) -> Result<Credentials> {
    let provider = stage.system.emulator.account("111111111111", "eu-central-1");
    Ok(provider.create_access_key(&format!("rolebridge-{}", one.tenant)).await?)
}

/// User to principal role, principal role to the customer's, over connections that are there already.
async fn two_calls(stage: &Stage, one: &Connected, keys: Credentials) -> Result<Duration> {
    let config =
        stage.system.emulator.sdk_config("eu-central-1", keys).to_builder().http_client(stage.http.clone()).build();
    let parameter = |name: &str| one.customer.offer.parameters.get(name).cloned().with_context(|| format!("no {name}"));
    let (principal, external_id) = (parameter("PrincipalRoleArn")?, parameter("ExternalId")?);
    let began = Instant::now();
    let first =
        Client::new(&config).assume_role().role_arn(principal).role_session_name("bench").duration_seconds(3600);
    let first = first.send().await?.credentials.context("no credentials")?;
    let session =
        Credentials::new(first.access_key_id, first.secret_access_key, Some(first.session_token), None, "bench");
    let config = config.to_builder().credentials_provider(SharedCredentialsProvider::new(session)).build();
    let role = one.connection.role_arn.as_str();
    let second = Client::new(&config).assume_role().role_arn(role).role_session_name("bench").external_id(external_id);
    let second = second.duration_seconds(3600).send().await?;
    ensure!(second.credentials.is_some(), "no credentials");
    Ok(began.elapsed())
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all.get(all.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3
}

/// # Errors
/// Something does not answer.
pub(crate) async fn stampede(stage: &mut Stage) -> Result<Value> {
    let one = stage.connect().await?;
    let (client, request) = (stage.asker.client().clone(), Bytes::from(stage.request()?));
    let subject = subject(one.tenant, one.connection.connection);
    let before = sts_calls(stage).await?;
    let began = Instant::now();
    try_join_all((0..AT_ONCE).map(|_| load::ask(&client, &subject, request.clone()))).await?;
    let took = began.elapsed();
    let calls = sts_calls(stage).await? - before;
    Ok(
        json!({ "requests": AT_ONCE, "sts_calls": calls, "aim_sts_calls": 2, "all_answered_after_ms": took.as_secs_f64() * 1e3 }),
    )
}

/// Calls of AssumeRole that the broker has made, as its metrics count them.
async fn sts_calls(stage: &Stage) -> Result<u64> {
    let health = stage.system.health_addresses().find(|(service, _)| service.name() == "role-chain-broker");
    let (_, address) = health.context("no broker")?;
    let text = reqwest::get(format!("http://{address}/metrics")).await?.text().await?;
    let counted = text.lines().filter(|line| line.starts_with("rolebridge_sts_calls") && line.contains("AssumeRole\""));
    let counts = counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(counts.sum::<f64>() as u64)
}
