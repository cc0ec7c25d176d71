//! Two brokers and one change: whoever holds the lease is alone at the principal, however long it takes.

use super::{common::gate::*, *};

#[tokio::test]
async fn attack_30_while_one_broker_is_in_the_middle_of_a_change_the_other_leaves_the_principal_alone() {
    let mut world = quick("0").await;
    let tenant = world.tenant().await;
    world.broker.kill();
    let (aws, nats) = (world.emulator.endpoint(), world.nats.url());
    let (ours, theirs) = (Gate::before(&aws, &nats, tenant.id).await, Gate::before(&aws, &nats, tenant.id).await);
    let before = keys(&world, tenant.id).await;
    record(&world, tenant.id, |record| {
        let record = record.as_object_mut().unwrap();
        record.insert("made_at".to_owned(), json!("2020-01-01T00:00:00Z"));
        record.remove("lease");
        record.remove("looked_at");
        true
    })
    .await;
    // The keys are listed once for the look, and once when the new one is to be made.
    ours.hold(Some((Which::Named("ListAccessKeys", 1), When::Before)));
    for (name, value) in ours.variables() {
        world.broker.set_variable(name, value);
    }
    world.broker.restart().unwrap();
    assert!(ours.reached(PATIENCE).await, "{:?}\n{}", ours.steps(), world.broker.log_text());
    assert_eq!(record(&world, tenant.id, |_| false).await["rotation"]["step"], "making");

    // It is due for the other one as well, which comes upon it in each of its rounds.
    let own = theirs.variables().map(|(name, value)| (name, value.into()));
    let journal = ("ROLEBRIDGE_AUDIT_JOURNAL", world.keys.path().join("twin").into_os_string());
    let mut twin = world.broker.twin(own.into_iter().chain([journal])).unwrap();
    twin.wait_ready(PATIENCE).await.unwrap();
    let left_alone = |broker: &ServiceProcess| {
        let log = broker.log_text();
        let lines = log.lines().filter(|line| line.contains("a principal is left alone"));
        lines.filter(|line| line.contains(&tenant.id.to_string()) && line.contains("Taken")).count()
    };
    let began = Instant::now();
    while left_alone(&twin) < 3 {
        assert_eq!(theirs.steps(), Vec::<String>::new(), "the other one is at it, too");
        assert!(began.elapsed() < PATIENCE, "it never came by:\n{}", twin.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(theirs.steps(), Vec::<String>::new(), "the other one is at it, too");
    issue_anew(&world, &tenant).await.unwrap();

    ours.let_go(true);
    until(&world, "the end of the change", async || {
        let rotating = record(&world, tenant.id, |_| false).await.get("rotation").is_some();
        let told = told::<CredentialsRotated>(&world, tenant.id).await.len();
        (!rotating && told == 1).then_some(())
    })
    .await;
    let after = keys(&world, tenant.id).await;
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    let made = |broker: &ServiceProcess| broker.log_text().matches("a second access key is made").count();
    assert_eq!(made(&world.broker) + made(&twin), 1, "one key was made, and none in vain");
}
