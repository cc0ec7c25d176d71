//! The command line against a running system: the audit log and its chain of hashes, probes on demand, changes of external IDs, the end of a tenant.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{fs, path::Path};

use common::{
    Launched, PATIENCE, World,
    shell::{Shell, text},
    until,
};
use contracts::connection::Connection;
use serde_json::Value;

/// A system with one customer, and its command line.
struct Desk {
    world: World,
    shell: Shell,
    customer: (Launched, Connection),
}

impl Desk {
    async fn open() -> Self {
        let mut world = World::start().await;
        let customer = world.connect("Acme").await;
        let shell = Shell::new(&world.system);
        Self { world, shell, customer }
    }

    fn tenant(&self) -> String {
        self.customer.0.tenant.to_string()
    }

    fn connection(&self) -> String {
        self.customer.1.connection.to_string()
    }

    fn enrollment(&self) -> String {
        self.customer.0.offer.enrollment.enrollment.to_string()
    }
}

/// Lines of the file, one of them changed or left out.
fn tampered(path: &Path, change: impl Fn(usize, String) -> Option<String>) -> String {
    let text = fs::read_to_string(path).expect("a copy");
    let lines = text.lines().enumerate().filter_map(|(number, line)| change(number, line.to_owned()));
    let copy = path.with_extension("tampered");
    fs::write(&copy, lines.map(|line| format!("{line}\n")).collect::<String>()).expect("a changed copy");
    copy.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_lists_verifies_and_copies_the_log() {
    let desk = Desk::open().await;
    let (shell, tenant) = (&desk.shell, desk.tenant());
    desk.world.quiet().await;

    let listed = shell.says(&["audit", "list", &tenant]).await;
    let head = listed.lines().next().expect("a head").split_whitespace().collect::<Vec<_>>();
    assert_eq!(head, ["AT", "ACTOR", "USER", "ACTION", "REASON"]);
    for action in ["tenant.created", "principal.ready", "enrollment.created", "connection.verified"] {
        assert!(listed.contains(action), "{action} is not in:\n{listed}");
    }
    let page = shell.json(&["audit", "list", &tenant, "--limit", "2"]).await;
    let actions: Vec<_> =
        page["items"].as_array().expect("entries").iter().map(|entry| text(&entry["action"])).collect();
    assert_eq!(actions, ["tenant.created", "principal.ready"]);
    let next = shell.json(&["audit", "list", &tenant, "--after", text(&page["next"])]).await;
    assert_eq!(text(&next["items"][0]["action"]), "enrollment.created");

    let early = shell.json(&["audit", "verify"]).await;
    let (head, entries) = (text(&early["head"]).to_owned(), early["entries"].as_u64().expect("a count"));
    assert!(entries >= 5 && head.starts_with(&format!("{entries}:")), "{early}");
    let said = shell.says(&["audit", "verify"]).await;
    assert!(said.contains(&head) && said.contains("every entry is as it was written"), "{said}");

    // What comes after the head that was noted changes nothing about it.
    shell.says(&["tenants", "suspend", &tenant, "--reason", "unpaid since March"]).await;
    shell.says(&["tenants", "resume", &tenant, "--reason", "paid"]).await;
    let late = shell.json(&["audit", "verify", "--head", &head]).await;
    assert!(late["entries"].as_u64().expect("a count") >= entries + 2, "{late}");
    let (number, hash) = head.split_once(':').expect("a mark");
    let rewritten =
        shell.refuses(&["audit", "verify", "--head", &format!("{number}:{}", "0".repeat(hash.len()))]).await;
    assert!(rewritten.contains("was written anew"), "{rewritten}");
    let cut = shell.refuses(&["audit", "verify", "--head", &format!("100000:{hash}")]).await;
    assert!(cut.contains("entry 100000 was there before: the end was cut off"), "{cut}");

    copies(&desk, &head, entries).await;
}

/// A copy is as good as the log, until somebody touches it.
async fn copies(desk: &Desk, head: &str, entries: u64) {
    let shell = &desk.shell;
    desk.world.quiet().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let file = path.display().to_string();
    let exported = shell.json(&["audit", "export", "--out", &file]).await;
    let last = text(&exported["head"]).to_owned();
    let whole = exported["entries"].as_u64().expect("a count");
    assert!(whole >= entries + 2, "{exported}");
    let again = shell.refuses(&["audit", "export", "--out", &file]).await;
    assert!(again.contains("cannot write") && again.contains("is it there already"), "{again}");
    let other = folder.path().join("again.jsonl").display().to_string();
    let said = shell.says(&["audit", "export", "--out", &other]).await;
    assert!(said.contains(&last) && said.contains("rolebridge audit verify --file"), "{said}");

    let verified = shell.json(&["audit", "verify", "--file", &file, "--head", head]).await;
    assert_eq!((&verified["head"], &verified["entries"]), (&exported["head"], &exported["entries"]));

    let suspended =
        fs::read_to_string(&path).expect("a copy").lines().position(|line| line.contains("unpaid since March"));
    let number = suspended.expect("the suspension is in the copy") + 1;
    let harmless = tampered(&path, |_, line| Some(line.replace("unpaid since March", "it was harmless")));
    let changed = shell.refuses(&["audit", "verify", "--file", &harmless]).await;
    let words = format!("the audit log does not hold: entry {number} is not what was written");
    assert!(changed.contains(&words) && changed.contains("Keep the database"), "{changed}");
    let without = tampered(&path, |index, line| (index + 1 != number).then_some(line));
    let removed = shell.refuses(&["audit", "verify", "--file", &without, "--json"]).await;
    assert!(removed.contains(&format!("entries {number} to {number} are missing")), "{removed}");
    let torn = tampered(&path, |index, line| Some(if index == 1 { line[..line.len() / 2].to_owned() } else { line }));
    let torn = shell.refuses(&["audit", "verify", "--file", &torn]).await;
    assert!(torn.contains("line 2 of"), "{torn}");
    // An end that is cut off is seen by those alone who have noted a head.
    let short = tampered(&path, |index, line| (index as u64 + 1 < whole).then_some(line));
    shell.says(&["audit", "verify", "--file", &short]).await;
    let cut = shell.refuses(&["audit", "verify", "--file", &short, "--head", &last]).await;
    assert!(cut.contains("the end was cut off"), "{cut}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_a_connection_probed_changes_its_external_id_and_ends_the_tenant() {
    let desk = Desk::open().await;
    let (shell, tenant, connection, enrollment) = (&desk.shell, desk.tenant(), desk.connection(), desk.enrollment());

    let before = desk.customer.1.probed_at;
    let verify = ["connections", "verify", &tenant, &connection, "--wait", "--within", "60"];
    let seen: Connection = serde_json::from_value(shell.json(&verify).await).expect("a connection");
    assert!(seen.probed_at > before, "{before:?}, then {:?}", seen.probed_at);
    let said = shell.says(&verify).await;
    for expected in ["verified (credentials are given out)", "right-id succeeded", "no-id refused", "AWS request"] {
        assert!(said.contains(expected), "{expected} is not in:\n{said}");
    }
    let unknown = shell.refuses(&["connections", "verify", &tenant, &tenant, "--wait"]).await;
    assert!(unknown.contains("not-found"), "{unknown}");

    let rotate = ["enrollments", "rotate", &tenant, &enrollment, "--reason", "once a year"];
    let offered = shell.json(&rotate).await;
    let new = text(&offered["external_id"]).to_owned();
    let old = desk.customer.0.offer.external_id.as_str();
    assert!(new != old && text(&offered["rotation"]) == "offered", "{offered}");
    let (begin, finish) = (text(&offered["begin"][0]), text(&offered["finish"][0]));
    let said = shell.says(&rotate).await;
    let order: Vec<_> = ["new external ID", begin, "wait until the connections are `overlapping`", finish]
        .iter()
        .map(|part| said.find(part).unwrap_or_else(|| panic!("{part} is not in:\n{said}")))
        .collect();
    assert!(order.is_sorted(), "{said}");
    assert!(begin.contains(&new) && begin.contains(old) && finish.contains(&new) && !finish.contains(old), "{said}");
    shell.says(&["enrollments", "rotate-cancel", &tenant, &enrollment, "--reason", "not now"]).await;

    ends(&desk).await;
}

async fn ends(desk: &Desk) {
    let (shell, tenant, connection) = (&desk.shell, desk.tenant(), desk.connection());
    let delete = ["tenants", "delete", &tenant, "--reason", "they left"];
    let said = shell.says(&delete).await;
    let state = said.lines().find(|line| line.starts_with("state ")).expect("its state");
    assert!(state.contains("delet") && said.contains("grant-withdrawn: "), "{said}");
    let mut shown = Value::Null;
    let deleted = until(PATIENCE, async || {
        shown = shell.json(&["tenants", "show", &tenant]).await;
        text(&shown["state"]) == "deleted"
    });
    assert!(deleted.await, "{shown}\n{}", desk.world.complaints());
    assert_eq!(shell.json(&delete).await, shown, "repeatable");
    let said = shell.says(&["tenants", "show", &tenant]).await;
    for step in ["grant-withdrawn: done at", "sessions-denied: done at", "principal-removed: done at"] {
        assert!(said.contains(step), "{step} is not in:\n{said}");
    }
    let said = shell.says(&["connections", "show", &tenant, &connection]).await;
    assert!(said.contains("revoked (ended, final)"), "{said}");
    let listed = shell.says(&["audit", "list", &tenant]).await;
    assert!(listed.contains("tenant.deleted") && listed.contains("they left"), "{listed}");
    for refused in
        [["enrollments", "create", &tenant].as_slice(), &["tenants", "resume", &tenant, "--reason", "a mistake"]]
    {
        let said = shell.refuses(refused).await;
        assert!(said.contains("delet"), "{said}");
    }
}
