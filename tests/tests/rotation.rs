//! An external ID is changed by real updates of a real stack, while a job asks for credentials all the time; and stacks that would like another one.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use common::{Launched, PATIENCE, World, looks::job, until};
use contracts::{
    ExternalId,
    connection::{Connection, ConnectionState},
    credentials::Purpose,
    enrollment::{GetEnrollment, RotateExternalId, RotationState},
    tenant::{Empty, WithReason},
    verification::{Probe, ProbeOutcome},
};
use sandbox::{REGION, StackRequest, StackState, System};

/// A job that asks for credentials and uses them, again and again, and what went wrong.
struct Asking {
    over: Arc<AtomicBool>,
    good: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Asking {
    async fn begin(world: &Arc<World>, connection: &Connection) -> Self {
        let client = job(world).await;
        let (tenant, id, account) = (connection.tenant, connection.connection, connection.account.to_string());
        let world = world.clone();
        let (over, good) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (ends, counted) = (over.clone(), good.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !ends.load(Ordering::SeqCst) {
                let credentials = match client.issue(tenant, id, Purpose::CostRead).await {
                    Ok((_, credentials)) => credentials,
                    Err(error) => {
                        failures.push(error.to_string());
                        continue;
                    }
                };
                let token = credentials.session_token.expose().to_owned();
                let secret = credentials.secret_access_key.expose();
                let key = aws_credential_types::Credentials::new(
                    &credentials.access_key_id,
                    secret,
                    Some(token),
                    None,
                    "job",
                );
                match world.system.emulator.caller_identity(REGION, key).await {
                    Ok(identity) if identity.account == account => *counted.lock().expect("a count") += 1,
                    Ok(identity) => failures.push(format!("a session of {}", identity.account)),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        });
        Self { over, good, task }
    }

    fn count(&self) -> usize {
        *self.good.lock().expect("a count")
    }

    /// Some more have come, all from now on.
    async fn goes_on(&self) {
        let before = self.count();
        assert!(until(PATIENCE, async || self.count() > before + 2).await, "the job stands still");
    }

    async fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::SeqCst);
        self.task.await.expect("the job ends")
    }
}

async fn rotate(world: &World, launched: &Launched) -> ExternalId {
    let enrollment = launched.offer.enrollment.enrollment;
    let reason = WithReason { reason: "once a year".to_owned() };
    let subject = RotateExternalId::subject(launched.tenant, enrollment);
    let offer = world.bus.request::<RotateExternalId>(subject, &reason, PATIENCE).await.expect("a new external ID");
    for (commands, previous) in [(&offer.begin, launched.offer.external_id.as_str()), (&offer.finish, "")] {
        let [command] = commands.as_slice() else { panic!("{commands:?}") };
        let set = |name: &str, value: &str| format!(r#"{{"ParameterKey":"{name}","ParameterValue":"{value}"}}"#);
        assert!(command.contains(&launched.stack), "{command}");
        assert!(command.contains(&set("PreviousExternalId", previous)), "{command}");
        assert!(command.contains(&set("ExternalId", offer.external_id.as_str())), "{command}");
    }
    offer.external_id
}

/// The stack with these external IDs.
fn update(launched: &Launched, external_id: &ExternalId, previous: &str) -> StackRequest {
    System::customer_stack("rolebridge", &launched.offer.parameters)
        .parameter("ExternalId", external_id.as_str())
        .parameter("PreviousExternalId", previous)
}

/// Updates the stack and waits for its end.
async fn updated(world: &World, launched: &Launched, request: &StackRequest) -> StackState {
    launched.account.update_stack(request).await.expect("an update begins");
    let end = |state: &StackState| state.status.starts_with("UPDATE_") && state.is_final();
    let ended = launched.account.wait_stack(&launched.stack, PATIENCE, end).await;
    ended.unwrap_or_else(|error| panic!("{error}\n{}", world.complaints()))
}

async fn completed(world: &World, launched: &Launched, request: &StackRequest) {
    let state = updated(world, launched, request).await;
    assert_eq!(state.status, "UPDATE_COMPLETE", "{:?}\n{}", state.failure, world.complaints());
}

async fn stands(world: &World, launched: &Launched, expected: RotationState) -> Connection {
    let connection = world.only_connection(launched.tenant).await;
    assert_eq!((connection.state, connection.rotation), (ConnectionState::Verified, Some(expected)));
    let subject = GetEnrollment::subject(launched.tenant, launched.offer.enrollment.enrollment);
    let enrollment = world.bus.request::<GetEnrollment>(subject, &Empty {}, PATIENCE).await.expect("the enrollment");
    assert_eq!(enrollment.rotation, Some(expected));
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_is_changed_by_two_updates_without_one_failure_of_a_job() {
    let mut world = World::start().await;
    let (launched, before) = world.connect("Acme").await;
    let world = Arc::new(world);
    let asking = Asking::begin(&world, &before).await;
    asking.goes_on().await;
    let old = launched.offer.external_id.as_str().to_owned();
    let new = rotate(&world, &launched).await;
    stands(&world, &launched, RotationState::Offered).await;
    asking.goes_on().await;

    completed(&world, &launched, &update(&launched, &new, &old)).await;
    stands(&world, &launched, RotationState::Overlapping).await;
    asking.goes_on().await;

    // A stack whose request says that the old one is gone, while its trust policy still names it, is not believed.
    let mut liar = update(&launched, &new, &old);
    let lie = "      PreviousExternalId: \"\"\n";
    liar.template = liar.template.replace("      PreviousExternalId: !Ref PreviousExternalId\n", lie);
    assert!(liar.template.contains(lie));
    let state = updated(&world, &launched, &liar).await;
    assert_eq!(state.status, "UPDATE_ROLLBACK_COMPLETE", "{:?}", state.failure);
    let reason = state.failure.expect("a reason").reason;
    assert!(reason.contains("still be assumed with the external ID that was replaced"), "{reason}");
    world.quiet().await;
    stands(&world, &launched, RotationState::Overlapping).await;
    asking.goes_on().await;

    completed(&world, &launched, &update(&launched, &new, "")).await;
    let after = stands(&world, &launched, RotationState::Finished).await;
    asking.goes_on().await;
    let count = asking.count();
    assert_eq!(asking.end().await, Vec::<String>::new(), "after {count} good ones\n{}", world.complaints());
    assert_eq!((after.connection, &after.role_arn), (before.connection, &before.role_arn));
    let retired =
        after.evidence.iter().find(|evidence| evidence.probe == Probe::RetiredId).expect("the old one was tried");
    assert_eq!(retired.outcome, ProbeOutcome::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_17_an_update_with_an_external_id_of_its_own_is_rolled_back_and_the_connection_serves() {
    let mut world = World::start().await;
    let (launched, before) = world.connect("Acme").await;
    let request = update(&launched, &ExternalId::generate(), launched.offer.external_id.as_str());
    let state = updated(&world, &launched, &request).await;
    assert_eq!(state.status, "UPDATE_ROLLBACK_COMPLETE", "{:?}", state.failure);
    let failure = state.failure.expect("a reason");
    assert!(failure.reason.contains("The external ID of a connection cannot change"), "{}", failure.reason);
    world.quiet().await;
    let after = world.only_connection(launched.tenant).await;
    assert_eq!((after.state, after.connection, after.rotation), (ConnectionState::Verified, before.connection, None));
    let client = job(&world).await;
    client.issue(launched.tenant, after.connection, Purpose::CostRead).await.expect("credentials as before");

    // During a change, too, there is but the one that was offered.
    let new = rotate(&world, &launched).await;
    let state = updated(&world, &launched, &update(&launched, &ExternalId::generate(), "")).await;
    assert_eq!(state.status, "UPDATE_ROLLBACK_COMPLETE", "{:?}", state.failure);
    world.quiet().await;
    stands(&world, &launched, RotationState::Offered).await;
    completed(&world, &launched, &update(&launched, &new, launched.offer.external_id.as_str())).await;
    stands(&world, &launched, RotationState::Overlapping).await;
    client.issue(launched.tenant, after.connection, Purpose::CostRead).await.expect("credentials with the new one");
}
