//! The rule of the probe, as a state machine without a clock, a network or a guess.
//!
//! Order: the right ID lets us in; the session belongs to the expected account; no ID is refused; a random ID is refused. Refusals count only
//! after the success, because before it they may just be IAM not having settled. Anything else proves nothing: the same question is asked
//! again until the deadline, and never moves the verdict.

use std::time::Duration;

use contracts::verification::{Fault, Probe, Verdict};

/// What the answer to a probe was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A session; for [`Probe::CallerIdentity`], one of the expected account.
    LetIn,
    /// The session belongs to another account. Only [`Probe::CallerIdentity`] sees this.
    OtherAccount,
    /// `AccessDenied` by the customer's role.
    Refused,
    /// Everything else: proves nothing.
    Unclear,
}

/// How long an inquiry may take, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A role that refuses the right ID may be a second old: only a refusal this long after the first is believed.
    pub settle: Duration,
    /// When nothing more is asked.
    pub deadline: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Ask(Probe),
    Done(Verdict),
}

/// The state of one inquiry. `now` is always the time since its beginning.
#[derive(Debug, Clone)]
pub struct Inquiry {
    limits: Limits,
    at: Probe,
    /// When the right ID was refused first, and whether the last answer was that refusal.
    refused: Option<(Duration, bool)>,
    verdict: Option<Verdict>,
}

impl Inquiry {
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, at: Probe::RightId, refused: None, verdict: None }
    }

    /// The probe to send, or the verdict.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        match self.verdict {
            Some(verdict) => Next::Done(verdict),
            None if now >= self.limits.deadline => Next::Done(self.at_the_deadline()),
            None => Next::Ask(self.at),
        }
    }

    /// Takes the answer to the probe that [`Inquiry::next`] named.
    pub fn note(&mut self, seen: Seen, now: Duration) {
        match (self.at, seen) {
            _ if self.verdict.is_some() => {}
            (Probe::RightId, Seen::LetIn) => self.at = Probe::CallerIdentity,
            (Probe::RightId, Seen::Refused) => self.note_refusal(now),
            (Probe::RightId, _) => self.refused = self.refused.map(|(first, _)| (first, false)),
            (Probe::CallerIdentity, Seen::LetIn) => self.at = Probe::NoId,
            (Probe::CallerIdentity, Seen::OtherAccount) => self.fail(Fault::WrongAccount),
            (Probe::NoId, Seen::LetIn) => self.fail(Fault::OpenWithoutId),
            (Probe::NoId, Seen::Refused) => self.at = Probe::RandomId,
            (Probe::RandomId, Seen::LetIn) => self.fail(Fault::OpenWithRandomId),
            (Probe::RandomId, Seen::Refused) => self.verdict = Some(Verdict::Held),
            // GetCallerIdentity cannot be refused by AWS; whatever refused it proves nothing.
            (Probe::CallerIdentity | Probe::NoId | Probe::RandomId | Probe::RetiredId | Probe::OtherPrincipal, _) => {}
        }
    }

    fn note_refusal(&mut self, now: Duration) {
        let first = self.refused.map_or(now, |(first, _)| first);
        self.refused = Some((first, true));
        if now.saturating_sub(first) >= self.limits.settle {
            self.fail(Fault::Refused);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.verdict = Some(Verdict::Failed { fault });
    }

    /// A role that refused until the deadline has refused. One that was not heard has not.
    fn at_the_deadline(&self) -> Verdict {
        match self.refused {
            Some((_, true)) if self.at == Probe::RightId => Verdict::Failed { fault: Fault::Refused },
            _ => Verdict::Indeterminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const LIMITS: Limits = Limits { settle: Duration::from_secs(10), deadline: Duration::from_secs(60) };

    /// Feeds answers one second apart.
    fn judge(answers: &[Seen]) -> Verdict {
        let mut inquiry = Inquiry::new(LIMITS);
        for (second, seen) in answers.iter().enumerate() {
            let now = Duration::from_secs(second as u64);
            if let Next::Done(verdict) = inquiry.next(now) {
                return verdict;
            }
            inquiry.note(*seen, now);
        }
        match inquiry.next(LIMITS.deadline) {
            Next::Done(verdict) => verdict,
            Next::Ask(_) => panic!("the deadline has passed"),
        }
    }

    use Seen::{LetIn, OtherAccount, Refused, Unclear};

    #[rstest]
    #[case::all_well(&[LetIn, LetIn, Refused, Refused], Verdict::Held)]
    #[case::attack_03_open_without_id(&[LetIn, LetIn, LetIn], Verdict::Failed { fault: Fault::OpenWithoutId })]
    #[case::attack_04_open_with_any(&[LetIn, LetIn, Refused, LetIn], Verdict::Failed { fault: Fault::OpenWithRandomId })]
    #[case::attack_15_other_account(&[LetIn, OtherAccount], Verdict::Failed { fault: Fault::WrongAccount })]
    #[case::attack_22_settled_late(&[Refused, Refused, LetIn, LetIn, Refused, Refused], Verdict::Held)]
    #[case::attack_22_refused_for_good(&[Refused; 12], Verdict::Failed { fault: Fault::Refused })]
    #[case::refused_until_the_deadline(&[Unclear, Refused], Verdict::Failed { fault: Fault::Refused })]
    #[case::refused_then_unheard(&[Refused, Unclear], Verdict::Indeterminate)]
    #[case::attack_05_throttled_throughout(&[Unclear; 59], Verdict::Indeterminate)]
    #[case::attack_05_throttled_between(&[Unclear, LetIn, Unclear, LetIn, Unclear, Refused, Unclear, Refused], Verdict::Held)]
    #[case::unheard_at_the_end(&[LetIn, LetIn, Refused, Unclear], Verdict::Indeterminate)]
    #[case::identity_refused(&[LetIn, Refused, Refused], Verdict::Indeterminate)]
    #[case::nothing_asked(&[], Verdict::Indeterminate)]
    fn verdicts(#[case] answers: &[Seen], #[case] expected: Verdict) {
        assert_eq!(judge(answers), expected);
    }

    #[test]
    fn a_refusal_is_believed_only_after_the_settle_window() {
        let mut inquiry = Inquiry::new(LIMITS);
        inquiry.note(Refused, Duration::from_secs(3));
        inquiry.note(Refused, Duration::from_millis(12_999));
        assert_eq!(inquiry.next(Duration::from_secs(13)), Next::Ask(Probe::RightId));
        inquiry.note(Refused, Duration::from_secs(13));
        assert_eq!(inquiry.next(Duration::from_secs(13)), Next::Done(Verdict::Failed { fault: Fault::Refused }));
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        prop_oneof![Just(LetIn), Just(Refused), Just(Unclear), Just(OtherAccount)]
    }

    proptest! {
        /// Taking the unclear answers away changes nothing but the time: they never make a verdict, nor prevent one.
        #[test]
        fn unclear_answers_never_decide(answers in prop::collection::vec(any_seen(), 0..40)) {
            let with = judge(&answers);
            let clear: Vec<Seen> = answers.iter().copied().filter(|seen| *seen != Unclear).collect();
            if with == Verdict::Held {
                prop_assert_eq!(judge(&clear), Verdict::Held);
            }
            if let Verdict::Failed { fault } = with && fault != Fault::Refused {
                prop_assert_eq!(judge(&clear), with);
            }
        }

        /// Each needed answer being unclear, whatever the others are, leaves it open.
        #[test]
        fn without_a_needed_answer_there_is_no_verdict(missing in 0usize..4, repeats in 1usize..10) {
            let good = [LetIn, LetIn, Refused, Refused];
            let mut answers: Vec<Seen> = good[..missing].to_vec();
            answers.extend(std::iter::repeat_n(Unclear, repeats));
            prop_assert_eq!(judge(&answers), Verdict::Indeterminate);
        }

        /// A role that lets in without an ID or with any is never held, whatever trouble is between.
        #[test]
        fn a_loosened_trust_is_always_caught(
            no_id in any::<bool>(), random_id in any::<bool>(), pauses in prop::collection::vec(0usize..8, 4),
        ) {
            prop_assume!(no_id || random_id);
            let answer = |open: bool| if open { LetIn } else { Refused };
            let mut answers = Vec::new();
            for (seen, pause) in [LetIn, LetIn, answer(no_id), answer(random_id)].into_iter().zip(pauses) {
                answers.extend(std::iter::repeat_n(Unclear, pause));
                answers.push(seen);
            }
            let fault = if no_id { Fault::OpenWithoutId } else { Fault::OpenWithRandomId };
            prop_assert_eq!(judge(&answers), Verdict::Failed { fault });
        }

        /// Held needs one success, one account and two refusals, in this order.
        #[test]
        fn held_is_earned(answers in prop::collection::vec(any_seen(), 0..40)) {
            if judge(&answers) == Verdict::Held {
                let mut needed = [LetIn, LetIn, Refused, Refused].into_iter().peekable();
                for seen in &answers {
                    if needed.peek() == Some(seen) {
                        needed.next();
                    }
                }
                prop_assert!(needed.next().is_none());
            }
        }

        #[test]
        fn it_always_ends_at_the_deadline(answers in prop::collection::vec(any_seen(), 0..40)) {
            let mut inquiry = Inquiry::new(LIMITS);
            for seen in answers {
                inquiry.note(seen, Duration::ZERO);
            }
            prop_assert!(matches!(inquiry.next(LIMITS.deadline), Next::Done(_)));
        }
    }
}
