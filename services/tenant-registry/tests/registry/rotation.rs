//! Changing an external ID: the two updates, what CloudFormation rolls back, whole organizations, and everybody who would like another ID.

use std::time::Duration;

use contracts::{
    ErrorCode, ExternalId, JobId, TenantId, Timestamp,
    callback::{Answer, CallbackReceived, RequestType},
    connection::{Connection, ConnectionExternalIdChanged, ConnectionInsecure, ConnectionState, Grant},
    enrollment::{EnrollmentKind, EnrollmentOffer, RotationOffer, RotationState},
    verification::{ConfirmDeletion, Fault, Verdict, VerifyConnection},
};
use rstest::rstest;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait, PaginatorTrait};
use tenant_registry::{
    entity::{At, Id, Text, external_id, job},
    flow::{callbacks::Handled, reports::Reported},
    store::StoreError,
};
use tokio::task::JoinSet;

use crate::{lifecycle::gone, world::*};

const STILL_OPEN: Verdict = Verdict::Failed { fault: Fault::OpenWithRetiredId };

/// A tenant's offer with a connection, and what its operator does.
struct Rotating {
    world: World,
    tenant: TenantId,
    offer: EnrollmentOffer,
    connection: Connection,
}

impl Rotating {
    async fn new(kind: Kind) -> Self {
        let world = World::new(kind).await;
        let (tenant, offer) = world.new_offer("a").await;
        let connection = world.connect(&offer, CUSTOMER, "0a").await;
        Self { world, tenant, offer, connection }
    }

    async fn rotate(&self) -> Result<RotationOffer, StoreError> {
        let enrollment = self.offer.enrollment.enrollment;
        self.world.registry.rotate_external_id(self.tenant, enrollment, "once a year").await
    }

    async fn cancel(&self) -> Result<Option<RotationState>, StoreError> {
        let enrollment = self.offer.enrollment.enrollment;
        let cancelled = self.world.registry.cancel_rotation(self.tenant, enrollment, "not now").await;
        cancelled.map(|enrollment| enrollment.rotation)
    }

    async fn now(&self) -> Connection {
        self.world.registry.get_connection(self.tenant, self.connection.connection).await.unwrap()
    }

    async fn rotation(&self) -> (Option<RotationState>, Option<RotationState>) {
        let enrollment = self.world.registry.get_enrollment(self.tenant, self.offer.enrollment.enrollment).await;
        (enrollment.unwrap().rotation, self.now().await.rotation)
    }

    fn update(&self, external_id: &ExternalId, previous: Option<&ExternalId>) -> CallbackReceived {
        update_of(&self.offer, &self.connection, "0a", external_id, previous)
    }

    /// An Update, and the job that it makes.
    async fn ordered(
        &self,
        external_id: &ExternalId,
        previous: Option<&ExternalId>,
    ) -> (CallbackReceived, VerifyConnection) {
        let update = self.update(external_id, previous);
        assert_eq!(self.world.send(&update).await, Handled::Verifying);
        (update, self.world.job(&self.connection.role_arn).await)
    }

    /// An Update that comes to this verdict.
    async fn updated(
        &self,
        external_id: &ExternalId,
        previous: Option<&ExternalId>,
        verdict: Verdict,
    ) -> CallbackReceived {
        let (update, job) = self.ordered(external_id, previous).await;
        assert_eq!(self.world.report(&report(&job, verdict)).await, Reported::Applied);
        update
    }

    async fn granted(&self) -> ExternalId {
        self.world.flush().await;
        self.world.bus.of::<Grant>().last().unwrap().external_id.clone()
    }

    async fn turns(&self) -> Vec<RotationState> {
        self.world.flush().await;
        self.world.bus.of::<ConnectionExternalIdChanged>().into_iter().map(|event| event.rotation).collect()
    }

    async fn succeeded(&self, update: &CallbackReceived) -> bool {
        let [answer] = self.world.answers(update).await.try_into().unwrap();
        assert_eq!(answer.physical_resource_id, format!("rolebridge-{}", self.connection.connection));
        matches!(answer.answer, Answer::Success { .. })
    }
}

fn update_of(
    offer: &EnrollmentOffer,
    connection: &Connection,
    name: &str,
    external_id: &ExternalId,
    previous: Option<&ExternalId>,
) -> CallbackReceived {
    let mut update = callback(offer, RequestType::Update, connection.account.as_str(), name);
    update.physical_resource_id = Some(format!("rolebridge-{}", connection.connection));
    let claims = update.claims.as_mut().unwrap();
    (claims.external_id, claims.previous_external_id) = (external_id.clone(), previous.cloned());
    update
}

fn code(result: Result<impl std::fmt::Debug, StoreError>) -> ErrorCode {
    match result {
        Err(StoreError::Refused(reply)) => reply.code,
        other => panic!("a refusal expected, but {other:?}"),
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_is_changed_in_two_updates_and_the_old_one_serves_meanwhile(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    assert_eq!(rotating.rotation().await, (None, None));
    let new = rotating.rotate().await.unwrap().external_id;
    assert_ne!(new, old);
    assert_eq!(rotating.rotate().await.unwrap().external_id, new, "repeatable");
    assert_eq!(rotating.rotation().await, (Some(RotationState::Offered), Some(RotationState::Offered)));

    let (begin, job) = rotating.ordered(&new, Some(&old)).await;
    assert_eq!((&job.external_id, &job.retired_external_id), (&new, &None));
    assert_eq!(rotating.granted().await, old, "the old one serves until the new one is proven");
    rotating.world.report(&report(&job, Verdict::Held)).await;
    assert!(rotating.succeeded(&begin).await);
    assert_eq!(rotating.granted().await, new);
    assert_eq!(rotating.rotation().await, (Some(RotationState::Overlapping), Some(RotationState::Overlapping)));
    assert_eq!(rotating.rotate().await.unwrap().external_id, new, "the commands are shown again");

    // The second update, while the old ID is still there: nothing gets worse by it.
    let early = rotating.updated(&new, None, STILL_OPEN).await;
    assert!(rotating.world.reason(&early).await.contains("PreviousExternalId empty"));
    assert_eq!(rotating.now().await.state, ConnectionState::Verified);
    assert!(rotating.world.bus.of::<ConnectionInsecure>().is_empty());

    let (finish, job) = rotating.ordered(&new, None).await;
    assert_eq!((&job.external_id, &job.retired_external_id), (&new, &Some(old.clone())));
    rotating.world.report(&report(&job, Verdict::Held)).await;
    assert!(rotating.succeeded(&finish).await);
    assert_eq!(rotating.rotation().await, (Some(RotationState::Finished), Some(RotationState::Finished)));
    assert_eq!(rotating.turns().await, [RotationState::Overlapping, RotationState::Finished]);
    assert_eq!(rotating.granted().await, new);
    let audited = rotating.world.audited(rotating.tenant).await;
    for action in ["enrollment.rotation-offered", "connection.external-id-changed", "enrollment.rotation-finished"] {
        assert!(audited.iter().any(|line| line == action), "{action} in {audited:?}");
    }

    // From now on the old one must stay refused, and counts for nothing.
    let (_, job) = rotating.ordered(&new, None).await;
    assert_eq!(job.retired_external_id, Some(old.clone()));
    rotating.world.report(&report(&job, STILL_OPEN)).await;
    assert_eq!(rotating.now().await.state, ConnectionState::Insecure, "a trust that names it again is loosened");
    assert_eq!(rotating.world.send(&rotating.update(&old, None)).await, Handled::Refused);
    let again = callback(&rotating.offer, RequestType::Create, "333333333333", "0c");
    assert_eq!(rotating.world.send(&again).await, Handled::Stranger, "no stack may begin with it");
    let newer = rotating.rotate().await.unwrap().external_id;
    assert!(newer != new && newer != old);
    assert_eq!(external_id::Entity::find().count(rotating.world.store.db()).await.unwrap(), 3);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_17_an_update_with_any_other_external_id_is_refused_and_a_new_one_that_fails_is_not_taken(
    #[case] kind: Kind,
) {
    let rotating = Rotating::new(kind).await;
    let (old, stranger) = (rotating.offer.external_id.clone(), ExternalId::generate());
    for (external_id, previous) in [(&stranger, None), (&stranger, Some(&old)), (&old, Some(&stranger))] {
        let update = rotating.update(external_id, previous);
        assert_eq!(rotating.world.send(&update).await, Handled::Refused);
        rotating.world.reason(&update).await;
    }
    let new = rotating.rotate().await.unwrap().external_id;
    for (external_id, previous) in [(&stranger, Some(&old)), (&new, Some(&stranger)), (&old, Some(&new))] {
        assert_eq!(rotating.world.send(&rotating.update(external_id, previous)).await, Handled::Refused);
    }
    // Another tenant's new ID is another ID like any.
    let (_, other) = rotating.world.new_offer("b").await;
    assert_eq!(rotating.world.send(&rotating.update(&other.external_id, Some(&old))).await, Handled::Refused);

    let before = rotating.now().await;
    for verdict in [REFUSED, STILL_OPEN, Verdict::Indeterminate] {
        let failed = rotating.updated(&new, Some(&old), verdict).await;
        rotating.world.reason(&failed).await;
        let after = rotating.now().await;
        let as_before = Connection { next_probe_at: after.next_probe_at, ..before.clone() };
        assert_eq!(after, as_before, "after {verdict:?} the old one serves on");
    }
    assert_eq!(rotating.granted().await, old);
    assert!(rotating.turns().await.is_empty());
    // And then it works.
    let good = rotating.updated(&new, Some(&old), Verdict::Held).await;
    assert!(rotating.succeeded(&good).await);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn what_cloudformation_rolls_back_is_proven_again_and_serves(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    let new = rotating.rotate().await.unwrap().external_id;
    let both = Some(&old);
    let course = [
        (&new, both, &new, RotationState::Overlapping),
        (&old, None, &old, RotationState::Offered),
        (&new, both, &new, RotationState::Overlapping),
        (&new, None, &new, RotationState::Finished),
        (&new, both, &new, RotationState::Overlapping),
        (&new, None, &new, RotationState::Finished),
    ];
    let mut turns = Vec::new();
    for (external_id, previous, serves, state) in course {
        let update = rotating.updated(external_id, previous, Verdict::Held).await;
        assert!(rotating.succeeded(&update).await);
        assert_eq!(&rotating.granted().await, serves);
        assert_eq!(rotating.rotation().await, (Some(state), Some(state)));
        assert_eq!(rotating.now().await.state, ConnectionState::Verified);
        turns.push(state);
    }
    assert_eq!(rotating.turns().await, turns);
    // Both at once; its rollback is to an ID that was seen to be refused.
    let newer = rotating.rotate().await.unwrap().external_id;
    let (_, job) = rotating.ordered(&newer, None).await;
    assert_eq!(job.retired_external_id, Some(new.clone()), "the one that it goes by is to be refused");
    rotating.world.report(&report(&job, Verdict::Held)).await;
    assert_eq!(rotating.rotation().await.0, Some(RotationState::Finished));
    assert_eq!(rotating.granted().await, newer);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_the_old_id_that_was_under_way_says_nothing_of_the_new_one(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    let new = rotating.rotate().await.unwrap().external_id;
    let (_, job) = rotating.ordered(&new, None).await;
    let scheduled = JobId::new();
    let row = job::ActiveModel {
        id: Set(Id(scheduled)),
        tenant_id: Set(Id(rotating.tenant)),
        connection_id: Set(Id(rotating.connection.connection)),
        kind: Set(Text(job::JobKind::Verify)),
        role_arn: Set(Text(rotating.connection.role_arn.clone())),
        cost_export: Set(None),
        callback_id: Set(None),
        deadline: Set(At(Timestamp::now().plus(Duration::from_secs(60)))),
        created_at: Set(At::now()),
        external_id: Set(Some(Text(old))),
        retired_external_id: Set(None),
        template_version: Set(None),
    };
    row.insert(rotating.world.store.db()).await.unwrap();
    rotating.world.report(&report(&job, Verdict::Held)).await;
    let before = rotating.now().await;
    let late = VerifyConnection { job: scheduled, ..job };
    assert_eq!(rotating.world.report(&report(&late, REFUSED)).await, Reported::Applied);
    assert_eq!(rotating.now().await, before);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_organization_changes_account_by_account_and_is_through_with_the_last(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let (enrollment, old) = (offer.enrollment.enrollment, offer.external_id.clone());
    let mut accounts = Vec::new();
    for number in 0..2u64 {
        let account = format!("{}", 300_000_000_000 + number);
        accounts.push(world.connect(&offer, &account, &format!("0{number}")).await);
    }
    let rotation = world.registry.rotate_external_id(tenant, enrollment, "once a year").await.unwrap();
    assert!(rotation.begin.len() == 1 && rotation.begin[0].contains("update-stack-set"), "{:?}", rotation.begin);
    let new = rotation.external_id;
    let at = async || world.registry.get_enrollment(tenant, enrollment).await.unwrap().rotation.unwrap();
    let update = async |index: usize, external_id: &ExternalId, previous: Option<&ExternalId>| {
        let update = update_of(&offer, &accounts[index], &format!("0{index}"), external_id, previous);
        assert_eq!(world.send(&update).await, Handled::Verifying);
        let job = world.job(&accounts[index].role_arn).await;
        world.report(&report(&job, Verdict::Held)).await;
    };
    update(0, &new, Some(&old)).await;
    assert_eq!(at().await, RotationState::Overlapping);
    let of = |index: usize| world.registry.get_connection(tenant, accounts[index].connection);
    assert_eq!(of(1).await.unwrap().rotation, Some(RotationState::Offered), "each changes by itself");

    // Accounts that join meanwhile: with the old ID, with the new one beside it, with the new one alone.
    let mut joined = Vec::new();
    for (number, external_id, previous, begins) in [
        (10u64, &old, None, Some(RotationState::Offered)),
        (11, &new, Some(&old), Some(RotationState::Overlapping)),
        (12, &new, None, None),
    ] {
        let (account, name) = (format!("{}", 300_000_000_000 + number), format!("{number}"));
        let mut create = callback(&offer, RequestType::Create, &account, &name);
        let claims = create.claims.as_mut().unwrap();
        (claims.external_id, claims.previous_external_id) = (external_id.clone(), previous.cloned());
        assert_eq!(world.send(&create).await, Handled::Verifying);
        let job = world.job(&role(&account, &name)).await;
        assert_eq!(&job.external_id, external_id);
        world.report(&report(&job, Verdict::Held)).await;
        let connection = world.connection(&job).await;
        assert_eq!((connection.state, connection.rotation), (ConnectionState::Verified, begins));
        joined.push((connection, name));
    }
    update(0, &new, None).await;
    update(1, &new, Some(&old)).await;
    update(1, &new, None).await;
    assert_eq!(at().await, RotationState::Overlapping, "two that joined are not through");
    let with_both = update_of(&offer, &joined[1].0, &joined[1].1, &new, None);
    world.send(&with_both).await;
    world.report(&report(&world.job(&joined[1].0.role_arn).await, Verdict::Held)).await;
    assert_eq!(at().await, RotationState::Overlapping);
    world.registry.revoke_connection(tenant, joined[0].0.connection, "left").await.unwrap();
    assert_eq!(at().await, RotationState::Finished, "the last that had the old one is gone");
    let late = callback(&offer, RequestType::Create, "399999999999", "99");
    assert_eq!(world.send(&late).await, Handled::Stranger, "the old ID is good for nobody");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_new_id_is_taken_back_only_while_nothing_uses_it(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    assert_eq!(rotating.cancel().await.unwrap(), None, "nothing to take back");
    let first = rotating.rotate().await.unwrap().external_id;
    for _ in 0..2 {
        assert_eq!(rotating.cancel().await.unwrap(), None, "repeatable");
    }
    assert_eq!(rotating.rotation().await, (None, None));
    assert_eq!(rotating.world.send(&rotating.update(&first, Some(&old))).await, Handled::Refused);
    let second = rotating.rotate().await.unwrap().external_id;
    assert_ne!(first, second, "an ID is never offered twice");
    let (update, job) = rotating.ordered(&second, Some(&old)).await;
    assert_eq!(code(rotating.cancel().await), ErrorCode::Conflict, "it is being verified");
    rotating.world.report(&report(&job, Verdict::Held)).await;
    assert!(rotating.succeeded(&update).await);
    assert_eq!(code(rotating.cancel().await), ErrorCode::Conflict, "it is in use");
    rotating.updated(&old, None, Verdict::Held).await;
    assert_eq!(rotating.cancel().await.unwrap(), None, "the stack went back");
    rotating.updated(&old, None, Verdict::Held).await;
    assert_eq!(rotating.granted().await, old);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_verified_can_be_changed_and_only_by_its_tenant(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let (world, tenant) = (&rotating.world, rotating.tenant);
    let unused = world.offer(tenant, EnrollmentKind::Account).await.enrollment.enrollment;
    let rotate = |tenant, enrollment| world.registry.rotate_external_id(tenant, enrollment, "once a year");
    assert_eq!(code(rotate(tenant, unused).await), ErrorCode::Conflict);
    world.registry.cancel_enrollment(tenant, unused, "no longer wanted").await.unwrap();
    assert_eq!(code(rotate(tenant, unused).await), ErrorCode::Conflict);
    let (other, _) = world.new_offer("b").await;
    let mine = rotating.offer.enrollment.enrollment;
    assert_eq!(code(rotate(other, mine).await), ErrorCode::NotFound);
    assert_eq!(code(world.registry.cancel_rotation(other, mine, "mine").await), ErrorCode::NotFound);
    assert_eq!(code(world.registry.rotate_external_id(tenant, mine, "").await), ErrorCode::InvalidRequest);
    world.registry.suspend_tenant(tenant, "unpaid").await.unwrap();
    assert_eq!(code(rotating.rotate().await), ErrorCode::Denied);
    world.registry.resume_tenant(tenant, "paid").await.unwrap();
    world.registry.revoke_connection(tenant, rotating.connection.connection, "over").await.unwrap();
    assert_eq!(code(rotating.rotate().await), ErrorCode::Conflict);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn operators_and_stacks_at_the_same_time_leave_one_new_id_that_serves(#[case] kind: Kind) {
    for _ in 0..3 {
        let rotating = std::sync::Arc::new(Rotating::new(kind).await);
        let mut operators = JoinSet::new();
        for _ in 0..6 {
            let rotating = rotating.clone();
            operators.spawn(async move { rotating.rotate().await.unwrap().external_id });
        }
        let offered = operators.join_all().await;
        assert!(offered.iter().all(|id| *id == offered[0]));
        let (old, new) = (rotating.offer.external_id.clone(), offered[0].clone());
        let (_, job) = rotating.ordered(&new, Some(&old)).await;
        let held = report(&job, Verdict::Held);
        let (a, b) = (rotating.clone(), rotating.clone());
        let (cancelled, reported) = tokio::join!(
            tokio::spawn(async move { a.cancel().await.is_ok() }),
            tokio::spawn(async move { b.world.report(&held).await }),
        );
        assert_eq!((cancelled.unwrap(), reported.unwrap()), (false, Reported::Applied));
        assert_eq!(rotating.granted().await, new);
        assert_eq!(rotating.rotation().await.0, Some(RotationState::Overlapping));
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_for_the_old_id_does_not_end_a_connection_that_goes_by_the_new_one(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    let mut delete = rotating.update(&old, None);
    delete.request_type = RequestType::Delete;
    assert_eq!(rotating.world.send(&delete).await, Handled::Ending);
    rotating.world.flush().await;
    let watch = rotating.world.bus.of::<ConfirmDeletion>().pop().unwrap();
    assert_eq!(watch.external_id, old);
    let new = rotating.rotate().await.unwrap().external_id;
    rotating.updated(&new, Some(&old), Verdict::Held).await;
    rotating.updated(&new, None, Verdict::Held).await;
    assert_eq!(rotating.world.registry.deletion_reported(&gone(&watch, true)).await.unwrap(), Reported::Applied);
    assert_eq!(rotating.now().await.state, ConnectionState::Verified, "the role lets the new ID in");
    let audited = rotating.world.audited(rotating.tenant).await;
    assert!(audited.contains(&"connection.delete-unconfirmed".to_owned()));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_not_named_beside_again_once_another_change_began_or_was_taken_back(#[case] kind: Kind) {
    let rotating = Rotating::new(kind).await;
    let old = rotating.offer.external_id.clone();
    let new = rotating.rotate().await.unwrap().external_id;
    rotating.updated(&new, Some(&old), Verdict::Held).await;
    rotating.updated(&new, None, Verdict::Held).await;
    // Asked for in time, and proven when the next change has begun: it would be found open by the next probe.
    let (late, job) = rotating.ordered(&new, Some(&old)).await;
    rotating.rotate().await.unwrap();
    rotating.world.report(&report(&job, Verdict::Held)).await;
    rotating.world.reason(&late).await;
    assert_eq!(rotating.world.send(&rotating.update(&new, Some(&old))).await, Handled::Refused);
    for _ in 0..2 {
        assert_eq!(rotating.cancel().await.unwrap(), Some(RotationState::Finished), "as it was, and repeatable");
    }
    assert_eq!(rotating.rotation().await, (Some(RotationState::Finished), Some(RotationState::Finished)));
    // At rest the stack may go back to naming both, and is not said to be insecure for it.
    let back = rotating.updated(&new, Some(&old), Verdict::Held).await;
    assert!(rotating.succeeded(&back).await);
    assert_eq!(rotating.rotation().await, (Some(RotationState::Overlapping), Some(RotationState::Overlapping)));
    assert_eq!(code(rotating.rotate().await), ErrorCode::Conflict);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_not_over_by_a_stack_that_was_not_proven_yet(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let enrollment = offer.enrollment.enrollment;
    let first = world.connect(&offer, "300000000000", "00").await;
    let new = world.registry.rotate_external_id(tenant, enrollment, "once a year").await.unwrap().external_id;
    let at = async || world.registry.get_enrollment(tenant, enrollment).await.unwrap().rotation;
    let join = async |account: &str, name: &str| {
        let mut create = callback(&offer, RequestType::Create, account, name);
        create.claims.as_mut().unwrap().external_id = new.clone();
        assert_eq!(world.send(&create).await, Handled::Verifying);
        world.job(&role(account, name)).await
    };
    let joining = join("300000000001", "01").await;
    world.registry.revoke_connection(tenant, first.connection, "left").await.unwrap();
    assert_eq!(at().await, Some(RotationState::Offered), "nobody has shown the new ID to work");
    world.report(&report(&joining, REFUSED)).await;
    assert_eq!(at().await, Some(RotationState::Offered));
    let joining = join("300000000002", "02").await;
    world.report(&report(&joining, Verdict::Held)).await;
    assert_eq!(at().await, Some(RotationState::Finished));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_06_a_role_found_open_with_the_new_external_id_is_insecure_at_once(#[case] kind: Kind) {
    let it = Rotating::new(kind).await;
    let next = it.rotate().await.unwrap().external_id;
    let open = Verdict::Failed { fault: Fault::OpenWithoutId };
    let update = it.updated(&next, Some(&it.offer.external_id), open).await;
    assert!(!it.succeeded(&update).await);
    assert_eq!(it.now().await.state, ConnectionState::Insecure);
    assert_eq!(it.granted().await, it.offer.external_id, "the new one is not taken over");
    assert_eq!(it.world.bus.of::<ConnectionInsecure>().len(), 1);
    assert_eq!(it.world.bus.of::<Grant>().last().unwrap().state, ConnectionState::Insecure);
}
