use proptest::prelude::*;
use rstest::rstest;

use super::*;

const LIMITS: Limits = Limits { settle: Duration::from_secs(10), deadline: Duration::from_secs(60) };

/// Feeds answers one second apart.
fn judge(answers: &[Seen]) -> Verdict {
    judge_all(answers, false)
}

fn judge_all(answers: &[Seen], retired: bool) -> Verdict {
    let mut inquiry = Inquiry::new(LIMITS, retired);
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
    let mut inquiry = Inquiry::new(LIMITS, false);
    inquiry.note(Refused, Duration::from_secs(3));
    inquiry.note(Refused, Duration::from_millis(12_999));
    assert_eq!(inquiry.next(Duration::from_secs(13)), Next::Ask(Probe::RightId));
    inquiry.note(Refused, Duration::from_secs(13));
    assert_eq!(inquiry.next(Duration::from_secs(13)), Next::Done(Verdict::Failed { fault: Fault::Refused }));
}

/// A job that was taken up late has no time to see a fresh role settle, and says nothing of it.
#[rstest]
#[case::one_refusal(&[Refused])]
#[case::to_the_last(&[Refused, Refused, Refused])]
#[case::a_retired_id_that_opens(&[LetIn, LetIn, Refused, Refused, LetIn])]
fn what_had_no_time_to_settle_is_not_believed_at_the_deadline(#[case] answers: &[Seen]) {
    let late = Limits { settle: Duration::from_secs(45), deadline: Duration::from_secs(5) };
    let mut inquiry = Inquiry::new(late, true);
    for (tenth, seen) in answers.iter().enumerate() {
        inquiry.note(*seen, Duration::from_millis(tenth as u64 * 100));
    }
    assert_eq!(inquiry.next(late.deadline), Next::Done(Verdict::Indeterminate));
}

#[rstest]
#[case::refused(&[LetIn, LetIn, Refused, Refused, Refused], Verdict::Held)]
#[case::not_heard(&[LetIn, LetIn, Refused, Refused, Unclear], Verdict::Indeterminate)]
#[case::still_open(&[LetIn, LetIn, Refused, Refused, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn, LetIn], Verdict::Failed { fault: Fault::OpenWithRetiredId })]
#[case::open_to_the_deadline(&[LetIn, LetIn, Refused, Refused, LetIn], Verdict::Failed { fault: Fault::OpenWithRetiredId })]
#[case::open_then_unheard(&[LetIn, LetIn, Refused, Refused, LetIn, Unclear], Verdict::Indeterminate)]
#[case::settled_late(&[LetIn, LetIn, Refused, Refused, LetIn, LetIn, Refused], Verdict::Held)]
#[case::not_before_the_random_one(&[LetIn, LetIn, Refused, LetIn, Refused], Verdict::Failed { fault: Fault::OpenWithRandomId })]
fn verdicts_with_a_retired_id(#[case] answers: &[Seen], #[case] expected: Verdict) {
    assert_eq!(judge_all(answers, true), expected);
}

/// The role was deleted while the probes that must be refused met trouble: their refusals are no proof of its trust.
#[rstest]
#[case::there(&[LetIn], Verdict::Held)]
#[case::gone(&[Refused; 12], Verdict::Failed { fault: Fault::Refused })]
#[case::gone_at_the_deadline(&[Refused], Verdict::Failed { fault: Fault::Refused })]
#[case::unheard(&[Unclear], Verdict::Indeterminate)]
#[case::back_and_good(&[Refused, LetIn, LetIn, Refused, Refused], Verdict::Held)]
#[case::back_and_loose(&[Refused, LetIn, LetIn, LetIn], Verdict::Failed { fault: Fault::OpenWithoutId })]
#[case::back_in_another_account(&[Refused, LetIn, OtherAccount], Verdict::Failed { fault: Fault::WrongAccount })]
fn refusals_that_took_long_need_a_success_after_them(#[case] then: &[Seen], #[case] expected: Verdict) {
    let mut answers = vec![LetIn, LetIn, Unclear, Unclear, Unclear, Unclear, Unclear, Unclear, Unclear, Unclear];
    answers.extend([Refused, Refused]);
    assert_eq!(judge(&answers), Verdict::Indeterminate, "the refusals alone are too late");
    answers.extend(then);
    assert_eq!(judge(&answers), expected);
}

#[test]
fn quick_refusals_need_none() {
    let mut inquiry = Inquiry::new(LIMITS, false);
    for (seen, at) in [(LetIn, 3), (LetIn, 4), (Refused, 12), (Refused, 13)] {
        assert!(matches!(inquiry.next(Duration::from_secs(at)), Next::Ask(_)));
        inquiry.note(seen, Duration::from_secs(at));
    }
    assert_eq!(inquiry.next(Duration::from_secs(13)), Next::Done(Verdict::Held));
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![Just(LetIn), Just(Refused), Just(Unclear), Just(OtherAccount)]
}

proptest! {
    /// Unclear answers only take time: not telling the inquiry of them makes no verdict and prevents none. (A refusal that was the last thing
    /// heard is a verdict at the deadline, one that was followed by silence is not.)
    #[test]
    fn unclear_answers_never_decide(answers in prop::collection::vec(any_seen(), 0..60), retired in any::<bool>()) {
        let with = judge_all(&answers, retired);
        let (mut without, mut at) = (Inquiry::new(LIMITS, retired), 0);
        for seen in &answers {
            if *seen != Unclear && matches!(without.next(Duration::from_secs(at)), Next::Ask(_)) {
                without.note(*seen, Duration::from_secs(at));
            }
            at += 1;
        }
        let Next::Done(without) = without.next(LIMITS.deadline) else { panic!("the deadline has passed") };
        if with != Verdict::Indeterminate {
            prop_assert_eq!(with, without);
        } else {
            prop_assert!(without != Verdict::Held);
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

    /// Where our side was never seen to let a call out, no refusal makes a verdict; and where it was now and then, no more than those do.
    #[test]
    fn a_refusal_of_our_own_side_never_decides(
        answers in prop::collection::vec((any_seen(), any::<bool>()), 0..60), retired in any::<bool>(),
    ) {
        let weighed = |let_out: fn(bool) -> bool| -> Vec<Seen> {
            answers.iter().map(|(seen, out)| seen.weighed(let_out(*out))).collect()
        };
        let never = judge_all(&weighed(|_| false), retired);
        let believed = [Verdict::Held, Verdict::Failed { fault: Fault::Refused }];
        prop_assert!(!believed.contains(&never));
        let refusals = answers.iter().filter(|(seen, out)| *seen == Refused && *out).count();
        match judge_all(&weighed(|out| out), retired) {
            Verdict::Held => prop_assert!(refusals >= 2 + usize::from(retired)),
            Verdict::Failed { fault: Fault::Refused } => prop_assert!(refusals >= 1),
            _ => {}
        }
    }

    #[test]
    fn it_always_ends_at_the_deadline(answers in prop::collection::vec(any_seen(), 0..40)) {
        let mut inquiry = Inquiry::new(LIMITS, false);
        for seen in answers {
            inquiry.note(seen, Duration::ZERO);
        }
        prop_assert!(matches!(inquiry.next(LIMITS.deadline), Next::Done(_)));
    }
}
