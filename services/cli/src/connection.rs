//! A connection for a person: where it stands and why, how it is watched, and what was found.

use contracts::{
    Timestamp,
    connection::{Connection, ConnectionState},
    verification::{Probe, ProbeEvidence, ProbeOutcome, PurposeEvidence, PurposeOutcome},
};

use crate::show::{instant, word};

/// Chained sessions end at an hour, whatever the role gives.
const HOUR_S: u32 = 3_600;
/// Characters of a reason that a table has room for.
const REASON: usize = 60;

/// Heads of a list's columns.
pub(crate) const HEAD: [&str; 7] = ["CONNECTION", "ACCOUNT", "STATE", "PROBED", "NEXT PROBE", "USED", "WHY"];

/// One connection in a list.
pub(crate) fn row(connection: &Connection) -> Vec<String> {
    let why = connection.reason.as_deref().unwrap_or("-");
    let mut short: String = why.chars().take(REASON).collect();
    if short.len() < why.len() {
        short.push('…');
    }
    vec![
        connection.connection.to_string(),
        connection.account.to_string(),
        connection.state.to_string(),
        instant(connection.probed_at),
        instant(connection.next_probe_at),
        instant(connection.used_at),
        short,
    ]
}

/// Everything, as names and values.
pub(crate) fn lines(connection: &Connection) -> Vec<(&'static str, String)> {
    let dash = || "-".to_owned();
    let mut lines = vec![
        ("connection", connection.connection.to_string()),
        ("tenant", connection.tenant.to_string()),
        ("account", connection.account.to_string()),
        ("region", connection.region.to_string()),
        ("role", connection.role_arn.to_string()),
        ("state", format!("{} ({})", connection.state, meaning(connection.state))),
        ("reason", connection.reason.clone().unwrap_or_else(dash)),
        ("verified", instant(connection.verified_at)),
        ("probed", instant(connection.probed_at)),
        ("next probe", next_probe(connection)),
        ("used", instant(connection.used_at)),
        ("template", template(connection)),
    ];
    lines.extend(connection.purposes.iter().map(|look| ("purpose", purpose(look))));
    lines.extend(connection.max_session_s.map(|seconds| ("longest session", session(seconds))));
    lines.extend(connection.evidence.iter().map(|seen| ("probe", probe(seen))));
    lines
}

fn meaning(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Registered => "called back, nothing proven yet",
        ConnectionState::Verifying => "being probed for the first time",
        ConnectionState::Verified => "credentials are given out",
        ConnectionState::Rejected => "never was verified, final",
        ConnectionState::Degraded => "credentials are given out, but for purposes whose permissions are missing",
        ConnectionState::Insecure => "no credentials until the role's trust is mended",
        ConnectionState::Disconnected => "no credentials until the role lets us in",
        ConnectionState::Revoked => "ended, final",
    }
}

fn next_probe(connection: &Connection) -> String {
    match connection.next_probe_at {
        Some(at) if at <= Timestamp::now() => format!("{at} (due)"),
        Some(at) => at.to_string(),
        None => "- (not watched)".to_owned(),
    }
}

fn purpose(look: &PurposeEvidence) -> String {
    let found = match look.outcome {
        PurposeOutcome::Complete => "has its permissions".to_owned(),
        PurposeOutcome::Missing if look.missing.is_empty() => "lacks permissions".to_owned(),
        PurposeOutcome::Missing => format!("lacks {}", look.missing.join(", ")),
        PurposeOutcome::Indeterminate => "could not be looked at".to_owned(),
    };
    let by = word(&look.check);
    format!("{} {found}, at {} by {by} {}", look.purpose, look.at, aws(&look.error_code, &look.aws_request_id))
}

fn session(seconds: u32) -> String {
    let more = if seconds > HOUR_S { ", more than the chain can use: an hour is enough" } else { "" };
    format!("{seconds} s{more}")
}

/// The version as the stack says it, and what the role was seen to do.
fn template(connection: &Connection) -> String {
    let version =
        connection.template_version.map_or_else(|| "not known".to_owned(), |version| format!("version {version}"));
    let refused = |seen: &ProbeEvidence| seen.probe == Probe::SessionTags && seen.outcome == ProbeOutcome::Refused;
    let tags = match connection.session_tags {
        true => "sessions carry tags",
        false if connection.evidence.iter().any(refused) => "sessions carry no tags, for the role does not admit them",
        false => "sessions carry no tags",
    };
    format!("{version}, {tags}")
}

fn probe(seen: &ProbeEvidence) -> String {
    let note = match (seen.probe, seen.outcome) {
        (Probe::NoId, ProbeOutcome::Succeeded) => ": the role does not demand an external ID",
        (Probe::RandomId, ProbeOutcome::Succeeded) => ": the role takes any external ID",
        (Probe::RetiredId, ProbeOutcome::Succeeded) => ": the external ID that was replaced still works",
        (Probe::RetiredId, ProbeOutcome::Refused) => ": the external ID that was replaced is of no use any more",
        (Probe::OtherPrincipal, ProbeOutcome::Succeeded) => ": the trust policy names more than this tenant's role",
        (Probe::OtherPrincipal, ProbeOutcome::Refused) => ": the trust policy names this tenant's role alone",
        (Probe::SessionTags, ProbeOutcome::Succeeded) => ": the trust policy admits session tags",
        (Probe::SessionTags, ProbeOutcome::Refused) => {
            ": the trust policy does not admit session tags, which is no fault"
        }
        _ => "",
    };
    let evidence = aws(&seen.error_code, &seen.aws_request_id);
    format!("{} {} at {} {evidence}{note}", word(&seen.probe), word(&seen.outcome), seen.at)
}

/// What one can ask AWS with.
fn aws(error_code: &Option<String>, request_id: &Option<String>) -> String {
    let (error, request) = (error_code.as_deref().unwrap_or("-"), request_id.as_deref().unwrap_or("-"));
    format!("(error {error}, AWS request {request})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connection() -> Connection {
        let at = "2026-11-22T10:00:00Z";
        serde_json::from_value(json!({
            "tenant": "01890a5d-ac96-774b-bcce-b302099a8057", "connection": "01890a5d-ac96-774b-bcce-b302099a8058", "account": "222222222222",
            "partition": "aws", "region": "eu-central-1", "role_arn": "arn:aws:iam::222222222222:role/rolebridge/a", "state": "degraded",
            "reason": "The role denies what the provider's purposes need: cost-read (s3:GetObject). Nothing is given out for them until it is allowed.",
            "evidence": [
                {"probe": "other-principal", "outcome": "succeeded", "at": at, "aws_request_id": "r-1"},
                {"probe": "retired-id", "outcome": "refused", "at": at, "error_code": "AccessDenied"},
            ],
            "purposes": [{"purpose": "cost-read", "outcome": "missing", "check": "simulation", "missing": ["s3:GetObject"], "at": at}],
            "max_session_s": 43_200, "created_at": at, "updated_at": at, "probed_at": at, "next_probe_at": at,
        }))
        .unwrap()
    }

    fn value(name: &str) -> String {
        lines(&connection()).into_iter().find(|(line, _)| *line == name).unwrap().1
    }

    #[test]
    fn a_person_is_told_what_was_found_and_what_it_means() {
        assert_eq!(
            value("state"),
            "degraded (credentials are given out, but for purposes whose permissions are missing)"
        );
        assert!(
            value("purpose").starts_with("cost-read lacks s3:GetObject, at 2026-11-22T10:00:00"),
            "{}",
            value("purpose")
        );
        assert!(value("longest session").starts_with("43200 s, more than"));
        assert!(value("next probe").ends_with("(due)") && value("used") == "-");
        let probes: Vec<_> =
            lines(&connection()).into_iter().filter(|(name, _)| *name == "probe").map(|(_, value)| value).collect();
        assert!(
            probes[0].contains("AWS request r-1") && probes[0].ends_with("more than this tenant's role"),
            "{probes:?}"
        );
        assert!(probes[1].contains("AccessDenied") && probes[1].ends_with("of no use any more"), "{probes:?}");
    }

    #[test]
    fn a_template_is_told_with_what_its_role_does() {
        let mut connection = connection();
        let said =
            |connection: &Connection| lines(connection).into_iter().find(|(line, _)| *line == "template").unwrap().1;
        assert_eq!(said(&connection), "not known, sessions carry no tags");
        connection.template_version = Some(3);
        let (probe, at) = (Probe::SessionTags, Timestamp::now());
        let refused =
            ProbeEvidence { probe, outcome: ProbeOutcome::Refused, at, aws_request_id: None, error_code: None };
        connection.evidence = vec![refused];
        assert_eq!(said(&connection), "version 3, sessions carry no tags, for the role does not admit them");
        connection.session_tags = true;
        assert_eq!(said(&connection), "version 3, sessions carry tags");
    }

    #[test]
    fn a_list_has_room_for_the_beginning_of_a_reason() {
        let row = row(&connection());
        assert_eq!(row.len(), HEAD.len());
        let why = row.last().unwrap();
        assert!(why.starts_with("The role denies") && why.ends_with('…') && why.chars().count() == REASON + 1, "{why}");
    }
}
