//! How many requests of a wrong form are answered: each makes us send a request of our own. Whoever sends one is a stranger, for there is no token to
//! be compared.

use std::time::{Duration, Instant};

use contracts::{AccountId, callback::CallbackKey};
use moka::future::Cache;
use runtime::quota::{PerMinute, Quota};

/// A message that could not be answered comes again for about so long.
const COMES_AGAIN: Duration = Duration::from_secs(900);
/// What the usual limits admit in that time; one is some 300 bytes.
const MOST_ADMITTED: u64 = 10_000;

/// Those of this minute.
pub struct Strangers {
    quota: Quota<AccountId>,
    /// Requests that count already: a delivery that comes again, because the answer did not get through, is not turned away then.
    admitted: Cache<CallbackKey, ()>,
}

impl Strangers {
    #[must_use]
    pub fn new(limits: PerMinute) -> Self {
        let admitted = Cache::builder().max_capacity(MOST_ADMITTED).time_to_live(COMES_AGAIN).build();
        Self { quota: Quota::new(limits), admitted }
    }

    /// Whether this request is answered. The account is a claim of its sender.
    pub(super) async fn admit(&self, key: &CallbackKey) -> bool {
        if self.admitted.contains_key(key) {
            return true;
        }
        let admitted = self.quota.admit(key.stack_id.account(), Instant::now());
        if admitted {
            self.admitted.insert(key.clone(), ()).await;
        }
        admitted
    }
}
