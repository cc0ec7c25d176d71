//! The audit log: listed, copied, and its chain of hashes computed anew.
//!
//! The registry's word is not taken for it: entries are fetched one page after the other and every hash is computed here.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    time::Duration,
};

use contracts::{
    PageRequest,
    audit::{
        AuditEntry, ExportAudit, ListAudit,
        verify::{Mark, Verified, Verifier},
    },
};
use messaging::Bus;

use crate::{
    args::{Audit, VerifyAudit},
    error::CliError,
    show::Output,
};

/// How long the registry may take for a page.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Entries in a page: as many as there may be.
const PAGE: u16 = 500;

pub(crate) async fn run(bus: &Bus, command: Audit, output: Output) -> Result<(), CliError> {
    match command {
        Audit::List { tenant, paging } => {
            let page = bus.request::<ListAudit>(ListAudit::subject(tenant), &paging.into(), TIMEOUT).await?;
            output.page(&page, &["AT", "ACTOR", "USER", "ACTION", "REASON"], |e| {
                let user = e.user.clone().unwrap_or_else(|| "-".to_owned());
                vec![e.at.to_string(), e.actor.clone(), user, e.action.clone(), e.reason.clone()]
            })
        }
        Audit::Export { out } => export(bus, &out, output).await,
        Audit::Verify(VerifyAudit { head, .. }) => {
            let mut check = Check::new(head);
            let mut pages = Pages::new(bus);
            while let Some(entries) = pages.next().await? {
                entries.into_iter().try_for_each(|entry| check.push(entry))?;
            }
            check.finish(output)
        }
    }
}

/// The whole log, page by page.
struct Pages<'a> {
    bus: &'a Bus,
    /// Where the next page begins; nothing after the last one.
    request: Option<PageRequest>,
}

impl<'a> Pages<'a> {
    fn new(bus: &'a Bus) -> Self {
        Self { bus, request: Some(PageRequest { limit: Some(PAGE), after: None }) }
    }

    async fn next(&mut self) -> Result<Option<Vec<AuditEntry>>, CliError> {
        let Some(request) = self.request.take() else { return Ok(None) };
        let page = self.bus.request::<ExportAudit>(ExportAudit::subject(), &request, TIMEOUT).await?;
        // A page that leads back to itself would never end.
        if page.next.is_some() && page.next == request.after {
            return Err(CliError::AuditStandsStill);
        }
        self.request = page.next.map(|next| PageRequest { limit: Some(PAGE), after: Some(next) });
        Ok(Some(page.items))
    }
}

/// A verification under way, with what is printed of it.
struct Check {
    verifier: Verifier,
    first: Option<AuditEntry>,
    last: Option<AuditEntry>,
}

impl Check {
    fn new(noted: Option<Mark>) -> Self {
        Self { verifier: Verifier::new(noted), first: None, last: None }
    }

    fn push(&mut self, entry: AuditEntry) -> Result<(), CliError> {
        self.first.get_or_insert_with(|| entry.clone());
        self.last = Some(entry.clone());
        self.verifier.push(entry).map_err(CliError::Audit)
    }

    fn finish(self, output: Output) -> Result<(), CliError> {
        let Verified { entries, head } = self.verifier.finish().map_err(CliError::Audit)?;
        let head = head.map_or_else(|| "-".to_owned(), |mark| mark.to_string());
        let place = |entry: &Option<AuditEntry>| {
            entry.as_ref().map_or_else(|| "-".to_owned(), |entry| format!("{} at {}", entry.sequence, entry.at))
        };
        let (first, last) = (place(&self.first), place(&self.last));
        let json = serde_json::json!({ "entries": entries, "first": first, "last": last, "head": head });
        let advice =
            "note the head elsewhere; `rolebridge audit verify --head` then also finds an end that was cut off";
        let lines = [
            ("entries", entries.to_string()),
            ("first", first),
            ("last", last),
            ("head", head),
            ("result", format!("every entry is as it was written; {advice}")),
        ];
        output.one(&json, &lines)
    }
}

/// Verifies a copy, for which no bus is needed.
pub(crate) fn verify_file(path: &Path, head: Option<Mark>, output: Output) -> Result<(), CliError> {
    let unreadable = |source| CliError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut check = Check::new(head);
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let entry = serde_json::from_str(&line.map_err(unreadable)?).map_err(|source| CliError::NoEntry {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        check.push(entry)?;
    }
    check.finish(output)
}

/// Writes what the registry gives, whether it holds or not: a broken log is worth a copy most of all.
async fn export(bus: &Bus, path: &Path, output: Output) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: path.to_owned(), source };
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?);
    let (mut pages, mut entries, mut last) = (Pages::new(bus), 0u64, None);
    while let Some(page) = pages.next().await? {
        for entry in page {
            serde_json::to_writer(&mut file, &entry)?;
            file.write_all(b"\n").map_err(failed)?;
            entries += 1;
            last = Some(Mark { sequence: entry.sequence, hash: entry.hash });
        }
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    let head = last.map_or_else(|| "-".to_owned(), |mark| mark.to_string());
    let json = serde_json::json!({ "entries": entries, "head": head, "file": path });
    let lines = [
        ("entries", entries.to_string()),
        ("head", head),
        ("file", format!("{}; check it with `rolebridge audit verify --file`", path.display())),
    ];
    output.one(&json, &lines)
}
