//! The life of a connection as a pure function: state and trigger in, step out.
//!
//! ```text
//! registered -> verifying -> verified <-> degraded | insecure | disconnected      any -> revoked (final)
//!                         \-> rejected
//! ```
//! What a step is worth on the bus is decided here too, so that no state can change without its event. Nothing here reads a clock, a row or a message.

use contracts::{connection::ConnectionState, verification::Fault};

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The first verify job was handed out.
    VerificationStarted,
    /// A report: all probes as they must be.
    Held,
    /// A report: a probe shows this fault.
    Faulted(Fault),
    /// The deadline came without a clear answer. Proves nothing, but a first verification cannot wait longer: the stack needs its answer.
    Undecided,
    /// The probes held, but the role is another connection's.
    RoleTaken,
    /// A purpose's permissions are missing.
    PermissionsMissing,
    /// Every purpose's permissions are there again.
    PermissionsComplete,
    /// A report: the deleted stack's role refuses us.
    StackGone,
    /// The provider or the tenant ends it.
    Revoked,
}

/// The event that tells of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Announcement {
    Registered,
    Verified,
    Rejected,
    Degraded,
    Insecure,
    Disconnected,
    Revoked,
}

/// A change of state. A trigger that changes nothing has no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub to: ConnectionState,
    pub announce: Announcement,
}

impl Step {
    const fn announced(to: ConnectionState, announce: Announcement) -> Self {
        Self { to, announce }
    }
}

/// Where `trigger` leads from `state`; `None` when it changes nothing.
#[must_use]
pub const fn step(state: ConnectionState, trigger: Trigger) -> Option<Step> {
    use ConnectionState as S;
    use Trigger as T;
    match (state, trigger) {
        (S::Revoked, _) => None,
        (_, T::Revoked) => Some(Step::announced(S::Revoked, Announcement::Revoked)),
        // A rejected one never was a connection: its stack goes away by itself.
        (S::Rejected, _) => None,
        (_, T::StackGone) => Some(Step::announced(S::Revoked, Announcement::Revoked)),
        (S::Registered, T::VerificationStarted) => Some(Step::announced(S::Verifying, Announcement::Registered)),
        (S::Registered, _) => None,
        (S::Verifying, T::Held) => Some(Step::announced(S::Verified, Announcement::Verified)),
        (S::Verifying, T::Faulted(_) | T::Undecided | T::RoleTaken) => {
            Some(Step::announced(S::Rejected, Announcement::Rejected))
        }
        (S::Verifying, _) => None,
        (_, T::Faulted(fault)) => worsened(state, fault),
        (S::Insecure | S::Disconnected, T::Held) => Some(Step::announced(S::Verified, Announcement::Verified)),
        // A degraded one for which other purposes are missing than before is told of again.
        (S::Verified | S::Degraded, T::PermissionsMissing) => {
            Some(Step::announced(S::Degraded, Announcement::Degraded))
        }
        (S::Degraded, T::PermissionsComplete) => Some(Step::announced(S::Verified, Announcement::Verified)),
        _ => None,
    }
}

/// A fault found in a connection that was verified once.
const fn worsened(state: ConnectionState, fault: Fault) -> Option<Step> {
    use ConnectionState as S;
    let step = match fault {
        Fault::Refused => Step::announced(S::Disconnected, Announcement::Disconnected),
        // A session of another account than was verified is no lesser fault than an open door.
        Fault::OpenWithoutId
        | Fault::OpenWithRandomId
        | Fault::WrongAccount
        | Fault::OpenWithRetiredId
        | Fault::OpenToOtherPrincipal
        | Fault::LongSessions => Step::announced(S::Insecure, Announcement::Insecure),
        // Its trust holds.
        Fault::PermissionsMissing => return None,
    };
    match (state, step.to) {
        (S::Insecure, S::Insecure) | (S::Disconnected, S::Disconnected) => None,
        _ => Some(step),
    }
}

/// Whether the broker has been, or is to be, told of a connection in this state. Before the first verification there is nothing to grant.
#[must_use]
pub const fn is_granted(state: ConnectionState) -> bool {
    use ConnectionState as S;
    matches!(state, S::Verified | S::Degraded | S::Insecure | S::Disconnected | S::Revoked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [ConnectionState; 8] = [
        ConnectionState::Registered,
        ConnectionState::Verifying,
        ConnectionState::Verified,
        ConnectionState::Rejected,
        ConnectionState::Degraded,
        ConnectionState::Insecure,
        ConnectionState::Disconnected,
        ConnectionState::Revoked,
    ];
    const TRIGGERS: [Trigger; 16] = [
        Trigger::VerificationStarted,
        Trigger::Held,
        Trigger::Faulted(Fault::Refused),
        Trigger::Faulted(Fault::OpenWithoutId),
        Trigger::Faulted(Fault::OpenWithRandomId),
        Trigger::Faulted(Fault::WrongAccount),
        Trigger::Faulted(Fault::OpenWithRetiredId),
        Trigger::Faulted(Fault::OpenToOtherPrincipal),
        Trigger::Faulted(Fault::LongSessions),
        Trigger::Faulted(Fault::PermissionsMissing),
        Trigger::Undecided,
        Trigger::RoleTaken,
        Trigger::PermissionsMissing,
        Trigger::PermissionsComplete,
        Trigger::StackGone,
        Trigger::Revoked,
    ];

    fn pairs() -> impl Iterator<Item = (ConnectionState, Trigger)> {
        STATES.into_iter().flat_map(|state| TRIGGERS.into_iter().map(move |trigger| (state, trigger)))
    }

    fn a_trigger() -> impl Strategy<Value = Trigger> {
        prop::sample::select(TRIGGERS.to_vec())
    }

    #[test]
    fn every_step_leads_elsewhere_and_announces_what_it_led_to() {
        for (state, trigger) in pairs() {
            let Some(step) = step(state, trigger) else { continue };
            let told_again = (state, trigger) == (ConnectionState::Degraded, Trigger::PermissionsMissing);
            assert_eq!(step.to == state, told_again, "{state} + {trigger:?}");
            let expected = match step.to {
                ConnectionState::Verifying => Announcement::Registered,
                ConnectionState::Verified => Announcement::Verified,
                ConnectionState::Rejected => Announcement::Rejected,
                ConnectionState::Degraded => Announcement::Degraded,
                ConnectionState::Insecure => Announcement::Insecure,
                ConnectionState::Disconnected => Announcement::Disconnected,
                ConnectionState::Revoked => Announcement::Revoked,
                ConnectionState::Registered => panic!("{state} + {trigger:?} leads back to the beginning"),
            };
            assert_eq!(step.announce, expected, "{state} + {trigger:?}");
        }
    }

    #[test]
    fn only_a_held_report_or_returned_permissions_lead_to_verified() {
        for (state, trigger) in pairs() {
            if step(state, trigger).is_some_and(|step| step.to == ConnectionState::Verified) {
                assert!(
                    trigger == Trigger::Held
                        || (state, trigger) == (ConnectionState::Degraded, Trigger::PermissionsComplete)
                );
            }
        }
    }

    #[test]
    fn only_a_first_verification_rejects() {
        for (state, trigger) in pairs() {
            if step(state, trigger).is_some_and(|step| step.to == ConnectionState::Rejected) {
                assert_eq!(state, ConnectionState::Verifying);
            }
        }
    }

    #[test]
    fn an_undecided_probe_of_a_verified_connection_changes_nothing() {
        for state in crate::entity::connection::OWNING {
            assert_eq!(step(state, Trigger::Undecided), None);
        }
    }

    #[test]
    fn everything_but_revoked_can_be_revoked() {
        for state in STATES {
            let to = step(state, Trigger::Revoked).map(|step| step.to);
            assert_eq!(to, (state != ConnectionState::Revoked).then_some(ConnectionState::Revoked));
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_final_is_final_and_nothing_is_issued_unproven(triggers in prop::collection::vec(a_trigger(), 0..40)) {
            let (mut state, mut held, mut revoked) = (ConnectionState::Registered, false, false);
            for trigger in triggers {
                held |= trigger == Trigger::Held && state != ConnectionState::Registered;
                if let Some(step) = step(state, trigger) {
                    state = step.to;
                }
                prop_assert!(!state.may_be_issued_for() || held);
                prop_assert!(!revoked || state == ConnectionState::Revoked);
                revoked |= state == ConnectionState::Revoked;
            }
        }

        #[test]
        fn a_rejected_one_is_never_verified(triggers in prop::collection::vec(a_trigger(), 0..40)) {
            let mut state = ConnectionState::Rejected;
            for trigger in triggers {
                if let Some(step) = step(state, trigger) {
                    state = step.to;
                }
                prop_assert!(matches!(state, ConnectionState::Rejected | ConnectionState::Revoked));
            }
        }
    }
}
