//! Changing an external ID without an interruption, as pure rules: which IDs a stack's request may name, and what follows when they were proven.
//!
//! ```text
//!              the trust policy demands            the connection goes by
//! offered      old                                 old
//! begin        old or new   (first update)
//! overlapping  old or new                          new, once the role was seen to let it in
//! finish       new          (second update)
//! finished     new                                 new, and the old one was seen to be refused
//! ```
//! Nothing is believed of a request: it says which IDs to probe for, and the probe decides. A stack that CloudFormation rolls back names what it named before, and
//! is proven again in the same way: from `overlapping` back to the old ID, from `finished` back to both. An ID that was retired for every connection of its
//! enrollment is never gone by again.
//!
//! Between the two updates the old ID is not probed for: it may be there. Afterwards every probe of the connection, scheduled ones too, wants it refused, so that
//! a trust policy that names it again is found like any other loosened one. Only the last one that was replaced is probed for, not those before it.

use contracts::{ExternalId, enrollment::RotationState};

use crate::reasons::Refusal;

/// The external IDs of an enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedIds {
    pub current: ExternalId,
    /// The one that is to take its place.
    pub next: Option<ExternalId>,
}

/// The external IDs of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The one that it goes by.
    pub own: ExternalId,
    /// The one before it.
    pub previous: Option<ExternalId>,
    pub rotation: Option<RotationState>,
    pub offered: OfferedIds,
}

/// What a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    pub external_id: &'a ExternalId,
    /// What the trust policy names beside it, by the request's own word.
    pub previous: Option<&'a ExternalId>,
}

/// What is to be proven before a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToProve {
    /// With this one the role lets us in.
    pub external_id: ExternalId,
    /// With this one it does not.
    pub retired: Option<ExternalId>,
}

/// What a new connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    pub own: ExternalId,
    pub previous: Option<ExternalId>,
    pub rotation: Option<RotationState>,
}

/// What becomes of a connection's external ID when what a stack named was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Stay,
    /// Takes the new one over; the trust policy names both.
    Begin,
    /// Takes the new one over, and the old one is refused already.
    Replace,
    /// The old one is refused.
    Finish,
    /// The stack went back to naming both.
    Reopen,
    /// The stack went back to the old one.
    Back,
    /// What was probed for counts no more.
    Gone,
}

/// A Create: with the offer's current ID, or with the new one, alone or beside the current one.
///
/// # Errors
/// When it names another.
pub fn begin(offered: &OfferedIds, named: Named<'_>) -> Result<Beginning, Refusal> {
    let own = named.external_id.clone();
    if own == offered.current {
        let rotation = offered.next.as_ref().map(|_| RotationState::Offered);
        return match named.previous {
            None => Ok(Beginning { own, previous: None, rotation }),
            Some(_) => Err(Refusal::PreviousIdUnknown),
        };
    }
    if Some(&own) != offered.next.as_ref() {
        return Err(Refusal::NoSuchOffer);
    }
    match named.previous {
        None => Ok(Beginning { own, previous: None, rotation: None }),
        Some(previous) if *previous == offered.current => {
            Ok(Beginning { own, previous: Some(previous.clone()), rotation: Some(RotationState::Overlapping) })
        }
        Some(_) => Err(Refusal::PreviousIdUnknown),
    }
}

/// An Update.
///
/// # Errors
/// When it names an external ID that is not the connection's to have.
pub fn update(ids: &Ids, named: Named<'_>) -> Result<ToProve, Refusal> {
    let external_id = named.external_id.clone();
    let (beside, retired) = if external_id == ids.own {
        (ids.previous.as_ref().filter(|_| may_name_both(ids.rotation)), ids.previous.clone())
    } else if Some(&external_id) == ids.offered.next.as_ref() {
        (Some(&ids.own), Some(ids.own.clone()))
    } else if goes_back(ids, &external_id) {
        (None, None)
    } else {
        return Err(Refusal::ExternalIdChanged);
    };
    match named.previous {
        None => Ok(ToProve { external_id, retired }),
        Some(previous) if Some(previous) == beside => Ok(ToProve { external_id, retired: None }),
        Some(_) => Err(Refusal::PreviousIdUnknown),
    }
}

/// What follows when a stack's request was proven.
#[must_use]
pub fn turn(ids: &Ids, proven: &ToProve) -> Turn {
    let replaced_is_refused = proven.retired.is_some();
    if proven.external_id == ids.own {
        match ids.rotation {
            Some(RotationState::Overlapping) if replaced_is_refused => Turn::Finish,
            Some(RotationState::Finished) if !replaced_is_refused => Turn::Reopen,
            // It named both, and another change has begun since: the next probe would find the one before open.
            now if ids.previous.is_some() && !replaced_is_refused && !may_name_both(now) => Turn::Gone,
            _ => Turn::Stay,
        }
    } else if Some(&proven.external_id) == ids.offered.next.as_ref() {
        if replaced_is_refused { Turn::Replace } else { Turn::Begin }
    } else if goes_back(ids, &proven.external_id) {
        Turn::Back
    } else {
        Turn::Gone
    }
}

/// Whether the one before may stand in the trust policy, or come back into it: not once another change was offered.
const fn may_name_both(rotation: Option<RotationState>) -> bool {
    matches!(rotation, Some(RotationState::Overlapping | RotationState::Finished))
}

/// To the old one, while it still counts.
fn goes_back(ids: &Ids, external_id: &ExternalId) -> bool {
    ids.rotation == Some(RotationState::Overlapping)
        && ids.previous.as_ref() == Some(external_id)
        && ids.offered.current == *external_id
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
