//! The stranger: a principal of our own that is no tenant's. With it a probe asks whether a customer's role lets in more than the one role that
//! its trust policy should name: the whole account, or every role under a path. Hence there is one in each of the provider's accounts.
//!
//! It is made like any tenant's and named like one, so that whatever lets in "a principal of the provider" lets it in. It stands for no
//! customer, so no customer's name gets into another's CloudTrail. Nothing is ever issued for it. Whoever goes through tenants must leave it
//! out; whoever goes through principals (rotation of keys, drift) may treat it as any other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::{AccountId, TenantId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Maker;

/// Of the provider's own account. Reserved: a UUID of version 8, where the registry gives out version 7 alone. Its last half spells `stranger`.
pub const STRANGER: TenantId = TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_8000_b374_7261_6e67_6572));

/// The version, the variant and the word: what every stranger's ID ends with.
const WORD: u128 = 0x8000_b374_7261_6e67_6572;
const BITS_OF_WORD: u32 = 80;

/// The stranger in this account: one that is let in there and nowhere else says nothing about the tenants' own account. Its ID begins with the
/// account's, which is less than 48 bits; that of the provider's own account with nought.
#[must_use]
pub(super) fn of(account: &AccountId, own: &AccountId) -> TenantId {
    if account == own { STRANGER } else { numbered(account) }
}

pub(super) fn numbered(account: &AccountId) -> TenantId {
    let number = account.as_str().parse::<u128>().unwrap_or(0);
    TenantId::from_uuid(Uuid::from_u128((number << BITS_OF_WORD) | WORD))
}

/// Whether this is no tenant but a stranger of ours.
#[must_use]
pub fn is_one(tenant: TenantId) -> bool {
    tenant.as_uuid().as_u128() & ((1 << BITS_OF_WORD) - 1) == WORD
}

/// The account that a stranger must live in; none for tenants.
pub(super) fn account(tenant: TenantId, own: &AccountId) -> Option<AccountId> {
    let number = is_one(tenant).then_some(tenant.as_uuid().as_u128() >> BITS_OF_WORD)?;
    if number == 0 { Some(own.clone()) } else { AccountId::parse(&format!("{number:012}")).ok() }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Makes the stranger of each account, or sees that it stands, and then only waits for shutdown. Any number of instances may do so at once.
///
/// Cancel: ends at once; whoever starts next goes on. Failure: tried again with growing pauses for as long as it takes; until then probes by
/// another principal are left out of the evidence, and nothing else is missing.
///
/// # Errors
/// Never.
pub async fn keep(maker: Arc<Maker>, shutdown: CancellationToken) -> Result<(), Infallible> {
    let accounts = maker.accounts.clone();
    let strangers = accounts.ids().map(|account| make(&maker, account, of(account, accounts.own())));
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        _ = futures::future::join_all(strangers) => {}
    }
    shutdown.cancelled().await;
    Ok(())
}

async fn make(maker: &Maker, account: &AccountId, stranger: TenantId) {
    let backoff = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    let mut pauses = backoff.with_jitter().without_max_times().build();
    while let Err(error) = maker.make(stranger).await {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::info!(%account, cause, "the principal for probes by another does not stand yet, it is tried again: {error}");
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
    tracing::info!(%account, "the principal for probes by another stands");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Principals, fake::Bench};

    #[test]
    fn no_registry_gives_out_its_id() {
        assert_eq!(STRANGER.as_uuid().get_version_num(), 8);
        assert_eq!(STRANGER.as_uuid().get_variant(), uuid::Variant::RFC4122);
        assert_ne!(TenantId::new().as_uuid().get_version_num(), 8);
        assert!(STRANGER.as_uuid().as_bytes().ends_with(b"tranger"));
    }

    #[test]
    fn each_account_has_its_own() {
        let own = AccountId::parse("111111111111").unwrap();
        assert_eq!(of(&own, &own), STRANGER);
        for id in ["000000000012", "999999999999"] {
            let other = AccountId::parse(id).unwrap();
            let stranger = of(&other, &own);
            assert_ne!(stranger, STRANGER);
            assert!(is_one(stranger) && is_one(STRANGER) && !is_one(TenantId::new()));
            assert_eq!(account(stranger, &own), Some(other));
            assert_eq!(stranger.as_uuid().get_version_num(), 8);
            assert_eq!(stranger.as_uuid().get_variant(), uuid::Variant::RFC4122);
        }
        assert_eq!(account(STRANGER, &own), Some(own.clone()));
        assert_eq!(account(TenantId::new(), &own), None);
    }

    #[tokio::test(start_paused = true)]
    async fn several_instances_make_one() {
        let bench = Bench::default();
        let (store, wrapper) = (bench.store.clone(), bench.wrapper.clone());
        let (maker, stop) = (bench.maker, CancellationToken::new());
        let instances: Vec<_> = (0..3).map(|_| tokio::spawn(keep(maker.clone(), stop.clone()))).collect();
        let principals = Principals::new(store, wrapper);
        while principals.of(STRANGER).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        for instance in instances {
            instance.await.unwrap().unwrap();
        }
        let world = bench.iam.world.lock().unwrap();
        assert_eq!((world.users.len(), world.roles.len()), (1, 1));
        assert!(world.most_keys <= 2);
    }
}
