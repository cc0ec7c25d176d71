//! docker-compose.yml and the Dockerfile against the programs themselves: a variable that a program does not know, or one that it cannot do without, is
//! found here and not by whoever starts it. No container is started.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Variables of the libraries that the programs stand on. Spelled out, so that AWS_ENDPOINT for AWS_ENDPOINT_URL is found.
const OF_LIBRARIES: [&str; 10] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SHARED_CREDENTIALS_FILE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_RESOURCE_ATTRIBUTES",
    "RUST_LOG",
];

const DOCKERFILE: &str = "deploy/docker/Dockerfile";
const SERVICES: [&str; 4] = ["callback-ingest", "cost-ingestion", "role-chain-broker", "tenant-registry"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

fn services(compose: &Value) -> &serde_json::Map<String, Value> {
    compose["services"].as_object().expect("services")
}

/// The container's variables, with `${NAME:-value}` left as it stands.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().into_iter().flatten();
    variables
        .map(|(name, value)| {
            (name.clone(), value.as_str().unwrap_or_else(|| panic!("{name} is not text: put it in quotes")).to_owned())
        })
        .collect()
}

/// The program of ours that a container runs, if it does.
fn program(service: &Value) -> Option<&str> {
    (service["build"]["dockerfile"] == DOCKERFILE)
        .then(|| service["build"]["args"]["SERVICE"].as_str().expect("the build argument SERVICE"))
}

/// A program of the workspace, as cargo has built it.
fn built(program: &str) -> Command {
    let test = std::env::current_exe().expect("this test's path");
    let path = test.parent().and_then(Path::parent).expect("target/debug").join(program);
    assert!(path.is_file(), "{} is not built: cargo build --workspace", path.display());
    let mut command = Command::new(path);
    command.env_clear();
    command
}

/// The variables that a program takes from the environment, by its own account.
fn accepted(program: &str) -> BTreeSet<String> {
    let output = built(program).arg("--help").output().expect("the program starts");
    assert!(output.status.success(), "{program} --help: {}", String::from_utf8_lossy(&output.stderr));
    variables(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The `[env: NAME]` and `[env: NAME=value]` of clap's help, which may be broken into lines anywhere.
fn variables(help: &str) -> BTreeSet<String> {
    let named = help.split("[env:").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    named.map(|name| name.trim().to_owned()).collect()
}

/// What a program says against its settings; `None` when it goes on to use them. It is ended as soon as that is known.
fn refusal(program: &str, environment: &BTreeMap<String, String>) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let file = fs::File::create(&log).expect("a log");
    let mut command = built(program);
    command.envs(environment).current_dir(folder.path()).stdout(file.try_clone().expect("the log again")).stderr(file);
    let mut child = command.spawn().expect("the program starts");
    // A program that refuses its settings says `<program>: ...` before anything else and ends with status 2; a log line is of one that took them.
    let last_word = format!("{program}: ");
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let text = fs::read_to_string(&log).expect("the log");
        if let Some(status) = child.try_wait().expect("its status") {
            break Some(status);
        }
        if text.contains('\n') && !text.starts_with(&last_word) {
            break None;
        }
        assert!(Instant::now() < deadline, "{program} neither ends nor says anything");
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.is_none() {
        child.kill().expect("the program is ended");
        child.wait().expect("the program has ended");
    }
    let refused = status.is_some_and(|status| status.code() == Some(2));
    refused.then(|| fs::read_to_string(&log).expect("the log"))
}

/// The container's variables, with nothing in them that reaches out of this test: no server of this machine, no folder of it.
fn harmless(service: &Value) -> BTreeMap<String, String> {
    let nowhere = |value: String| {
        let value = value
            .replace("127.0.0.1:4566", "127.0.0.1:9")
            .replace("nats:4222", "127.0.0.1:9")
            .replace("0.0.0.0:", "127.0.0.1:");
        let value = value
            .replace("telemetry:4318", "127.0.0.1:9")
            .replace("@postgres/", "@127.0.0.1:9/")
            .replace("/data/", "data/");
        // What compose fills in.
        value.replace("${ROLEBRIDGE_DATABASE_PASSWORD:-rolebridge}", "rolebridge")
    };
    let mut variables: BTreeMap<String, String> =
        environment(service).into_iter().map(|(name, value)| (name, nowhere(value))).collect();
    variables.insert("ROLEBRIDGE_HTTP_ADDR".to_owned(), "127.0.0.1:0".to_owned());
    if service["entrypoint"].to_string().contains("ROLEBRIDGE_SEALING_KEY=$$(cat ") {
        variables.insert("ROLEBRIDGE_SEALING_KEY".to_owned(), format!("X{}", "A".repeat(55)));
    }
    variables
}

#[test]
fn every_service_and_what_it_needs_is_there() {
    let compose = compose();
    let programs: BTreeSet<&str> = services(&compose).values().filter_map(program).collect();
    for service in SERVICES {
        assert!(programs.contains(service), "{service} is not in docker-compose.yml");
        assert_eq!(
            program(&services(&compose)[service]),
            Some(service),
            "the container {service} runs another program"
        );
    }
    for image in ["nats", "postgres", "ministackorg/ministack", "grafana/otel-lgtm"] {
        let found = services(&compose)
            .values()
            .filter_map(|service| service["image"].as_str())
            .any(|found| found.split(':').next() == Some(image));
        assert!(found, "no container of {image}");
    }
    for (name, service) in services(&compose) {
        let needed = service["depends_on"].as_object().into_iter().flatten().map(|(other, _)| other.as_str());
        let shares = service["network_mode"].as_str().and_then(|mode| mode.strip_prefix("service:"));
        for other in needed.chain(shares) {
            assert!(services(&compose).contains_key(other), "{name} needs {other}, which is not there");
        }
    }
}

#[test]
fn each_variable_is_one_that_the_program_takes() {
    let compose = compose();
    let mut problems = Vec::new();
    for (name, service) in services(&compose) {
        let Some(program) = program(service) else { continue };
        let accepted = accepted(program);
        let unknown = environment(service)
            .into_keys()
            .filter(|name| !accepted.contains(name) && !OF_LIBRARIES.contains(&name.as_str()));
        problems.extend(unknown.map(|variable| format!("{name}: {program} does not know {variable}")));
    }
    assert!(problems.is_empty(), "docker-compose.yml:\n{}", problems.join("\n"));
}

#[test]
fn each_service_takes_its_settings_and_each_that_it_needs_is_given() {
    let compose = compose();
    let mut problems = Vec::new();
    for name in SERVICES {
        let service = &services(&compose)[name];
        if let Some(text) = refusal(name, &harmless(service)) {
            problems.push(format!("{name} does not start with what docker-compose.yml gives it: {text}"));
        }
        if refusal(name, &BTreeMap::new()).is_none() {
            problems.push(format!("{name} starts with nothing at all"));
        }
        let mut without = harmless(service);
        without.remove("ROLEBRIDGE_NATS_URL").expect("every service is on the bus");
        if !refusal(name, &without).is_some_and(|text| text.contains("--nats-url")) {
            problems.push(format!("{name} does not say that it needs --nats-url"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_server_is_given_what_its_configuration_names() {
    let compose = compose();
    let given: BTreeSet<String> = environment(&services(&compose)["nats"]).into_keys().collect();
    let configuration = format!("{}\n{}", read("deploy/nats/nats-server.conf"), read("deploy/nats/accounts.conf"));
    let words = configuration.split(|c: char| !(c.is_ascii_alphanumeric() || "$_".contains(c)));
    let named: BTreeSet<String> =
        words.filter_map(|word| word.strip_prefix("$NATS_")).map(|rest| format!("NATS_{rest}")).collect();
    // Public keys are made for each installation, and reach the server by a file.
    let (keys, settings): (BTreeSet<String>, BTreeSet<String>) =
        named.into_iter().partition(|name| name.ends_with("_NKEY"));
    assert_eq!(settings, given);
    assert!(keys.len() >= SERVICES.len(), "{keys:?}");
}

#[test]
fn files_that_are_mounted_are_there() {
    let compose = compose();
    let named: BTreeSet<&str> = compose["volumes"].as_object().expect("volumes").keys().map(String::as_str).collect();
    for (name, service) in services(&compose) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().and_then(|volume| volume.split(':').next()).expect("source:target");
            let fine = if source.starts_with('.') { root().join(source).exists() } else { named.contains(source) };
            assert!(fine, "{name} mounts {source}, which is not there");
        }
    }
    assert!(root().join(DOCKERFILE).is_file());
}

/// `debian:trixie-20260623-slim` is pinned; `debian`, `debian:latest` and `debian:13` may be another image tomorrow.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    let numbers = |tag: &str| {
        tag.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).map(str::len).collect::<Vec<_>>()
    };
    tag.is_some_and(|tag| tag != "latest" && (numbers(tag).len() > 1 || numbers(tag).iter().any(|length| *length >= 8)))
}

#[test]
fn every_image_is_pinned() {
    let compose = compose();
    for (name, service) in services(&compose).iter().filter(|(_, service)| program(service).is_none()) {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        assert!(is_pinned(image), "{name}: {image} may be another one tomorrow");
    }
    let dockerfile = read(DOCKERFILE);
    let bases: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(bases.len() > 1, "{bases:?}");
    for base in bases {
        assert!(is_pinned(base), "{DOCKERFILE}: {base} may be another one tomorrow");
    }
    for image in ["debian", "debian:latest", "debian:13", "postgres:18", "localhost:5000/debian", "nats:alpine"] {
        assert!(!is_pinned(image), "{image} was taken for pinned");
    }
}

#[test]
fn the_image_is_built_from_every_program_and_runs_as_nobody() {
    let dockerfile = read(DOCKERFILE);
    for program in SERVICES.into_iter().chain(["rolebridge"]) {
        assert!(
            dockerfile.contains(&format!("--package {program}"))
                && dockerfile.contains(&format!("target/release/{program}")),
            "{program}"
        );
    }
    let user = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    assert!(user.is_some_and(|user| user != "root" && !user.starts_with('0')), "{user:?}");
    assert!(dockerfile.contains("\nHEALTHCHECK "));
    let rust = read("Cargo.toml");
    let version = rust
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("rust-version")
        .trim_matches('"')
        .to_owned();
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}.")),
        "the image is built with another Rust than {version}"
    );
}

#[test]
fn nothing_is_published_to_the_world_and_no_secret_is_written_down() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:")), "{name} publishes {port}");
        }
        for (variable, value) in environment(service) {
            let secret =
                ["SECRET", "PASSWORD", "TOKEN", "SEED", "ACCESS_KEY"].iter().any(|word| variable.contains(word));
            assert!(
                !secret || value.starts_with("${") || variable.ends_with("_FILE"),
                "{name}: {variable} is written down"
            );
        }
    }
}

#[test]
fn the_help_of_a_program_is_understood() {
    let help = "Usage: thing [OPTIONS] --url <URL>\n\nOptions:\n      --url <URL>\n          Where\n          \n          [env: THING_URL=]\n\n\
        \x20 -t, --topic-arns <ARN,...>  Which [env:\n   THING_TOPICS=a,b]\n      --key-file <FILE>  [env: THING_KEY_FILE] [default: key]\n  -h, --help\n";
    assert_eq!(variables(help).into_iter().collect::<Vec<_>>(), ["THING_KEY_FILE", "THING_TOPICS", "THING_URL"]);
}
