//! What the demo saw, as the JSON that `--json` prints.

use anyhow::Result;
use contracts::{
    AccountId, ConnectionId, ErrorCode, TenantId, Timestamp,
    connection::ConnectionState,
    costs::{Amount, BillingPeriod, CostLine, Currency, QueriedCosts},
};
use serde::Serialize;

use super::screen::StageTime;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) tenant: TenantId,
    pub(crate) connection: ConnectionSeen,
    pub(crate) stack_status: String,
    pub(crate) credentials: CredentialsSeen,
    pub(crate) costs: CostsSeen,
    pub(crate) attack: Attack,
    pub(crate) after_delete: AfterDelete,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectionSeen {
    pub(crate) connection_id: ConnectionId,
    pub(crate) account_id: AccountId,
    pub(crate) state: ConnectionState,
    /// From the launch of the stack to its `CREATE_COMPLETE`.
    pub(crate) verified_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct CredentialsSeen {
    pub(crate) arn: String,
    pub(crate) expires_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub(crate) struct CostsSeen {
    pub(crate) rows: u64,
    pub(crate) total: Amount,
    pub(crate) currency: Currency,
    pub(crate) periods: Vec<BillingPeriod>,
    pub(crate) by_service: Vec<ServiceCost>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServiceCost {
    pub(crate) service: String,
    pub(crate) billed: Amount,
}

#[derive(Debug, Serialize)]
pub(crate) struct Attack {
    pub(crate) state: ConnectionState,
    pub(crate) stack_status: String,
    pub(crate) reason: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct AfterDelete {
    pub(crate) state: ConnectionState,
    pub(crate) credentials_error: ErrorCode,
}

impl Report {
    /// One line of JSON, with the times of `stages`.
    pub(crate) fn finish(&self, stages: &[StageTime]) -> Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            report: &'a Report,
            stages: &'a [StageTime],
        }
        Ok(serde_json::to_string(&Whole { report: self, stages })?)
    }
}

impl ServiceCost {
    fn of(line: &CostLine) -> Self {
        Self { service: line.of.join(" "), billed: line.sum.billed }
    }
}

impl CostsSeen {
    /// `None` when there are no costs at all. The sample is in one currency.
    pub(crate) fn of(costs: &QueriedCosts) -> Option<Self> {
        let total = costs.totals.first()?;
        Some(Self {
            rows: costs.rows,
            total: total.billed,
            currency: total.currency.clone(),
            periods: costs.periods.clone(),
            by_service: costs.lines.iter().map(ServiceCost::of).collect(),
        })
    }

    pub(crate) fn periods_text(&self) -> String {
        self.periods.iter().map(BillingPeriod::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Services and their costs in columns, the total last.
    pub(crate) fn table(&self) -> Vec<String> {
        let total = ("total".to_owned(), self.total.to_string());
        let rows: Vec<_> =
            self.by_service.iter().map(|cost| (cost.service.clone(), cost.billed.to_string())).chain([total]).collect();
        let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        // Amounts are exact and of different lengths: the points stand below each other.
        let whole = |amount: &str| amount.split('.').next().unwrap_or("").len();
        let wholes = rows.iter().map(|(_, amount)| whole(amount)).max().unwrap_or(0);
        let line = |(name, amount): &(String, String)| {
            let left = " ".repeat(wholes - whole(amount));
            format!("{name:<names$}  {left}{amount} {}", self.currency)
        };
        rows.iter().map(line).collect()
    }
}
