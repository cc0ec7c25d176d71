//! Principals: what role-chain-broker answers.

use std::time::Duration;

use contracts::{
    principal::{PrincipalFindings, ReconcilePrincipal},
    tenant::Empty,
};
use messaging::Bus;

use crate::{
    args::Principals,
    error::CliError,
    show::{Output, instant, word},
};

/// The broker answers within 20 s, whatever happens.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn run(bus: &Bus, command: Principals, output: Output) -> Result<(), CliError> {
    let Principals::Reconcile { tenant } = command;
    let subject = ReconcilePrincipal::subject(tenant);
    let findings = bus.request::<ReconcilePrincipal>(subject, &Empty {}, TIMEOUT).await?;
    output.one(&findings, &lines(&findings))
}

fn lines(findings: &PrincipalFindings) -> Vec<(&'static str, String)> {
    let mut lines = vec![("tenant", findings.tenant.to_string()), ("outcome", word(&findings.outcome))];
    lines.extend(findings.found.iter().map(|drift| ("found", word(drift))));
    lines.extend(findings.key_rotation.as_ref().map(|rotation| ("access key change", word(rotation))));
    lines.push(("reason", findings.reason.clone()));
    lines.push(("looked at", instant(findings.looked_at)));
    lines.extend(findings.again_after_ms.map(|wait| ("ask again", format!("after {} s", wait.div_ceil(1_000)))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_was_found_and_when_to_ask_again() {
        let golden = include_str!("../../../shared/contracts/golden/v1/principals-reconcile.response.json");
        let findings: PrincipalFindings = serde_json::from_str(golden).unwrap();
        let shown = lines(&findings);
        for expected in [("outcome", "mended"), ("found", "role-policy"), ("ask again", "after 5 s")] {
            assert!(shown.iter().any(|(name, value)| (*name, value.as_str()) == expected), "{expected:?}: {shown:?}");
        }
    }
}
