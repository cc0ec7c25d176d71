//! docker-compose.yml and the Dockerfile against the programs themselves: a variable that a program does not know, or one that it cannot do without, is
//! found here and not by whoever starts it. No container is started.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
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
    variables.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_else(|| panic!("{name} is not text: put it in quotes")).to_owned())).collect()
}

/// The program of ours that a container runs, if it does.
fn program(service: &Value) -> Option<&str> {
    (service["build"]["dockerfile"] == DOCKERFILE).then(|| service["build"]["args"]["SERVICE"].as_str().expect("the build argument SERVICE"))
}

/// What a program takes from the environment, by its own account.
#[derive(Debug, Default, PartialEq, Eq)]
struct Accepted {
    variables: BTreeSet<String>,
    /// Each a set of which one must be given.
    required: BTreeSet<BTreeSet<String>>,
}

impl Accepted {
    fn ask(program: &str) -> Self {
        let test = std::env::current_exe().expect("this test's path");
        let path = test.parent().and_then(Path::parent).expect("target/debug").join(program);
        let output = Command::new(&path).arg("--help").env_clear().output();
        let output = output.unwrap_or_else(|error| panic!("{} cannot be started ({error}): cargo build --workspace", path.display()));
        assert!(output.status.success(), "{program} --help: {}", String::from_utf8_lossy(&output.stderr));
        Self::of(&String::from_utf8(output.stdout).expect("UTF-8"))
    }

    /// Reads clap's help: the usage line for what is required, the options for their variables.
    fn of(help: &str) -> Self {
        let variable_of: BTreeMap<String, String> = options(help).into_iter().collect();
        let variable = |flag: &String| variable_of.get(flag).unwrap_or_else(|| panic!("--{flag} is required and has no variable")).clone();
        let required = required_flags(help).iter().map(|group| group.iter().map(variable).collect()).collect();
        Self { variables: variable_of.into_values().collect(), required }
    }
}

/// Flag and variable of each option that has one: `--flag <VALUE>` begins a line, and `[env: NAME]` or `[env: NAME=value]` follows among its words.
fn options(help: &str) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for line in help.lines().map(str::trim) {
        let flag = line.starts_with('-').then(|| line.split_whitespace().find_map(|word| word.strip_prefix("--"))).flatten();
        match (flag, texts.last_mut()) {
            (Some(flag), _) => texts.push((flag.to_owned(), line.to_owned())),
            (None, Some((_, text))) => text.push_str(&format!(" {line}")),
            (None, None) => {}
        }
    }
    let variable = |text: &str| {
        let (_, rest) = text.split_once("[env:")?;
        rest.split(['=', ']']).next().map(|name| name.trim().to_owned())
    };
    texts.into_iter().filter_map(|(flag, text)| Some((flag, variable(&text)?))).collect()
}

/// From `Usage: x [OPTIONS] --a <A> <--b <B>|--c <C>>`: a, and b or c.
fn required_flags(help: &str) -> Vec<Vec<String>> {
    let usage = help.lines().skip_while(|line| !line.starts_with("Usage:")).take_while(|line| !line.trim().is_empty());
    let first = usage.collect::<Vec<_>>().join(" ");
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (place, _) in first.match_indices("--") {
        let flag: String = first[place + 2..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        match (first[..place].chars().last(), groups.last_mut()) {
            (Some('['), _) => {}
            (Some('|'), Some(group)) => group.push(flag),
            _ => groups.push(vec![flag]),
        }
    }
    groups
}

#[test]
fn every_service_and_what_it_needs_is_there() {
    let compose = compose();
    let programs: BTreeSet<&str> = services(&compose).values().filter_map(program).collect();
    for service in SERVICES {
        assert!(programs.contains(service), "{service} is not in docker-compose.yml");
        assert_eq!(program(&services(&compose)[service]), Some(service), "the container {service} runs another program");
    }
    for image in ["nats", "postgres", "ministackorg/ministack", "grafana/otel-lgtm"] {
        let found = services(&compose).values().filter_map(|service| service["image"].as_str()).any(|found| found.split(':').next() == Some(image));
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
fn each_variable_is_one_that_the_program_takes_and_none_is_missing() {
    let compose = compose();
    let mut problems = Vec::new();
    for (name, service) in services(&compose) {
        let Some(program) = program(service) else { continue };
        let given: BTreeSet<String> = environment(service).into_keys().collect();
        let accepted = Accepted::ask(program);
        let unknown = given.iter().filter(|variable| !accepted.variables.contains(*variable) && !OF_LIBRARIES.contains(&variable.as_str()));
        problems.extend(unknown.map(|variable| format!("{name}: {program} does not know {variable}")));
        // The containers that make keys run another command of the program, which needs none of its settings.
        if !SERVICES.contains(&name.as_str()) {
            continue;
        }
        let in_command = |variable: &String| service["entrypoint"].to_string().contains(&format!("{variable}="));
        let missing = accepted.required.iter().filter(|group| !group.iter().any(|variable| given.contains(variable) || in_command(variable)));
        problems.extend(missing.map(|group| format!("{name}: {program} needs {}", group.iter().cloned().collect::<Vec<_>>().join(" or "))));
    }
    assert!(problems.is_empty(), "docker-compose.yml:\n{}", problems.join("\n"));
}

#[test]
fn the_server_is_given_what_its_configuration_names() {
    let compose = compose();
    let given: BTreeSet<String> = environment(&services(&compose)["nats"]).into_keys().collect();
    let configuration = format!("{}\n{}", read("deploy/nats/nats-server.conf"), read("deploy/nats/accounts.conf"));
    let words = configuration.split(|c: char| !(c.is_ascii_alphanumeric() || "$_".contains(c)));
    let named: BTreeSet<String> = words.filter_map(|word| word.strip_prefix("$NATS_")).map(|rest| format!("NATS_{rest}")).collect();
    // Public keys are made for each installation, and reach the server by a file.
    let (keys, settings): (BTreeSet<String>, BTreeSet<String>) = named.into_iter().partition(|name| name.ends_with("_NKEY"));
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
    let numbers = |tag: &str| tag.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).map(str::len).collect::<Vec<_>>();
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
    let bases: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).filter_map(|line| line.split(' ').next()).collect();
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
        assert!(dockerfile.contains(&format!("--package {program}")) && dockerfile.contains(&format!("target/release/{program}")), "{program}");
    }
    let user = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    assert!(user.is_some_and(|user| user != "root" && !user.starts_with('0')), "{user:?}");
    assert!(dockerfile.contains("\nHEALTHCHECK "));
    let rust = read("Cargo.toml");
    let version = rust.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version").trim_matches('"').to_owned();
    assert!(dockerfile.contains(&format!("FROM rust:{version}.")), "the image is built with another Rust than {version}");
}

#[test]
fn nothing_is_published_to_the_world_and_no_secret_is_written_down() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:")), "{name} publishes {port}");
        }
        for (variable, value) in environment(service) {
            let secret = ["SECRET", "PASSWORD", "TOKEN", "SEED", "ACCESS_KEY"].iter().any(|word| variable.contains(word));
            assert!(!secret || value.starts_with("${") || variable.ends_with("_FILE"), "{name}: {variable} is written down");
        }
    }
}

#[test]
fn the_help_of_a_program_is_understood() {
    let help = "Does a thing.\n\nUsage: thing [OPTIONS] --url <URL> --topic-arns <ARN,...> <--key-file <FILE>|--kms-key <ARN>>\n       thing <COMMAND>\n\n\
        Options:\n      --url <URL>\n          Where\n          \n          [env: THING_URL=]\n\n  -t, --topic-arns <ARN,...>  Which [env:\n   THING_TOPICS=]\n\
              --key-file <FILE>  [env: THING_KEY_FILE]\n      --kms-key <ARN>  [env: THING_KMS_KEY=]\n      --count <N>  [env: THING_COUNT=] [default: 2]\n\
              --verbose  Says more than --url <URL> does [env: THING_VERBOSE=]\n  -h, --help\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let expected = Accepted {
        variables: set(&["THING_URL", "THING_TOPICS", "THING_KEY_FILE", "THING_KMS_KEY", "THING_COUNT", "THING_VERBOSE"]),
        required: [set(&["THING_URL"]), set(&["THING_TOPICS"]), set(&["THING_KEY_FILE", "THING_KMS_KEY"])].into(),
    };
    assert_eq!(Accepted::of(help), expected);
}
