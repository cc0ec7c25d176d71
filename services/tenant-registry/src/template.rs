//! What a version of the customer's template (`deploy/aws/customer.yaml`) brings, as a rule: the stack's word says what to look for, and the
//! broker's evidence says what is there.

use contracts::verification::{Probe, ProbeEvidence, ProbeOutcome};

/// The first version whose trust policy allows `sts:TagSession`.
const FIRST_WITH_SESSION_TAGS: u32 = 3;

/// Whether a role of this version's should admit session tags. Of one that is not known nothing is expected, and nothing asked.
#[must_use]
pub fn should_admit_session_tags(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= FIRST_WITH_SESSION_TAGS)
}

/// Whether sessions of a role that held are to carry tags from now on. A claim alone turns nothing on: the role must have let a session with
/// tags in. What was not seen clearly leaves it as it was.
#[must_use]
pub fn session_tags(version: Option<u32>, evidence: &[ProbeEvidence], before: bool) -> bool {
    should_admit_session_tags(version)
        && match seen(evidence) {
            Some(ProbeOutcome::Succeeded) => true,
            Some(ProbeOutcome::Refused) => false,
            Some(ProbeOutcome::Indeterminate) | None => before,
        }
}

/// Whether a role that should admit session tags was seen to refuse them.
#[must_use]
pub fn was_refused(evidence: &[ProbeEvidence]) -> bool {
    seen(evidence) == Some(ProbeOutcome::Refused)
}

fn seen(evidence: &[ProbeEvidence]) -> Option<ProbeOutcome> {
    evidence.iter().rev().find(|seen| seen.probe == Probe::SessionTags).map(|seen| seen.outcome)
}

#[cfg(test)]
mod tests {
    use contracts::Timestamp;
    use rstest::rstest;

    use super::*;

    fn evidence_of(probe: Probe, outcome: ProbeOutcome) -> ProbeEvidence {
        ProbeEvidence { probe, outcome, at: Timestamp::now(), aws_request_id: None, error_code: None }
    }

    #[rstest]
    #[case::seen(Some(3), Some(ProbeOutcome::Succeeded), false, true)]
    #[case::of_a_later_version(Some(9), Some(ProbeOutcome::Succeeded), false, true)]
    #[case::claimed_and_refused(Some(3), Some(ProbeOutcome::Refused), true, false)]
    #[case::not_clear(Some(3), Some(ProbeOutcome::Indeterminate), false, false)]
    #[case::not_clear_and_seen_before(Some(3), Some(ProbeOutcome::Indeterminate), true, true)]
    #[case::a_broker_of_before(Some(3), None, false, false)]
    #[case::an_old_template(Some(2), Some(ProbeOutcome::Succeeded), true, false)]
    #[case::no_version(None, Some(ProbeOutcome::Succeeded), true, false)]
    fn tags_are_for_roles_that_were_seen_to_admit_them(
        #[case] version: Option<u32>,
        #[case] outcome: Option<ProbeOutcome>,
        #[case] before: bool,
        #[case] expected: bool,
    ) {
        let right_id = evidence_of(Probe::RightId, ProbeOutcome::Succeeded);
        let evidence: Vec<_> = [Some(right_id), outcome.map(|outcome| evidence_of(Probe::SessionTags, outcome))]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(session_tags(version, &evidence, before), expected);
    }
}
