//! Following a stream that keeps the last message of each subject, and knowing whether what was read of it is current.
//!
//! A consumer can go silent with nobody told: lost at the server, stuck inside the library, cut off. So the stream is asked once a second for the number of
//! its last message, and when everything up to that number has been read, what was read counts as current for [`COUNTS`] from the moment of the *question*.
//! Nothing else makes it current. Whoever reads from memory asks [`Current::holds`] first and reads the stream itself when it does not
//! ([ADR 15](../../../docs/adr/0015-answers-from-memory.md)).
//!
//! What must not live here: what the messages mean.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use messaging::async_nats::jetstream::{
    Message,
    consumer::{DeliverPolicy, pull::OrderedConfig},
    stream::{Info, InfoError, Stream as Kept},
};
use runtime::Part;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For how long after a question what was read counts as current: the longest that an instance may act on what the stream has taken back.
pub const COUNTS: Duration = Duration::from_secs(3);
/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// A stream that has not given us for so long what it says it has is opened again.
const BEHIND: Duration = Duration::from_secs(10);
/// Between two tries to get the stream back.
const PAUSE: Duration = Duration::from_secs(1);

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Whether what was read is current. Cheap to clone; one task writes it.
#[derive(Debug, Clone)]
pub struct Current(Arc<Until>);

#[derive(Debug)]
struct Until {
    began: Instant,
    /// Microseconds from `began`; 0 for never.
    until: AtomicU64,
}

impl Default for Current {
    fn default() -> Self {
        Self(Arc::new(Until { began: Instant::now(), until: AtomicU64::new(0) }))
    }
}

impl Current {
    /// Whether everything that the stream had [`COUNTS`] ago has been read.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.micros(Instant::now()) < self.0.until.load(Ordering::Acquire)
    }

    fn as_of(&self, question: Instant) {
        self.0.until.fetch_max(self.micros(question + COUNTS), Ordering::Release);
    }

    fn end(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0.began).as_micros()).unwrap_or(u64::MAX)
    }

    #[cfg(test)]
    pub(crate) fn pretend(&self) {
        self.0.until.store(u64::MAX, Ordering::Release);
    }
}

/// What was read of the stream beside what it said it had. No I/O.
#[derive(Debug)]
struct Progress {
    /// The last number that the stream had before the consumer was made.
    base: u64,
    seen: u64,
    /// A question whose answer has not been read up to yet.
    open: Option<(Instant, u64)>,
}

impl Progress {
    fn new(question: Instant, base: u64) -> Self {
        Self { base, seen: 0, open: Some((question, base)) }
    }

    /// A message was read. The question that is answered with it, if one is.
    fn read(&mut self, number: u64) -> Option<Instant> {
        self.seen = self.seen.max(number);
        self.settle()
    }

    /// Nothing of what was there when the consumer was made is left, though its last messages may have been deleted.
    fn complete(&mut self) -> Option<Instant> {
        self.seen = self.seen.max(self.base);
        self.settle()
    }

    /// The stream's last number, as of `question`.
    ///
    /// # Errors
    /// When it is lower than what was read: it is another stream.
    fn told(&mut self, question: Instant, last: u64) -> Result<Option<Instant>, Source> {
        if last < self.seen {
            return Err("the stream has fewer messages than were read of it: it was made anew".into());
        }
        if self.open.is_none() {
            self.open = Some((question, last));
        }
        Ok(self.settle())
    }

    fn settle(&mut self) -> Option<Instant> {
        self.open.take_if(|(_, last)| *last <= self.seen).map(|(question, _)| question)
    }

    /// # Errors
    /// When what was promised does not come.
    fn check(&self, now: Instant) -> Result<(), Source> {
        match self.open {
            Some((question, _)) if now.saturating_duration_since(question) > BEHIND => {
                Err("messages that the stream has do not come".into())
            }
            _ => Ok(()),
        }
    }
}

/// A stream to follow.
#[derive(Clone)]
pub struct Followed {
    /// For log and readiness: `grants`.
    pub what: &'static str,
    pub stream: Kept,
    /// The subjects, all of them: the server wants a filter with "last per subject".
    pub filter: String,
    pub current: Current,
}

impl Followed {
    /// Reads the last message of every subject, and then each new one, in the stream's order, until shutdown. The part is ready when everything was read once.
    ///
    /// Cancel: ends. Failure: the stream is opened again, for as long as it takes; [`Current`] does not hold meanwhile.
    pub async fn follow(&self, read: impl Fn(&Message) + Send + Sync, part: &Part, shutdown: &CancellationToken) {
        loop {
            let broken = tokio::select! {
                () = shutdown.cancelled() => return,
                Err(broken) = self.once(&read, part) => broken,
            };
            self.current.end();
            part.not_ready(format!("{}: the stream is being opened again", self.what));
            tracing::warn!(what = self.what, error = %broken, "a stream that is followed broke off, it is opened again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Ends only by breaking.
    async fn once(&self, read: impl Fn(&Message), part: &Part) -> Result<std::convert::Infallible, Source> {
        let began = Instant::now();
        let opened = self.stream.get_info().await?;
        let mut progress = Progress::new(began, opened.state.last_sequence);
        let (deliver_policy, filter_subject) = (DeliverPolicy::LastPerSubject, self.filter.clone());
        let config = OrderedConfig { deliver_policy, filter_subject, ..OrderedConfig::default() };
        let consumer = self.stream.create_consumer(config).await?;
        let settled = |question: Option<Instant>| question.into_iter().for_each(|at| self.current.as_of(at));
        let nothing_there = consumer.cached_info().num_pending == 0;
        let mut messages = consumer.messages().await?;
        if nothing_there {
            settled(progress.complete());
            part.ready();
        }
        let mut asked = Box::pin(self.ask());
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.ok_or("the server closed the consumer")??;
                    read(&message);
                    let info = message.info()?;
                    settled(progress.read(info.stream_sequence));
                    if info.pending == 0 {
                        settled(progress.complete());
                        part.ready();
                    }
                }
                (question, answer) = &mut asked => {
                    match answer {
                        Ok(info) if info.created != opened.created => return Err("the stream was made anew".into()),
                        Ok(info) => settled(progress.told(question, info.state.last_sequence)?),
                        // What was read stops counting by itself; whoever needs it reads the stream meanwhile.
                        Err(error) => tracing::warn!(what = self.what, %error, "a stream that is followed did not say how far it is"),
                    }
                    progress.check(Instant::now())?;
                    asked = Box::pin(self.ask());
                }
            }
        }
    }

    /// Asks how far the stream is, after a pause.
    async fn ask(&self) -> (Instant, Result<Info, InfoError>) {
        tokio::time::sleep(EVERY).await;
        let question = Instant::now();
        (question, self.stream.get_info().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_read_counts_from_the_question_and_not_for_long() {
        let (current, question) = (Current::default(), Instant::now());
        assert!(!current.holds(), "not before anything was asked");
        tokio::time::sleep(Duration::from_secs(2)).await;
        current.as_of(question);
        assert!(current.holds());
        tokio::time::sleep(Duration::from_millis(999)).await;
        assert!(current.holds());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!current.holds(), "an answer that came late counts no longer for it");
        current.as_of(Instant::now());
        assert!(current.holds());
        current.end();
        assert!(!current.holds());
    }

    #[test]
    fn a_question_is_settled_when_all_that_the_stream_had_then_was_read() {
        let began = Instant::now();
        let mut progress = Progress::new(began, 7);
        assert_eq!(progress.read(5), None);
        assert_eq!(progress.read(7), Some(began));
        let later = began + EVERY;
        assert_eq!(progress.told(later, 9).unwrap(), None);
        let latest = later + EVERY;
        assert_eq!(progress.told(latest, 10).unwrap(), None, "one at a time, or a busy stream would never be current");
        assert_eq!(progress.read(9), Some(later));
        assert_eq!(progress.told(latest, 9).unwrap(), Some(latest));
        assert!(progress.told(latest, 8).is_err(), "another stream of the same name");
    }

    #[test]
    fn last_messages_that_were_deleted_are_not_waited_for() {
        let began = Instant::now();
        let mut progress = Progress::new(began, 7);
        assert_eq!(progress.read(5), None);
        assert_eq!(progress.complete(), Some(began));
        assert_eq!(progress.told(began + EVERY, 7).unwrap(), Some(began + EVERY));
    }

    #[test]
    fn a_consumer_that_is_silent_though_the_stream_goes_on_is_given_up() {
        let began = Instant::now();
        let mut progress = Progress::new(began, 0);
        progress.complete();
        progress.told(began, 1).unwrap();
        assert!(progress.check(began + BEHIND).is_ok());
        assert!(progress.check(began + BEHIND + EVERY).is_err());
    }
}
