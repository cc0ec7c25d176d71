//! How many answers it takes to change a state: flapping is damped, an open door is not.
//!
//! - **An open role acts at once**, whatever came before: better no credentials for a while than credentials for a role that lets others in.
//! - **Everything else needs a number of equal answers in a row** (`ROLEBRIDGE_EQUAL_ANSWERS`): a refusal may be IAM that has not settled after a change, and
//!   a success just after a mend may not last. An answer that agrees with the present state ends the row; one that says something else again begins a new one.
//! - **An unclear answer proves nothing**: it neither counts, nor ends the row.
//! - An answer that is sure of the trust, and not of the permissions, counts for the trust alone.
//!
//! A verification that a stack waits for asks for one answer: the stack must be told something. Nothing here reads a clock, a row or a message.

use std::collections::BTreeSet;

use contracts::{
    connection::ConnectionState,
    credentials::Purpose,
    verification::{PurposeEvidence, PurposeOutcome},
};
use serde::{Deserialize, Serialize};

/// Which purposes nothing can be issued for.
pub type Missing = BTreeSet<Purpose>;

/// What a report says of a role that was verified once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The trust is as it must be.
    Holds {
        missing: Missing,
        /// Whether AWS was clear about every purpose.
        sure: bool,
    },
    Refuses,
    /// The trust is loose, or the role is another's.
    Open,
    Unclear,
}

impl Answer {
    /// What a look at purposes says to a connection whose grant leaves `left_out` out: a purpose that AWS was not clear about stays as it was.
    #[must_use]
    pub fn holds(looks: &[PurposeEvidence], left_out: &Missing) -> Self {
        let with = |outcome| looks.iter().filter(move |look| look.outcome == outcome).map(|look| look.purpose);
        let clear: Missing = with(PurposeOutcome::Complete).chain(with(PurposeOutcome::Missing)).collect();
        let mut missing: Missing = left_out.difference(&clear).copied().collect();
        missing.extend(with(PurposeOutcome::Missing));
        Self::Holds { missing, sure: !looks.is_empty() && with(PurposeOutcome::Indeterminate).next().is_none() }
    }

    /// What counts in a row.
    fn said(&self) -> Option<Said> {
        match self {
            Self::Holds { missing, .. } => Some(Said::Holds { missing: missing.clone() }),
            Self::Refuses => Some(Said::Refuses),
            Self::Open | Self::Unclear => None,
        }
    }
}

/// An answer that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum Said {
    Holds { missing: Missing },
    Refuses,
}

/// Equal answers in a row that speak against the present state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Streak {
    #[serde(flatten)]
    pub said: Said,
    pub times: u32,
}

/// What an answer leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absorbed {
    /// To be kept; while there is one, the next probe comes soon.
    pub streak: Option<Streak>,
    /// Whether the state changes to what the answer says.
    pub acts: bool,
}

/// Takes an answer in: `state` and `left_out` are the connection's present ones, `needed` the equal answers that it takes.
#[must_use]
pub fn absorb(
    state: ConnectionState,
    left_out: &Missing,
    streak: Option<&Streak>,
    answer: &Answer,
    needed: u32,
) -> Absorbed {
    let Some(said) = answer.said() else {
        let open = *answer == Answer::Open;
        return Absorbed { streak: if open { None } else { streak.cloned() }, acts: open };
    };
    if agrees(state, left_out, &said) {
        let unsure = matches!(answer, Answer::Holds { sure: false, .. });
        // Nothing was learned about permissions: a row of answers about them goes on.
        let stays = |streak: &&Streak| unsure && matches!(streak.said, Said::Holds { .. });
        return Absorbed { streak: streak.filter(stays).cloned(), acts: false };
    }
    let before = streak.filter(|streak| streak.said == said).map_or(0, |streak| streak.times);
    let times = before.saturating_add(1);
    if times >= needed {
        Absorbed { streak: None, acts: true }
    } else {
        Absorbed { streak: Some(Streak { said, times }), acts: false }
    }
}

/// Whether the answer says what is known already.
fn agrees(state: ConnectionState, left_out: &Missing, said: &Said) -> bool {
    match (state, said) {
        (ConnectionState::Verified, Said::Holds { missing }) => missing.is_empty(),
        (ConnectionState::Degraded, Said::Holds { missing }) => missing == left_out,
        (ConnectionState::Disconnected, Said::Refuses) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cost_read() -> Missing {
        Missing::from([Purpose::CostRead])
    }

    fn complete() -> Answer {
        Answer::Holds { missing: Missing::new(), sure: true }
    }

    fn lacking() -> Answer {
        Answer::Holds { missing: cost_read(), sure: true }
    }

    /// A connection as the registry keeps it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Kept {
        state: ConnectionState,
        left_out: Missing,
        streak: Option<Streak>,
    }

    impl Kept {
        fn new(state: ConnectionState) -> Self {
            let left_out = if state == ConnectionState::Degraded { cost_read() } else { Missing::new() };
            Self { state, left_out, streak: None }
        }

        fn hear(&mut self, answer: &Answer, needed: u32) -> bool {
            let absorbed = absorb(self.state, &self.left_out, self.streak.as_ref(), answer, needed);
            if absorbed.acts {
                (self.state, self.left_out) = target(answer, &self.left_out);
            }
            self.streak = absorbed.streak;
            absorbed.acts
        }
    }

    fn target(answer: &Answer, left_out: &Missing) -> (ConnectionState, Missing) {
        match answer {
            Answer::Holds { missing, .. } if missing.is_empty() => (ConnectionState::Verified, Missing::new()),
            Answer::Holds { missing, .. } => (ConnectionState::Degraded, missing.clone()),
            Answer::Refuses => (ConnectionState::Disconnected, left_out.clone()),
            Answer::Open => (ConnectionState::Insecure, left_out.clone()),
            Answer::Unclear => panic!("an unclear answer acts"),
        }
    }

    fn a_state() -> impl Strategy<Value = ConnectionState> {
        prop::sample::select(crate::entity::connection::OWNING.to_vec())
    }

    fn an_answer() -> impl Strategy<Value = Answer> {
        prop::sample::select(vec![complete(), lacking(), Answer::Refuses, Answer::Open, Answer::Unclear])
    }

    fn look(outcome: PurposeOutcome) -> PurposeEvidence {
        PurposeEvidence {
            purpose: Purpose::CostRead,
            outcome,
            check: contracts::verification::PermissionCheck::Read,
            missing: Vec::new(),
            at: contracts::Timestamp::now(),
            aws_request_id: None,
            error_code: None,
        }
    }

    #[test]
    fn a_purpose_that_aws_was_not_clear_about_stays_as_it_was() {
        for left_out in [Missing::new(), cost_read()] {
            let unsure = Answer::Holds { missing: left_out.clone(), sure: false };
            assert_eq!(Answer::holds(&[], &left_out), unsure);
            assert_eq!(Answer::holds(&[look(PurposeOutcome::Indeterminate)], &left_out), unsure);
            assert_eq!(Answer::holds(&[look(PurposeOutcome::Complete)], &left_out), complete());
            assert_eq!(Answer::holds(&[look(PurposeOutcome::Missing)], &left_out), lacking());
        }
    }

    #[test]
    fn unsure_of_permissions_ends_a_row_of_refusals_and_not_one_of_lacking_permissions() {
        let unsure = Answer::holds(&[], &Missing::new());
        for (first, stays) in [(Answer::Refuses, false), (lacking(), true)] {
            let mut kept = Kept::new(ConnectionState::Verified);
            kept.hear(&first, 3);
            kept.hear(&unsure, 3);
            assert_eq!(kept.streak.is_some(), stays, "{first:?}");
        }
    }

    #[test]
    fn a_streak_is_kept_as_it_is() {
        for said in [Said::Refuses, Said::Holds { missing: cost_read() }] {
            let streak = Streak { said, times: 2 };
            let text = serde_json::to_string(&streak).unwrap();
            assert_eq!(serde_json::from_str::<Streak>(&text).unwrap(), streak, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_open_role_acts_at_once(state in a_state(), before in prop::collection::vec(an_answer(), 0..20), needed in 1u32..=10) {
            let mut kept = Kept::new(state);
            for answer in &before {
                kept.hear(answer, needed);
            }
            prop_assert!(kept.hear(&Answer::Open, needed));
            prop_assert_eq!(kept.state, ConnectionState::Insecure);
        }

        #[test]
        fn unclear_answers_anywhere_make_no_difference(state in a_state(), answers in prop::collection::vec(an_answer(), 0..40), needed in 1u32..=10) {
            let (mut with, mut without) = (Kept::new(state), Kept::new(state));
            for answer in &answers {
                with.hear(answer, needed);
                if *answer != Answer::Unclear {
                    without.hear(answer, needed);
                }
            }
            prop_assert_eq!(with, without);
        }

        #[test]
        fn but_for_an_open_role_a_state_changes_by_so_many_equal_answers_in_a_row(state in a_state(), answers in prop::collection::vec(an_answer(), 0..60), needed in 1u32..=10) {
            let mut kept = Kept::new(state);
            let mut clear: Vec<Answer> = Vec::new();
            for answer in answers {
                let was = kept.clone();
                clear.extend((answer != Answer::Unclear).then(|| answer.clone()));
                if kept.hear(&answer, needed) && answer != Answer::Open {
                    let row = clear.iter().rev().take_while(|earlier| **earlier == answer).count();
                    prop_assert!(row >= needed as usize, "{was:?} changed after {row}");
                    clear.clear();
                }
            }
        }

        #[test]
        fn so_many_equal_answers_in_a_row_always_lead_to_what_they_say(state in a_state(), before in prop::collection::vec(an_answer(), 0..20), answer in an_answer(), needed in 1u32..=10) {
            prop_assume!(answer != Answer::Unclear);
            let mut kept = Kept::new(state);
            for earlier in &before {
                kept.hear(earlier, needed);
            }
            for _ in 0..needed {
                kept.hear(&answer, needed);
            }
            prop_assert_eq!(kept.state, target(&answer, &Missing::new()).0);
            prop_assert_eq!(kept.streak, None);
        }

        #[test]
        fn no_more_is_counted_than_is_needed(state in a_state(), answers in prop::collection::vec(an_answer(), 0..60), needed in 1u32..=10) {
            let mut kept = Kept::new(state);
            for answer in &answers {
                kept.hear(answer, needed);
                prop_assert!(kept.streak.as_ref().is_none_or(|streak| streak.times < needed));
            }
        }
    }
}
