//! The rule of the probe, as a state machine without a clock, a network or a guess.
//!
//! Order: the right ID lets us in; the session belongs to the expected account; no ID is refused; a random ID is refused; where the job names
//! one, the retired ID is refused; and if the refusals took long, the right ID lets us in once more. Refusals count only between two successes
//! that are near: before the first they may just be IAM not having settled, and long after it the role may have gone away. Anything else
//! proves nothing: the same question is asked again until the deadline, and never moves the verdict.

use std::time::Duration;

use contracts::verification::{Fault, Probe, Verdict};

/// A success vouches for refusals that come within this time after it. Later ones may only mean that the role was taken away meanwhile, so
/// the right ID must let us in again. Without trouble all probes together take well under a second.
pub(super) const VOUCHES_FOR: Duration = Duration::from_secs(10);

/// What the answer to a probe was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A session; for [`Probe::CallerIdentity`], one of the expected account.
    LetIn,
    /// The session belongs to another account. Only [`Probe::CallerIdentity`] sees this.
    OtherAccount,
    /// `AccessDenied` by the customer's role: our own side lets such a call out.
    Refused,
    /// Everything else: proves nothing.
    Unclear,
}

impl Seen {
    /// What a refusal is worth: the customer's only if our own side was seen to let such a call out, else it may be ours and proves nothing.
    #[must_use]
    pub const fn weighed(self, let_out: bool) -> Self {
        match self {
            Self::Refused if !let_out => Self::Unclear,
            _ => self,
        }
    }
}

/// How long an inquiry may take, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A role whose trust was just written may still answer by the old one: a refusal of the right ID, and a success of the retired one, are
    /// believed only when they are seen again this long after the first.
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

/// Where in the order an inquiry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    RightId,
    CallerIdentity,
    NoId,
    RandomId,
    RetiredId,
    /// All refusals are there; the right ID is asked again.
    RightIdAgain,
}

/// A bad answer that may yet become a good one: when it was seen first, and whether it was the last that was seen.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    since: Duration,
    last: bool,
}

/// The state of one inquiry. `now` is always the time since its beginning.
#[derive(Debug, Clone)]
pub struct Inquiry {
    limits: Limits,
    /// Whether there is a retired ID to ask for.
    retired: bool,
    at: Step,
    /// When the right ID let us in last.
    let_in: Duration,
    /// Of the step that it is at.
    unsettled: Option<Unsettled>,
    verdict: Option<Verdict>,
}

impl Inquiry {
    #[must_use]
    pub const fn new(limits: Limits, retired: bool) -> Self {
        Self { limits, retired, at: Step::RightId, let_in: Duration::ZERO, unsettled: None, verdict: None }
    }

    /// The probe to send, or the verdict.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        match self.verdict {
            Some(verdict) => Next::Done(verdict),
            None if now >= self.limits.deadline => Next::Done(self.at_the_deadline()),
            None => Next::Ask(match self.at {
                Step::RightId | Step::RightIdAgain => Probe::RightId,
                Step::CallerIdentity => Probe::CallerIdentity,
                Step::NoId => Probe::NoId,
                Step::RandomId => Probe::RandomId,
                Step::RetiredId => Probe::RetiredId,
            }),
        }
    }

    /// Takes the answer to the probe that [`Inquiry::next`] named.
    pub fn note(&mut self, seen: Seen, now: Duration) {
        match (self.at, seen) {
            _ if self.verdict.is_some() => {}
            (Step::RightId, Seen::LetIn) => {
                self.let_in = now;
                self.go_to(Step::CallerIdentity);
            }
            (Step::RightId, Seen::Refused) => self.note_unsettled(Fault::Refused, now),
            (Step::RightIdAgain, Seen::LetIn) => self.verdict = Some(Verdict::Held),
            // The refusals may have been those of a role on its way out, or on its way to another trust: nothing of before counts.
            (Step::RightIdAgain, Seen::Refused) => {
                self.go_to(Step::RightId);
                self.note_unsettled(Fault::Refused, now);
            }
            (Step::CallerIdentity, Seen::LetIn) => self.go_to(Step::NoId),
            (Step::CallerIdentity, Seen::OtherAccount) => self.fail(Fault::WrongAccount),
            (Step::NoId, Seen::LetIn) => self.fail(Fault::OpenWithoutId),
            (Step::NoId, Seen::Refused) => self.go_to(Step::RandomId),
            (Step::RandomId, Seen::LetIn) => self.fail(Fault::OpenWithRandomId),
            (Step::RandomId, Seen::Refused) if self.retired => self.go_to(Step::RetiredId),
            (Step::RetiredId, Seen::LetIn) => self.note_unsettled(Fault::OpenWithRetiredId, now),
            (Step::RandomId | Step::RetiredId, Seen::Refused) => self.all_refused(now),
            // GetCallerIdentity cannot be refused by AWS; whatever refused it proves nothing.
            _ => self.unsettled = self.unsettled.map(|seen| Unsettled { last: false, ..seen }),
        }
    }

    fn go_to(&mut self, step: Step) {
        self.at = step;
        self.unsettled = None;
    }

    fn all_refused(&mut self, now: Duration) {
        if now.saturating_sub(self.let_in) <= VOUCHES_FOR {
            self.verdict = Some(Verdict::Held);
        } else {
            self.go_to(Step::RightIdAgain);
        }
    }

    fn note_unsettled(&mut self, fault: Fault, now: Duration) {
        let since = self.unsettled.map_or(now, |seen| seen.since);
        self.unsettled = Some(Unsettled { since, last: true });
        if now.saturating_sub(since) >= self.limits.settle {
            self.fail(fault);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.verdict = Some(Verdict::Failed { fault });
    }

    /// What was seen to the last is so, if it had the time to settle. A role that was not heard at the end has said nothing.
    fn at_the_deadline(&self) -> Verdict {
        let Limits { settle, deadline } = self.limits;
        let settled = |seen: &Unsettled| seen.last && deadline.saturating_sub(seen.since) >= settle;
        match (self.at, self.unsettled.filter(settled)) {
            (Step::RightId, Some(_)) => Verdict::Failed { fault: Fault::Refused },
            (Step::RetiredId, Some(_)) => Verdict::Failed { fault: Fault::OpenWithRetiredId },
            _ => Verdict::Indeterminate,
        }
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
