//! Evidence beyond the three-way probe, which an operator may declare fatal. Otherwise it is kept and shown, and changes nothing.

use clap::ValueEnum;
use contracts::verification::{Fault, Probe, ProbeOutcome, PurposeOutcome, Verdict, VerificationReported};

/// The longest that a chained session lasts. A role that gives longer ones gives them to whoever comes without a chain.
const HOUR_S: u32 = 3_600;

/// A kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum FatalEvidence {
    /// The role lets in another principal of ours than the tenant's.
    OtherPrincipal,
    /// The role gives sessions of more than an hour.
    LongSessions,
    /// A purpose's permissions are missing. Only a first verification fails for it: later it makes the connection `degraded`, as always.
    Purposes,
}

/// The verdict of a report with what is fatal taken into account. `longest` is the role's longest session in seconds, as it was seen last, and `first` the
/// verification that a connection begins with.
#[must_use]
pub fn weigh(report: &VerificationReported, longest: Option<u32>, fatal: &[FatalEvidence], first: bool) -> Verdict {
    if report.verdict != Verdict::Held {
        return report.verdict;
    }
    let let_in = |probe: Probe| {
        report.evidence.iter().any(|seen| seen.probe == probe && seen.outcome == ProbeOutcome::Succeeded)
    };
    let fault = |kind: &FatalEvidence| match kind {
        FatalEvidence::OtherPrincipal => let_in(Probe::OtherPrincipal).then_some(Fault::OpenToOtherPrincipal),
        FatalEvidence::LongSessions => longest.is_some_and(|longest| longest > HOUR_S).then_some(Fault::LongSessions),
        FatalEvidence::Purposes => (first
            && report.purposes.iter().any(|look| look.outcome == PurposeOutcome::Missing))
        .then_some(Fault::PermissionsMissing),
    };
    // In the order of the harm that they do, whatever the order of the setting.
    let mut kinds = fatal.to_vec();
    kinds.sort_unstable_by_key(|kind| *kind as u8);
    kinds.iter().find_map(fault).map_or(Verdict::Held, |fault| Verdict::Failed { fault })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::{
        ConnectionId, JobId, RoleArn, TenantId, Timestamp,
        credentials::Purpose,
        verification::{PermissionCheck, ProbeEvidence, PurposeEvidence},
    };

    const ALL: [FatalEvidence; 3] =
        [FatalEvidence::Purposes, FatalEvidence::LongSessions, FatalEvidence::OtherPrincipal];

    fn report() -> VerificationReported {
        let at = Timestamp::now();
        VerificationReported {
            job: JobId::new(),
            tenant: TenantId::new(),
            connection: ConnectionId::new(),
            role_arn: RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/a").unwrap(),
            verdict: Verdict::Held,
            evidence: vec![ProbeEvidence {
                probe: Probe::OtherPrincipal,
                outcome: ProbeOutcome::Refused,
                at,
                aws_request_id: None,
                error_code: None,
            }],
            purposes: vec![PurposeEvidence {
                purpose: Purpose::CostRead,
                outcome: PurposeOutcome::Complete,
                check: PermissionCheck::Simulation,
                missing: Vec::new(),
                at,
                aws_request_id: None,
                error_code: None,
            }],
            max_session_s: Some(3_600),
            aws_ms: 1,
        }
    }

    /// Everything that can be amiss beside the trust.
    fn amiss() -> VerificationReported {
        let mut report = report();
        report.evidence[0].outcome = ProbeOutcome::Succeeded;
        report.purposes[0].outcome = PurposeOutcome::Missing;
        report.max_session_s = Some(43_200);
        report
    }

    #[test]
    fn nothing_is_fatal_unless_the_setting_says_so() {
        for first in [true, false] {
            assert_eq!(weigh(&amiss(), amiss().max_session_s, &[], first), Verdict::Held);
            assert_eq!(weigh(&report(), report().max_session_s, &ALL, first), Verdict::Held);
        }
    }

    #[test]
    fn each_kind_has_its_fault() {
        for (kind, fault) in [
            (FatalEvidence::OtherPrincipal, Fault::OpenToOtherPrincipal),
            (FatalEvidence::LongSessions, Fault::LongSessions),
            (FatalEvidence::Purposes, Fault::PermissionsMissing),
        ] {
            assert_eq!(weigh(&amiss(), amiss().max_session_s, &[kind], true), Verdict::Failed { fault });
        }
        assert_eq!(
            weigh(&amiss(), amiss().max_session_s, &ALL, true),
            Verdict::Failed { fault: Fault::OpenToOtherPrincipal }
        );
        assert_eq!(
            weigh(&amiss(), amiss().max_session_s, &[FatalEvidence::Purposes], false),
            Verdict::Held,
            "later it is degraded"
        );
    }

    #[test]
    fn what_aws_was_not_clear_about_is_never_fatal() {
        let mut unclear = amiss();
        unclear.evidence[0].outcome = ProbeOutcome::Indeterminate;
        unclear.purposes[0].outcome = PurposeOutcome::Indeterminate;
        unclear.max_session_s = None;
        assert_eq!(weigh(&unclear, None, &ALL, true), Verdict::Held);
        let seen_before = weigh(&unclear, Some(43_200), &ALL, false);
        assert_eq!(seen_before, Verdict::Failed { fault: Fault::LongSessions }, "what was seen is not forgotten");
    }

    #[test]
    fn a_verdict_of_the_probes_stands() {
        for verdict in [Verdict::Indeterminate, Verdict::Failed { fault: Fault::Refused }] {
            assert_eq!(weigh(&VerificationReported { verdict, ..amiss() }, Some(43_200), &ALL, true), verdict);
        }
    }
}
