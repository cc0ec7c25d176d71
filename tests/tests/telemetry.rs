//! One customer connects while a collector listens: one trace tells the whole of it, and the numbers that answer "is it keeping up?" are there.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use contracts::costs::ExportLocation;
use rolebridge_tests::{
    otlp::{self, Collector, Metrics},
    trace::{ANSWER, MESSAGE, Trace},
    yard::{Customer, PATIENCE},
};
use sandbox::{Service, System, SystemOptions};

const INGEST: &str = "callback-ingest";
const REGISTRY: &str = "tenant-registry";
const BROKER: &str = "role-chain-broker";
const COSTS: &str = "cost-ingestion";

const EXPORT: &[u8] = include_bytes!("../../deploy/sandbox/data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet");

/// What an operator looks at to see whether the system keeps up: service, instrument, and its name in `/metrics`.
const KEEPING_UP: [(&str, &str, &str); 12] = [
    (INGEST, "rolebridge_ingest_received", "rolebridge_ingest_received_total"),
    (INGEST, "rolebridge_ingest_callback_to_answer", "rolebridge_ingest_callback_to_answer_seconds_count"),
    (INGEST, "rolebridge_ingest_answers", "rolebridge_ingest_answers_total"),
    (INGEST, "rolebridge_messages_handled", "rolebridge_messages_handled_total"),
    (REGISTRY, "rolebridge_messages_handled", "rolebridge_messages_handled_total"),
    (REGISTRY, "rolebridge_requests", "rolebridge_requests_total"),
    (REGISTRY, "rolebridge_registry_outbox_rows", "rolebridge_registry_outbox_rows"),
    (REGISTRY, "rolebridge_registry_outbox_age_seconds", "rolebridge_registry_outbox_age_seconds"),
    (BROKER, "rolebridge_messages_handled", "rolebridge_messages_handled_total"),
    (BROKER, "rolebridge_sts_calls", "rolebridge_sts_calls_total"),
    (BROKER, "rolebridge_requests", "rolebridge_requests_total"),
    (COSTS, "rolebridge_nats_events", "rolebridge_nats_events_total"),
];

/// The trace of the callback, once it goes all the way to the first rows and nothing of it is still to come.
fn whole(traces: &[Trace]) -> Option<Trace> {
    let trace =
        traces.iter().find(|trace| trace.find(INGEST, MESSAGE).is_some() && trace.find(INGEST, ANSWER).is_some())?;
    let rows = trace.find(COSTS, "costs.discover").is_some() && consumed(trace, COSTS).contains("cost-ingestion-jobs");
    let probes = trace.spans.iter().filter(|span| span.name == "probe").count();
    let deleted = trace.spans.iter().any(|span| span.calls("SQS") && span.attribute("error.type").is_empty());
    let leaves = probes >= 4 && deleted && trace.find(BROKER, "serve").is_some();
    (rows && leaves && trace.roots().len() == 1).then(|| trace.clone())
}

fn consumed<'a>(trace: &'a Trace, service: &str) -> BTreeSet<&'a str> {
    let consumed = trace.spans.iter().filter(|span| span.service == service && span.name == "consume");
    consumed.map(|span| span.attribute("consumer")).collect()
}

#[tokio::test]
async fn one_trace_goes_from_the_queue_to_the_answer_and_the_first_rows() {
    let collector = Collector::start().await.unwrap();
    let options = SystemOptions { environment: collector.environment(), ..SystemOptions::default() };
    let mut system = System::start(options, |line| println!("{line}")).await.unwrap();
    let export = ExportLocation { bucket: "traced-costs".to_owned(), prefix: "cur".to_owned() };
    let customer = Customer::make(&system, "300000000001", Some(export)).await.unwrap();
    customer.account.create_bucket("traced-costs").await.unwrap();
    customer.account.put_object("traced-costs", "cur/export.snappy.parquet", EXPORT.to_vec()).await.unwrap();
    customer.launch().await.unwrap();

    let trace = collector.wait_for(PATIENCE, whole).await.unwrap();
    println!("{}", trace.outline());
    is_one_tree(&trace);
    hops_are_seen(&trace);
    calls_to_aws_are_seen(&trace);
    nothing_secret_is_seen(&trace, &customer);
    metrics_are_the_same_in_both_ways(&collector, &mut system).await;
    lines_lead_to_the_trace(&mut system, &trace);
    system.stop().await.unwrap();
}

fn is_one_tree(trace: &Trace) {
    let root = trace.roots()[0];
    assert_eq!((root.service.as_str(), root.name.as_str(), root.parent.as_deref()), (INGEST, MESSAGE, None));
    let services: BTreeSet<_> = trace.spans.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from([INGEST, REGISTRY, BROKER, COSTS]));
    assert!(trace.spans.iter().all(|span| span.start <= span.end && span.start >= root.start), "{}", trace.outline());
}

/// The answer stands below every service that had a part in it, in their order.
fn hops_are_seen(trace: &Trace) {
    let answer = trace.find(INGEST, ANSWER).unwrap();
    assert_eq!(answer.attribute("ok"), "true");
    let above: Vec<_> = trace.above(answer).map(|span| (span.service.as_str(), span.name.as_str())).collect();
    let expected = [
        (INGEST, "consume"),
        (REGISTRY, "publish"),
        (REGISTRY, "decide on a report"),
        (REGISTRY, "consume"),
        (BROKER, "publish"),
        (BROKER, "consume"),
        (REGISTRY, "publish"),
        (REGISTRY, "decide on a callback"),
        (REGISTRY, "consume"),
        (INGEST, "publish"),
        (INGEST, MESSAGE),
    ];
    assert_eq!(above, expected, "{}", trace.outline());
    assert_eq!(consumed(trace, REGISTRY), BTreeSet::from(["tenant-registry-callbacks", "tenant-registry-reports"]));
    assert_eq!(consumed(trace, BROKER), BTreeSet::from(["role-chain-broker-jobs"]));
    assert!(consumed(trace, COSTS).contains("cost-ingestion-jobs"), "{}", trace.outline());

    let decisions = ["decide on a callback", "decide on a report"].map(|name| trace.find(REGISTRY, name).unwrap());
    assert_eq!(decisions[0].attribute("result"), "verifying");
    assert_eq!(decisions[1].attribute("verdict"), "held");
    // cost-ingestion asks the broker inside of the same trace.
    let issue = trace.spans.iter().find(|span| span.service == BROKER && span.name == "serve").unwrap();
    assert_eq!(
        trace.above(issue).next().map(|span| (span.service.as_str(), span.name.as_str())),
        Some((COSTS, "request"))
    );
}

fn calls_to_aws_are_seen(trace: &Trace) {
    let probes: Vec<_> = trace.spans.iter().filter(|span| span.service == BROKER && span.name == "probe").collect();
    let outcomes: Vec<_> = probes.iter().map(|span| (span.attribute("probe"), span.attribute("outcome"))).collect();
    for expected in [
        ("RightId", "Succeeded"),
        ("CallerIdentity", "Succeeded"),
        ("NoId", "Refused"),
        ("RandomId", "Refused"),
        ("OtherPrincipal", "Refused"),
    ] {
        assert!(outcomes.contains(&expected), "{expected:?} is not among {outcomes:?}");
    }
    let no = outcomes.iter().filter(|(_, outcome)| *outcome == "Refused").count();
    for probe in probes {
        let calls: Vec<_> = trace.spans.iter().filter(|span| span.parent.as_ref() == Some(&probe.id)).collect();
        assert!(!calls.is_empty() && calls.iter().all(|span| span.calls("STS")), "{}", trace.outline());
        let last = calls[calls.len() - 1].attribute("rpc.method");
        let expected = if probe.attribute("probe") == "CallerIdentity" { "GetCallerIdentity" } else { "AssumeRole" };
        assert_eq!(last, expected);
    }
    let refused = trace.spans.iter().filter(|span| span.calls("STS") && span.attribute("error.type") == "AccessDenied");
    assert_eq!(refused.count(), no, "one call for each probe that was refused\n{}", trace.outline());
    let deleted = trace.spans.iter().find(|span| span.calls("SQS")).unwrap();
    assert!(deleted.attribute("rpc.method").starts_with("DeleteMessage"), "{}", trace.outline());
    assert_eq!(deleted.service, INGEST);
}

fn nothing_secret_is_seen(trace: &Trace, customer: &Customer) {
    let secrets = ["ExternalId", "CallbackToken"].map(|name| customer.offer.parameters[name].as_str());
    for span in &trace.spans {
        for (name, value) in &span.attributes {
            let told = format!("{name} of {} is {value}", span.name);
            assert!(!secrets.iter().any(|secret| value.contains(secret)), "{told}");
            // The emulator's own form of a ResponseURL, and AWS's.
            assert!(!value.contains("cloudformation") && !value.contains("X-Amz-Signature"), "{told}");
        }
    }
}

async fn metrics_are_the_same_in_both_ways(collector: &Collector, system: &mut System) {
    let has =
        |metrics: &Metrics, service: &str, name: &str| metrics.contains_key(&(service.to_owned(), name.to_owned()));
    let all = |metrics: &Metrics| KEEPING_UP.iter().all(|(service, name, _)| has(metrics, service, name));
    let metrics = collector.wait_for_metrics(PATIENCE, all).await.unwrap();
    let counted = |service: &str, name: &str| metrics[&(service.to_owned(), name.to_owned())];
    assert_eq!(counted(INGEST, "rolebridge_ingest_received"), 1.0);
    assert_eq!(counted(INGEST, "rolebridge_ingest_callback_to_answer"), 1.0);
    // A first hop and three probes, and two for the credentials; GetCallerIdentity.
    assert!(counted(BROKER, "rolebridge_sts_calls") >= 6.0);

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for service in Service::ALL {
        let address = system.service(service).unwrap().http_address();
        let text = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        for (_, instrument, shown) in KEEPING_UP.iter().filter(|(of, ..)| *of == service.name()) {
            let lines: Vec<_> = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(shown)).collect();
            assert!(!lines.is_empty(), "{shown} is not in /metrics of {}:\n{text}", service.name());
            let sum: f64 = lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
            // The later look may see more, never less.
            let gauge = instrument.contains("outbox");
            assert!(gauge || sum >= counted(service.name(), instrument), "{shown} is {sum} in {}", service.name());
        }
    }
}

fn lines_lead_to_the_trace(system: &mut System, trace: &Trace) {
    let id = &trace.spans[0].trace;
    for service in Service::ALL {
        let log = system.service(service).unwrap().log_text();
        let named: Vec<_> = log.lines().filter(|line| line.contains(&format!(r#""trace_id":"{id}""#))).collect();
        assert!(!named.is_empty(), "no line of {} names the trace", service.name());
        let parsed: serde_json::Value = serde_json::from_str(named[0]).unwrap();
        assert_eq!(parsed["trace_id"].as_str(), Some(id.as_str()));
    }
    let log = system.service(Service::CostIngestion).unwrap().log_text();
    let read: Vec<_> = log.lines().filter(|line| line.contains("costs were read")).collect();
    assert!(!read.is_empty() && read.iter().all(|line| line.contains(id.as_str())), "{read:?}");
}

/// A collector that is away costs nothing: customers connect, and the services end when they are told to.
#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_back() {
    // Takes connections, and never says a word; and one that nobody listens on.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent_at, closed_at) = (silent.local_addr().unwrap(), closed.local_addr().unwrap());
    drop(closed);
    let mut environment = otlp::environment(&format!("http://{closed_at}"));
    environment.insert("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT".to_owned(), format!("http://{silent_at}/v1/metrics"));
    let system = System::start(SystemOptions { environment, ..SystemOptions::default() }, |_| {}).await.unwrap();
    let customer = Customer::make(&system, "300000000002", None).await.unwrap();
    customer.launch().await.unwrap();
    let before = Instant::now();
    system.stop().await.unwrap();
    // Four services, one after the other, each of which tries for 3 s to send its last.
    assert!(before.elapsed() < Duration::from_secs(20), "stopping took {:?}", before.elapsed());
}
