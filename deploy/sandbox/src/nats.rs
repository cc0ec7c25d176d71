//! A real nats-server with JetStream, under the configuration and the permissions of `deploy/nats`: what holds here holds for operators.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use messaging::{Bus, NatsConfig};
use nix::sys::signal::Signal;
use nkeys::KeyPair;
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

    /// The variable that gives the server the user's public key.
    fn key_variable(self) -> String {
        format!("NATS_{}_NKEY", self.name().to_uppercase().replace('-', "_"))
    }
}

/// A running (or stopped) server of its own: port, store, and keys that nobody else has.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    program: PathBuf,
    port: PortLease,
    keys: Vec<(NatsUser, String)>,
    scratch: Scratch,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// It does not start (the error holds the end of its log), or the temporary folder cannot be written.
    pub async fn start(tools: &Toolbox) -> Result<Self> {
        let scratch = Scratch::new()?;
        write(&scratch.join("nats-server.conf"), 0o600, SERVER_CONF)?;
        write(&scratch.join("accounts.conf"), 0o600, ACCOUNTS_CONF)?;
        scratch.make("store")?;
        scratch.make("seeds")?;
        let keys =
            NatsUser::ALL.into_iter().map(|user| Ok((user, make_key(&scratch, user)?))).collect::<Result<_>>()?;
        let mut server = Self { process: None, program: tools.nats_server(), port: PortLease::take()?, keys, scratch };
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
        seed_path(&self.scratch, user)
    }

    /// The folder in which streams and buckets lie.
    #[must_use]
    pub fn store_folder(&self) -> PathBuf {
        self.scratch.join("store")
    }

    /// Connects as `user`, with the inbox prefix that it is allowed. Without retries: for tests and checks, not for services.
    ///
    /// # Errors
    /// The seed cannot be read, or the server refuses.
    pub async fn connect(&self, user: NatsUser) -> Result<async_nats::Client> {
        let seed = std::fs::read_to_string(self.seed_file(user))
            .map_err(SandboxError::io(format!("read the seed of {}", user.name())))?;
        async_nats::ConnectOptions::with_nkey(seed.trim().to_owned())
            .custom_inbox_prefix(user.inbox_prefix())
            .name(user.name())
            .connect(self.url())
            .await
            .map_err(|source| SandboxError::NatsConnect { user: user.name(), source })
    }

    /// How a service of ours, or the command line, connects as `user`.
    ///
    /// # Errors
    /// Never: the server's own address is an address.
    pub fn config(&self, user: NatsUser) -> Result<NatsConfig> {
        Ok(NatsConfig {
            nats_url: self.url().parse().map_err(|_| SandboxError::NatsAddress(self.url()))?,
            nats_seed_file: Some(self.seed_file(user)),
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
        let connected = Bus::connect(&self.config(user)?, user.name()).await;
        connected.map_err(|source| SandboxError::Bus { user: user.name(), source })
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
            .envs(self.keys.iter().map(|(user, public)| (user.key_variable(), public)))
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

fn seed_path(scratch: &Scratch, user: NatsUser) -> PathBuf {
    scratch.join("seeds").join(format!("{}.nk", user.name()))
}

/// Makes the user's key pair, writes the seed, and returns the public key.
fn make_key(scratch: &Scratch, user: NatsUser) -> Result<String> {
    let pair = KeyPair::new_user();
    let seed = pair.seed().map_err(|source| SandboxError::Nkey { user: user.name(), source })?;
    write(&seed_path(scratch, user), 0o600, &seed)?;
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
