//! The table as strangers see it: DuckDB sums it like the raw file, and the FOCUS project's own validator judges it.
//!
//! Both are Python packages, fetched once, pinned and hash-checked, into the build folder. Where there is no Python 3.12 (the validator's Arrow has wheels for
//! no later one) the test says so, and fails if `CI` is set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use contracts::TenantId;
use cost_ingestion::import::{ImportArgs, import};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_util::sync::CancellationToken;

const REQUIREMENTS: &str = include_str!("requirements-focus.txt");
const FOCUS_PAGE: &str = include_str!("../../../docs/focus.md");

/// The Python of an environment with both packages, or none.
fn python() -> Option<PathBuf> {
    let is_right = |program: &Path| {
        let check = "import sys; sys.exit(sys.version_info[:2] != (3, 12))";
        Command::new(program).args(["-I", "-c", check]).output().is_ok_and(|output| output.status.success())
    };
    let pyenv = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".pyenv/versions");
    let versions = std::fs::read_dir(pyenv).into_iter().flatten().filter_map(Result::ok);
    let named = ["python3.12", "python3"].map(PathBuf::from).into_iter();
    let found = named.chain(versions.map(|entry| entry.path().join("bin/python3"))).find(|program| is_right(program));
    let Some(found) = found.filter(|_| cfg!(all(target_os = "linux", target_arch = "x86_64"))) else {
        eprintln!("NOT CHECKED: the FOCUS validator needs Python 3.12 on Linux x86-64, on the PATH or under ~/.pyenv");
        assert!(std::env::var_os("CI").is_none(), "CI has no Python 3.12: the FOCUS validator was not run");
        return None;
    };
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("focus-validator");
    let (python, stamp) = (place.join("bin/python"), place.join("stamp"));
    if std::fs::read_to_string(&stamp).is_ok_and(|known| known == REQUIREMENTS) {
        return Some(python);
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let _ = std::fs::remove_dir_all(&place);
    run(Command::new(found).args(["-I", "-m", "venv"]).arg(&place));
    let list = place.join("requirements.txt");
    std::fs::write(&list, REQUIREMENTS).unwrap();
    // Two of them have no wheel.
    let install = [
        "-m",
        "pip",
        "install",
        "--no-input",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-binary",
        "focus-validator,pandasql",
        "-r",
    ];
    run(Command::new(&python).args(install).arg(&list));
    std::fs::write(stamp, REQUIREMENTS).unwrap();
    Some(python)
}

fn ask(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn imported(files: PathBuf, table: &Path) {
    let (tenant, table) = (TenantId::new(), table.display().to_string());
    let args = ImportArgs { files: vec![files], tenant, table, connection: None, export: None, json: false };
    assert_eq!(import(&args, &CancellationToken::new()).await.unwrap().refused, Vec::<String>::new());
}

const SUMS: &str = r#"
import duckdb, sys
raw, table = sys.argv[1:]
def sums(source, service, cost):
    # A double's shortest text is the decimal that is meant; DuckDB prints it so.
    return duckdb.sql(f"select {service}, count(*), sum({cost}::varchar::decimal(38, 18)) from {source} group by all order by all").fetchall()
if raw.endswith('.parquet'):
    theirs = sums(f"'{raw}'", 'product_product_name', 'line_item_unblended_cost')
else:
    theirs = sums(f"read_csv('{raw}', all_varchar=true, nullstr='NULL')", 'ServiceName', 'BilledCost')
ours = sums(f"read_parquet('{table}/**/part-*.parquet', hive_partitioning=false)", 'ServiceName', 'BilledCost')
assert theirs == ours, (theirs, ours)
print(len(ours))
"#;

const EXPORT: &str = r#"
import duckdb, sys
table, out = sys.argv[1:]
duckdb.sql(f"copy (select * replace (to_json(Tags)::varchar as Tags) from read_parquet('{table}/**/part-*.parquet', hive_partitioning=false)) to '{out}'")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_sums_the_table_like_the_raw_samples_and_the_focus_validator_finds_what_is_listed() {
    let Some(python) = python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sample in [
        "tests/data/focus-1.0-sample.csv",
        "../../deploy/sandbox/data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet",
    ] {
        let folder = tempfile::tempdir().unwrap();
        imported(here.join(sample), folder.path()).await;
        let services: usize = ask(&python, SUMS, &[&here.join(sample), folder.path()]).trim().parse().unwrap();
        assert!(services > 5, "{sample}");
    }

    let folder = tempfile::tempdir().unwrap();
    let (set, table, out) =
        (folder.path().join("set"), folder.path().join("table"), folder.path().join("focus.parquet"));
    let generator = Command::new(env!("CARGO_BIN_EXE_generate-costs"))
        .args(["--format", "cur-2.0", "--rows", "3000", "--out"])
        .arg(&set)
        .status();
    assert!(generator.unwrap().success());
    imported(set, &table).await;
    ask(&python, EXPORT, &[&table, &out]);
    let packages = ask(&python, "import sysconfig; print(sysconfig.get_paths()['purelib'])", &[]);
    // It opens a list by a relative path.
    let output = Command::new(python.with_file_name("focus-validator"))
        .current_dir(packages.trim())
        .args(["--block-download", "--validate-version", "1.2.0.1", "--applicability-criteria", "ALL", "--data-file"])
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said.lines().filter_map(|line| line.strip_prefix("❌ ")).filter(|line| !line.contains("AND failed"));
    let failed: BTreeSet<_> = failed.filter_map(|line| line.split_once(':')).map(|(rule, _)| rule).collect();
    let listed: BTreeSet<_> = FOCUS_PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('`'))
        .filter(|word| word.contains("-C-"))
        .collect();
    let passed: u32 =
        said.split("Pass: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a summary").parse().unwrap();
    assert!(passed > 330, "{passed} rules hold\n{said}");
    assert_eq!(failed, listed, "docs/focus.md lists what does not hold, and why");
}
