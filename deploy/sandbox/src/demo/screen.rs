//! What the person sees: a line for each stage, as it happens, with its time.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

use serde::Serialize;

/// A stage that is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StageTime {
    pub(crate) name: &'static str,
    pub(crate) ms: u64,
}

/// Standard output, and the clock.
pub(crate) struct Screen {
    colour: bool,
    since: Instant,
    stages: Vec<StageTime>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, since: Instant::now(), stages: Vec::new() }
    }

    /// A stage has come out as it should; the time since the one before is its.
    pub(crate) fn stage(&mut self, name: &'static str, text: &str) {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since = Instant::now();
        self.stages.push(StageTime { name, ms });
        let (on, off) = if self.colour { ("\x1b[1;32m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("{ms:>7} ms  {on}{name:<12}{off} {text}"));
    }

    /// Something that belongs to the stage at hand.
    pub(crate) fn detail(&self, text: &str) {
        let (on, off) = if self.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("{:24}{on}{text}{off}", ""));
    }

    /// A reader that has gone away is no reason to stop half-way.
    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    pub(crate) fn stages(&self) -> &[StageTime] {
        &self.stages
    }
}
