//! The endpoint `costs.query.<tenant>`.

use crate::table::{CostQuery, CostTable, MAX_TOP};
use contracts::costs::{CostsByService, QueryCosts};
use contracts::{ErrorCode, ErrorReply};
use messaging::Call;

/// Answers one question. The tenant stands in the subject, where permissions can see it.
///
/// # Errors
/// `invalid-request` for a `top` out of range, `unavailable` when the table cannot be read.
pub async fn answer(table: &CostTable, call: Call<QueryCosts>) -> Result<CostsByService, ErrorReply> {
    let tenant = call.token(0)?;
    let request = call.request;
    if request.top.is_some_and(|top| top == 0 || top > MAX_TOP) {
        return Err(ErrorReply::new(ErrorCode::InvalidRequest, format!("top is 1 to {MAX_TOP}")));
    }
    let query = CostQuery { tenant, connection: request.connection, period: request.period, top: request.top };
    table.by_service(&query).await.map_err(|error| {
        tracing::error!(error = ?error, %tenant, "costs could not be added up");
        ErrorReply::new(ErrorCode::Unavailable, format!("{error}; try again")).retry_after(1000)
    })
}
