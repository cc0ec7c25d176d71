//! `rolebridge costs exports`: how it stands with each billing period of each export.

use std::time::Duration;

use clap::Args as ClapArgs;
use contracts::{
    ConnectionId, Page, TenantId,
    costs::{ExportPeriod, ListCostExports, ListCostExportsRequest, PeriodState},
};
use messaging::Bus;

use crate::{
    error::CliError,
    show::{Output, instant, word},
};

/// Whose exports.
#[derive(Debug, ClapArgs)]
pub(crate) struct Exports {
    tenant: TenantId,
    /// Only those of this connection.
    #[arg(long)]
    connection: Option<ConnectionId>,
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// All pages.
pub(super) async fn all(
    bus: &Bus,
    tenant: TenantId,
    connection: Option<ConnectionId>,
) -> Result<Vec<ExportPeriod>, CliError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let request = ListCostExportsRequest { connection, limit: Some(200), after };
        let page = bus.request::<ListCostExports>(ListCostExports::subject(tenant), &request, TIMEOUT).await?;
        all.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

pub(crate) async fn run(bus: &Bus, args: &Exports, output: Output) -> Result<(), CliError> {
    let items = all(bus, args.tenant, args.connection).await?;
    let head = ["EXPORT", "PERIOD", "STATE", "ROWS", "BILLED", "VERSIONS", "READ", "TRIES", "NEXT TRY", "WHY"];
    output.page(&Page { items, next: None }, &head, row)
}

fn row(item: &ExportPeriod) -> Vec<String> {
    let held = item.latest.first().filter(|_| item.state != PeriodState::Superseded);
    let billed = held.map(|version| {
        let total = |total: &contracts::costs::CostTotal| format!("{} {}", total.billed, total.currency);
        version.totals.iter().map(total).collect::<Vec<_>>().join(", ")
    });
    vec![
        item.export.clone(),
        item.period.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        word(&item.state),
        held.map_or_else(|| "-".to_owned(), |version| version.rows.to_string()),
        billed.unwrap_or_else(|| "-".to_owned()),
        item.versions.to_string(),
        instant(held.map(|version| version.at)),
        item.tries.to_string(),
        instant(item.next_try),
        item.reason.clone().unwrap_or_default(),
    ]
}
