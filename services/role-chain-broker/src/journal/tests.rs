use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::{
    AccountId, CloudEvent, ConnectionId, ErrorCode, EventId, Message, TenantId, Timestamp,
    credentials::{CredentialsDenied, CredentialsIssued, Purpose},
};
use messaging::RawMessage;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    answer::Answer,
    folder::Folder,
    reader::{Lost, Reader},
    record::{self, HEADER, Header, Next, Record, Single},
    *,
};
use crate::metrics::Metrics;

const ROOM: u64 = 64 << 20;

/// A journal in a folder that goes with it.
pub(crate) fn journal() -> (Journal, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Journal::open(folder.path(), ROOM).unwrap(), folder)
}

fn given(requester: &str) -> Given<'static> {
    let connection = "019aab2e-0000-7000-8000-000000000001".parse().unwrap();
    Given {
        tenant: "019aab2e-0000-7000-8000-000000000000".parse().unwrap(),
        connection,
        purpose: Purpose::CostRead,
        account: std::borrow::Cow::Owned(AccountId::parse("222222222222").unwrap()),
        requester: requester.to_owned().into(),
        user: Some("job".into()),
        session_name: "rolebridge.cost-read.0123456789ab".into(),
        expires_at: "2026-11-22T12:00:00Z".parse().unwrap(),
    }
}

fn refused(requester: &str) -> Refused<'static> {
    Refused {
        tenant: TenantId::new(),
        connection: ConnectionId::new(),
        purpose: None,
        requester: Some(requester.to_owned().into()),
        user: None,
        code: ErrorCode::NotFound,
        reason: "there is none".into(),
    }
}

/// A stream that remembers what it was given, once for each ID.
#[derive(Clone, Default)]
struct Stored {
    events: Arc<Mutex<BTreeMap<EventId, RawMessage>>>,
    away: Arc<AtomicBool>,
}

#[async_trait]
impl Events for Stored {
    async fn store(&self, event: &RawMessage) -> bool {
        if self.away.load(Ordering::SeqCst) {
            return false;
        }
        let before = self.events.lock().unwrap().insert(event.id, event.clone());
        // The same ID is the same event, whoever reads it how often.
        assert!(before.is_none_or(|before| before == *event));
        true
    }
}

impl Stored {
    fn of<T: Message>(&self) -> Vec<T> {
        let events = self.events.lock().unwrap();
        events
            .values()
            .filter_map(|event| CloudEvent::<T>::decode(&event.payload).ok())
            .map(|event| event.data)
            .collect()
    }

    fn answers(&self) -> BTreeMap<String, u64> {
        let mut answers = BTreeMap::new();
        for event in self.of::<CredentialsIssued>() {
            *answers.entry(event.requester).or_default() += event.answers;
        }
        for event in self.of::<CredentialsDenied>() {
            *answers.entry(event.requester.unwrap_or_default()).or_default() += event.answers;
        }
        answers
    }
}

/// Publishes all that is in `journal`, and ends it.
async fn publish(journal: &Journal, stored: &Stored) {
    let answered = CancellationToken::new();
    answered.cancel();
    keep(journal.clone(), stored.clone(), Metrics::new(&telemetry::meter()), answered).await.unwrap();
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "segment")).collect();
    segments.sort();
    segments
}

#[tokio::test]
async fn what_is_written_down_becomes_events_and_leaves_the_folder() {
    let (journal, folder) = journal();
    journal.issued(given("first"), 1).await.unwrap();
    for _ in 0..7 {
        journal.answered_from_cache(given("first")).unwrap();
        journal.answered_from_cache(given("second")).unwrap();
    }
    journal.denied(refused("third")).await.unwrap();
    let stored = Stored::default();
    publish(&journal, &stored).await;
    assert_eq!(stored.answers(), BTreeMap::from([("first".into(), 8), ("second".into(), 7), ("third".into(), 1)]));
    let issued = stored.of::<CredentialsIssued>();
    let new: Vec<_> = issued.iter().filter(|event| event.new_session).collect();
    assert!(
        matches!(new.as_slice(), [one] if one.requester == "first" && one.answers == 1 && one.user.as_deref() == Some("job"))
    );
    for event in &issued {
        let minute = |at: Timestamp| at.inner().unix_timestamp() / 60;
        assert!(event.from <= event.until && minute(event.from) == minute(event.until), "{event:?}");
    }
    assert!(segments(folder.path()).is_empty());
    assert!(matches!(journal.answered_from_cache(given("late")), Err(JournalError::Ended)));
}

#[tokio::test]
async fn what_an_earlier_life_left_is_published_with_the_ids_that_it_would_have_had() {
    let (journal, folder) = journal();
    journal.issued(given("one"), 1).await.unwrap();
    journal.answered_from_cache(given("one")).unwrap();
    // As a crash leaves it: the same files twice, read by two lives.
    let copy = tempfile::tempdir().unwrap();
    for file in segments(folder.path()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let stored = Stored::default();
    publish(&journal, &stored).await;
    let first: Vec<_> = stored.events.lock().unwrap().keys().copied().collect();
    publish(&Journal::open(copy.path(), ROOM).unwrap(), &stored).await;
    let both: Vec<_> = stored.events.lock().unwrap().keys().copied().collect();
    assert_eq!((first.len(), &first), (2, &both));
    assert!(first.iter().all(|id| id.as_uuid().get_version_num() == 7));
    // The same answers in another segment are other events.
    let (other, _folder) = super::tests::journal();
    other.issued(given("one"), 1).await.unwrap();
    publish(&other, &stored).await;
    assert_eq!(stored.events.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_stream_that_is_away_keeps_nobody_waiting_and_gets_everything_later() {
    let (journal, folder) = journal();
    let (stored, answered) = (Stored::default(), CancellationToken::new());
    stored.away.store(true, Ordering::SeqCst);
    let task = tokio::spawn(keep(journal.clone(), stored.clone(), Metrics::new(&telemetry::meter()), answered.clone()));
    for _ in 0..100 {
        journal.issued(given("one"), 1).await.unwrap();
        journal.answered_from_cache(given("one")).unwrap();
    }
    assert!(stored.events.lock().unwrap().is_empty());
    assert!(journal.backlog().0 > 100 * 21);
    stored.away.store(false, Ordering::SeqCst);
    answered.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(stored.answers(), BTreeMap::from([("one".into(), 200)]));
    assert!(segments(folder.path()).is_empty());
}

#[tokio::test]
async fn a_full_journal_takes_nothing_until_the_stream_has_taken_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 4096).unwrap();
    let (stored, answered) = (Stored::default(), CancellationToken::new());
    stored.away.store(true, Ordering::SeqCst);
    let task = tokio::spawn(keep(journal.clone(), stored.clone(), Metrics::new(&telemetry::meter()), answered.clone()));
    let mut written = 0;
    let error = loop {
        match journal.issued(given("one"), 1).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Full));
    assert_eq!(contracts::ErrorReply::from(error).code, ErrorCode::Unavailable);
    assert!(matches!(journal.denied(refused("two")).await, Err(JournalError::Full)));
    stored.away.store(false, Ordering::SeqCst);
    while journal.answered_from_cache(given("one")).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answered.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(stored.answers(), BTreeMap::from([("one".into(), written + 1)]));
}

#[tokio::test]
async fn one_who_is_loud_while_the_stream_is_away_leaves_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 16 * 1024).unwrap();
    let (stored, answered) = (Stored::default(), CancellationToken::new());
    stored.away.store(true, Ordering::SeqCst);
    let task = tokio::spawn(keep(journal.clone(), stored.clone(), Metrics::new(&telemetry::meter()), answered.clone()));
    let of = |user: &'static str| Given { user: Some(user.into()), ..given(user) };
    let mut loud = 0;
    let error = loop {
        match journal.answered_from_cache(of("loud")) {
            Ok(()) => loud += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Share), "{error:?}");
    let told = contracts::ErrorReply::from(error);
    assert!(told.code == ErrorCode::Throttled && told.retry_after_ms.is_some(), "{told:?}");
    let refusal = Refused { user: Some("loud".into()), ..refused("loud") };
    assert!(matches!(journal.denied(refusal).await, Err(JournalError::Share)), "nor by what is refused");
    // A third is free for another, who is within his share, and a session is begun for all.
    let mut quiet = 0;
    while journal.answered_from_cache(of("quiet")).is_ok() {
        quiet += 1;
    }
    assert!(quiet > loud / 4, "{quiet} beside {loud}");
    journal.issued(of("loud"), 1).await.unwrap();
    stored.away.store(false, Ordering::SeqCst);
    while journal.answered_from_cache(of("loud")).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answered.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(stored.answers(), BTreeMap::from([("loud".into(), loud + 2), ("quiet".into(), quiet)]));
}

/// Whatever is damaged, wherever: all that is whole beside it is published, and the rest is counted.
#[tokio::test]
async fn damage_takes_what_it_has_hit_and_nothing_behind_it() {
    let single = |name: &str| {
        let answer = Answer::Given(given(name));
        Record::Single(Single { at: 1, traceparent: None, answers: 1, answer })
    };
    let known = Record::Known { number: 0, answer: Answer::Given(given("summed")) };
    let again = |at| Record::Again { number: 0, at };
    let written = [single("a"), known, again(1), single("b"), again(2), single("c")];
    let (bytes, ends) = encode(&written);
    let names = |names: &[(&str, u64)]| names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    // Which record is hit, what is published all the same, and how many answers are of nobody knows whom.
    let cases: [(usize, BTreeMap<String, u64>, u64); 4] = [
        (0, names(&[("b", 1), ("c", 1), ("summed", 2)]), 0),
        (1, names(&[("a", 1), ("b", 1), ("c", 1)]), 2),
        (3, names(&[("a", 1), ("c", 1), ("summed", 2)]), 0),
        (4, names(&[("a", 1), ("b", 1), ("c", 1), ("summed", 1)]), 0),
    ];
    for (hit, expected, unknown) in cases {
        let path = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::open(path.path()).unwrap();
        let segment = folder.begin(0, 1).unwrap();
        let mut damaged = bytes.clone();
        let begins = if hit == 0 { 0 } else { ends[hit - 1] };
        damaged[begins + 9] ^= 1;
        segment.append(&damaged, 1).unwrap();
        let mut reader = Reader::open(&segment).unwrap();
        let mut events = reader.next(segment.length()).unwrap().events;
        events.extend(reader.sums().unwrap());
        let stored = Stored::default();
        for event in &events {
            assert!(stored.store(event).await);
        }
        assert_eq!(stored.answers(), expected, "{hit}");
        let bytes = (ends[hit] - begins) as u64;
        assert_eq!(reader.lost(), Lost { bytes, answers: unknown, damaged: true }, "{hit}");
    }
}

#[test]
fn damage_that_is_longer_than_what_is_read_at_once_is_passed() {
    let path = tempfile::tempdir().unwrap();
    let (folder, _) = Folder::open(path.path()).unwrap();
    let segment = folder.begin(0, 1).unwrap();
    let answer = Answer::Given(given("one"));
    let (bytes, _) = encode(&[Record::Single(Single { at: 1, traceparent: None, answers: 1, answer })]);
    let noise = vec![7; 700_000];
    for part in [&bytes, &noise, &bytes] {
        segment.append(part, 1).unwrap();
    }
    let mut reader = Reader::open(&segment).unwrap();
    let batch = reader.next(segment.length()).unwrap();
    assert_eq!((batch.events.len(), batch.at_end), (2, true));
    assert_eq!(reader.lost(), Lost { bytes: 700_000, answers: 0, damaged: true });
}

/// The disk stands still: a write is under way, and does not end.
#[test]
fn a_slow_disk_stops_nothing_but_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (journal, _folder) = journal();
        journal.answered_from_cache(given("one")).unwrap();
        let (stands, stood) = std::sync::mpsc::channel::<()>();
        let (begun, began) = std::sync::mpsc::channel();
        let writing = journal.clone();
        let disk = std::thread::spawn(move || writing.stands_still(&begun, &stood));
        began.recv().unwrap();
        let answers = (0..200).map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.answered_from_cache(given("one")) })
        });
        let answers: Vec<_> = answers.collect();
        // Both threads of the runtime have come upon the disk by now, and everything else goes on.
        let told_to_come_again = async || {
            while answers.iter().filter(|answer| answer.is_finished()).count() < 200 - 64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let goes_on = tokio::spawn(async { tokio::time::sleep(Duration::from_millis(5)).await });
        tokio::time::timeout(Duration::from_secs(30), goes_on).await.expect("the runtime stands still").unwrap();
        tokio::time::timeout(Duration::from_secs(30), told_to_come_again()).await.expect("all wait");
        stands.send(()).unwrap();
        disk.join().unwrap();
        let mut written = 0;
        for answer in answers {
            match answer.await.unwrap() {
                Ok(()) => written += 1,
                Err(error) => assert!(matches!(error, JournalError::Slow), "{error}"),
            }
        }
        assert!(written <= 64, "{written}");
        let stored = Stored::default();
        publish(&journal, &stored).await;
        assert_eq!(stored.answers(), BTreeMap::from([("one".into(), written + 1)]), "what went out is written down");
    });
}

#[test]
fn a_folder_is_one_instances_alone_and_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below").join("journal");
    let first = Journal::open(&path, ROOM).unwrap();
    let refused = Journal::open(&path, ROOM).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }) && refused.to_string().contains("a folder of its own"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for file in fs::read_dir(&path).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    drop(first);
    Journal::open(&path, ROOM).unwrap();
}

#[test]
fn what_is_no_segment_of_this_version_is_not_passed_over() {
    for contents in [vec![], vec![7; 100]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0000000000000003.segment"), contents).unwrap();
        let refused = Journal::open(folder.path(), ROOM).unwrap_err();
        assert!(matches!(refused, OpenError::NoSegment { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_for_people_and_a_torn_end_is_not() {
    let (journal, folder) = journal();
    journal.answered_from_cache(given("one")).unwrap();
    drop(journal);
    let file = segments(folder.path()).pop().unwrap();
    let append = |bytes: &[u8]| OpenOptions::new().append(true).open(&file).unwrap().write_all(bytes).unwrap();
    // A page that was never written to, and what else a crash leaves.
    append(&[0; 100_000]);
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    append(&[9; 100]);
    for (folder, damaged) in [(copy, 0), (folder, 1)] {
        let stored = Stored::default();
        publish(&Journal::open(folder.path(), ROOM).unwrap(), &stored).await;
        assert_eq!(stored.answers(), BTreeMap::from([("one".into(), 1)]));
        assert!(segments(folder.path()).is_empty());
        let kept = fs::read_dir(folder.path()).unwrap();
        let kept =
            kept.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "damaged"));
        assert_eq!(kept.count(), damaged);
    }
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let answer = || {
        prop_oneof![
            "[a-z]{2,32}".prop_map(|name| Answer::Given(given(&name))),
            "[a-z]{2,32}".prop_map(|name| Answer::Refused(refused(&name)))
        ]
    };
    let record = prop_oneof![
        (any::<u32>(), answer()).prop_map(|(number, answer)| Record::Known { number, answer }),
        (any::<u32>(), any::<u64>()).prop_map(|(number, at)| Record::Again { number, at }),
        (any::<u64>(), answer()).prop_map(|(at, answer)| Record::Single(Single {
            at,
            traceparent: None,
            answers: 1,
            answer
        })),
    ];
    prop::collection::vec(record, 1..8)
}

fn encode(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Known { number, answer } => record::write_known(&mut bytes, *number, answer),
            Record::Again { number, at } => record::write_again(&mut bytes, *number, *at),
            Record::Single(single) => record::write_single(&mut bytes, single),
        }
        .unwrap();
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn decode(mut bytes: &[u8]) -> (Vec<Record>, Next) {
    let mut records = Vec::new();
    loop {
        match record::next(bytes) {
            Next::Record(record, size) => {
                records.push(record);
                bytes = &bytes[size..];
            }
            other => return (records, other),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    New(u8),
    Again(u8),
    Denied(u8),
    DeniedAgain(u8),
    Roll,
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..4u8).prop_map(Step::New),
        8 => (0..4u8).prop_map(Step::Again),
        1 => (0..4u8).prop_map(Step::Denied),
        2 => (4..6u8).prop_map(Step::DeniedAgain),
        1 => Just(Step::Roll),
        1 => (0..200usize).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn records_are_read_as_they_were_written_and_a_torn_end_takes_the_last_alone(records in records(), flip in any::<prop::sample::Index>()) {
        let (bytes, ends) = encode(&records);
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (read, rest) = decode(&bytes[..cut]);
            prop_assert_eq!(&read[..], &records[..whole]);
            prop_assert_eq!(rest, Next::Short);
        }
        // A bit that fell over: what is before it is read, and nothing that was not written.
        let mut damaged = bytes.clone();
        let at = flip.index(bytes.len());
        damaged[at] ^= 0x10;
        let whole = ends.iter().filter(|end| **end <= at).count();
        let (read, rest) = decode(&damaged);
        prop_assert_eq!(&read[..], &records[..whole]);
        prop_assert!(matches!(rest, Next::Torn | Next::Short), "{rest:?}");
    }

    #[test]
    fn headers_are_read_as_they_were_written(id in any::<u128>(), begun in any::<u64>(), at in 0..HEADER, bit in 0..8) {
        let header = Header { id: uuid::Uuid::from_u128(id), begun };
        let mut bytes = header.encode();
        prop_assert_eq!(Header::decode(&bytes), Some(header));
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(Header::decode(&bytes), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever comes in whatever order, with crashes that leave a torn end between: the events say what was written down, no more and no less.
    #[test]
    fn events_sum_up_what_was_written_down(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (mut expected, mut news, stored) = (BTreeMap::<String, u64>::new(), 0, Stored::default());
            let mut journal = Journal::open(folder.path(), ROOM).unwrap();
            for step in steps {
                let name = |number: u8| format!("job-{number}");
                match &step {
                    Step::New(n) => { journal.issued(given(&name(*n)), 1).await.unwrap(); news += 1; }
                    Step::Again(n) => journal.answered_from_cache(given(&name(*n))).unwrap(),
                    Step::Denied(n) => journal.denied(refused(&name(*n))).await.unwrap(),
                    Step::DeniedAgain(n) => journal.denied_from_cache(refused(&name(*n))).unwrap(),
                    Step::Roll => drop(journal.roll().unwrap()),
                    Step::Crash(torn) => {
                        drop(journal);
                        let last = segments(folder.path()).pop().unwrap();
                        let (bytes, _) = encode(&[Record::Known { number: 9, answer: Answer::Given(given("torn")) }]);
                        let torn = &bytes[..(*torn).min(bytes.len() - 1)];
                        OpenOptions::new().append(true).open(last).unwrap().write_all(torn).unwrap();
                        journal = Journal::open(folder.path(), ROOM).unwrap();
                    }
                }
                if let Step::New(n) | Step::Again(n) | Step::Denied(n) | Step::DeniedAgain(n) = step {
                    *expected.entry(name(n)).or_default() += 1;
                }
            }
            publish(&journal, &stored).await;
            prop_assert_eq!(stored.answers(), expected);
            prop_assert_eq!(stored.of::<CredentialsIssued>().iter().filter(|event| event.new_session).count(), news);
            prop_assert!(segments(folder.path()).is_empty());
            Ok(())
        })?;
    }
}

#[test]
fn a_segment_without_an_end_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, _) = Folder::open(folder.path()).unwrap();
    let segment = folder.begin(0, 0).unwrap();
    let (bytes, _) =
        encode(&[Record::Single(Single { at: 1, traceparent: None, answers: 1, answer: Answer::Given(given("one")) })]);
    let mut reader = Reader::open(&segment).unwrap();
    assert!(reader.next(segment.length()).unwrap().at_end);
    for _ in 0..700 {
        segment.append(&bytes, 1).unwrap();
    }
    let mut read = 0;
    loop {
        let batch = reader.next(segment.length()).unwrap();
        assert_eq!(reader.lost(), Lost::default());
        read += batch.events.len();
        if batch.at_end {
            break;
        }
    }
    assert_eq!(read, 700);
}
