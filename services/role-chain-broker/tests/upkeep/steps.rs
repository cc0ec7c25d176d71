//! The broker is killed at every step of the change of a key: each call to IAM, KMS and STS, and each write of the record and of the event, that a whole
//! change makes, before it has happened and after.

use super::{common::gate::*, common::world_under_kms, *};

/// Worlds that share the steps: most of the time is waiting.
const WORLDS: usize = 3;

/// A broker whose every step about one tenant can be held. Between two changes it is dead.
struct Changing {
    world: World,
    tenant: Tenant,
    gate: Gate,
    changes: usize,
}

impl Changing {
    async fn new() -> Self {
        let at_once =
            [("ROLEBRIDGE_RECONCILE_INTERVAL", "1"), ("ROLEBRIDGE_KEY_GRACE", "0"), ("ROLEBRIDGE_SETTLE_SECONDS", "0")];
        let at_once = at_once.map(|(name, value)| (name, value.to_owned()));
        let mut world = world_under_kms(|_, _| at_once.into()).await;
        let tenant = world.tenant().await;
        world.broker.kill();
        let gate = Gate::before(&world.emulator.endpoint(), &world.nats.url(), tenant.id).await;
        for (name, value) in gate.variables() {
            world.broker.set_variable(name, value);
        }
        Self { world, tenant, gate, changes: 0 }
    }

    fn log(&self) -> String {
        self.world.broker.log_text()
    }

    /// The key is due, and whoever was at work has died long ago. Gives the keys of before.
    async fn is_due(&mut self) -> Vec<String> {
        self.world.broker.kill();
        record(&self.world, self.tenant.id, |record| {
            let record = record.as_object_mut().unwrap();
            record.insert("made_at".to_owned(), json!("2020-01-01T00:00:00Z"));
            record.remove("lease");
            record.remove("looked_at");
            true
        })
        .await;
        keys(&self.world, self.tenant.id).await
    }

    /// The change has ended: it was told once, and nobody is at work any more.
    async fn ends(&mut self) {
        let (world, tenant, changes) = (&self.world, self.tenant.id, self.changes);
        until(world, "the end of the change", async || {
            let record = record(world, tenant, |_| false).await;
            let at_work = record.get("rotation").is_some() || record.get("lease").is_some();
            let told = told::<CredentialsRotated>(world, tenant).await.len();
            assert!(told <= changes + 1, "told twice");
            (!at_work && told == changes + 1).then_some(())
        })
        .await;
        self.changes += 1;
    }

    /// What a whole change does, in order.
    async fn whole(&mut self) -> Vec<String> {
        self.is_due().await;
        self.gate.hold(None);
        self.world.broker.restart().unwrap();
        self.ends().await;
        let mut steps = self.gate.steps();
        let told = steps.iter().position(|step| step == "event credentials.rotated").unwrap();
        // Then the record says so, and the lease is given back; what follows is the next look.
        steps.truncate(told + 3);
        steps
    }

    /// Never none that works, never a third.
    async fn keys_are_right(&self, what: &str) {
        let user = name(self.tenant.id);
        let listed = self.world.iam(PROVIDER).list_access_keys().user_name(user).send().await.unwrap();
        let keys = listed.access_key_metadata();
        let active = keys.iter().filter(|key| key.status().is_some_and(|status| status.as_str() == "Active")).count();
        assert!((1..=2).contains(&keys.len()) && active >= 1, "{what}: {active} of {} keys work", keys.len());
    }

    async fn is_killed(&mut self, number: usize, step: &str, when: When) {
        let what = format!("killed {when:?} step {number}, {step}");
        let before = self.is_due().await;
        assert_eq!(before.len(), 1, "{what}");
        self.gate.hold(Some((Which::Number(number), when)));
        self.world.broker.restart().unwrap();
        assert!(self.gate.reached(PATIENCE).await, "{what}: not reached; {:?}\n{}", self.gate.steps(), self.log());
        assert_eq!(self.gate.steps().get(number).map(String::as_str), Some(step), "{what}");
        self.keys_are_right(&what).await;
        // The change stands still there; requests do not.
        self.world.broker.wait_ready(PATIENCE).await.unwrap();
        issue_anew(&self.world, &self.tenant).await.unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.log()));
        self.world.broker.kill();
        self.gate.let_go(false);
        self.keys_are_right(&what).await;
        // As if the dead one's lease had run out.
        record(&self.world, self.tenant.id, |record| record.as_object_mut().unwrap().remove("lease").is_some()).await;
        self.world.broker.restart().unwrap();
        self.world.broker.wait_ready(PATIENCE).await.unwrap();
        self.ends().await;
        let after = keys(&self.world, self.tenant.id).await;
        assert_eq!(after.len(), 1, "{what}: one that nobody knows is left");
        assert!(!before.contains(&after[0]), "{what}: the old one is left");
        issue_anew(&self.world, &self.tenant).await.unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_30_the_broker_is_killed_at_each_step() {
    let worlds = futures::future::join_all([(); WORLDS].map(|()| Changing::new())).await;
    let each = worlds.into_iter().enumerate().map(|(place, mut changing)| async move {
        let steps = changing.whole().await;
        let cases = steps.iter().enumerate().flat_map(|(number, step)| {
            let after = has_effect(step).then_some((number, When::After));
            std::iter::once((number, When::Before)).chain(after)
        });
        let cases: Vec<_> = cases.collect();
        for (number, when) in cases.iter().skip(place).step_by(WORLDS) {
            changing.is_killed(*number, &steps[*number], *when).await;
        }
        let drifts = told::<PrincipalDrift>(&changing.world, changing.tenant.id).await;
        assert!(drifts.is_empty(), "what a dead one left is no drift: {drifts:?}");
        (steps, cases.len())
    });
    let done = futures::future::join_all(each).await;
    let (steps, cases) = &done[0];
    assert!(done.iter().all(|one| one == &done[0]), "the worlds did not go through the same steps: {done:?}");
    for expected in ["Encrypt", "Decrypt", "AssumeRole", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"] {
        assert!(steps.iter().any(|step| step == expected), "{expected} is no step: {steps:?}");
    }
    let records = steps.iter().filter(|step| *step == "record").count();
    assert_eq!(records, 6, "lease, making, proving, retiring, ready, lease: {steps:?}");
    assert!(*cases > steps.len() + records, "{cases}");
}
