//! Flags and subcommands.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use contracts::{
    AccountId, ConnectionId, EnrollmentId, Region, TenantId, audit::verify::Mark, connection::ConnectionState,
};
use messaging::{Bus, NatsConfig};

use crate::error::CliError;

/// Connects a product to its customers' AWS accounts: the command line for operators and jobs.
#[derive(Debug, Parser)]
#[command(name = "rolebridge", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    nats: Nats,
}

/// Optional here, because some commands need no bus.
#[derive(Debug, ClapArgs)]
struct Nats {
    /// Where NATS listens: nats://host:port, or tls://host:port.
    #[arg(long, global = true, env = "ROLEBRIDGE_NATS_URL", value_name = "URL")]
    nats_url: Option<String>,
    /// File with the nkey seed (SU...) of the user to be.
    #[arg(long, global = true, env = "ROLEBRIDGE_NATS_SEED_FILE", value_name = "FILE")]
    nats_seed_file: Option<PathBuf>,
    /// Name of that user in the server's configuration: it names the private inbox.
    #[arg(long, global = true, env = "ROLEBRIDGE_NATS_USER", default_value = "operator", value_name = "NAME")]
    nats_user: String,
    /// PEM file with the roots that the server's certificate is checked against.
    #[arg(long, global = true, env = "ROLEBRIDGE_NATS_CA_FILE", value_name = "FILE")]
    nats_ca_file: Option<PathBuf>,
}

impl Args {
    pub(crate) async fn connect(&self) -> Result<Bus, CliError> {
        let url = self.nats.nats_url.as_deref().ok_or(CliError::NoUrl)?;
        let config = NatsConfig {
            nats_url: url.parse().map_err(|_| CliError::BadUrl { text: url.to_owned() })?,
            nats_seed_file: self.nats.nats_seed_file.clone(),
            nats_ca_file: self.nats.nats_ca_file.clone(),
            nats_cert_file: None,
            nats_key_file: None,
            nats_replicas: 1,
        };
        Ok(Bus::connect(&config, &self.nats.nats_user).await?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Customers of the provider.
    #[command(subcommand)]
    Tenants(Tenants),
    /// Offers to connect.
    #[command(subcommand)]
    Enrollments(Enrollments),
    /// Customers' AWS accounts.
    #[command(subcommand)]
    Connections(Connections),
    /// The IAM users and roles that stand for tenants in the provider's accounts.
    #[command(subcommand)]
    Principals(Principals),
    /// What was done, by whom, when and why.
    #[command(subcommand)]
    Audit(Audit),
    /// Short-lived credentials for one connection.
    #[command(subcommand)]
    Credentials(crate::credentials::Credentials),
    /// A tenant's costs: what they add up to, and how they come in.
    Costs(crate::costs::Costs),
    /// What could not be handled, with the reason.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Makes key files for a new installation.
    #[command(subcommand)]
    Keys(Keys),
    /// Who may do what on NATS: the server's configuration, and users for jobs and readers of events.
    #[command(subcommand)]
    Nats(crate::nats::NatsCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// Create a tenant; its IAM principal follows within seconds.
    Create {
        name: String,
        /// The same key with the same name gives the same tenant.
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Show one tenant.
    Show { tenant: TenantId },
    /// List tenants, oldest first.
    List(Paging),
    /// Stop a tenant: no new enrollments, no credentials.
    Suspend {
        tenant: TenantId,
        #[arg(long)]
        reason: String,
    },
    /// Let a suspended tenant go on.
    Resume {
        tenant: TenantId,
        #[arg(long)]
        reason: String,
    },
    /// End a tenant, for good: its connections, its offers, its IAM principal.
    Delete {
        tenant: TenantId,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrollments {
    /// Make an offer to connect. The callback token is shown this once.
    Create(CreateEnrollment),
    /// Show one enrollment.
    Show { tenant: TenantId, enrollment: EnrollmentId },
    /// List a tenant's enrollments, oldest first.
    List {
        tenant: TenantId,
        #[command(flatten)]
        paging: Paging,
    },
    /// Withdraw an open offer.
    Cancel {
        tenant: TenantId,
        enrollment: EnrollmentId,
        #[arg(long)]
        reason: String,
    },
    /// Change the external ID of an enrollment's stacks, without an interruption: prints the customer's two updates.
    Rotate {
        tenant: TenantId,
        enrollment: EnrollmentId,
        #[arg(long)]
        reason: String,
    },
    /// Take a new external ID back that no stack goes by yet.
    RotateCancel {
        tenant: TenantId,
        enrollment: EnrollmentId,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CreateEnrollment {
    pub(crate) tenant: TenantId,
    /// For every account of an organization (StackSet) instead of one account.
    #[arg(long, conflicts_with = "account")]
    pub(crate) organization: bool,
    /// Region of the stack; the provider's first when absent.
    #[arg(long)]
    pub(crate) region: Option<Region>,
    /// Only this account may use the offer.
    #[arg(long)]
    pub(crate) account: Option<AccountId>,
    /// Bucket of the customer's cost export, if known.
    #[arg(long)]
    pub(crate) cost_bucket: Option<String>,
    /// Prefix of the cost export in the bucket.
    #[arg(long, requires = "cost_bucket", default_value = "")]
    pub(crate) cost_prefix: String,
    /// Seconds that the offer stands, 60 to 2592000.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connections {
    /// Show one connection with the evidence of its last probes.
    Show { tenant: TenantId, connection: ConnectionId },
    /// List a tenant's connections, oldest first.
    List {
        tenant: TenantId,
        /// Only those in this state, such as verified.
        #[arg(long, value_parser = parse_state)]
        state: Option<ConnectionState>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Have a connection probed now, ahead of its time.
    Verify {
        tenant: TenantId,
        connection: ConnectionId,
        /// Wait for the verdict, and show what was found.
        #[arg(long)]
        wait: bool,
        /// For at most so many seconds.
        #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        within: u64,
    },
    /// End a connection, for good.
    Revoke {
        tenant: TenantId,
        connection: ConnectionId,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Principals {
    /// Compare a tenant's IAM user and role with what they must be, now, and mend what was changed.
    Reconcile { tenant: TenantId },
}

fn parse_state(text: &str) -> Result<ConnectionState, String> {
    let states = "registered, verifying, verified, rejected, degraded, insecure, disconnected, revoked";
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("not a state; there are: {states}"))
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Paging {
    /// At most so many, 1 to 500.
    #[arg(long)]
    pub(crate) limit: Option<u16>,
    /// Go on after this mark, printed at the end of the page before.
    #[arg(long)]
    pub(crate) after: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List what was done to a tenant, oldest first.
    List {
        tenant: TenantId,
        #[command(flatten)]
        paging: Paging,
    },
    /// Compute the chain of hashes over the whole log anew, and say where it breaks.
    Verify(VerifyAudit),
    /// Copy the whole log to a file, an entry in JSON on each line.
    Export {
        /// File to write; one that is there is not overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyAudit {
    /// The head that an earlier verification printed (SEQUENCE:HASH): finds an end that was cut off, and a log that was written anew.
    #[arg(long, value_name = "SEQUENCE:HASH")]
    pub(crate) head: Option<Mark>,
    /// Verify this copy instead of the registry's log.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them, oldest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on after this sequence number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Publish one again on the subject it came on, and take it off the list.
    Replay {
        /// Its sequence number, as listed.
        sequence: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make an nkey seed file for each NATS user, and nats.env with the public keys for the server's configuration.
    Nats {
        /// Folder to write to; nothing in it is overwritten.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}
