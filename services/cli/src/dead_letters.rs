//! Dead letters: listed with their reason, and published again once what was wrong is mended.

use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull},
    message::StreamMessage,
};
use contracts::{EventId, Stream};
use futures::StreamExt;
use messaging::{Bus, RawMessage, header};
use serde::Serialize;

use crate::{
    args::DeadLetters,
    error::CliError,
    show::{Output, table},
};

#[derive(Debug, Serialize)]
struct Letter {
    sequence: u64,
    at: String,
    consumer: String,
    subject: String,
    reason: String,
}

pub(crate) async fn run(bus: &Bus, command: DeadLetters, output: Output) -> Result<(), CliError> {
    match command {
        DeadLetters::List { limit, after } => list(bus, limit, after, output).await,
        DeadLetters::Replay { sequence } => replay(bus, sequence).await,
    }
}

fn unreadable(error: impl std::fmt::Display) -> CliError {
    CliError::DeadLetters { problem: error.to_string() }
}

async fn list(bus: &Bus, limit: usize, after: u64, output: Output) -> Result<(), CliError> {
    let mut stream = bus.jetstream().get_stream(Stream::DeadLetters.name()).await.map_err(unreadable)?;
    let last = stream.info().await.map_err(unreadable)?.state.last_sequence;
    let mut letters = Vec::new();
    if last > after {
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
        let config = pull::OrderedConfig { deliver_policy, ..pull::OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(unreadable)?;
        let mut messages = consumer.messages().await.map_err(unreadable)?;
        while letters.len() < limit {
            let Some(message) = messages.next().await else { break };
            let message = message.map_err(unreadable)?;
            let info = message.info().map_err(unreadable)?;
            let text = |name| {
                message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(name))
                    .map(ToString::to_string)
                    .unwrap_or_default()
            };
            let at = contracts::Timestamp::from(info.published).to_string();
            let (consumer, subject, reason) = (text(header::CONSUMER), text(header::SUBJECT), text(header::REASON));
            letters.push(Letter { sequence: info.stream_sequence, at, consumer, subject, reason });
            if info.stream_sequence >= last {
                break;
            }
        }
    }
    if output.is_json() {
        println!("{}", serde_json::to_string_pretty(&letters)?);
        return Ok(());
    }
    let rows: Vec<_> =
        letters.into_iter().map(|l| vec![l.sequence.to_string(), l.at, l.consumer, l.subject, l.reason]).collect();
    print!("{}", table(&["SEQUENCE", "AT", "CONSUMER", "SUBJECT", "REASON"], &rows));
    Ok(())
}

async fn replay(bus: &Bus, sequence: u64) -> Result<(), CliError> {
    let stream = bus.jetstream().get_stream(Stream::DeadLetters.name()).await.map_err(unreadable)?;
    let letter: StreamMessage = stream.get_raw_message(sequence).await.map_err(|_| CliError::NoLetter { sequence })?;
    let text = |name| letter.headers.get(name).map(ToString::to_string);
    let subject =
        text(header::SUBJECT).filter(|subject| subject.starts_with("rolebridge.")).ok_or(CliError::DeadLetters {
            problem: format!(
                "letter {sequence} did not come over the bus, so there is no subject to publish it on again"
            ),
        })?;
    // A new ID: the old one may still be within the stream's window of duplicates.
    let message = RawMessage {
        subject: subject.clone(),
        id: EventId::new(),
        traceparent: text("traceparent"),
        payload: letter.payload.to_vec(),
    };
    bus.publish_raw(&message).await?;
    stream.delete_message(sequence).await.map_err(unreadable)?;
    println!("letter {sequence} was published again on {subject}");
    Ok(())
}
