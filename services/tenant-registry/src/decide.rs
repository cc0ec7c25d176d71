//! What a callback means: pure functions from the callback and what the store knows to a decision. Nothing in a callback is believed.
//!
//! Two kinds of refusal. A *stranger* proved nothing (unknown external ID, wrong token): he is answered from what he sent and leaves nothing in the store but
//! a bounded audit, so that he can neither use up a victim's offer nor fill the database. Whoever holds the token is *known*: his refusal is kept, and a
//! duplicate of his request gets the same answer even when the world has changed meanwhile.

use contracts::{
    AccountId, ConnectionId, Partition, Region, RoleArn, StackId,
    callback::{CallbackReceived, Claims},
    connection::ConnectionState,
    enrollment::{EnrollmentKind, EnrollmentState},
    tenant::TenantState,
};

use crate::{
    entity::connection::{ENDED, OWNING},
    reasons::Refusal,
    rotation::{self, Ids, Named, OfferedIds},
};

/// What the store knows of the offer that the callback's external ID names.
#[derive(Debug, Clone)]
pub struct OfferFacts {
    pub kind: EnrollmentKind,
    /// With the clock taken into account.
    pub state: EnrollmentState,
    pub token_matches: bool,
    /// The stack that has used an account offer.
    pub bound_stack: Option<StackId>,
    /// The account it is restricted to.
    pub account: Option<AccountId>,
    pub tenant: TenantState,
    pub ids: OfferedIds,
    /// The role that the customer's role must trust.
    pub principal: Option<RoleArn>,
    /// A connection of this very stack that has not ended.
    pub stack_connected: bool,
    /// A connection of the stack's account, made by another stack of this offer, that has not ended.
    pub account_connected: bool,
    /// Refusals kept for this offer so far.
    pub refusals: u64,
}

/// What the store knows of the connection that the callback's physical ID names.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    pub state: ConnectionState,
    pub stack: StackId,
    pub token_matches: bool,
    pub ids: Ids,
    pub tenant: TenantState,
    pub principal: Option<RoleArn>,
}

/// More kept refusals than this and further ones of the same offer are answered without being kept.
pub const MOST_REFUSALS: u64 = 100;

/// What becomes of a Create or an Update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answer, keep nothing.
    Stranger(Refusal),
    /// Answer, and keep the answer.
    Refuse(Refusal),
    /// Have the role verified, then answer.
    Verify,
}

/// What becomes of a Delete, which is answered SUCCESS whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteDecision {
    /// It is the stack of this connection: see whether the role is really gone.
    Confirm,
    /// Nothing changes; the word says why.
    Nothing(&'static str),
}

/// A Create: `facts` are of the offer with the claimed external ID, if there is one.
#[must_use]
pub fn create(callback: &CallbackReceived, claims: &Claims, facts: Option<&OfferFacts>, ours: &[Region]) -> Decision {
    let Some(facts) = facts.filter(|facts| facts.token_matches) else {
        return Decision::Stranger(Refusal::NoSuchOffer);
    };
    match offer_stands(callback, facts)
        .and_then(|()| rotation::begin(&facts.ids, named(claims)).map(drop))
        .and_then(|()| claims_agree(callback, claims, facts.principal.as_ref(), ours))
        .and_then(|()| is_free(callback, facts))
    {
        Ok(()) => Decision::Verify,
        Err(_) if facts.refusals >= MOST_REFUSALS => Decision::Stranger(Refusal::TooManyAttempts),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// An Update: `facts` are of the connection with the request's physical ID, if there is one.
#[must_use]
pub fn update(
    callback: &CallbackReceived,
    claims: &Claims,
    facts: Option<&ConnectionFacts>,
    ours: &[Region],
) -> Decision {
    let Some(facts) = facts.filter(|facts| facts.stack == callback.key.stack_id) else {
        return Decision::Stranger(Refusal::NoSuchConnection);
    };
    if !facts.token_matches {
        return Decision::Stranger(Refusal::OtherToken);
    }
    let checked = if is_gone(facts.tenant) {
        Err(Refusal::TenantGone)
    } else if ENDED.contains(&facts.state) {
        Err(Refusal::NoSuchConnection)
    } else if !OWNING.contains(&facts.state) {
        // Its own role is not proven yet, and nothing else may be proven in its place.
        Err(Refusal::StillVerifying)
    } else {
        rotation::update(&facts.ids, named(claims))
            .and_then(|_| claims_agree(callback, claims, facts.principal.as_ref(), ours))
    };
    checked.map_or_else(Decision::Refuse, |()| Decision::Verify)
}

/// A Delete: `facts` as in [`update`].
#[must_use]
pub fn delete(callback: &CallbackReceived, facts: Option<&ConnectionFacts>) -> DeleteDecision {
    match facts {
        None => DeleteDecision::Nothing("unknown-connection"),
        Some(facts) if facts.stack != callback.key.stack_id => DeleteDecision::Nothing("other-stack"),
        Some(facts) if !facts.token_matches => DeleteDecision::Nothing("wrong-token"),
        Some(facts) if ENDED.contains(&facts.state) => DeleteDecision::Nothing("ended-already"),
        Some(_) => DeleteDecision::Confirm,
    }
}

/// The external IDs that a request names.
#[must_use]
pub fn named(claims: &Claims) -> Named<'_> {
    Named { external_id: &claims.external_id, previous: claims.previous_external_id.as_ref() }
}

const fn is_gone(tenant: TenantState) -> bool {
    matches!(tenant, TenantState::Deleting | TenantState::Deleted)
}

fn offer_stands(callback: &CallbackReceived, facts: &OfferFacts) -> Result<(), Refusal> {
    if is_gone(facts.tenant) {
        return Err(Refusal::TenantGone);
    }
    let bound_here = facts.bound_stack.as_ref() == Some(&callback.key.stack_id);
    match facts.state {
        EnrollmentState::Cancelled => return Err(Refusal::OfferCancelled),
        EnrollmentState::Expired => return Err(Refusal::OfferExpired),
        EnrollmentState::Used if bound_here => return Err(Refusal::StackConnected),
        EnrollmentState::Used => return Err(Refusal::OfferUsed),
        EnrollmentState::Open => {}
    }
    if facts.tenant != TenantState::Active {
        return Err(Refusal::TenantSuspended);
    }
    let stack = callback.key.stack_id.account();
    match &facts.account {
        Some(offered) if offered != stack => {
            Err(Refusal::OtherAccountThanOffered { offered: offered.clone(), stack: stack.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether body, stack ID and role ARN tell one story. What they tell is then still to be proven by the probe.
fn claims_agree(
    callback: &CallbackReceived,
    claims: &Claims,
    principal: Option<&RoleArn>,
    ours: &[Region],
) -> Result<(), Refusal> {
    let stack = &callback.key.stack_id;
    let principal = principal.ok_or(Refusal::PrincipalMissing)?;
    if &claims.account != stack.account() {
        return Err(Refusal::ClaimedAccountDiffers { claimed: claims.account.clone(), stack: stack.account().clone() });
    }
    if claims.role_arn.account() != stack.account() {
        return Err(Refusal::RoleOfOtherAccount {
            role: claims.role_arn.account().clone(),
            stack: stack.account().clone(),
        });
    }
    let elsewhere = |partition: &Partition| partition != stack.partition();
    if elsewhere(claims.role_arn.partition()) || elsewhere(principal.partition()) {
        return Err(Refusal::OtherPartition);
    }
    if &claims.region != stack.region() {
        return Err(Refusal::ClaimedRegionDiffers { claimed: claims.region.clone(), stack: stack.region().clone() });
    }
    if !ours.contains(stack.region()) {
        let ours = ours.iter().map(Region::as_str).collect::<Vec<_>>().join(", ");
        return Err(Refusal::RegionNotOurs { region: stack.region().clone(), ours });
    }
    Ok(())
}

fn is_free(callback: &CallbackReceived, facts: &OfferFacts) -> Result<(), Refusal> {
    if facts.stack_connected {
        return Err(Refusal::StackConnected);
    }
    if facts.account_connected {
        return Err(Refusal::AccountConnected { account: callback.key.stack_id.account().clone() });
    }
    Ok(())
}

const PHYSICAL_PREFIX: &str = "rolebridge-";

/// The physical ID for what never became a connection. CloudFormation wants one all the same, and sends it back in its Delete.
pub const NO_CONNECTION: &str = "rolebridge-none";

/// The physical resource ID of a connection, the same over its whole life.
#[must_use]
pub fn physical_id(connection: ConnectionId) -> String {
    format!("{PHYSICAL_PREFIX}{connection}")
}

/// The connection that a physical resource ID of ours names.
#[must_use]
pub fn named_connection(physical_id: Option<&str>) -> Option<ConnectionId> {
    physical_id?.strip_prefix(PHYSICAL_PREFIX)?.parse().ok()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
