//! The matrix. A new message or endpoint needs nothing here: its producer or server may have it by its contract. A new consumer or bucket is one line.

use contracts::{
    Audience, Endpoint as _, Stream, catalog,
    credentials::{IssueCredentials, Purpose},
};

use crate::{Right, User};

/// Who reads which stream as which durable consumer.
pub const DURABLES: [(&str, Stream, &str); 9] = [
    ("tenant-registry", Stream::Callbacks, "tenant-registry-callbacks"),
    ("tenant-registry", Stream::Reports, "tenant-registry-reports"),
    ("tenant-registry", Stream::PrincipalEvents, "tenant-registry-principals"),
    ("callback-ingest", Stream::Callbacks, "callback-ingest-outcomes"),
    ("role-chain-broker", Stream::Jobs, "role-chain-broker-jobs"),
    ("role-chain-broker", Stream::TenantEvents, "role-chain-broker-tenants"),
    ("cost-ingestion", Stream::Jobs, "cost-ingestion-jobs"),
    ("cost-ingestion", Stream::Jobs, "cost-ingestion-discoveries"),
    ("cost-ingestion", Stream::ConnectionEvents, "cost-ingestion-connections"),
];

/// Who reads which stream through consumers of any name, beside the operator and readers of events. What may be issued: an ordered consumer for each instance.
const ANY_NAME: [(&str, Stream); 1] = [("role-chain-broker", Stream::Grants)];

/// Which service asks for credentials, and what for.
const ASKS: [(&str, Purpose); 1] = [("cost-ingestion", Purpose::CostRead)];

/// Who keeps which bucket.
const BUCKETS: [(&str, &str); 3] = [
    ("callback-ingest", "rolebridge-answers"),
    ("role-chain-broker", "rolebridge-principals"),
    ("role-chain-broker", "rolebridge-sts-budget"),
];

/// The services.
const SERVICES: [(&str, &str); 4] = [
    ("tenant-registry", "Decides; owns tenants, enrollments, connections and the audit log."),
    ("callback-ingest", "The door to AWS messaging. Serves nothing."),
    ("role-chain-broker", "Keeps principals, probes, issues. Alone on the subject of credentials."),
    ("cost-ingestion", "Reads customers' costs with credentials for that purpose alone."),
];

/// Every user, in the order of the configuration.
#[must_use]
pub fn users() -> Vec<User> {
    let services = SERVICES.into_iter().map(|(name, about)| service(name, about));
    services.chain([operator(), job(), events()]).collect()
}

/// The streams of events that consumers beside the services may read.
#[must_use]
pub fn public_streams() -> Vec<Stream> {
    let public = |stream: &Stream| {
        let mut stored = catalog::messages().into_iter().filter(|message| message.stream == *stream).peekable();
        stored.peek().is_some() && stored.all(|message| message.audience == Audience::Public)
    };
    Stream::ALL.into_iter().filter(public).collect()
}

/// The subject of requests for credentials; a star where anything goes.
#[must_use]
pub fn issue(purpose: Purpose, tenant: &str) -> String {
    IssueCredentials::SUBJECT.replacen('*', purpose.as_str(), 1).replacen('*', tenant, 1)
}

fn service(name: &str, about: &str) -> User {
    let messages: Vec<_> = catalog::messages().into_iter().filter(|message| message.producer == name).collect();
    let served = catalog::endpoints().into_iter().filter(|endpoint| endpoint.service == name);
    let subjects: Vec<String> = served.map(|endpoint| endpoint.subject.to_owned()).collect();
    let durables: Vec<_> = DURABLES.into_iter().filter(|(owner, _, _)| *owner == name).collect();
    let any_name: Vec<_> = ANY_NAME.into_iter().filter(|(owner, _)| *owner == name).map(|(_, stream)| stream).collect();

    let written = messages.iter().map(|message| message.stream);
    let read = durables.iter().map(|(_, stream, _)| *stream).chain(any_name.iter().copied());
    let kept = distinct(written.chain(read));

    let mut rights: Vec<Right> = messages.iter().map(|message| Right::Publish(message.subject.to_owned())).collect();
    let asks = ASKS.into_iter().filter(|(owner, _)| *owner == name);
    rights.extend(asks.map(|(_, purpose)| Right::Ask(issue(purpose, "*"))));
    rights.extend(kept.into_iter().map(Right::Keep));
    rights.extend(durables.into_iter().map(|(_, stream, durable)| Right::Consume { stream, durable }));
    rights.extend(any_name.into_iter().flat_map(|stream| [Right::Read(stream), Right::Get(stream)]));
    rights.extend(BUCKETS.iter().filter(|(owner, _)| *owner == name).map(|(_, bucket)| Right::Bucket(bucket)));
    rights.extend([Right::GiveUp(name.to_owned()), Right::AccountInfo]);
    if !subjects.is_empty() {
        rights.push(Right::Serve { service: name.to_owned(), subjects });
    }
    User::of_matrix(name, about, rights)
}

fn distinct(streams: impl Iterator<Item = Stream>) -> Vec<Stream> {
    let mut all: Vec<Stream> = streams.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A person with the command line.
fn operator() -> User {
    let about =
        "A person with the command line: asks everything, sees everything that is not internal, replays dead letters.";
    let mut rights: Vec<Right> =
        catalog::endpoints().into_iter().map(|endpoint| Right::Ask(endpoint.subject.to_owned())).collect();
    rights.extend([Right::Discover, Right::SeeState]);
    rights.extend(public_streams().into_iter().chain([Stream::DeadLetters]).map(Right::Read));
    rights.extend([Right::Get(Stream::DeadLetters), Right::Remove(Stream::DeadLetters)]);
    // Dead letters come from durable consumers, so these are all the places that one can come from.
    let sources = distinct(DURABLES.iter().map(|(_, stream, _)| *stream));
    rights.extend(sources.into_iter().map(|stream| Right::Replay(stream.subjects().to_owned())));
    rights.push(Right::AccountInfo);
    User::of_matrix("operator", about, rights)
}

fn job() -> User {
    let about = "An example of a job: asks for one purpose, of every tenant. `rolebridge nats user job` makes one for some tenants alone.";
    User::of_matrix("job", about, vec![Right::Ask(issue(Purpose::CostRead, "*"))])
}

fn events() -> User {
    let about = "An example of a downstream team: reads all events, publishes nothing. `rolebridge nats user events` makes one for some tenants alone.";
    let reads = public_streams().into_iter().map(Right::Read);
    User::of_matrix("events", about, reads.chain([Right::AccountInfo]).collect())
}
