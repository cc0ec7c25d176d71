//! How connections are watched.

use std::time::Duration;

use crate::{bucket::Rate, fatal::FatalEvidence, schedule::Cadence};

/// The flags.
#[derive(Debug, Clone, clap::Args)]
pub struct WatchConfig {
    /// Seconds after which each connection is probed again.
    #[arg(long, env = "ROLEBRIDGE_PROBE_INTERVAL", default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub probe_interval: u64,

    /// Seconds after which a connection is probed again when an answer speaks against its present state.
    #[arg(long, env = "ROLEBRIDGE_PROBE_AGAIN", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub probe_again: u64,

    /// Probes a minute, of all instances together. One is six to eight calls to STS.
    #[arg(long, env = "ROLEBRIDGE_PROBES_PER_MINUTE", default_value_t = 600, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub probes_per_minute: u32,

    /// Equal answers in a row that change a state; a loosened trust always acts at once.
    #[arg(long, env = "ROLEBRIDGE_EQUAL_ANSWERS", default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub equal_answers: u32,

    /// Evidence that is fatal, separated by commas; otherwise it is only shown.
    #[arg(long, env = "ROLEBRIDGE_FATAL_EVIDENCE", value_name = "KINDS", value_delimiter = ',')]
    pub fatal_evidence: Vec<FatalEvidence>,
}

impl WatchConfig {
    #[must_use]
    pub fn watching(&self) -> Watching {
        Watching {
            cadence: Cadence {
                interval: Duration::from_secs(self.probe_interval),
                again: Duration::from_secs(self.probe_again),
            },
            rate: Rate::per_minute(self.probes_per_minute),
            equal_answers: self.equal_answers,
            fatal: self.fatal_evidence.clone(),
        }
    }
}

/// The same, as the rules take it.
#[derive(Debug, Clone)]
pub struct Watching {
    pub cadence: Cadence,
    pub rate: Rate,
    pub equal_answers: u32,
    pub fatal: Vec<FatalEvidence>,
}
