//! How to reach NATS, and who we are there.

use std::{path::PathBuf, time::Duration};

use async_nats::ConnectOptions;
use url::Url;
use zeroize::Zeroizing;

/// Connection to NATS.
#[derive(Debug, Clone, clap::Args)]
pub struct NatsConfig {
    /// Where NATS listens: nats://host:port, or tls://host:port.
    #[arg(long, env = "ROLEBRIDGE_NATS_URL", value_name = "URL")]
    pub nats_url: Url,

    /// File with our nkey seed (SU...); without it we connect unauthenticated.
    #[arg(long, env = "ROLEBRIDGE_NATS_SEED_FILE", value_name = "FILE")]
    pub nats_seed_file: Option<PathBuf>,

    /// PEM file with the roots that the server's certificate is checked against; the system's when absent.
    #[arg(long, env = "ROLEBRIDGE_NATS_CA_FILE", value_name = "FILE")]
    pub nats_ca_file: Option<PathBuf>,

    /// PEM file with our client certificate.
    #[arg(long, env = "ROLEBRIDGE_NATS_CERT_FILE", value_name = "FILE", requires = "nats_key_file")]
    pub nats_cert_file: Option<PathBuf>,

    /// PEM file with the key of our client certificate.
    #[arg(long, env = "ROLEBRIDGE_NATS_KEY_FILE", value_name = "FILE", requires = "nats_cert_file")]
    pub nats_key_file: Option<PathBuf>,

    /// Replicas of streams and buckets: 1 on one machine, 3 in a cluster.
    #[arg(long, env = "ROLEBRIDGE_NATS_REPLICAS", default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot read the nkey seed file {path}: check --nats-seed-file or ROLEBRIDGE_NATS_SEED_FILE")]
    SeedFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no nkey user seed (SU...): check --nats-seed-file or ROLEBRIDGE_NATS_SEED_FILE")]
    NoSeed { path: PathBuf },
    #[error(
        "cannot connect to NATS at {url}: check that the server runs there and accepts this user (--nats-url or ROLEBRIDGE_NATS_URL)"
    )]
    Connect {
        url: String,
        #[source]
        source: async_nats::ConnectError,
    },
}

impl NatsConfig {
    /// The server's address without user or password.
    #[must_use]
    pub fn display_url(&self) -> String {
        let mut url = self.nats_url.clone();
        // Both fail only for URLs that cannot have them at all.
        let _ = (url.set_username(""), url.set_password(None));
        url.to_string()
    }

    /// The options for user `user`, whose replies come to an inbox that only it may read.
    pub(crate) fn options(&self, user: &str) -> Result<ConnectOptions, ConnectError> {
        let mut options = ConnectOptions::new()
            .name(user)
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempt| Duration::from_millis(100 * 2u64.pow(attempt.min(5) as u32)))
            .max_reconnects(None);
        if let Some(path) = &self.nats_seed_file {
            options = options.nkey(read_seed(path)?.to_string());
        }
        if let Some(path) = &self.nats_ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(cert), Some(key)) = (&self.nats_cert_file, &self.nats_key_file) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options.require_tls(self.nats_url.scheme() == "tls"))
    }
}

fn read_seed(path: &PathBuf) -> Result<Zeroizing<String>, ConnectError> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| ConnectError::SeedFile { path: path.clone(), source })?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    let seed = seed.ok_or_else(|| ConnectError::NoSeed { path: path.clone() })?;
    nkeys::KeyPair::from_seed(seed).map_err(|_| ConnectError::NoSeed { path: path.clone() })?;
    Ok(Zeroizing::new(seed.to_owned()))
}
