//! The pages against what they speak of: links, commands, variables, streams, metrics, and the tests that the attack table names.

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
};

const PROGRAMS: [&str; 5] = ["callback-ingest", "cost-ingestion", "role-chain-broker", "rolebridge", "tenant-registry"];
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const SECURITY: &str = "docs/security.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder` whose name ends in `ending`, from the root on; what was built or fetched is left out.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}")) {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type().expect("its type").is_dir() {
            if !["target", "node_modules", ".git"].contains(&name.as_str()) {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The pages; not the licences of sample data, which are others' texts.
fn pages() -> Vec<String> {
    let pages: Vec<_> = files("", ".md").into_iter().filter(|path| !path.contains("/LICENSE")).collect();
    for known in ["README.md", ARCHITECTURE, SECURITY, "SECURITY.md", "CONTRIBUTING.md"] {
        assert!(pages.iter().any(|page| page == known), "{known} is not among {pages:?}");
    }
    pages
}

/// The part of a page below the heading `## title`.
fn section<'t>(page: &'t str, title: &str) -> &'t str {
    let (_, rest) = page.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

/// Words of letters, digits, `_` (and what else is `joined`) that begin with `prefix`.
fn words(text: &str, prefix: &str, joined: &[char]) -> BTreeSet<String> {
    let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && !joined.contains(&c));
    all.filter(|word| word.starts_with(prefix) && word.len() > prefix.len()).map(ToOwned::to_owned).collect()
}

// --- links ---

/// The targets of `[text](target)`, code left out.
fn links(page: &str) -> Vec<String> {
    let mut prose = String::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 0 {
            prose.push_str(part);
        }
    }
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || [' ', '-', '_'].contains(&c);
    headings
        .map(|text| text.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let folder = Path::new(&page).parent().expect("its folder").to_owned();
        for link in links(&read(&page)).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            seen += 1;
            let (path, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { PathBuf::from(&page) } else { folder.join(path) };
            if !root().join(&target).exists() {
                broken.push(format!("{page}: {link}"));
            } else if let Some(anchor) = anchor
                && !anchors(&read(&target.display().to_string())).contains(anchor)
            {
                broken.push(format!("{page}: {link} (no such heading)"));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_path_that_is_named_is_there() {
    let folders = ["services/", "shared/", "deploy/", "docs/", "tests/", ".ci/"];
    let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        let code = text.split('`').skip(1).step_by(2).filter(plain);
        for path in code.filter(|word| folders.iter().any(|folder| word.starts_with(folder))) {
            if !root().join(path).exists() {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "named, and not there:\n{}", missing.join("\n"));
}

// --- the README's commands ---

#[test]
fn the_readmes_commands_are_there() {
    let readme = read("README.md");
    for command in
        ["cargo demo                  # the main job, on embedded defaults", "cargo test --workspace      # every test"]
    {
        assert!(readme.lines().any(|line| line.trim() == command), "the README has no line: {command}");
    }
    assert!(readme.lines().count() <= 90, "the README is longer than a screen or two");
    let config = read(".cargo/config.toml");
    let alias = config.lines().find(|line| line.starts_with("demo = ")).expect("the alias demo");
    assert!(alias.contains("--package rolebridge-demo"), "{alias}");
    assert!(read("deploy/sandbox/launch/Cargo.toml").contains("name = \"rolebridge-demo\""));
    let help = help("rolebridge-sandbox");
    for flag in ["--json", "--keep"] {
        assert!(readme.contains(&format!("cargo demo {flag}")) && help.contains(flag), "{flag}");
    }
}

// --- variables ---

fn help(program: &str) -> String {
    let test = std::env::current_exe().expect("this test's path");
    let path = test.parent().and_then(Path::parent).expect("target/debug").join(program);
    assert!(path.is_file(), "{} is not built: cargo build --workspace", path.display());
    let output = Command::new(path).env_clear().arg("--help").output().expect("the program starts");
    assert!(output.status.success(), "{program} --help: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The variables that each program takes, by its own account.
fn accepted() -> BTreeMap<&'static str, BTreeSet<String>> {
    let of = |program| {
        let help = help(program);
        let named = help.split("[env:").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
        named.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("ROLEBRIDGE_")).collect()
    };
    PROGRAMS.map(|program| (program, of(program))).into()
}

#[test]
fn the_configuration_tables_and_the_programs_agree() {
    let page = read(ARCHITECTURE);
    let documented = words(section(&page, "Configuration"), "ROLEBRIDGE_", &[]);
    let accepted: BTreeSet<String> = accepted().into_values().flatten().collect();
    assert!(accepted.len() > 20, "{accepted:?}");
    let unknown: Vec<_> = documented.difference(&accepted).collect();
    let untold: Vec<_> = accepted.difference(&documented).collect();
    assert!(unknown.is_empty(), "{ARCHITECTURE} has variables that no program takes: {unknown:?}");
    assert!(untold.is_empty(), "{ARCHITECTURE} does not have: {untold:?}");
}

/// Each table of the section is headed by the program that it is of.
#[test]
fn each_programs_table_holds_only_what_that_program_takes() {
    let page = read(ARCHITECTURE);
    let accepted = accepted();
    let tables: Vec<_> = section(&page, "Configuration").split("\n### ").skip(1).collect();
    let mut own = BTreeSet::new();
    for table in &tables {
        let title = table.lines().next().expect("a title").trim();
        let Some(taken) = accepted.get(title) else { continue };
        own.insert(title);
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        for variable in rows.flat_map(|row| words(row.split('|').nth(1).unwrap_or_default(), "ROLEBRIDGE_", &[])) {
            assert!(taken.contains(&variable), "{title} does not take {variable}");
        }
    }
    assert_eq!(own.len(), PROGRAMS.len(), "tables of {own:?}");
}

/// Names in capitals anywhere in the pages: a variable of a program, a stream, or a variable of docker-compose.yml.
#[test]
fn no_page_speaks_of_a_variable_or_stream_that_is_not() {
    let mut known: BTreeSet<String> = accepted().into_values().flatten().collect();
    known.extend(contracts::Stream::ALL.map(|stream| stream.name().to_owned()));
    known.extend(words(&read("docker-compose.yml"), "ROLEBRIDGE_", &[]));
    let unknown: Vec<_> = pages()
        .into_iter()
        .flat_map(|page| words(&read(&page), "ROLEBRIDGE_", &[]).into_iter().map(move |word| (page.clone(), word)))
        .filter(|(_, word)| {
            !known.contains(word) && !known.iter().any(|name| word.ends_with('_') && name.starts_with(word))
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

// --- streams, consumers, metrics ---

#[test]
fn streams_and_consumers_are_those_of_the_code() {
    let page = read(ARCHITECTURE);
    let table = section(&page, "Streams");
    for stream in contracts::Stream::ALL {
        assert!(table.contains(&format!("`{}`", stream.name())), "{ARCHITECTURE} has no {}", stream.name());
        assert!(table.contains(&format!("`{}`", stream.subjects())), "{ARCHITECTURE} has no {}", stream.subjects());
    }
    let sources: String =
        files("services", ".rs").iter().filter(|path| path.contains("/src/")).map(|path| read(path)).collect();
    let named = words(&page, "", &['-']);
    for service in PROGRAMS.iter().filter(|program| **program != "rolebridge") {
        let durables: Vec<_> = named.iter().filter(|word| word.starts_with(&format!("{service}-"))).collect();
        assert!(!durables.is_empty(), "{ARCHITECTURE} names no consumer of {service}");
        for durable in durables {
            assert!(sources.contains(&format!("\"{durable}\"")), "there is no consumer {durable}");
        }
    }
}

#[test]
fn metrics_are_those_of_the_code() {
    let page = read(ARCHITECTURE);
    let documented = words(section(&page, "Metrics and traces"), "rolebridge_", &[]);
    let of = |folder| files(folder, ".rs").into_iter().filter(|path| path.contains("/src/"));
    let mut made = BTreeSet::new();
    for path in of("services").chain(of("shared")) {
        let text = read(&path);
        // A file that makes instruments; test modules only read them.
        if text.contains("telemetry::meter()") || text.contains("&Meter") {
            let quoted = text.split('"').skip(1).step_by(2);
            made.extend(quoted.filter(|word| words(word, "rolebridge_", &[]).contains(*word)).map(ToOwned::to_owned));
        }
    }
    assert!(made.len() > 15, "{made:?}");
    assert_eq!(documented, made, "left: {ARCHITECTURE}; right: the code");
}

// --- the attack table ---

/// The script that breaks guards finds each where its table says: it is run by hand, and would rot.
#[test]
fn every_guard_that_is_broken_stands_where_the_table_says() {
    let table: serde_json::Value = serde_json::from_str(&read("tests/mutations/table.json")).expect("JSON");
    let mutants = table.as_array().expect("a list");
    assert!(mutants.len() >= 24, "{} guards", mutants.len());
    let mut wrong = Vec::new();
    for mutant in mutants {
        for edit in mutant["edits"].as_array().expect("edits") {
            let text = |name: &str| edit[name].as_str().expect("text");
            let count = read(text("file")).matches(text("find")).count();
            if count != 1 || text("find") == text("replace") {
                wrong.push(format!("{}: {count} times in {}: {}", mutant["guard"], text("file"), text("find")));
            }
        }
    }
    assert!(wrong.is_empty(), "tests/mutations/table.json:\n{}", wrong.join("\n"));
}

/// Rows of the attack table: number and text.
fn attack_rows(page: &str) -> BTreeMap<u32, &str> {
    let rows = section(page, "Attacks and failures").lines().filter_map(|line| {
        let number = line.strip_prefix("| ")?.split_once(" |")?.0;
        Some((number.parse().ok()?, line))
    });
    rows.collect()
}

/// The rows that a test says by its name that it is of: `attack_07_...`, `attack_18_and_19_...`.
fn rows_of(name: &str) -> Vec<u32> {
    let words = name.strip_prefix("attack_").unwrap_or_default().split('_');
    let numbers = words.take_while(|word| *word == "and" || word.parse::<u32>().is_ok());
    numbers.filter_map(|word| word.parse().ok()).collect()
}

/// Where the function `name` is.
fn defined_in(name: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let functions = [format!("fn {name}("), format!("fn {name}<")];
    let has = |text: &String| functions.iter().any(|function| text.contains(function));
    sources.iter().filter(|(_, text)| has(text)).map(|(path, _)| path.clone()).collect()
}

#[test]
fn each_attack_has_its_row_and_each_row_the_tests_that_it_names() {
    let page = read(SECURITY);
    let rows = attack_rows(&page);
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=36).collect::<Vec<_>>());
    let sources: BTreeMap<_, _> = ["services", "shared", "deploy", "tests"]
        .into_iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|path| (path.clone(), read(&path)))
        .collect();

    let mut wrong = Vec::new();
    for (number, row) in &rows {
        let mut tests = 0;
        for link in row.split("[`").skip(1) {
            let (name, target) =
                link.split_once("`](").and_then(|(name, rest)| Some((name, rest.split_once(')')?.0))).expect("a link");
            let target = target.trim_start_matches("../");
            tests += 1;
            if !defined_in(name, &sources).iter().any(|path| path == target) {
                wrong.push(format!("row {number}: {target} has no test {name}"));
            }
        }
        // `cargo test attack_` shows the whole table.
        let named = row.split("[`").skip(1).filter_map(|link| link.split_once('`'));
        if !named.into_iter().any(|(name, _)| rows_of(name).contains(number)) {
            wrong.push(format!("row {number} names no test called attack_{number:02}_... among its {tests}"));
        }
    }
    assert!(wrong.is_empty(), "{SECURITY}:\n{}", wrong.join("\n"));
}

/// The checks above find what they are to find.
#[test]
fn the_readers_of_pages_read() {
    assert_eq!(links("[a](b.md) `x` [c](d#e)\n```\n[no](no)\n```\n[f](https://g)"), ["b.md", "d#e", "https://g"]);
    assert!(anchors("# A\n## Not built yet: `x`").contains("not-built-yet-x"));
    assert_eq!(section("# t\n\n## A\nb\n\n## C\nd", "A"), "b\n");
    assert_eq!(rows_of("attack_18_and_19_a_delete_of_2"), [18, 19]);
    assert_eq!(rows_of("an_attack_07_x"), [0; 0]);
    assert_eq!(words("`ROLEBRIDGE_A_B`, ROLEBRIDGE_C.", "ROLEBRIDGE_", &[]).len(), 2);
    assert_eq!(
        attack_rows("\n## Attacks and failures\n\n| # | x |\n|---|---|\n| 7 | y |\n")
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [7]
    );
}
