//! The sandbox's nats-server: it survives being killed, and knows its own keys alone.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod watched;

use async_nats::jetstream;
use sandbox::NatsUser;
use watched::server;

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_store() {
    let mut server = server().await;
    let url = server.url();
    let context = jetstream::new(server.connect(NatsUser::CallbackIngest).await.expect("connects"));
    context
        .create_or_update_stream(jetstream::stream::Config {
            name: "ROLEBRIDGE_CALLBACKS".to_owned(),
            subjects: vec!["rolebridge.internal.v1.callbacks.>".to_owned()],
            ..Default::default()
        })
        .await
        .expect("the stream");
    context
        .publish("rolebridge.internal.v1.callbacks.received", "x".into())
        .await
        .expect("sent")
        .await
        .expect("stored");
    server.kill();
    assert!(server.connect(NatsUser::CallbackIngest).await.is_err());
    server.restart().await.expect("starts again");
    assert_eq!(server.url(), url);
    let context = jetstream::new(server.connect(NatsUser::CallbackIngest).await.expect("connects"));
    let mut stream = context.get_stream("ROLEBRIDGE_CALLBACKS").await.expect("still there");
    assert_eq!(stream.info().await.expect("info").state.messages, 1);
    server.stop().await.expect("stops");
}

#[tokio::test]
async fn a_key_of_another_server_is_refused() {
    let (one, other) = tokio::join!(server(), server());
    let stranger = std::fs::read_to_string(one.seed_file(NatsUser::Operator)).expect("seed");
    assert!(async_nats::ConnectOptions::with_nkey(stranger).connect(other.url()).await.is_err());
    assert!(async_nats::connect(other.url()).await.is_err(), "nobody enters without a key");
}
