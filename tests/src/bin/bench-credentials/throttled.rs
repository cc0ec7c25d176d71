//! Ten thousand connections, each asked for once and all at the same time, while STS takes so many calls a second. Half of them are one tenant's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, Request, service::NATS_SERVICE_ERROR};
use bytes::Bytes;
use contracts::{ConnectionId, ErrorCode, ErrorReply, TenantId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rolebridge_tests::{
    sts::{self, Seen},
    yard::{PATIENCE, grant},
};
use sandbox::{NatsUser, Service};
use serde_json::{Value, json};

use crate::stage::{Stage, seconds, subject};

const SMALL_TENANTS: usize = 100;
const OF_A_SMALL_ONE: usize = 50;
const OF_THE_GIANT: usize = 5_000;
/// What STS takes, and what the broker is told that it may take.
const STS_TAKES: usize = 600;
const BUDGET: usize = 500;
const GIVE_UP: Duration = Duration::from_secs(300);

/// # Errors
/// Something does not answer.
pub(crate) async fn measure(stage: &mut Stage) -> Result<Value> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let endpoint = sts::serve(STS_TAKES, seen.clone()).await?;
    let (giant, small) = tenants(stage).await?;
    let broker = stage.system.service(Service::RoleChainBroker)?;
    broker.terminate(PATIENCE).await?;
    broker.set_variable("AWS_ENDPOINT_URL_STS", endpoint);
    broker.set_variable("ROLEBRIDGE_STS_PER_SECOND", BUDGET.to_string());
    broker.restart()?;
    broker.wait_ready(PATIENCE).await?;
    let connections = grants(stage, giant, &small).await?;
    seen.lock().unwrap_or_else(PoisonError::into_inner).calls.clear();

    let (client, request) = (stage.asker.client().clone(), Bytes::from(stage.request()?));
    let began = Instant::now();
    let asked =
        stream::iter(connections).map(|(tenant, connection)| {
            let (client, request) = (client.clone(), request.clone());
            async move {
                until_served(&client, tenant, connection, request).await.map(|tries| (tenant, tries, began.elapsed()))
            }
        });
    let served: Vec<(TenantId, usize, Duration)> = asked.buffer_unordered(usize::MAX).try_collect().await?;
    let last =
        |of: &dyn Fn(TenantId) -> bool| served.iter().filter(|(tenant, _, _)| of(*tenant)).map(|(_, _, at)| *at).max();
    let small_done = last(&|tenant| tenant != giant).context("no small tenant")?;
    let all_done = last(&|_| true).context("nobody")?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(json!({
        "connections": served.len(), "sts_takes_per_second": STS_TAKES, "budget_per_second": BUDGET,
        "sts_calls": seen.calls.len(), "least_sts_calls": served.len() + SMALL_TENANTS + 1,
        "throttled_by_sts": seen.throttled, "most_calls_in_a_second": most_in_a_second(&seen.calls),
        "asked_again": served.iter().map(|(_, tries, _)| tries - 1).sum::<usize>(),
        "all_served_after_s": seconds(all_done), "ideal_s": (served.len() + SMALL_TENANTS + 1) as f64 / BUDGET as f64,
        "small_tenants_served_after_s": seconds(small_done),
        "ideal_small_s": (2 * SMALL_TENANTS * OF_A_SMALL_ONE / 2 + SMALL_TENANTS + OF_A_SMALL_ONE) as f64 / BUDGET as f64,
    }))
}

async fn tenants(stage: &Stage) -> Result<(TenantId, Vec<TenantId>)> {
    let mut all = Vec::new();
    for number in 0..=SMALL_TENANTS {
        all.push(stage.operator.create_tenant(&format!("Tenant {number}")).await?.tenant);
    }
    for tenant in &all {
        stage.operator.principal_ready(*tenant, PATIENCE).await?;
    }
    let giant = all.pop().context("a tenant")?;
    Ok((giant, all))
}

/// Says, as the registry would, that credentials may be issued; the giant's connections first.
async fn grants(stage: &Stage, giant: TenantId, small: &[TenantId]) -> Result<Vec<(TenantId, ConnectionId)>> {
    let bus = stage.system.bus(NatsUser::TenantRegistry).await?;
    let of_giant = std::iter::repeat_n(giant, OF_THE_GIANT);
    let all: Vec<_> =
        of_giant.chain(small.iter().flat_map(|tenant| std::iter::repeat_n(*tenant, OF_A_SMALL_ONE))).collect();
    let granted = stream::iter(all).map(|tenant| {
        let bus = &bus;
        async move { anyhow::Ok((tenant, grant(bus, tenant).await?)) }
    });
    granted.buffered(64).try_collect().await
}

/// Asks until there are credentials, no sooner than the answer says; tells how often.
async fn until_served(client: &Client, tenant: TenantId, connection: ConnectionId, body: Bytes) -> Result<usize> {
    let (subject, began) = (subject(tenant, connection), Instant::now());
    for tries in 1.. {
        let request = Request::new().payload(body.clone()).timeout(Some(Duration::from_secs(60)));
        let reply = client.send_request(subject.clone(), request).await?;
        let Some(headers) = reply.headers.filter(|headers| headers.get(NATS_SERVICE_ERROR).is_some()) else {
            return Ok(tries);
        };
        let header = |name: &str| headers.get(name).map(ToString::to_string);
        let code = header(ErrorReply::CODE_HEADER).and_then(|code| ErrorCode::from_text(&code));
        let again = matches!(code, Some(ErrorCode::Throttled | ErrorCode::Unavailable));
        ensure!(again && began.elapsed() < GIVE_UP, "{connection}: {code:?} {:?}", header(NATS_SERVICE_ERROR));
        let wait = header(ErrorReply::RETRY_HEADER).and_then(|text| text.parse().ok()).unwrap_or(1_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    Ok(0)
}

fn most_in_a_second(calls: &[Instant]) -> usize {
    let mut most = 0;
    let mut from = 0;
    for (to, at) in calls.iter().enumerate() {
        while calls.get(from).is_some_and(|first| at.duration_since(*first) > Duration::from_secs(1)) {
            from += 1;
        }
        most = most.max(to + 1 - from);
    }
    most
}
