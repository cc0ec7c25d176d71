//! The layers of docs/ARCHITECTURE.md, checked on the graph that cargo itself resolves. Each rule is also shown to fail when it is broken.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Our packages by name, each with the folder that it lies in (`services`, `shared`, `deploy`, `tests`), and who depends on whom.
#[derive(Clone)]
struct Graph {
    folders: BTreeMap<String, String>,
    needs: BTreeMap<String, BTreeSet<Need>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    on: String,
    /// Of tests alone.
    dev: bool,
}

impl Graph {
    fn resolved() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--manifest-path",
                concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"),
            ])
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Self::of(&serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON"))
    }

    fn of(metadata: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let packages = metadata["packages"].as_array().expect("packages");
        let names: &BTreeMap<String, String> =
            &packages.iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let root = text(&metadata["workspace_root"]);
        let ours = packages.iter().filter(|package| package["source"].is_null());
        let folder = |package: &Value| {
            let manifest = text(&package["manifest_path"]);
            let within = manifest.strip_prefix(&format!("{root}/")).expect("a package of ours lies in the workspace");
            within.split('/').next().expect("a folder").to_owned()
        };
        let folders = ours.map(|package| (text(&package["name"]), folder(package))).collect();
        let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
        let mut needs: BTreeMap<String, BTreeSet<Need>> = BTreeMap::new();
        for node in nodes {
            let of_node = needs.entry(names[node["id"].as_str().expect("an ID")].clone()).or_default();
            for dep in node["deps"].as_array().expect("deps") {
                let on = &names[dep["pkg"].as_str().expect("an ID")];
                let kinds = dep["dep_kinds"].as_array().expect("kinds").iter();
                of_node.extend(kinds.map(|kind| Need { on: on.clone(), dev: kind["kind"] == "dev" }));
            }
        }
        Self { folders, needs }
    }

    fn in_folder(&self, folder: &str) -> Vec<&str> {
        self.folders.iter().filter(|(_, lies_in)| *lies_in == folder).map(|(name, _)| name.as_str()).collect()
    }

    /// What `package` names in its Cargo.toml.
    fn direct(&self, package: &str, with_dev: bool) -> BTreeSet<&str> {
        let needs = self.needs.get(package).into_iter().flatten();
        needs.filter(|need| with_dev || !need.dev).map(|need| need.on.as_str()).collect()
    }

    /// Everything that is built for `package`, its own tests' needs left out.
    fn reachable(&self, package: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = self.direct(package, false).into_iter().collect();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(self.direct(next, false));
            }
        }
        found
    }
}

/// A crate whose name begins so may be named by this service alone (and by the sandbox and the tests, which look from outside).
const OWNED: [(&str, &str); 10] = [
    ("sea-orm", "tenant-registry"),
    ("sqlx", "tenant-registry"),
    ("aws-sdk-sts", "role-chain-broker"),
    ("aws-sdk-iam", "role-chain-broker"),
    ("aws-sdk-sqs", "callback-ingest"),
    ("aws-sdk-sns", "callback-ingest"),
    ("arrow", "cost-ingestion"),
    ("parquet", "cost-ingestion"),
    ("datafusion", "cost-ingestion"),
    ("deltalake", "cost-ingestion"),
];

/// Those of them that nothing else brings in by itself, so that they may not even be built for another service.
/// (aws-config brings STS, for credentials of its own; the graph counts Arrow as sea-orm's, which has a feature for it that is off.)
const NOT_EVEN_BUILT: [&str; 7] =
    ["sea-orm", "sqlx", "aws-sdk-iam", "aws-sdk-sqs", "parquet", "datafusion", "deltalake"];

/// Which of our own packages each shared one may name.
const SHARED: [(&str, &[&str]); 8] = [
    ("rolebridge-arn", &[]),
    ("rolebridge-contracts", &["rolebridge-arn"]),
    ("rolebridge-permissions", &["rolebridge-contracts"]),
    ("rolebridge-telemetry", &[]),
    ("rolebridge-runtime", &["rolebridge-telemetry"]),
    ("rolebridge-aws", &["rolebridge-arn", "rolebridge-telemetry"]),
    ("rolebridge-messaging", &["rolebridge-arn", "rolebridge-contracts", "rolebridge-runtime", "rolebridge-telemetry"]),
    ("rolebridge-client", &["rolebridge-contracts", "rolebridge-messaging"]),
];

/// What contracts may not be built with: they are data, and decide and send nothing.
const NOT_IN_CONTRACTS: [&str; 6] = ["tokio", "async-nats", "aws-", "sea-orm", "reqwest", "tracing"];

fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    services_do_not_know_each_other(graph, &mut found);
    crates_have_their_owner(graph, &mut found);
    shared_layers_point_one_way(graph, &mut found);
    let contracts = graph.reachable("rolebridge-contracts");
    let heavy = contracts.iter().filter(|name| {
        NOT_IN_CONTRACTS.iter().any(|heavy| *name == heavy || (heavy.ends_with('-') && name.starts_with(heavy)))
    });
    found.extend(heavy.map(|name| format!("contracts is built with {name}")));
    found
}

fn services_do_not_know_each_other(graph: &Graph, found: &mut Vec<String>) {
    let services = graph.in_folder("services");
    for package in services.iter().copied().chain(graph.in_folder("shared")) {
        let needed = graph.direct(package, true).into_iter().chain(graph.reachable(package)).collect::<BTreeSet<_>>();
        for service in services.iter().filter(|service| needed.contains(**service)) {
            found.push(format!("{package} depends on the service {service}"));
        }
        for outer in graph.in_folder("tests").into_iter().chain(graph.in_folder("deploy")) {
            // The sandbox starts real servers for integration tests, and is of no use to a program.
            if graph.reachable(package).contains(outer) {
                found.push(format!("{package} depends on {outer}, which stands outside"));
            }
        }
    }
}

fn crates_have_their_owner(graph: &Graph, found: &mut Vec<String>) {
    for package in graph.in_folder("services").into_iter().chain(graph.in_folder("shared")) {
        let owned_by_others = OWNED.iter().filter(|(_, owner)| package != *owner);
        for (prefix, owner) in owned_by_others {
            let is_it = |name: &&str| *name == *prefix || name.starts_with(&format!("{prefix}-"));
            let named = graph.direct(package, true).into_iter().filter(is_it);
            found.extend(named.map(|name| format!("{package} names {name}, which is {owner}'s alone")));
            if NOT_EVEN_BUILT.contains(prefix) {
                let built = graph.reachable(package).into_iter().filter(is_it);
                found.extend(built.map(|name| format!("{package} is built with {name}, which is {owner}'s alone")));
            }
        }
    }
}

fn shared_layers_point_one_way(graph: &Graph, found: &mut Vec<String>) {
    for package in graph.in_folder("shared") {
        let Some((_, allowed)) = SHARED.iter().find(|(name, _)| *name == package) else {
            found.push(format!(
                "{package} has no place among the layers: add it to SHARED in this test, and to docs/ARCHITECTURE.md"
            ));
            continue;
        };
        let ours = graph.direct(package, false).into_iter().filter(|name| graph.folders.contains_key(*name));
        found.extend(
            ours.filter(|name| !allowed.contains(name))
                .map(|name| format!("{package} depends on {name}, a layer it may not know")),
        );
    }
}

#[test]
fn the_layers_hold() {
    let found = violations(&Graph::resolved());
    assert!(found.is_empty(), "docs/ARCHITECTURE.md, Layers:\n{}", found.join("\n"));
}

/// An empty graph breaks no rule: this one has all of us in it.
#[test]
fn every_program_and_layer_is_looked_at() {
    let graph = Graph::resolved();
    for (_, owner) in OWNED {
        assert!(graph.in_folder("services").contains(&owner), "{owner}");
    }
    for (prefix, owner) in OWNED.iter().filter(|(prefix, _)| !["sqlx", "aws-sdk-sns", "datafusion"].contains(prefix)) {
        let direct = graph.direct(owner, true);
        assert!(
            direct.iter().any(|name| name.starts_with(prefix)),
            "{owner} does not name {prefix} any more: is the rule still right?"
        );
    }
    for (layer, _) in SHARED {
        assert!(graph.in_folder("shared").contains(&layer), "{layer}");
    }
    assert!(graph.reachable("rolebridge-messaging").contains("tokio"));
    assert!(graph.needs.len() > 300, "{} packages", graph.needs.len());
}

#[test]
fn each_rule_fails_when_it_is_broken() {
    let broken = [
        ("cost-ingestion", "role-chain-broker", false),
        ("cost-ingestion", "role-chain-broker", true),
        ("rolebridge-messaging", "tenant-registry", false),
        ("callback-ingest", "sea-orm", false),
        ("rolebridge-messaging", "sea-orm", false),
        ("tenant-registry", "aws-sdk-sts", false),
        ("tenant-registry", "aws-sdk-iam", true),
        ("role-chain-broker", "aws-sdk-sqs", false),
        ("tenant-registry", "parquet", false),
        ("rolebridge-runtime", "deltalake-core", false),
        ("rolebridge-contracts", "async-nats", false),
        ("rolebridge-contracts", "aws-config", false),
        ("rolebridge-arn", "tokio", false),
        ("rolebridge-telemetry", "rolebridge-contracts", false),
        ("rolebridge-runtime", "rolebridge-contracts", false),
        ("rolebridge-aws", "rolebridge-contracts", false),
        ("rolebridge-contracts", "rolebridge-messaging", false),
        ("rolebridge-permissions", "rolebridge-messaging", false),
        ("tenant-registry", "rolebridge-sandbox", false),
    ];
    let graph = Graph::resolved();
    let before: BTreeSet<String> = violations(&graph).into_iter().collect();
    for (from, to, dev) in broken {
        let mut worse = graph.clone();
        worse.needs.get_mut(from).expect("a package").insert(Need { on: to.to_owned(), dev });
        let new = violations(&worse).into_iter().filter(|violation| !before.contains(violation)).count();
        assert!(new > 0, "{from} may depend on {to} (dev: {dev}) and nobody says so");
    }
}
