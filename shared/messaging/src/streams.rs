//! The streams of the design, as the server should have them.

use std::time::Duration;

use async_nats::jetstream::{
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use contracts::Stream;

use crate::{Bus, BusError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How `stream` is to be kept.
fn config(stream: Stream, replicas: usize) -> Config {
    let kept = Config {
        name: stream.name().to_owned(),
        subjects: vec![stream.subjects().to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        retention: RetentionPolicy::Limits,
        max_age: 30 * DAY,
        duplicate_window: Duration::from_secs(120),
        allow_direct: true,
        ..Config::default()
    };
    match stream {
        Stream::Callbacks => Config { max_age: 7 * DAY, ..kept },
        Stream::Jobs | Stream::Reports => Config { retention: RetentionPolicy::WorkQueue, max_age: 7 * DAY, ..kept },
        // The last word on each connection, for as long as there is one.
        Stream::Grants => Config { max_age: Duration::ZERO, max_messages_per_subject: 1, ..kept },
        // Strangers can fill it: the oldest go first, and the disk stays ours.
        Stream::DeadLetters => Config { max_bytes: 256 * 1024 * 1024, discard: DiscardPolicy::Old, ..kept },
        _ => kept,
    }
}

impl Bus {
    /// Makes `stream`, or brings it to the configuration it should have. Safe from several services at once.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ensure_stream(&self, stream: Stream) -> Result<(), BusError> {
        let wanted = config(stream, self.replicas);
        match self.jetstream.get_stream(stream.name()).await {
            Ok(found) => {
                let found = &found.cached_info().config;
                let same = found.subjects == wanted.subjects
                    && found.num_replicas == wanted.num_replicas
                    && found.max_age == wanted.max_age
                    && found.max_messages_per_subject == wanted.max_messages_per_subject;
                if !same {
                    let updated = self.jetstream.update_stream(&wanted).await;
                    updated.map_err(|source| BusError::new("updating the stream", stream.name(), source))?;
                }
                Ok(())
            }
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
                let made = self.jetstream.create_stream(wanted).await;
                made.map(|_| ()).map_err(|source| BusError::new("making the stream", stream.name(), source))
            }
            Err(error) => Err(BusError::new("looking up the stream", stream.name(), error)),
        }
    }
}
