//! After a customer has connected, used its connection, and been attacked: no secret of all that is left in any place where things are kept or shown.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::Client;
use common::{World, crafted::Crafted, metrics, sqs, until};
use contracts::credentials::Purpose;
use sandbox::{NatsUser, Service, StackRequest, StackState};

/// A stack without a role that claims another's.
const CLAIM: &str = include_str!("../../deploy/sandbox/src/demo/claim-anothers-role.yaml");
/// The path of every `ResponseURL` of the emulator.
const RESPONSE_PATH: &str = "/_ministack/cfn-response/";

/// The contents of all files below `folder`, under a name.
fn read_all(name: &str, folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{name}/{}", path.file_name().expect("a name").to_string_lossy());
        if path.is_dir() {
            read_all(&name, &path, into);
        } else {
            into.insert(name, fs::read(&path).expect("a file"));
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_and_29_no_secret_is_found_in_streams_buckets_databases_logs_and_metrics() {
    let mut world = World::start().await;
    let (acme, connection) = world.connect("Acme").await;
    let job = world.system.bus(NatsUser::Job).await.expect("a job connects");
    let job = Client::new(job, world.system.sealing_key().clone(), "secrets").expect("a client");
    let (_, credentials) = job.issue(acme.tenant, connection.connection, Purpose::CostRead).await.expect("credentials");

    let mallory = world.tenant("Mallory").await.tenant;
    let offer = world.offer(mallory, None).await;
    let mut claim = StackRequest::new("mallory", CLAIM);
    claim.parameters.clone_from(&offer.parameters);
    claim = claim.parameter("ClaimedRoleArn", connection.role_arn.to_string());
    let stack = acme.account.create_stack(&claim).await.expect("launched");
    acme.account.wait_stack(&stack, common::PATIENCE, StackState::is_final).await.expect("an end");
    // A request whose address is known here, and which is answered.
    let role = connection.role_arn.to_string();
    let stranger = Crafted::delete(&world.system, &acme.account, &offer, &role, "rolebridge-none");
    sqs::publish(&world.system, &acme.account, &stranger.request).await;
    let answered = until(common::PATIENCE, async || !stranger.answers(&world.system).is_empty());
    assert!(answered.await, "the stranger was answered\n{}", world.complaints());
    world.quiet().await;

    let mut places = BTreeMap::new();
    for service in Service::ALL {
        places.insert(format!("metrics of {}", service.name()), metrics(&mut world.system, service).await.into_bytes());
        let log = world.system.service(service).expect("a service").log_text();
        places.insert(format!("log of {}", service.name()), log.into_bytes());
    }
    // What the server still had in memory is then in its files.
    world.system.nats.stop().await.expect("nats-server ends");
    places.insert("log of nats-server".to_owned(), world.system.nats.log_text().into_bytes());
    read_all("streams", &world.system.nats.store_folder(), &mut places);
    read_all("data", world.system.folder(), &mut places);

    // The search finds what is there: else it would prove nothing.
    let id = connection.connection.to_string();
    for place in ["streams/", "data/registry.db", "log of tenant-registry", "log of role-chain-broker"] {
        let found = places.iter().any(|(name, bytes)| name.starts_with(place) && holds(bytes, &id));
        assert!(found, "the connection is not seen in {place}: {:?}", places.keys());
    }
    assert!(holds(&places["metrics of callback-ingest"], "rolebridge_ingest_answers"));
    let mut canaries = vec![("a ResponseURL", RESPONSE_PATH.to_owned()), ("a ResponseURL", stranger.address)];
    for (what, secret) in [
        ("a callback token", acme.offer.callback_token.expose()),
        ("the attacker's callback token", offer.callback_token.expose()),
        ("a secret access key", credentials.secret_access_key.expose()),
        ("a session token", credentials.session_token.expose()),
    ] {
        canaries.extend([(what, secret.to_owned()), (what, STANDARD.encode(secret))]);
    }
    for (name, bytes) in &places {
        for (what, secret) in &canaries {
            assert!(!holds(bytes, secret), "{what} is in {name}");
        }
    }
}
