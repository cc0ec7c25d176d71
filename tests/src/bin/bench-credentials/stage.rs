//! What every part needs: the running system, a user that asks, connected customers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use contracts::{
    ConnectionId, Endpoint as _, TenantId,
    connection::Connection,
    credentials::{IssueCredentials, IssueRequest, Purpose},
};
use messaging::{Bus, seal::SealSeed};
use permissions::{Key, Right, User};
use rolebridge_tests::yard::Customer;
use sandbox::{NatsUser, Operator, System, SystemOptions};

/// The subject of the echo.
pub(crate) const ECHO: &str = "bench.echo";
const ASKER: &str = "bench";
const ECHO_USER: &str = "bench-echo";
/// The account of the first customer; the others' follow.
const FIRST_ACCOUNT: u64 = 400_000_000_001;

pub(crate) struct Stage {
    pub(crate) system: System,
    pub(crate) operator: Operator,
    /// A user that may ask the broker and the echo.
    pub(crate) asker: Bus,
    pub(crate) seed: SealSeed,
    /// Connections for bare calls.
    pub(crate) http: aws::HttpClient,
    customers: u64,
}

/// A customer that is connected.
pub(crate) struct Connected {
    pub(crate) tenant: TenantId,
    pub(crate) connection: Connection,
    pub(crate) customer: Customer,
}

impl Stage {
    /// # Errors
    /// Any part does not start.
    pub(crate) async fn set() -> Result<Self> {
        let mut system = System::start(SystemOptions::default(), |line| eprintln!("{line}")).await?;
        let asks = [IssueCredentials::SUBJECT.to_owned(), ECHO.to_owned()];
        add(&mut system, ASKER, asks.into_iter().map(Right::Ask).collect()).await?;
        let serves = Right::Serve { service: ECHO_USER.to_owned(), subjects: vec![ECHO.to_owned()] };
        add(&mut system, ECHO_USER, vec![serves]).await?;
        let asker = system.nats.bus_as(ASKER).await?;
        let operator = Operator::new(system.bus(NatsUser::Operator).await?);
        Ok(Self { system, operator, asker, seed: SealSeed::generate()?, http: aws::http_client(), customers: 0 })
    }

    /// A new tenant with one connection, which no credentials were asked for yet.
    ///
    /// # Errors
    /// Any step is refused.
    pub(crate) async fn connect(&mut self) -> Result<Connected> {
        let account = (FIRST_ACCOUNT + self.customers).to_string();
        self.customers += 1;
        // No bucket: cost-ingestion would ask for credentials too.
        let customer = Customer::make(&self.system, &account, None).await?;
        customer.launch().await?;
        let tenant = customer.tenant;
        let connection = self.operator.connections(tenant).await?.into_iter().next().context("no connection")?;
        Ok(Connected { tenant, connection, customer })
    }

    /// What the asker sends, as bytes.
    ///
    /// # Errors
    /// Never.
    pub(crate) fn request(&self) -> Result<Vec<u8>> {
        let request = IssueRequest {
            requester_key: self.seed.public().clone(),
            requester: "bench".to_owned(),
            duration_s: None,
            min_remaining_s: None,
        };
        Ok(serde_json::to_vec(&request)?)
    }

    /// The connection of the echo's process: its URL, its user and that user's seed.
    pub(crate) fn echo_arguments(&self) -> [String; 3] {
        let seed = self.system.nats.seed_file_of(ECHO_USER).display().to_string();
        [self.system.nats.url(), ECHO_USER.to_owned(), seed]
    }

    /// # Errors
    /// A part does not end.
    pub(crate) async fn strike(self) -> Result<()> {
        self.asker.close().await;
        Ok(self.system.stop().await?)
    }
}

/// Where `cost-read` credentials of a connection are asked for.
pub(crate) fn subject(tenant: TenantId, connection: ConnectionId) -> String {
    IssueCredentials::subject(Purpose::CostRead, tenant, connection).as_str().to_owned()
}

async fn add(system: &mut System, name: &str, rights: Vec<Right>) -> Result<()> {
    let user =
        |key| User { name: name.to_owned(), about: "Of the benchmark.".to_owned(), key: Key::Public(key), rights };
    Ok(system.nats.add_user(name, user).await?)
}

/// Seconds.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
