//! `rolebridge costs query`: costs by service, as a table.

use std::time::Duration;

use clap::Args as ClapArgs;
use contracts::{
    ConnectionId, TenantId,
    costs::{BillingPeriod, CostsByService, QueryCosts, QueryCostsRequest},
};
use messaging::Bus;

use crate::{
    error::CliError,
    show::{Output, table},
};

/// What to add up.
#[derive(Debug, ClapArgs)]
pub(crate) struct Query {
    tenant: TenantId,
    /// Only this connection.
    #[arg(long)]
    connection: Option<ConnectionId>,
    /// Only this billing period, such as 2026-11.
    #[arg(long)]
    period: Option<BillingPeriod>,
    /// The dearest so many services; the rest is summed up.
    #[arg(long)]
    top: Option<u16>,
}

/// A query may read many files of the table.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn run(bus: &Bus, args: &Query, output: Output) -> Result<(), CliError> {
    let request = QueryCostsRequest { connection: args.connection, period: args.period.clone(), top: args.top };
    let costs = bus.request::<QueryCosts>(QueryCosts::subject(args.tenant), &request, TIMEOUT).await?;
    if output.is_json() {
        println!("{}", serde_json::to_string_pretty(&costs)?);
    } else {
        print!("{}", text(&costs));
    }
    Ok(())
}

fn text(costs: &CostsByService) -> String {
    let services = costs.by_service.iter().map(|cost| {
        let (billed, effective) = (cost.billed.to_string(), cost.effective.to_string());
        vec![cost.service.clone(), billed, effective, cost.currency.to_string(), cost.rows.to_string()]
    });
    let totals = costs.totals.iter().map(|total| {
        vec![
            "total".to_owned(),
            total.billed.to_string(),
            total.effective.to_string(),
            total.currency.to_string(),
            String::new(),
        ]
    });
    let rows: Vec<Vec<String>> = services.chain(totals).collect();
    let periods: Vec<&str> = costs.periods.iter().map(contracts::costs::BillingPeriod::as_str).collect();
    let head = table(&["SERVICE", "BILLED", "EFFECTIVE", "CURRENCY", "ROWS"], &rows);
    format!(
        "{head}{} rows, billing periods: {}\n",
        costs.rows,
        if periods.is_empty() { "none".to_owned() } else { periods.join(", ") }
    )
}
