//! What a report says of a connection that was verified once, and what is kept of it. The rule is [`crate::damping`]'s; here it is carried out.

use contracts::{
    connection::ConnectionState,
    verification::{Fault, Verdict, VerificationReported},
};

use super::step::{self, Happening, Look};
use crate::{
    config::Watching,
    damping::{self, Answer, Missing, Streak},
    entity::{At, columns::milliseconds, connection, tenant},
    reasons,
    state::Trigger,
    store::{Actor, StoreError, Tx},
};

/// What is kept of the report in any case.
pub(super) fn look(
    watching: &Watching,
    row: &connection::Model,
    report: &VerificationReported,
    streak: Option<Streak>,
) -> Look {
    let now = At::now();
    let next = watching.cadence.next(row.id.0, milliseconds(now.0), streak.is_some());
    Look {
        evidence: report.evidence.clone(),
        purposes: report.purposes.clone(),
        missing: None,
        max_session_s: report.max_session_s,
        probed_at: (report.verdict != Verdict::Indeterminate).then_some(now),
        next_probe_at: Some(At::from_milliseconds(next)),
        streak,
    }
}

/// The purposes that a report of a role that held leaves out from now on.
pub(super) fn missing(row: &connection::Model, report: &VerificationReported) -> Missing {
    match Answer::holds(&report.purposes, &row.missing.0) {
        Answer::Holds { missing, .. } => missing,
        _ => Missing::new(),
    }
}

/// Takes in a verdict on the role that serves; `needed` equal ones in a row change its state.
pub(super) async fn absorb(
    tx: &Tx,
    watching: &Watching,
    (tenant, row): (&tenant::Model, connection::Model),
    (report, verdict): (&VerificationReported, Verdict),
    needed: u32,
    actor: Actor,
) -> Result<connection::Model, StoreError> {
    let answer = match verdict {
        Verdict::Held => Answer::holds(&report.purposes, &row.missing.0),
        Verdict::Failed { fault: Fault::Refused } => Answer::Refuses,
        Verdict::Failed { .. } => Answer::Open,
        Verdict::Indeterminate => Answer::Unclear,
    };
    let streak = row.streak.as_ref().map(|streak| &streak.0);
    let absorbed = damping::absorb(row.state.0, &row.missing.0, streak, &answer, needed);
    let look = look(watching, &row, report, absorbed.streak.clone());
    if let Some(streak) = absorbed.streak {
        let (state, times) = (row.state.0, streak.times);
        tracing::info!(connection = %row.id.0, %state, times, needed, "answers speak against the connection's state, too few yet");
    }
    match (absorbed.acts, verdict, answer) {
        (true, Verdict::Held, Answer::Holds { missing, .. }) => hold(tx, (tenant, row), look, missing, actor).await,
        (true, Verdict::Failed { fault }, _) => {
            step::apply(tx, tenant, row, &Happening::new(Trigger::Faulted(fault), actor).looked(look)).await
        }
        (_, Verdict::Held, Answer::Holds { sure: true, missing })
            if row.state.0 == ConnectionState::Degraded && missing == row.missing.0 =>
        {
            // The same purposes, perhaps for other actions.
            let reason = reasons::lacking_text(&look.purposes);
            step::keep(tx, row, &look, Some(reason)).await
        }
        _ => step::keep(tx, row, &look, None).await,
    }
}

/// The role holds: verified, and `degraded` at once if purposes are missing. The first grant says so already.
pub(super) async fn hold(
    tx: &Tx,
    (tenant, row): (&tenant::Model, connection::Model),
    mut look: Look,
    missing: Missing,
    actor: Actor,
) -> Result<connection::Model, StoreError> {
    let lacks = !missing.is_empty();
    let reason = reasons::lacking_text(&look.purposes);
    look.missing = Some(missing);
    let lacking = Happening::new(Trigger::PermissionsMissing, actor).because(reason);
    match row.state.0 {
        ConnectionState::Verified | ConnectionState::Degraded if lacks => {
            step::apply(tx, tenant, row, &lacking.looked(look)).await
        }
        ConnectionState::Degraded => {
            step::apply(tx, tenant, row, &Happening::new(Trigger::PermissionsComplete, actor).looked(look)).await
        }
        _ => {
            let row = step::apply(tx, tenant, row, &Happening::new(Trigger::Held, actor).looked(look)).await?;
            if lacks { step::apply(tx, tenant, row, &lacking).await } else { Ok(row) }
        }
    }
}
