//! One thing that a user may do, and the subjects that it needs for it.

use contracts::Stream;

use crate::matrix;

/// One row of the matrix for one user. Subjects may have wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Publishes messages.
    Publish(String),
    /// Publishes again what came back as a dead letter.
    Replay(String),
    /// Sends requests.
    Ask(String),
    /// Finds micro services, and asks them for their state.
    Discover,
    /// Answers requests. The name is the micro service's: it answers discovery as that one alone.
    Serve { service: String, subjects: Vec<String> },
    /// Looks the stream up, makes it, changes its configuration. Nobody may delete one.
    Keep(Stream),
    /// Reads through the durable consumer of this name, and no other.
    Consume { stream: Stream, durable: &'static str },
    /// Reads through consumers of its own naming, though never through those that belong to a service.
    Read(Stream),
    /// Reads single messages, by subject or by number.
    Get(Stream),
    /// Reads through one consumer that sees one subject.
    ReadOnly { stream: Stream, consumer: String, filter: String },
    /// Keeps, reads and writes the bucket.
    Bucket(&'static str),
    /// Removes messages from the stream.
    Remove(Stream),
    /// Gives up what it cannot handle, in its own name.
    GiveUp(String),
    /// Sees the state of all streams and consumers, though not what they hold.
    SeeState,
    /// Asks for what the server says of the account, as clients do.
    AccountInfo,
}

impl Right {
    /// The comment over its lines.
    #[must_use]
    pub fn heading(&self) -> &'static str {
        match self {
            Self::Publish(_) => "Publishes.",
            Self::Replay(_) => {
                "Publishes dead letters again where they came from. Never what may be issued: that is the registry's word."
            }
            Self::Ask(_) => "Asks.",
            Self::Discover => "Finds micro services.",
            Self::Serve { .. } => {
                "Serves, and answers discovery; writes to itself, to know that the server has its subscriptions."
            }
            Self::Keep(_) => "Keeps the streams that it writes to or reads.",
            Self::Consume { .. } => "Reads through its own durable consumers.",
            Self::Read(_) | Self::Get(_) => "Reads through consumers of its own naming.",
            Self::ReadOnly { .. } => "Reads one subject of each stream, through one consumer.",
            Self::Bucket(_) => "Keeps its bucket.",
            Self::Remove(_) => "Removes messages.",
            Self::GiveUp(_) => "Gives up what it cannot handle.",
            Self::SeeState => "Sees the state of streams and consumers.",
            Self::AccountInfo => "Account information, which clients ask for.",
        }
    }

    /// The subjects that it may publish to.
    #[must_use]
    pub fn publish(&self) -> Vec<String> {
        match self {
            Self::Publish(subject) | Self::Replay(subject) | Self::Ask(subject) => vec![subject.clone()],
            Self::Discover => vec!["$SRV.>".to_owned()],
            // A message to itself comes back only after the server has taken every subscription that went before it.
            Self::Serve { service, .. } => vec![format!("_INBOX_{service}.>")],
            Self::Keep(stream) => keep(stream.name()),
            Self::Consume { stream, durable } => {
                let creates =
                    ["", ".>"].map(|filter| format!("$JS.API.CONSUMER.CREATE.{}.{durable}{filter}", stream.name()));
                creates.into_iter().chain(fetch(stream.name(), durable)).collect()
            }
            Self::Read(stream) => {
                let looked_up = format!("$JS.API.STREAM.INFO.{}", stream.name());
                // With the name left out of the subject the server takes the one in the request, and would change a service's consumer of that name.
                let shared = matrix::DURABLES.iter().any(|(_, other, _)| other == stream);
                let nameless = (!shared).then(|| format!("$JS.API.CONSUMER.CREATE.{}", stream.name()));
                std::iter::once(looked_up).chain(nameless).chain(consumers(stream.name())).collect()
            }
            Self::Get(stream) => get(stream.name()),
            Self::ReadOnly { stream, consumer, filter } => {
                // The server holds the consumer's configuration to the filter in the subject.
                let create = format!("$JS.API.CONSUMER.CREATE.{}.{consumer}.{filter}", stream.name());
                std::iter::once(create).chain(fetch(stream.name(), consumer)).collect()
            }
            Self::Bucket(name) => {
                let stream = format!("KV_{name}");
                let values = std::iter::once(format!("$KV.{name}.>"));
                let nameless = [format!("$JS.API.CONSUMER.CREATE.{stream}")];
                values.chain(keep(&stream)).chain(get(&stream)).chain(nameless).chain(consumers(&stream)).collect()
            }
            Self::Remove(stream) => {
                ["MSG.DELETE", "PURGE"].map(|verb| format!("$JS.API.STREAM.{verb}.{}", stream.name())).into()
            }
            Self::GiveUp(service) => {
                let letter = format!("rolebridge.internal.v1.dead-letters.{service}");
                std::iter::once(letter).chain(keep(Stream::DeadLetters.name())).collect()
            }
            Self::SeeState => [
                "STREAM.NAMES",
                "STREAM.LIST",
                "STREAM.INFO.*",
                "CONSUMER.NAMES.*",
                "CONSUMER.LIST.*",
                "CONSUMER.INFO.*.*",
            ]
            .map(|what| format!("$JS.API.{what}"))
            .into(),
            Self::AccountInfo => vec!["$JS.API.INFO".to_owned()],
        }
    }

    /// The subjects that it may subscribe to, its inbox aside.
    #[must_use]
    pub fn subscribe(&self) -> Vec<String> {
        let Self::Serve { service, subjects } = self else { return Vec::new() };
        let discovery = ["$SRV.*".to_owned(), format!("$SRV.*.{service}"), format!("$SRV.*.{service}.*")];
        subjects.iter().cloned().chain(discovery).collect()
    }
}

fn keep(stream: &str) -> Vec<String> {
    ["INFO", "CREATE", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.{stream}")).into()
}

fn get(stream: &str) -> Vec<String> {
    vec![
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
    ]
}

/// Consumers of any name, which stands in the subject.
fn consumers(stream: &str) -> Vec<String> {
    vec![
        format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
        format!("$JS.API.CONSUMER.INFO.{stream}.*"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
        format!("$JS.ACK.{stream}.>"),
        format!("$JS.FC.{stream}.>"),
    ]
}

/// What a consumer that is there is used with.
fn fetch(stream: &str, consumer: &str) -> [String; 3] {
    [
        format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.>"),
    ]
}

/// What nobody but its owner may do with a service's durable consumer.
pub(crate) fn hands_off(stream: Stream, durable: &str) -> Vec<String> {
    let stream = stream.name();
    vec![
        format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}.>"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.{durable}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
        format!("$JS.ACK.{stream}.{durable}.>"),
    ]
}
