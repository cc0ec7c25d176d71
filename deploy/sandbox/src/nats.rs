//! A real nats-server with JetStream, under the configuration and the permissions of `deploy/nats`: what holds here holds for operators.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use messaging::{Bus, NatsConfig};
use nix::sys::signal::Signal;
use nkeys::KeyPair;
use permissions::{User, conf, matrix};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    error::{Result, SandboxError},
    port::PortLease,
    process::Process,
    reaper::Scratch,
    toolbox::Toolbox,
};

const SERVER_CONF: &str = include_str!("../../nats/nats-server.conf");
const ACCOUNTS_CONF: &str = include_str!("../../nats/accounts.conf");

/// What the server logs when it has read its configuration again.
const HAS_READ: &str = "Reloaded server configuration";
const READY_WITHIN: Duration = Duration::from_secs(15);
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// The users of `deploy/nats/accounts.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatsUser {
    TenantRegistry,
    CallbackIngest,
    RoleChainBroker,
    CostIngestion,
    /// A person with the command line.
    Operator,
    /// An example of a consumer that may ask for `cost-read` credentials, and nothing else.
    Job,
    /// An example of a reader of events.
    Events,
}

impl NatsUser {
    pub const ALL: [Self; 7] = [
        Self::TenantRegistry,
        Self::CallbackIngest,
        Self::RoleChainBroker,
        Self::CostIngestion,
        Self::Operator,
        Self::Job,
        Self::Events,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TenantRegistry => "tenant-registry",
            Self::CallbackIngest => "callback-ingest",
            Self::RoleChainBroker => "role-chain-broker",
            Self::CostIngestion => "cost-ingestion",
            Self::Operator => "operator",
            Self::Job => "job",
            Self::Events => "events",
        }
    }

    /// The only inboxes that the user may subscribe to.
    #[must_use]
    pub fn inbox_prefix(self) -> String {
        format!("_INBOX_{}", self.name())
    }
}

/// A running (or stopped) server of its own: port, store, and keys that nobody else has.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    program: PathBuf,
    port: PortLease,
    keys: Vec<(NatsUser, String)>,
    /// Users beside those of the matrix.
    more: Vec<User>,
    scratch: Scratch,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// It does not start (the error holds the end of its log), or the temporary folder cannot be written.
    pub async fn start(tools: &Toolbox) -> Result<Self> {
        Self::start_with(tools, ACCOUNTS_CONF).await
    }

    /// Starts a server with other accounts than those of `deploy/nats`: what happens when an operator leaves permissions out.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start_with(tools: &Toolbox, accounts: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        write(&scratch.join("nats-server.conf"), 0o600, SERVER_CONF)?;
        write(&scratch.join("accounts.conf"), 0o600, accounts)?;
        scratch.make("store")?;
        scratch.make("seeds")?;
        let keys = NatsUser::ALL
            .into_iter()
            .map(|user| Ok((user, make_key(&scratch, user.name())?)))
            .collect::<Result<_>>()?;
        let (program, port) = (tools.nats_server(), PortLease::take()?);
        let mut server = Self { process: None, program, port, keys, more: Vec::new(), scratch };
        server.restart().await?;
        Ok(server)
    }

    /// `nats://127.0.0.1:port`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// The file (mode 0600) with the user's nkey seed.
    #[must_use]
    pub fn seed_file(&self, user: NatsUser) -> PathBuf {
        self.seed_file_of(user.name())
    }

    /// The same of a user by its name, which may be one that was added.
    #[must_use]
    pub fn seed_file_of(&self, name: &str) -> PathBuf {
        seed_path(&self.scratch, name)
    }

    /// The folder in which streams and buckets lie.
    #[must_use]
    pub fn store_folder(&self) -> PathBuf {
        self.scratch.join("store")
    }

    /// Adds a user as an operator would: a new key, the configuration written again, and the running server told to read it. Who is connected stays so.
    /// `make` is given the public key.
    ///
    /// # Errors
    /// No key can be made, the configuration cannot be written, or the server does not know the user within 15 s.
    pub async fn add_user(&mut self, name: &str, make: impl FnOnce(String) -> User) -> Result<()> {
        let user = make(make_key(&self.scratch, name)?);
        self.more.push(user);
        let blocks: Vec<String> = self.more.iter().map(conf::block).collect();
        self.set_accounts(&conf::accounts(&matrix::users(), &blocks)).await?;
        if self.process.is_none() {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            match self.connect_as(name).await {
                Err(error) if start.elapsed() > READY_WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Writes `accounts.conf` anew and has the running server read it. When this returns it has: meanwhile it may know no responders for anything.
    ///
    /// # Errors
    /// It cannot be written, or the server has not read it within 15 s.
    pub async fn set_accounts(&mut self, accounts: &str) -> Result<()> {
        let (path, log) = (self.scratch.join("accounts.conf"), self.scratch.join("log"));
        std::fs::write(&path, accounts).map_err(SandboxError::io(format!("write {}", path.display())))?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let readings = || std::fs::read_to_string(&log).unwrap_or_default().matches(HAS_READ).count();
        let before = readings();
        process.signal(Signal::SIGHUP);
        process.wait_until(READY_WITHIN, async || readings() > before).await
    }

    /// Connects as `user`, with the inbox prefix that it is allowed. Without retries: for tests and checks, not for services.
    ///
    /// # Errors
    /// The seed cannot be read, or the server refuses.
    pub async fn connect(&self, user: NatsUser) -> Result<async_nats::Client> {
        self.connect_as(user.name()).await
    }

    /// # Errors
    /// As [`NatsServer::connect`].
    pub async fn connect_as(&self, name: &str) -> Result<async_nats::Client> {
        let seed = std::fs::read_to_string(self.seed_file_of(name))
            .map_err(SandboxError::io(format!("read the seed of {name}")))?;
        async_nats::ConnectOptions::with_nkey(seed.trim().to_owned())
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .name(name)
            .connect(self.url())
            .await
            .map_err(|source| SandboxError::NatsConnect { user: name.to_owned(), source })
    }

    /// How a service of ours, or the command line, connects as `user`.
    ///
    /// # Errors
    /// Never: the server's own address is an address.
    pub fn config(&self, user: NatsUser) -> Result<NatsConfig> {
        self.config_of(user.name())
    }

    fn config_of(&self, name: &str) -> Result<NatsConfig> {
        Ok(NatsConfig {
            nats_url: self.url().parse().map_err(|_| SandboxError::NatsAddress(self.url()))?,
            nats_seed_file: Some(self.seed_file_of(name)),
            nats_ca_file: None,
            nats_cert_file: None,
            nats_key_file: None,
            nats_replicas: 1,
        })
    }

    /// A connection as `user`, with all that our services have on it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn bus(&self, user: NatsUser) -> Result<Bus> {
        self.bus_as(user.name()).await
    }

    /// # Errors
    /// As [`NatsServer::bus`].
    pub async fn bus_as(&self, name: &str) -> Result<Bus> {
        let connected = Bus::connect(&self.config_of(name)?, name).await;
        connected.map_err(|source| SandboxError::Bus { user: name.to_owned(), source })
    }

    /// Ends the server in an orderly way. Port, store and keys stay for [`NatsServer::restart`].
    ///
    /// # Errors
    /// It does not end within 15 s.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM);
            process.wait(STOP_WITHIN).await?;
        }
        Ok(())
    }

    /// Ends the server as a crash would (SIGKILL). Port, store and keys stay for [`NatsServer::restart`].
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again, on the same port with the same store and keys; one that still runs is killed first.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.scratch.join("nats-server.conf"))
            .env_clear()
            .env("NATS_SERVER_NAME", "rolebridge-sandbox")
            .env("NATS_HOST", "127.0.0.1")
            .env("NATS_PORT", self.port.number().to_string())
            // Quoted, since the value is read as configuration.
            .env("NATS_STORE_DIR", format!("\"{}\"", self.scratch.join("store").display()))
            .envs(self.keys.iter().map(|(user, public)| (permissions::variable(user.name()), public)))
            .current_dir(self.scratch.path());
        let mut process = Process::spawn("nats-server", command, &self.scratch.join("log"))?;
        let address = self.port.address();
        process
            .wait_until(READY_WITHIN, async || {
                let Ok(mut stream) = TcpStream::connect(address).await else { return false };
                let mut greeting = [0_u8; 5];
                stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO "
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// What the server has logged, over all its starts.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }
}

fn seed_path(scratch: &Scratch, name: &str) -> PathBuf {
    scratch.join("seeds").join(format!("{name}.nk"))
}

/// Makes the user's key pair, writes the seed, and returns the public key.
fn make_key(scratch: &Scratch, name: &str) -> Result<String> {
    let pair = KeyPair::new_user();
    let seed = pair.seed().map_err(|source| SandboxError::Nkey { user: name.to_owned(), source })?;
    write(&seed_path(scratch, name), 0o600, &seed)?;
    Ok(pair.public_key())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(SandboxError::io(format!("write {}", path.display())))
}
