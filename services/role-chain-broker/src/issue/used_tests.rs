use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[derive(Clone, Default)]
struct Heard {
    reports: Arc<Mutex<Vec<Vec<Used>>>>,
    deaf: Arc<AtomicBool>,
}

impl Heard {
    fn sizes(&self) -> Vec<usize> {
        self.reports.lock().unwrap().iter().map(Vec::len).collect()
    }
}

#[async_trait]
impl Reports for Heard {
    async fn report(&self, used: ConnectionsUsed) -> bool {
        if self.deaf.load(Ordering::SeqCst) {
            return false;
        }
        self.reports.lock().unwrap().push(used.used);
        true
    }
}

fn start(heard: &Heard) -> (UsedConnections, CancellationToken, tokio::task::JoinHandle<Result<(), Infallible>>) {
    let (used, stop) = (UsedConnections::default(), CancellationToken::new());
    let task = tokio::spawn(tell(used.clone(), heard.clone(), stop.clone()));
    (used, stop, task)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_is_told_at_once_and_the_rest_together_later() {
    let heard = Heard::default();
    let (used, stop, task) = start(&heard);
    let (tenant, one, other) = (TenantId::new(), ConnectionId::new(), ConnectionId::new());
    used.note(tenant, one);
    pass(1).await;
    assert_eq!(heard.sizes(), [1]);
    for _ in 0..100 {
        used.note(tenant, one);
        used.note(tenant, other);
    }
    pass(20).await;
    assert_eq!(heard.sizes(), [1], "not within half a minute");
    pass(10).await;
    assert_eq!(heard.sizes(), [1, 2], "each connection once");
    pass(600).await;
    assert_eq!(heard.sizes(), [1, 2], "nothing new, nothing told");

    used.note(tenant, one);
    stop.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(heard.sizes(), [1, 2, 1], "the last word");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_is_told_later_and_a_message_stays_small() {
    let heard = Heard::default();
    heard.deaf.store(true, Ordering::SeqCst);
    let (used, _stop, _task) = start(&heard);
    for _ in 0..2500 {
        used.note(TenantId::new(), ConnectionId::new());
    }
    pass(40).await;
    assert!(heard.sizes().is_empty());
    heard.deaf.store(false, Ordering::SeqCst);
    pass(40).await;
    assert_eq!(heard.sizes(), [1000, 1000, 500]);
}

#[test]
fn the_later_time_stays() {
    let used = UsedConnections::default();
    let (tenant, connection, now) = (TenantId::new(), ConnectionId::new(), Timestamp::now());
    let earlier = Timestamp::from(now.inner() - Duration::from_secs(9));
    used.put(Used { tenant, connection, at: now });
    used.put(Used { tenant, connection, at: earlier });
    assert_eq!(used.take(), [Used { tenant, connection, at: now }]);
    assert!(used.take().is_empty());
}
