//! The stranger: a principal of our own that is no tenant's. With it a probe asks whether a customer's role lets in more than the one role that
//! its trust policy should name: the whole account, or every role under a path.
//!
//! It is made like any tenant's and named like one, so that whatever lets in "a principal of the provider" lets it in. It stands for no
//! customer, so no customer's name gets into another's CloudTrail. Nothing is ever issued for it. Whoever goes through tenants must leave it
//! out; whoever goes through principals (rotation of keys, drift) may treat it as any other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::TenantId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Maker;

/// Reserved: a UUID of version 8, where the registry gives out version 7 alone. Its last half spells `stranger`.
pub const STRANGER: TenantId = TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_8000_b374_7261_6e67_6572));

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Makes the stranger, or sees that it stands, and then only waits for shutdown. Any number of instances may do so at once.
///
/// Cancel: ends at once; whoever starts next goes on. Failure: tried again with growing pauses for as long as it takes; until then probes by
/// another principal are left out of the evidence, and nothing else is missing.
///
/// # Errors
/// Never.
pub async fn keep(maker: Arc<Maker>, shutdown: CancellationToken) -> Result<(), Infallible> {
    let backoff = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    let mut pauses = backoff.with_jitter().without_max_times().build();
    let make = async {
        while let Err(error) = maker.make(STRANGER).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::info!(cause, "the principal for probes by another does not stand yet, it is tried again: {error}");
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = make => tracing::info!("the principal for probes by another stands"),
    }
    shutdown.cancelled().await;
    Ok(())
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
