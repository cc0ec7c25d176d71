//! What the answers of scheduled probes lead to: damping, the way down and back, purposes, and evidence that is fatal by configuration.

use contracts::{
    Timestamp,
    callback::{Answer, RequestType},
    connection::{
        Connection, ConnectionDegraded, ConnectionDisconnected, ConnectionInsecure, ConnectionState,
        ConnectionVerified, Grant,
    },
    credentials::Purpose,
    verification::{
        Fault, PermissionCheck, Probe, ProbeEvidence, ProbeOutcome, PurposeEvidence, PurposeOutcome, Verdict,
        VerificationReported, VerifyConnection,
    },
};
use rstest::rstest;
use tenant_registry::{config::Rules, fatal::FatalEvidence, flow::reports::Reported};

use crate::{
    lifecycle::{connected, later, now},
    world::*,
};

const OPEN: Verdict = Verdict::Failed { fault: Fault::OpenWithoutId };

/// Has the connection probed at its time, with the report that `found` makes of the job.
async fn probe(
    world: &World,
    connection: &Connection,
    found: impl Fn(&VerifyConnection) -> VerificationReported,
) -> Connection {
    let due = now(world, connection).await.next_probe_at.expect("it is watched");
    assert_eq!(world.registry.watch_round(due).await.unwrap().ordered, 1);
    let job = world.job(&connection.role_arn).await;
    assert_eq!(world.report(&found(&job)).await, Reported::Applied);
    world.flush().await;
    now(world, connection).await
}

async fn saw(world: &World, connection: &Connection, verdict: Verdict) -> Connection {
    probe(world, connection, |job| report(job, verdict)).await
}

fn looked(job: &VerifyConnection, outcome: PurposeOutcome) -> VerificationReported {
    let missing = if outcome == PurposeOutcome::Missing { vec!["s3:GetObject".to_owned()] } else { Vec::new() };
    let look = PurposeEvidence {
        purpose: Purpose::CostRead,
        outcome,
        check: PermissionCheck::Simulation,
        missing,
        at: Timestamp::now(),
        aws_request_id: None,
        error_code: None,
    };
    VerificationReported { purposes: vec![look], ..report(job, Verdict::Held) }
}

fn grants(world: &World) -> Vec<(ConnectionState, Vec<Purpose>)> {
    world.bus.of::<Grant>().into_iter().map(|grant| (grant.state, grant.missing)).collect()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_06_a_scheduled_probe_finds_what_changed_and_what_was_mended(#[case] kind: Kind) {
    use ConnectionState::{Disconnected, Insecure, Verified};
    let (world, _, connection) = connected(kind).await;
    let course = [
        (Verdict::Indeterminate, Verified),
        (OPEN, Insecure),
        (Verdict::Failed { fault: Fault::OpenWithRandomId }, Insecure),
        (REFUSED, Insecure),
        (REFUSED, Insecure),
        // A row of refusals that something else breaks.
        (Verdict::Held, Insecure),
        (REFUSED, Insecure),
        (REFUSED, Insecure),
        // Proves nothing: the row goes on.
        (Verdict::Indeterminate, Insecure),
        (REFUSED, Disconnected),
        (Verdict::Held, Disconnected),
        (Verdict::Held, Disconnected),
        (Verdict::Held, Verified),
    ];
    for (step, (verdict, expected)) in course.into_iter().enumerate() {
        let after = saw(&world, &connection, verdict).await;
        assert_eq!(after.state, expected, "after {verdict:?}, step {step}");
        if verdict == (Verdict::Failed { fault: Fault::OpenWithRandomId }) {
            assert!(after.reason.unwrap().contains("any external ID"), "the reason is the last one");
        }
    }
    let granted: Vec<_> = world.bus.of::<Grant>().into_iter().map(|grant| (grant.state, grant.revision)).collect();
    assert_eq!(granted, [(Verified, 1), (Insecure, 2), (Disconnected, 3), (Verified, 4)]);
    assert_eq!(world.bus.of::<ConnectionInsecure>().len(), 1);
    assert_eq!(world.bus.of::<ConnectionDisconnected>().len(), 1);
    assert_eq!(world.bus.of::<ConnectionVerified>().len(), 2);
    let after = now(&world, &connection).await;
    assert!(after.reason.is_none() && after.cost_export == connection.cost_export);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn in_doubt_the_next_probe_comes_soon(#[case] kind: Kind) {
    let (world, _, connection) = connected(kind).await;
    let within = |connection: &Connection, seconds: i64| {
        (connection.next_probe_at.unwrap().inner() - Timestamp::now().inner()).whole_seconds() <= seconds
    };
    for _ in 0..2 {
        let doubtful = saw(&world, &connection, REFUSED).await;
        assert_eq!(doubtful.state, ConnectionState::Verified);
        assert!(within(&doubtful, 60), "{:?}", doubtful.next_probe_at);
    }
    // Back in its slot, which is the same in every hour.
    let settled = saw(&world, &connection, Verdict::Held).await;
    let slot = |connection: &Connection| {
        connection.next_probe_at.unwrap().inner().unix_timestamp_nanos() / 1_000_000 % 3_600_000
    };
    assert_eq!(slot(&settled), slot(&connection));
    for _ in 0..2 {
        assert_eq!(saw(&world, &connection, REFUSED).await.state, ConnectionState::Verified, "counted from the start");
    }
    assert_eq!(saw(&world, &connection, REFUSED).await.state, ConnectionState::Disconnected);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_waits_is_told_after_one_answer(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    for (verdict, expected) in [(REFUSED, ConnectionState::Disconnected), (Verdict::Held, ConnectionState::Verified)] {
        let update = later(&offer, &connection, RequestType::Update, "0a");
        world.send(&update).await;
        let job = world.job(&connection.role_arn).await;
        world.report(&report(&job, verdict)).await;
        assert_eq!(now(&world, &connection).await.state, expected);
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_degrade_a_connection_and_their_return_mends_it(#[case] kind: Kind) {
    use ConnectionState::{Degraded, Verified};
    use PurposeOutcome::{Complete, Indeterminate, Missing};
    let (world, _, connection) = connected(kind).await;
    let course = [
        (Missing, Verified),
        (Missing, Verified),
        (Indeterminate, Verified),
        (Missing, Degraded),
        (Missing, Degraded),
        (Complete, Degraded),
        (Complete, Degraded),
        (Indeterminate, Degraded),
        (Complete, Verified),
    ];
    for (step, (outcome, expected)) in course.into_iter().enumerate() {
        let after = probe(&world, &connection, |job| looked(job, outcome)).await;
        assert_eq!(after.state, expected, "after {outcome:?}, step {step}");
        assert_eq!(after.purposes[0].outcome, outcome);
        if expected == Degraded {
            assert!(after.reason.as_ref().unwrap().contains("cost-read (s3:GetObject)"), "{:?}", after.reason);
        }
    }
    let lacking = vec![Purpose::CostRead];
    assert_eq!(grants(&world), [(Verified, vec![]), (Degraded, lacking.clone()), (Verified, vec![])]);
    let [told] = world.bus.of::<ConnectionDegraded>().try_into().unwrap();
    assert_eq!(told.missing, lacking);
    assert!(told.reason.contains("s3:GetObject"));
    assert_eq!(world.bus.of::<ConnectionVerified>().len(), 2, "and when it was mended");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_first_verification_that_lacks_permissions_connects_and_is_degraded_at_once(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    world.report(&looked(&job, PurposeOutcome::Missing)).await;
    let [answer] = world.answers(&create).await.try_into().unwrap();
    assert!(matches!(answer.answer, Answer::Success { .. }));
    assert_eq!(world.connection(&job).await.state, ConnectionState::Degraded);
    let lacking = vec![Purpose::CostRead];
    let expected = [(ConnectionState::Verified, lacking.clone()), (ConnectionState::Degraded, lacking)];
    assert_eq!(grants(&world), expected, "not even between the two is the purpose given out");
    let audited = world.audited(tenant).await;
    let place = |action| audited.iter().position(|done| done == action).unwrap();
    assert!(place("connection.verified") < place("connection.degraded"));
    // A suspension tells the same again.
    world.registry.suspend_tenant(tenant, "unpaid").await.unwrap();
    world.flush().await;
    assert_eq!(grants(&world).last().unwrap().1, [Purpose::CostRead]);
}

fn fatal(kind: FatalEvidence) -> Rules {
    let mut rules = rules();
    rules.watch.fatal = vec![kind];
    rules
}

/// A role that holds and has everything else that an operator may declare fatal.
fn amiss(job: &VerifyConnection) -> VerificationReported {
    let evidence = vec![ProbeEvidence {
        probe: Probe::OtherPrincipal,
        outcome: ProbeOutcome::Succeeded,
        at: Timestamp::now(),
        aws_request_id: None,
        error_code: None,
    }];
    VerificationReported { evidence, max_session_s: Some(43_200), ..looked(job, PurposeOutcome::Missing) }
}

#[rstest]
#[case::other_principal(FatalEvidence::OtherPrincipal, "other roles of the provider", ConnectionState::Insecure)]
#[case::long_sessions(FatalEvidence::LongSessions, "more than an hour", ConnectionState::Insecure)]
#[case::purposes(FatalEvidence::Purposes, "lacks permissions", ConnectionState::Verified)]
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_fatal_rejects_and_later_takes_the_grant_away(
    #[case] fatal_evidence: FatalEvidence,
    #[case] sentence: &str,
    #[case] later: ConnectionState,
) {
    let world = World::with(Kind::Sqlite, fatal(fatal_evidence)).await;
    let (_, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    world.report(&amiss(&job)).await;
    assert!(world.reason(&create).await.contains(sentence));
    assert_eq!(world.connection(&job).await.state, ConnectionState::Rejected);

    let connection = world.connect(&offer, CUSTOMER, "0b").await;
    assert_eq!(probe(&world, &connection, amiss).await.state, later);
    // Missing permissions are damped as always.
    if later == ConnectionState::Verified {
        probe(&world, &connection, amiss).await;
        assert_eq!(probe(&world, &connection, amiss).await.state, ConnectionState::Degraded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_not_fatal_is_shown() {
    let (world, _, connection) = connected(Kind::Sqlite).await;
    let after = probe(&world, &connection, amiss).await;
    assert_eq!((after.state, after.max_session_s), (ConnectionState::Verified, Some(43_200)));
    assert_eq!(after.evidence[0].probe, Probe::OtherPrincipal);
    assert_eq!(after.purposes[0].missing, ["s3:GetObject"]);
    // An unclear look leaves what was known.
    let unclear = saw(&world, &connection, Verdict::Indeterminate).await;
    assert_eq!((unclear.evidence, unclear.probed_at), (after.evidence, after.probed_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_06_fatal_evidence_does_not_vanish_when_the_look_at_it_is_denied() {
    let world = World::with(Kind::Sqlite, fatal(FatalEvidence::LongSessions)).await;
    let (_, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    let lasting = |seconds| {
        move |job: &VerifyConnection| VerificationReported { max_session_s: seconds, ..report(job, Verdict::Held) }
    };
    assert_eq!(probe(&world, &connection, lasting(Some(43_200))).await.state, ConnectionState::Insecure);
    for _ in 0..4 {
        assert_eq!(probe(&world, &connection, lasting(None)).await.state, ConnectionState::Insecure);
    }
    for _ in 0..3 {
        probe(&world, &connection, lasting(Some(3_600))).await;
    }
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Verified);
}
