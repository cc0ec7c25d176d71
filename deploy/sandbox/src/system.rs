//! The whole system at work: tools, bus, emulator, the provider's account and the four services, wired as an operator would wire them.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contracts::SealingKey;
use messaging::{Bus, seal::SealSeed};

use crate::{
    Account, AwsEmulator, NatsServer, NatsUser, Provider, ServiceProcess, StackRequest, Toolbox,
    error::{Result, SandboxError},
    reaper::Scratch,
};

/// The provider's account in the sandbox.
pub const PROVIDER_ACCOUNT: &str = "111111111111";
/// The one region of the sandbox.
pub const REGION: &str = "eu-central-1";
/// The payer in the cost exports of `data/cur-2018`.
const SAMPLE_PAYER: &str = "836060457634";
/// Where a broker keeps what the stream of events does not have yet.
const AUDIT_JOURNAL: &str = "ROLEBRIDGE_AUDIT_JOURNAL";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    TenantRegistry,
    RoleChainBroker,
    CallbackIngest,
    CostIngestion,
}

impl Service {
    pub const ALL: [Self; 4] = [Self::TenantRegistry, Self::RoleChainBroker, Self::CallbackIngest, Self::CostIngestion];

    /// The program's name, which is its NATS user's too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.user().name()
    }

    const fn user(self) -> NatsUser {
        match self {
            Self::TenantRegistry => NatsUser::TenantRegistry,
            Self::RoleChainBroker => NatsUser::RoleChainBroker,
            Self::CallbackIngest => NatsUser::CallbackIngest,
            Self::CostIngestion => NatsUser::CostIngestion,
        }
    }
}

/// What may differ from one system to another.
#[derive(Debug, Clone, Default)]
pub struct SystemOptions {
    /// Where the registry keeps its data; an SQLite file of the system's own when absent.
    pub database_url: Option<String>,
    /// Variables that are added to (or replace) those of every service.
    pub environment: BTreeMap<String, String>,
    /// How long sessions in customers' roles last at most, in seconds; as long as they are asked for when absent.
    pub longest_session_s: Option<u32>,
    /// Further accounts of the provider's, deployed so that principals may live in them; `ROLEBRIDGE_PRINCIPAL_ACCOUNTS` says whether they do.
    pub further_accounts: Vec<String>,
}

/// A running system. Dropping it ends everything and removes its data.
#[derive(Debug)]
pub struct System {
    services: BTreeMap<Service, ServiceProcess>,
    pub nats: NatsServer,
    pub emulator: AwsEmulator,
    pub provider: Provider,
    sealing_key: SealingKey,
    scratch: Scratch,
}

impl System {
    /// Starts everything and waits until every service is ready. `progress` is told what is being done.
    ///
    /// # Errors
    /// Any part does not start, or the emulator's IAM is off; the error names the part and what it said.
    pub async fn start(options: SystemOptions, mut progress: impl FnMut(&str)) -> Result<Self> {
        let tools = fetch(&mut progress).await?;
        progress("starting nats-server and the AWS emulator");
        let (nats, emulator) =
            (NatsServer::start(&tools).await?, AwsEmulator::start_with(&tools, options.longest_session_s).await?);
        emulator.assert_iam_is_on().await?;
        progress("deploying the provider's template to account 111111111111");
        let further: Vec<&str> = options.further_accounts.iter().map(String::as_str).collect();
        let provider = Provider::deploy_with(&emulator, PROVIDER_ACCOUNT, REGION, &further).await?;
        let scratch = Scratch::new()?;
        let sealing_key = make_keys(scratch.path())?;
        let mut system = Self { services: BTreeMap::new(), nats, emulator, provider, sealing_key, scratch };
        progress("starting the four services");
        for service in Service::ALL {
            let environment = system.environment(service, &options);
            system.services.insert(service, ServiceProcess::spawn(service.name(), environment)?);
        }
        for process in system.services.values_mut() {
            process.wait_ready(READY_WITHIN).await?;
        }
        Ok(system)
    }

    /// The variables that `service` is started with.
    fn environment(&self, service: Service, options: &SystemOptions) -> BTreeMap<String, String> {
        let file = |name: &str| self.scratch.path().join(name).display().to_string();
        let provider = &self.provider;
        let mut all: BTreeMap<&str, String> = BTreeMap::from([
            ("ROLEBRIDGE_NATS_URL", self.nats.url()),
            ("ROLEBRIDGE_NATS_SEED_FILE", self.nats.seed_file(service.user()).display().to_string()),
            ("ROLEBRIDGE_LOG_FORMAT", "json".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", self.emulator.endpoint()),
        ]);
        let credentials = match service {
            Service::TenantRegistry => {
                let database = options
                    .database_url
                    .clone()
                    .unwrap_or_else(|| format!("sqlite://{}?mode=rwc", file("registry.db")));
                all.insert("ROLEBRIDGE_DATABASE_URL", database);
                all.insert("ROLEBRIDGE_PROVIDER_ACCOUNT", PROVIDER_ACCOUNT.to_owned());
                all.insert("ROLEBRIDGE_TOPIC_ARNS", provider.topic_arn.clone());
                all.insert("ROLEBRIDGE_TEMPLATE_URL", "https://rolebridge.example/customer.yaml".to_owned());
                None
            }
            Service::RoleChainBroker => {
                all.insert("ROLEBRIDGE_PROVIDER_ACCOUNT", PROVIDER_ACCOUNT.to_owned());
                all.insert("ROLEBRIDGE_KEY_FILE", file("wrapping.key"));
                all.insert("ROLEBRIDGE_SEAL_SEED_FILE", file("broker.seed"));
                all.insert(AUDIT_JOURNAL, file("audit-journal"));
                // The emulator's IAM settles at once; AWS's takes seconds.
                all.insert("ROLEBRIDGE_SETTLE_SECONDS", "2".to_owned());
                all.insert("ROLEBRIDGE_PERMISSIONS_BOUNDARY", provider.principal_boundary_arn.clone());
                Some(&provider.role_chain_broker)
            }
            Service::CallbackIngest => {
                all.insert("ROLEBRIDGE_CALLBACK_QUEUE_URL", provider.queue_url.clone());
                all.insert("ROLEBRIDGE_TOPIC_ARNS", provider.topic_arn.clone());
                all.insert("ROLEBRIDGE_INGEST_KEY_FILE", file("ingest.seed"));
                all.insert("ROLEBRIDGE_SNS_SIGNATURE", "sandbox-skip".to_owned());
                all.insert("ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN", self.emulator.endpoint());
                Some(&provider.callback_ingest)
            }
            Service::CostIngestion => {
                all.insert("ROLEBRIDGE_COST_TABLE", file("costs"));
                all.insert("ROLEBRIDGE_SEALING_KEY", self.sealing_key.to_string());
                all.insert("ROLEBRIDGE_S3_ENDPOINT", self.emulator.endpoint());
                // The samples were written for this account, which no account of the sandbox is.
                all.insert("ROLEBRIDGE_COST_PAYERS", SAMPLE_PAYER.to_owned());
                None
            }
        };
        if let Some(credentials) = credentials {
            all.insert("AWS_ACCESS_KEY_ID", credentials.access_key_id().to_owned());
            all.insert("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key().to_owned());
        }
        let mut all: BTreeMap<String, String> = all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        all.extend(options.environment.clone());
        all
    }

    /// The broker's public key, for jobs to pin.
    #[must_use]
    pub const fn sealing_key(&self) -> &SealingKey {
        &self.sealing_key
    }

    /// The process of `service`, to look at its log, kill it or start it again.
    ///
    /// # Errors
    /// Never: all four are started together.
    pub fn service(&mut self, service: Service) -> Result<&mut ServiceProcess> {
        self.services.get_mut(&service).ok_or_else(|| SandboxError::NotBuilt(service.name().to_owned()))
    }

    /// One more instance of `service`, wired like the first. It is the caller's: neither [`System::logs`] nor [`System::stop`] knows it.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time.
    pub async fn another(&mut self, service: Service) -> Result<ServiceProcess> {
        // An instance's own, as its operator would have it; other services know no such variable.
        let journal = self.scratch.path().join(format!("audit-journal-{}", uuid::Uuid::new_v4()));
        let mut process = self.service(service)?.twin([(AUDIT_JOURNAL, journal)])?;
        process.wait_ready(READY_WITHIN).await?;
        Ok(process)
    }

    /// Health addresses by service.
    pub fn health_addresses(&self) -> impl Iterator<Item = (Service, std::net::SocketAddr)> {
        self.services.iter().map(|(service, process)| (*service, process.http_address()))
    }

    /// Everything that the four services have logged.
    #[must_use]
    pub fn logs(&self) -> String {
        self.services.values().map(ServiceProcess::log_text).collect()
    }

    /// The folder with the registry's database, the cost table, the broker's journal and the keys.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A connection as `user`.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn bus(&self, user: NatsUser) -> Result<Bus> {
        self.nats.bus(user).await
    }

    /// The customer account `id`, in which stacks can call back.
    ///
    /// # Errors
    /// The emulator refuses the bridge.
    pub async fn customer(&self, id: &str) -> Result<Account> {
        let account = self.emulator.account(id, REGION);
        account.install_callback_bridge(&self.provider.topic_arn).await?;
        Ok(account)
    }

    /// The customer's template with the parameters of an offer.
    #[must_use]
    pub fn customer_stack(name: &str, parameters: &BTreeMap<String, String>) -> StackRequest {
        StackRequest {
            name: name.to_owned(),
            template: crate::CUSTOMER_TEMPLATE.to_owned(),
            parameters: parameters.clone(),
            ..StackRequest::default()
        }
    }

    /// Ends the services as an operator would (SIGTERM), then the rest.
    ///
    /// # Errors
    /// A service does not end in time.
    pub async fn stop(mut self) -> Result<()> {
        for process in self.services.values_mut() {
            process.terminate(Duration::from_secs(25)).await?;
        }
        self.nats.stop().await
    }
}

/// Fetches on a thread of its own, so that whoever waits can also be interrupted.
async fn fetch(progress: &mut impl FnMut(&str)) -> Result<Toolbox> {
    let (lines, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let fetching = tokio::task::spawn_blocking(move || {
        // Nobody listens any more only when the wait was given up.
        Toolbox::fetch(|line| drop(lines.send(line.to_owned())))
    });
    while let Some(line) = said.recv().await {
        progress(&line);
    }
    fetching.await.map_err(|error| SandboxError::Io {
        what: "fetch the tools".to_owned(),
        source: std::io::Error::other(error),
    })?
}

/// The keys that an operator makes with the programs' `keygen`: for wrapping access keys, for sealing credentials, for sealing return addresses.
fn make_keys(folder: &Path) -> Result<SealingKey> {
    let sealed = |source| SandboxError::Seal { source };
    let write = |path: PathBuf, text: String| {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(SandboxError::io(format!("write {}", path.display())))
    };
    let key: Vec<u8> = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|half| *half.as_bytes()).collect();
    write(folder.join("wrapping.key"), STANDARD.encode(key))?;
    SealSeed::generate().and_then(|seed| seed.save(&folder.join("ingest.seed"))).map_err(sealed)?;
    let broker = SealSeed::generate().map_err(sealed)?;
    broker.save(&folder.join("broker.seed")).map_err(sealed)?;
    Ok(broker.public().clone())
}
