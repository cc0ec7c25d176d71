//! The demo's stages with every secret known: a customer connects, is used, its costs are read, it is attacked, and leaves. Then no secret of all that
//! were made is left in any place where things are kept or shown.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use aws_credential_types::Credentials;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    Launched, PATIENCE, PREFIX, World,
    crafted::Crafted,
    looks::{dead_letters, job},
    metrics, sqs, until,
};
use contracts::{
    Stream,
    connection::{Connection, ConnectionState},
    costs::ExportLocation,
    credentials::{Purpose, SealedCredentials},
    enrollment::EnrollmentOffer,
};
use rolebridge_tests::{canary::Canaries, faults::FaultyAws, otlp::Collector};
use sandbox::{NatsUser, Service, StackRequest, StackState, SystemOptions};

/// A stack without a role that claims another's.
const CLAIM: &str = include_str!("../../deploy/sandbox/src/demo/claim-anothers-role.yaml");
/// Three lines in the form of AWS's own reports.
const EXPORT: &[u8] = include_bytes!("../data/three-lines.snappy.parquet");
/// The path of every `ResponseURL` of the emulator.
const RESPONSE_PATH: &str = "/_ministack/cfn-response/";
/// Files that are secrets, each in the one place where it belongs.
const KEY_FILES: [&str; 3] = ["wrapping.key", "broker.seed", "ingest.seed"];
/// What is planted where anybody may see it: the search must find it.
const PLANTED: &str = "a-canary-that-was-planted-to-be-found";

/// The contents of all files below `folder`, under a name.
fn read_all(name: &str, folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            read_all(&format!("{name}/{file}"), &path, into);
        } else if !KEY_FILES.contains(&file.as_str()) {
            into.insert(format!("{name}/{file}"), fs::read(&path).expect("a file"));
        }
    }
}

/// Connects a customer with an export, has its costs read, and gives what a job was issued.
async fn connect_and_use(world: &mut World) -> (Launched, Connection, SealedCredentials) {
    // The planted text is in the tenant's name: in the database, in events, in answers.
    let tenant = world.tenant(PLANTED).await.tenant;
    let account = world.customer().await;
    let bucket = format!("costs-of-{}", account.id());
    account.create_bucket(&bucket).await.expect("a bucket");
    account.put_object(&bucket, &format!("{PREFIX}/a.snappy.parquet"), EXPORT.to_vec()).await.expect("an export");
    let offer = world.offer(tenant, Some(ExportLocation { bucket, prefix: PREFIX.to_owned() })).await;
    let launched = world.launch(&account, offer).await;
    world.completed(&launched).await;
    let connection = world.only_connection(tenant).await;
    let client = job(world).await;
    let (_, credentials) = client.issue(tenant, connection.connection, Purpose::CostRead).await.expect("credentials");
    let read = format!("rolebridge.events.v1.costs.ingested.{tenant}.*");
    let read = until(PATIENCE, async || world.held_on(Stream::CostsEvents, &read).await > 0).await;
    assert!(read, "the costs were read\n{}", world.complaints());
    (launched, connection, credentials)
}

/// Mallory claims the role; strangers send what can be answered, and what is a dead letter. Gives her offer and the strangers' addresses.
async fn attack(world: &World, victim: &(Launched, Connection)) -> (EnrollmentOffer, Vec<String>) {
    let mallory = world.tenant("Mallory").await.tenant;
    let offer = world.offer(mallory, None).await;
    let mut claim = StackRequest::new("mallory", CLAIM);
    claim.parameters.clone_from(&offer.parameters);
    claim = claim.parameter("ClaimedRoleArn", victim.1.role_arn.to_string());
    let account = &victim.0.account;
    let stack = account.create_stack(&claim).await.expect("launched");
    account.wait_stack(&stack, PATIENCE, StackState::is_final).await.expect("an end");
    let role = victim.1.role_arn.to_string();
    let answered = Crafted::delete(&world.system, account, &offer, &role, "rolebridge-none");
    // Of a wrong form, and an address that is not answered: with a token that is real.
    let malformed = Crafted::create(&world.system, account, &offer, &role).property("AccountId", 7);
    let buried = Crafted::create(&world.system, account, &offer, &role);
    let elsewhere = format!("https://evil.example{RESPONSE_PATH}{}", buried.address);
    let buried = buried.at(&elsewhere);
    for request in [&answered, &malformed, &buried] {
        sqs::publish(&world.system, account, &request.request).await;
    }
    let done = async || [&answered, &malformed].iter().all(|request| !request.answers(&world.system).is_empty());
    assert!(until(PATIENCE, done).await, "the strangers were answered\n{}", world.complaints());
    let letter = until(PATIENCE, async || !dead_letters(world).await.is_empty()).await;
    assert!(letter, "one is a dead letter\n{}", world.complaints());
    (offer, vec![answered.address, malformed.address, buried.address])
}

/// The secrets of the system itself: its keys, its NATS users' seeds, its services' AWS keys.
fn own_secrets(world: &World, canaries: &mut Canaries) {
    for file in KEY_FILES {
        let text = fs::read_to_string(world.system.folder().join(file)).expect("a key file");
        let text = text.trim();
        canaries.add(file, text);
        if let Ok(bytes) = STANDARD.decode(text) {
            canaries.add(file, bytes);
        }
    }
    for user in NatsUser::ALL {
        let seed = fs::read_to_string(world.system.nats.seed_file(user)).expect("a seed");
        canaries.add("an nkey seed", seed.trim());
    }
    let provider = &world.system.provider;
    for keys in [&provider.callback_ingest, &provider.role_chain_broker] {
        let keys: &Credentials = keys;
        canaries.add("a service's own secret access key", keys.secret_access_key());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_and_29_no_secret_is_found_in_streams_buckets_databases_logs_traces_and_metrics() {
    let collector = Collector::start().await.expect("a collector");
    let options = SystemOptions { environment: collector.environment(), ..SystemOptions::default() };
    let mut world = World::with(options).await;
    // What AWS tells the broker is heard on the way: access keys of principals, and every session.
    let aws = FaultyAws::start(&world.system.emulator.endpoint(), 0).await.expect("a proxy");
    world.restart_with(Service::RoleChainBroker, "AWS_ENDPOINT_URL", &aws.endpoint()).await;

    let (launched, connection, credentials) = connect_and_use(&mut world).await;
    let victim = (launched, connection);
    let (offer, addresses) = attack(&world, &victim).await;
    victim.0.account.delete_stack(&victim.0.stack).await.expect("a delete begins");
    let (tenant, id) = (victim.0.tenant, victim.1.connection);
    world.operator.in_state(tenant, id, ConnectionState::Revoked, PATIENCE).await.expect("revoked");
    world.quiet().await;
    // The last spans and numbers arrive.
    let traced = |traces: &[rolebridge_tests::trace::Trace]| (traces.len() > 3).then_some(());
    collector.wait_for(PATIENCE, traced).await.expect("traces");

    let mut canaries = Canaries::default();
    own_secrets(&world, &mut canaries);
    canaries.add("a ResponseURL", RESPONSE_PATH);
    addresses.iter().for_each(|address| canaries.add("a stranger's ResponseURL", address));
    canaries.add("a callback token", victim.0.offer.callback_token.expose());
    canaries.add("the attacker's callback token", offer.callback_token.expose());
    let heard = aws.heard();
    // Two principals with a key each; sessions for probes and for issuing.
    assert!(heard.len() >= 8, "only {} secrets of AWS were heard", heard.len());
    assert!(heard.contains(credentials.session_token.expose()), "the job's own session is among them");
    heard.iter().for_each(|secret| canaries.add("a key or a session of AWS", secret));
    let places = places(&mut world, &collector).await;
    all_places_are_looked_at(&places, &id.to_string());
    let found = canaries.find(&places).expect("a search");
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(canaries.names().len(), 3 + 7, "{:?}", canaries.names());
}

/// Everything that the system keeps and shows, by where it is.
async fn places(world: &mut World, collector: &Collector) -> BTreeMap<String, Vec<u8>> {
    let mut places = BTreeMap::from([("traces and metrics by OTLP".to_owned(), collector.raw())]);
    for service in Service::ALL {
        places.insert(format!("metrics of {}", service.name()), metrics(&mut world.system, service).await.into_bytes());
        let log = world.system.service(service).expect("a service").log_text();
        places.insert(format!("log of {}", service.name()), log.into_bytes());
    }
    // What it has not published yet stays in its journal.
    world.system.service(Service::RoleChainBroker).expect("a service").kill();
    // What the server still had in memory is then in its files.
    world.system.nats.stop().await.expect("nats-server ends");
    places.insert("log of nats-server".to_owned(), world.system.nats.log_text().into_bytes());
    read_all("streams", &world.system.nats.store_folder(), &mut places);
    read_all("data", world.system.folder(), &mut places);
    places
}

/// The search finds what is there: else it would prove nothing.
fn all_places_are_looked_at(places: &BTreeMap<String, Vec<u8>>, id: &str) {
    let mut seen = Canaries::default();
    seen.add("the connection", id);
    seen.add("what was planted", PLANTED);
    seen.add("a metric", "rolebridge_ingest_answers");
    seen.add("a span", "answer CloudFormation");
    let found = seen.find(places).expect("a search");
    for (what, place) in [
        ("the connection", "streams/"),
        ("the connection", "data/registry.db"),
        ("the connection", "log of tenant-registry"),
        ("the connection", "log of role-chain-broker"),
        ("what was planted", "streams/"),
        ("what was planted", "data/registry.db"),
        ("a metric", "metrics of callback-ingest"),
        ("a metric", "traces and metrics by OTLP"),
        ("a span", "traces and metrics by OTLP"),
    ] {
        let hit = found.iter().any(|(name, at)| name == what && at.starts_with(place));
        assert!(hit, "{what} is not seen in {place}: {found:?}");
    }
    let journal = |name: &String| name.starts_with("data/audit-journal/") && name.ends_with(".segment");
    assert!(places.keys().any(journal), "the broker's journal is not among them");
    for place in ["KV_rolebridge-principals", "KV_rolebridge-answers", Stream::DeadLetters.name()] {
        assert!(
            places.keys().any(|name| name.starts_with("streams/") && name.contains(place)),
            "{place} is not among them"
        );
    }
}
