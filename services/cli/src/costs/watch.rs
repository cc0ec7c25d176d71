//! `rolebridge costs watch`: a bar for each export that is being read, until nothing is left to be read.
//!
//! What moves the bars are the events of progress, read through a consumer of our own. Whether all is done is asked of the service: an event that gets lost
//! keeps nobody waiting.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use clap::Args as ClapArgs;
use contracts::{
    CloudEvent, ConnectionId, EventId, Message as _, TenantId,
    costs::{CostsProgress, ExportPeriod, PeriodState},
};
use futures::StreamExt as _;
use messaging::Bus;

use super::exports;
use crate::{error::CliError, show::Output};

/// What to watch.
#[derive(Debug, ClapArgs)]
pub(crate) struct Watch {
    tenant: TenantId,
    /// Only this connection.
    #[arg(long)]
    connection: Option<ConnectionId>,
}

/// Between two questions whether all is done.
const LOOK: Duration = Duration::from_secs(2);
/// How long a first export is waited for: a connection may just have been made.
const FIRST: Duration = Duration::from_secs(60);
const WIDTH: usize = 30;

pub(crate) async fn run(bus: &Bus, args: &Watch, output: Output) -> Result<(), CliError> {
    let unreadable = |error: &dyn std::error::Error| CliError::Events { problem: error.to_string() };
    let stream = bus.jetstream().get_stream(CostsProgress::STREAM.name()).await.map_err(|error| unreadable(&error))?;
    let connection = args.connection.map_or_else(|| "*".to_owned(), |connection| connection.to_string());
    let filter = CostsProgress::SUBJECT.replacen('*', &args.tenant.to_string(), 1).replacen('*', &connection, 1);
    let config = OrderedConfig {
        name: Some(format!("watch-{}", EventId::new())),
        filter_subject: filter,
        deliver_policy: DeliverPolicy::New,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| unreadable(&error))?;
    let mut events = consumer.messages().await.map_err(|error| unreadable(&error))?;
    let (began, mut screen) = (Instant::now(), Screen::new(output.is_json()));
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.ok_or_else(|| CliError::Events { problem: "the server ended the reading".to_owned() })?;
                let event = event.map_err(|error| unreadable(&error))?;
                if let Ok(event) = CloudEvent::<CostsProgress>::decode(&event.payload) {
                    screen.progress(event.data)?;
                }
            }
            _ = look.tick() => {
                let periods = exports::all(bus, args.tenant, args.connection).await?;
                let none_yet = periods.is_empty() && began.elapsed() < FIRST;
                if !none_yet && !periods.iter().any(is_open) {
                    return screen.end(&periods);
                }
            }
        }
    }
}

fn is_open(period: &ExportPeriod) -> bool {
    matches!(period.state, PeriodState::Waiting | PeriodState::Reading)
}

struct Screen {
    json: bool,
    terminal: bool,
    bars: BTreeMap<(ConnectionId, String), CostsProgress>,
    drawn: usize,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stdout().is_terminal(), bars: BTreeMap::new(), drawn: 0 }
    }

    fn progress(&mut self, told: CostsProgress) -> Result<(), CliError> {
        if self.json {
            println!("{}", serde_json::to_string(&told)?);
        } else if self.terminal {
            self.bars.insert((told.connection, told.export.clone()), told);
            self.draw();
        } else {
            println!("{}", bar(&told));
        }
        Ok(())
    }

    /// Draws all bars over what was drawn before.
    fn draw(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A", self.drawn);
        }
        for told in self.bars.values() {
            println!("\x1b[2K{}", bar(told));
        }
        self.drawn = self.bars.len();
        // A terminal that is gone is no reason to fail.
        let _ = std::io::stdout().flush();
    }

    fn end(&self, periods: &[ExportPeriod]) -> Result<(), CliError> {
        let count = |state| periods.iter().filter(|period| period.state == state).count();
        let (done, failed) = (count(PeriodState::Done), count(PeriodState::Failed));
        if self.json {
            println!("{}", serde_json::json!({ "done": done, "failed": failed, "periods": periods.len() }));
            return Ok(());
        }
        if periods.is_empty() {
            println!(
                "no export of this tenant was found: rolebridge connections show tells whether its stack named one"
            );
        } else {
            println!("{done} periods are read, {failed} failed: rolebridge costs exports shows them");
        }
        Ok(())
    }
}

fn bar(told: &CostsProgress) -> String {
    let full = WIDTH * usize::from(told.percent.min(100)) / 100;
    let CostsProgress { percent, periods_done, periods, period, rows, export, .. } = told;
    let (done, left) = ("#".repeat(full), "-".repeat(WIDTH - full));
    format!("[{done}{left}] {percent:>3} %  {periods_done} of {periods} periods, {period}  {rows} rows  {export}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_what_is_read() {
        let told = |percent| CostsProgress {
            tenant: TenantId::new(),
            connection: ConnectionId::new(),
            export: "s3://costs/cur".to_owned(),
            period: "2026-09".parse().unwrap(),
            periods_done: 1,
            periods: 12,
            rows: 1234,
            bytes: 0,
            bytes_total: 0,
            percent,
        };
        assert_eq!(
            bar(&told(50)),
            format!(
                "[{}{}]  50 %  1 of 12 periods, 2026-09  1234 rows  s3://costs/cur",
                "#".repeat(15),
                "-".repeat(15)
            )
        );
        assert!(bar(&told(0)).starts_with(&format!("[{}]   0 %", "-".repeat(30))));
        assert!(bar(&told(100)).starts_with(&format!("[{}] 100 %", "#".repeat(30))));
    }
}
