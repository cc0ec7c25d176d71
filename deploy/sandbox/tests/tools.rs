//! The tools are fetched once; PostgreSQL starts, gives each test a database of its own, and leaves nothing.

use sandbox::{PostgresServer, Toolbox};

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let again = tokio::task::spawn_blocking(|| {
        Toolbox::fetch_test_tools(|line| eprintln!("{line}")).expect("tools");
        Toolbox::fetch_test_tools(|line| panic!("nothing is to be done, but: {line}"))
    });
    let tools = again.await.expect("joins").expect("tools");
    assert!(tools.nats_server().is_file() && tools.python().is_file() && tools.microburst().is_file());
}

#[tokio::test]
async fn a_server_with_databases_of_their_own() {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch_test_tools(|line| eprintln!("{line}")))
        .await
        .expect("joins")
        .expect("tools");
    let server = PostgresServer::start(&tools).await.expect("PostgreSQL starts");
    let one = server.create_database().expect("a database");
    let other = server.create_database().expect("another");
    assert_ne!(one, other);
    let address = one.rsplit('@').next().and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    drop(server);
    assert!(std::net::TcpStream::connect(&address).is_err(), "it is gone");
}
