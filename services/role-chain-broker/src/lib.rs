//! role-chain-broker: one IAM user and role for each tenant, the three-way probe, and credentials sealed to whoever may have them.
//!
//! - `principal`: makes them when a tenant is created, watches them, changes their keys, removes them; `wrap`: their access keys are stored wrapped.
//! - `sts`, `chain`: user -> principal role -> customer role; `tags`: what the last session bears.
//! - `look`: what a role lets itself be asked, and which purposes' permissions are there.
//! - `jobs`, `probe`: prove that a role demands our external ID, and report the evidence.
//! - `journal`: what was given out and refused, on disk until the stream of events has it.
//! - `grants`, `issue`, `purpose`: issue credentials for what the registry says may be issued for.
//! - `denials`: which sessions are denied by now; `follow`: how what is kept in memory is known to be current.
//!
//! No database, no decision about a connection's state: those are the registry's.

pub mod aws_account;
pub mod chain;
pub mod config;
pub mod denials;
pub mod follow;
pub mod grants;
pub mod issue;
pub mod jobs;
pub mod journal;
pub mod keygen;
pub mod look;
pub mod metrics;
pub mod principal;
pub mod probe;
pub mod purpose;
pub mod sts;
pub mod tags;
pub mod wrap;

use std::{sync::Arc, time::Duration};

use aws::Patience;
use contracts::{AccountId, PrincipalAccountsError, Stream};
use messaging::{Bus, BusError, ConnectError, seal::SealError, seal::SealSeed};
use runtime::{Health, HttpError, HttpServer, RuntimeError, Supervisor};
use telemetry::Telemetry;

use tokio_util::sync::CancellationToken;

pub use config::{BrokerConfig, Command, Invocation, KeygenArgs, ServeArgs, command};
pub use keygen::{KeygenError, keygen};

use crate::{
    aws_account::Claim,
    chain::Chain,
    denials::Denials,
    grants::{Grants, WatchError},
    issue::{Issuer, Sessions, UsedConnections},
    jobs::Jobs,
    journal::{Journal, OpenError},
    look::{Looker, RealOwnRole, RealReads, UnusableHttp},
    metrics::Metrics,
    principal::{Accounts, Bucket, Home, Keeper, Layout, Maker, Principals, RealIam, Revoker, Rotator, StoreError},
    probe::Prober,
    sts::{
        AwsClock, RealSts,
        budget::{BUDGET_BUCKET, Budget, NewAccounts, Rate},
    },
    wrap::{KeyWrapper, KmsKey, LocalKey, Moving, WrapError},
};

/// Why the broker cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the key that wraps access keys cannot be used")]
    WrappingKey(#[source] WrapError),
    #[error("the seed that seals credentials cannot be used")]
    Seal(#[source] SealError),
    #[error("AWS has no region to talk to: set AWS_REGION")]
    NoRegion,
    #[error("cannot connect to NATS")]
    Connect(#[source] ConnectError),
    #[error("the bus is not as it should be")]
    Bus(#[source] BusError),
    #[error("what is issued cannot be written down")]
    Journal(#[source] OpenError),
    #[error("what may be issued cannot be read")]
    Grants(#[source] WatchError),
    #[error("customers' accounts cannot be read: has this machine TLS roots (ca-certificates)?")]
    Reads(#[source] UnusableHttp),
    #[error("health and metrics cannot be served")]
    Http(#[source] HttpError),
    #[error("account and partition make no ARN: check ROLEBRIDGE_PROVIDER_ACCOUNT")]
    Canary(#[source] contracts::ParseIdentityError),
    #[error("ROLEBRIDGE_PRINCIPAL_ACCOUNTS cannot be used")]
    Accounts(#[source] PrincipalAccountsError),
    #[error("the principals cannot be read")]
    Principals(#[source] StoreError),
    #[error(
        "{principals} principals live in account {account}, which is not in ROLEBRIDGE_PRINCIPAL_ACCOUNTS: put it back, with `:0` after it if it shall get no new ones"
    )]
    Unlisted { account: AccountId, principals: u32 },
    #[error("the broker had to end")]
    Runtime(#[source] RuntimeError),
}

/// The streams that the broker writes to or reads.
const STREAMS: [Stream; 6] = [
    Stream::TenantEvents,
    Stream::PrincipalEvents,
    Stream::CredentialsEvents,
    Stream::Jobs,
    Stream::Reports,
    Stream::Grants,
];

/// Runs the broker until shutdown.
///
/// Cancel: takes no more messages and requests, finishes what is in hand (long probes are given back), within the grace of the configuration.
///
/// # Errors
/// When it cannot start, or a task of it died.
pub async fn run(config: ServeArgs, telemetry: Telemetry, shutdown: CancellationToken) -> Result<(), RunError> {
    let http = HttpServer::bind(&config.http).await.map_err(RunError::Http)?;
    let seal = SealSeed::from_file(&config.broker.seal_seed_file).map_err(RunError::Seal)?;
    let journal = Journal::open(&config.broker.audit_journal, config.broker.audit_journal_mib << 20)
        .map_err(RunError::Journal)?;
    let (sdk, accounts, claims) = aws(&config.broker).await?;
    let canary = principal::canary(&accounts).map_err(RunError::Canary)?;
    let wrapper = wrapper(&config.broker, &sdk)?;
    let bus = Bus::connect(&config.nats, "role-chain-broker").await.map_err(RunError::Connect)?;
    for stream in STREAMS {
        bus.ensure_stream(stream).await.map_err(RunError::Bus)?;
    }
    let store = bus.key_value(principal::BUCKET, 1).await.map_err(RunError::Bus)?;
    let bucket = Arc::new(Bucket::new(store.clone()));

    let metrics = Metrics::new(&telemetry::meter());
    let principals = Principals::new(bucket.clone(), wrapper.clone());
    let (clock, denials) = (AwsClock::default(), Denials::default());
    let sts = |patience| Arc::new(RealSts::new(sdk.clone(), patience, metrics.clone(), clock.clone()));
    let probing = sts(PROBING);
    let maker =
        Arc::new(Maker { accounts, store: bucket, wrapper, settle: config.broker.settle(), metrics: metrics.clone() });
    let unlisted = maker.unlisted().await.map_err(RunError::Principals)?;
    if let Some((account, principals)) = unlisted.into_iter().next() {
        return Err(RunError::Unlisted { account, principals });
    }
    let rotator = Rotator {
        maker: maker.clone(),
        sts: probing.clone(),
        herald: Arc::new(bus.clone()),
        pace: config.broker.pace(),
    };
    let keeper = Arc::new(Keeper {
        maker: maker.clone(),
        rotator,
        metrics: metrics.clone(),
        interval: Duration::from_secs(config.broker.reconcile_interval),
    });
    let (orders, ordered) = principal::orders();
    let asked = principal::Asked::new(keeper.clone(), orders.clone(), &bus);
    let (budget, new_accounts) = budget(&bus, &config.broker).await?;
    let chain = Chain::new(principals, sts(ISSUING), probing).alarming(orders).within(budget.clone());
    let chain = Arc::new(chain.timed(clock.clone()).remembering(denials.clone()).counted(metrics.clone()));
    let prober = Arc::new(Prober::new(chain.clone(), canary, metrics.clone()));
    let looker = Looker {
        chain: chain.clone(),
        own_role: Arc::new(RealOwnRole::new(sdk.clone(), PROBING)),
        reads: Arc::new(RealReads::new(&sdk).map_err(RunError::Reads)?),
        metrics: metrics.clone(),
    };
    let sessions = Sessions::new(clock.clone());
    let withdrawn = sessions.clone();
    let grants = Grants::open(&bus, Arc::new(move |withdrawal| withdrawn.withdraw(withdrawal)));
    let grants = grants.await.map_err(RunError::Grants)?;
    let used = UsedConnections::default();
    let issuer = Arc::new(Issuer {
        grants: Arc::new(grants.clone()),
        sessions: sessions.clone(),
        chain,
        seal,
        used: used.clone(),
        journal: journal.clone(),
        metrics: metrics.clone(),
    });
    let endpoints = issue::serve(&bus, issuer).await.map_err(RunError::Bus)?;
    let endpoints = principal::answer(endpoints, asked).await.map_err(RunError::Bus)?;

    let (health, tasks) = (Health::new(), Supervisor::new(shutdown));
    let revoker = Arc::new(Revoker { maker: maker.clone(), grants: Arc::new(grants.clone()), clock: clock.clone() });
    let settle = config.broker.settle();
    let jobs = Jobs { bus: bus.clone(), prober, looker, revoker, clock, settle, shutdown: tasks.token() };
    tasks.spawn("aws account", aws_account::check(claims, health.part("aws"), tasks.token()));
    tasks.spawn("nats health", watch_nats(bus.clone(), health.part("nats"), tasks.token()));
    tasks.spawn("grants", grants.follow(health.part("grants"), tasks.token()));
    tasks.spawn("denials", denials.follow(store, health.part("denials"), tasks.token()));
    tasks.spawn("canary", principal::keep_canary(maker.clone(), tasks.token()));
    tasks.spawn("stranger", principal::keep_stranger(maker.clone(), tasks.token()));
    tasks.spawn(
        "principals",
        messaging::consume(bus.clone(), principal::consumer(), principal::router(bus.clone(), maker), tasks.token()),
    );
    tasks.spawn("principals' upkeep", principal::keep(keeper, ordered, tasks.token()));
    tasks.spawn("calls to STS", budget.run(new_accounts, metrics.clone(), tasks.token()));
    tasks.spawn("jobs", messaging::consume(bus.clone(), jobs::consumer(), jobs::router(jobs), tasks.token()));
    tasks.spawn("connections in use", issue::tell_used(used, bus.clone(), tasks.token()));
    let answered = CancellationToken::new();
    tasks.spawn("journal", journal::keep(journal, bus.clone(), metrics, answered.clone()));
    let (answering, all_answered) = (endpoints.run(tasks.token()), answered.drop_guard());
    tasks.spawn("endpoints", async move {
        let ended = answering.await;
        drop(all_answered);
        ended
    });
    tasks.spawn("http", http.serve(health, move || telemetry.prometheus(), tasks.token()));
    let ended = tasks.finish(config.http.grace()).await;
    bus.close().await;
    ended.map_err(RunError::Runtime)
}

/// Issuing waits for a person's job. One try: the chain makes the others, each of which it takes from the budget.
const ISSUING: Patience = Patience {
    connect: std::time::Duration::from_secs(2),
    attempt: std::time::Duration::from_secs(4),
    whole: std::time::Duration::from_secs(4),
    attempts: 1,
};

/// One try, no waiting: the inquiry reads the answer and decides whether to ask again.
const PROBING: Patience = Patience {
    connect: std::time::Duration::from_secs(2),
    attempt: std::time::Duration::from_secs(5),
    whole: std::time::Duration::from_secs(5),
    attempts: 1,
};

/// How many calls of STS may be made, kept in a bucket for all instances.
async fn budget(bus: &Bus, config: &BrokerConfig) -> Result<(Budget, NewAccounts), RunError> {
    let windows = bus.key_value(BUDGET_BUCKET, 1).await.map_err(RunError::Bus)?;
    Ok(Budget::new(Rate::per_second(config.sts_per_second), windows))
}

/// The SDK, where principals live, and what is to be checked of that. Nothing is asked of AWS yet.
async fn aws(config: &BrokerConfig) -> Result<(aws::SdkConfig, Arc<Accounts>, Vec<Claim>), RunError> {
    let sdk = aws::sdk_config(None).await;
    let region = sdk.region().ok_or(RunError::NoRegion)?;
    let region = region.as_ref().parse::<contracts::Region>().map_err(|_| RunError::NoRegion)?;
    let own = &config.provider_account;
    let mut claims = vec![Claim { sdk: sdk.clone(), account: own.clone(), keeper: None }];
    let mut homes = Vec::new();
    for entry in config.accounts().map_err(RunError::Accounts)?.iter() {
        let account = entry.account.clone();
        let layout = Layout {
            partition: region.partition(),
            path: config.principal_path.clone(),
            boundary: config.permissions_boundary.as_ref().map(|boundary| boundary.in_account(&account)),
            account: account.clone(),
        };
        let sdk = match &entry.keeper {
            None => sdk.clone(),
            Some(role) => aws::assuming(&sdk, role, "role-chain-broker").await,
        };
        let capacity = entry.capacity.unwrap_or(config.principals_per_account);
        homes.push(Home { layout, iam: Arc::new(RealIam::new(&sdk)), capacity });
        if entry.keeper.is_some() {
            claims.push(Claim { sdk, account, keeper: entry.keeper.clone() });
        }
    }
    Ok((sdk, Arc::new(Accounts::new(own.clone(), homes)), claims))
}

fn wrapper(config: &BrokerConfig, sdk: &aws::SdkConfig) -> Result<Arc<dyn KeyWrapper>, RunError> {
    let file = config.key_file.as_deref().map(LocalKey::load).transpose().map_err(RunError::WrappingKey)?;
    let kms = config.kms_key.clone().map(|key| KmsKey::new(sdk, key));
    match (file, kms) {
        (Some(from), Some(to)) => {
            tracing::info!("access keys are wrapped by AWS KMS from now on; the key file opens those of before");
            Ok(Arc::new(Moving { to, from }))
        }
        (Some(file), None) => Ok(Arc::new(file)),
        (None, Some(kms)) => Ok(Arc::new(kms)),
        (None, None) => Err(RunError::WrappingKey(WrapError::NoKey)),
    }
}

/// Tells whether NATS is there. Cancel: ends. Failure: none.
async fn watch_nats(
    bus: Bus,
    part: runtime::Part,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        if bus.is_connected() {
            part.ready()
        } else {
            part.not_ready("not connected")
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
        }
    }
}
