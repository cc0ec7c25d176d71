//! Floods of strangers: what they cost, whom they do not hold up; and what is forgotten in time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use contracts::{
    CallbackToken, PageRequest,
    callback::{CallbackOutcome, CallbackReceived, RequestType},
    connection::ConnectionState,
    enrollment::{CreateEnrollmentRequest, EnrollmentKind},
    verification::VerifyConnection,
};
use rstest::rstest;
use runtime::quota::PerMinute;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use tenant_registry::{
    config::Rules,
    entity,
    flow::{Registry, callbacks::Handled},
};

use crate::{callbacks::kept_callbacks, world::*};

fn junk(account: &str, number: usize) -> CallbackReceived {
    let (id, token) = (contracts::ExternalId::generate(), CallbackToken::generate());
    callback_of(&id, token.hash(), RequestType::Create, account, &format!("{number:x}"))
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_33_junk_leaves_nothing_but_a_bounded_audit(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let before = entity::audit::Entity::find().count(world.store.db()).await.unwrap();
    let mut became = BTreeMap::<_, usize>::new();
    for number in 0..500 {
        *became.entry(world.send(&junk("666666666666", number)).await.word()).or_default() += 1;
    }
    // Another account's customer with a wrong token still hears what is wrong.
    let mistaken = junk(CUSTOMER, 500);
    assert_eq!(world.send(&mistaken).await, Handled::Stranger);
    assert!(world.reason(&mistaken).await.contains("external ID"));
    assert_eq!(became, BTreeMap::from([("stranger", 30), ("dropped", 470)]));
    assert_eq!(world.bus.of::<CallbackOutcome>().len(), 31);
    assert_eq!(kept_callbacks(&world).await, 0);
    let lines = entity::audit::Entity::find().count(world.store.db()).await.unwrap() - before;
    assert_eq!(lines, 31);
    assert!(world.bus.of::<VerifyConnection>().is_empty());
    assert_eq!(world.connect(&offer, CUSTOMER, "0a").await.state, ConnectionState::Verified);

    // More accounts than there are answers: a stranger may claim any.
    for number in 0..1000 {
        world.send(&junk(&format!("{}", 700_000_000_000u64 + number), 1)).await;
    }
    world.flush().await;
    let strangers = world.bus.of::<CallbackOutcome>().len() - 1;
    assert_eq!(strangers, 600, "one minute's answers, however many claim to be somebody else");
    world.registry.tell_of_strangers(Instant::now() + Duration::from_secs(61)).await.unwrap();
    let log = world.registry.export_audit(&PageRequest { limit: Some(500), after: None }).await.unwrap().items;
    assert_eq!(log.iter().filter(|entry| entry.action == "callback.refused").count(), 60);
    let sum = log.last().unwrap();
    let told = format!(
        "{} earlier ones were answered and not written down. {} earlier ones were too many",
        600 - 60,
        1000 - 569
    );
    assert!(sum.action == "callback.strangers" && sum.reason.contains(&told), "{} {told}", sum.reason);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_33_who_holds_a_token_is_not_held_up_by_strangers(#[case] kind: Kind) {
    let limits = PerMinute { all: 3, each: 2 };
    let world = World::with(kind, Rules { strangers: limits, ..rules() }).await;
    let (_, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    let other = world.new_offer("b").await.1;
    for number in 0..10 {
        world.send(&junk(&format!("{}", 700_000_000_000u64 + number), number as usize)).await;
    }
    assert_eq!(world.send(&junk(CUSTOMER, 1)).await, Handled::Dropped);
    let mut delete = callback(&offer, RequestType::Delete, CUSTOMER, "0a");
    delete.physical_resource_id = Some(format!("rolebridge-{}", connection.connection));
    // A stack that never connected is deleted: it must not wait for ever.
    let mut failed = callback(&other, RequestType::Delete, CUSTOMER, "0b");
    failed.physical_resource_id = Some("rolebridge-none".to_owned());
    assert_eq!(world.send(&failed).await, Handled::Ignored);
    assert_eq!(world.send(&delete).await, Handled::Ending);
    let mut forged = failed.clone();
    forged.key.request_id = "another".to_owned();
    forged.claims.as_mut().unwrap().token_hash = CallbackToken::generate().hash();
    assert_eq!(world.send(&forged).await, Handled::Dropped);
    let mut wrong = callback(&other, RequestType::Create, CUSTOMER, "0c");
    wrong.claims.as_mut().unwrap().account = contracts::AccountId::parse("999999999999").unwrap();
    assert_eq!(world.send(&wrong).await, Handled::Refused, "a holder's mistake is answered and kept");
    assert_eq!(world.connect(&other, "333333333333", "0d").await.state, ConnectionState::Verified);
}

/// The cache of unknown IDs cannot shadow a real one, because none is asked for before it is there. (Only by hand can an ID be made that was.)
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_33_an_unknown_external_id_is_looked_for_once_and_no_real_one_is_shadowed(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, made_up) = (world.tenant("a").await, contracts::ExternalId::generate());
    let unknown =
        |name: &str| callback_of(&made_up, CallbackToken::generate().hash(), RequestType::Create, CUSTOMER, name);
    assert_eq!(world.send(&unknown("01")).await, Handled::Stranger);
    // Offers that are used the moment they are given out, from several tasks, while strangers ask for others.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20usize {
        let registry = world.registry.clone();
        tasks.spawn(async move {
            let request = CreateEnrollmentRequest {
                kind: EnrollmentKind::Account,
                region: None,
                account: None,
                cost_export: None,
                expires_in_s: None,
            };
            registry.callback(&junk("666666666666", number)).await.unwrap();
            let offer = registry.create_enrollment(tenant, &request).await.unwrap();
            let create = callback(&offer, RequestType::Create, &format!("{}", 300_000_000_000 + number), "0a");
            registry.callback(&create).await.unwrap()
        });
    }
    assert_eq!(tasks.join_all().await, [Handled::Verifying; 20]);

    // The database is not asked again: an ID put there behind the registry's back is not seen.
    let offer = world.offer(tenant, EnrollmentKind::Account).await;
    let swap = format!(
        "UPDATE external_ids SET external_id = '{}' WHERE external_id = '{}'",
        made_up.as_str(),
        offer.external_id.as_str()
    );
    world.store.db().execute_unprepared(&swap).await.unwrap();
    let create = callback_of(&made_up, offer.callback_token.hash(), RequestType::Create, CUSTOMER, "02");
    assert_eq!(world.send(&create).await, Handled::Stranger);
    let another = Registry::new(world.store.clone(), rules(), world.bus.clone());
    assert_eq!(
        another.callback(&create).await.unwrap(),
        Handled::Refused,
        "whoever asks anew finds the holder of a token"
    );
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn old_refusals_are_forgotten_and_what_a_living_connection_was_told_is_not(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let mut refused = callback(&offer, RequestType::Create, CUSTOMER, "01");
    refused.claims.as_mut().unwrap().account = contracts::AccountId::parse("999999999999").unwrap();
    assert_eq!(world.send(&refused).await, Handled::Refused);
    world.connect(&offer, CUSTOMER, "02").await;
    let ended = world.offer(tenant, EnrollmentKind::Account).await;
    let ended = world.connect(&ended, "333333333333", "03").await;
    world.registry.revoke_connection(tenant, ended.connection, "over").await.unwrap();
    let waiting = world.offer(tenant, EnrollmentKind::Account).await;
    let waiting = callback(&waiting, RequestType::Create, "444444444444", "04");
    assert_eq!(world.send(&waiting).await, Handled::Verifying);

    assert_eq!(kept_callbacks(&world).await, 4);
    let (past, future) =
        (contracts::Timestamp::now().plus(Duration::ZERO), contracts::Timestamp::now().plus(Duration::from_secs(60)));
    let long_ago = contracts::Timestamp::from(past.inner() - Duration::from_secs(3600));
    assert_eq!(world.registry.forget_callbacks(long_ago).await.unwrap(), 0, "they are young");
    assert_eq!(world.registry.forget_callbacks(future).await.unwrap(), 2);
    assert_eq!(world.registry.forget_callbacks(future).await.unwrap(), 0);
    assert_eq!(kept_callbacks(&world).await, 2);
    assert_eq!(world.send(&waiting).await, Handled::StillVerifying);
}
