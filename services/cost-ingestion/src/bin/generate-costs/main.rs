//! Makes cost exports of any size whose totals are known: CUR 2.0 (49 columns) and FOCUS 1.2, as Parquet (Snappy) or gzipped CSV.
//!
//! For tests and measurements. The same arguments make the same rows. Beside the files lies `totals.json`: rows, billed and effective sums, and billed by
//! service, added up in integers while the rows are made. `--restate` changes some amounts of the same rows, as AWS does; `--drift` leaves columns out of every
//! second file.

mod lines;
mod tables;
mod write;

use clap::{Parser, ValueEnum};
use lines::Lines;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes cost exports whose totals are known.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// The format.
    #[arg(long, value_enum)]
    format: Format,
    /// How the files are written.
    #[arg(long, value_enum, default_value_t = Packing::Parquet)]
    packing: Packing,
    /// Rows in all.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// Files that they are spread over.
    #[arg(long, default_value_t = 1)]
    files: u64,
    /// Of two seeds come two sets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Year and month of the bill.
    #[arg(long, default_value = "2025-01")]
    period: String,
    /// Changes some amounts, as a restatement does.
    #[arg(long)]
    restate: bool,
    /// Leaves columns out of every second file.
    #[arg(long)]
    drift: bool,
    /// The folder to write into; it is made.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(name = "cur-2.0")]
    Cur2,
    #[value(name = "focus-1.2")]
    Focus12,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Packing {
    Parquet,
    CsvGz,
}

/// What the rows add up to, in units of 10^-10.
#[derive(Default)]
struct Totals {
    billed: i128,
    effective: i128,
    services: BTreeMap<&'static str, i128>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    runtime::main_exit("generate-costs", generate(&args))
}

fn generate(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(&args.out)?;
    let columns = match args.format {
        Format::Cur2 => tables::cur2(),
        Format::Focus12 => tables::focus12(),
    };
    let mut lines = Lines::new(args.seed, &args.period, args.restate)?;
    let mut totals = Totals::default();
    let files = args.files.max(1);
    for file in 0..files {
        let rows = args.rows / files + u64::from(file < args.rows % files);
        let drops = args.drift && file % 2 == 1;
        let columns: Vec<_> = columns.iter().filter(|column| !(drops && column.may_go)).collect();
        let ending = if args.packing == Packing::Parquet { "snappy.parquet" } else { "csv.gz" };
        let path = args.out.join(format!("costs-{:05}.{ending}", file + 1));
        match args.packing {
            Packing::Parquet => write::parquet(&path, &columns, rows, &mut lines, &mut totals)?,
            Packing::CsvGz => write::csv(&path, &columns, rows, &mut lines, &mut totals)?,
        }
    }
    let services: BTreeMap<_, _> = totals.services.iter().map(|(name, units)| (*name, decimal(*units))).collect();
    let json = serde_json::json!({
        "rows": args.rows, "currency": "USD", "billed": decimal(totals.billed), "effective": decimal(totals.effective),
        "billedByService": services,
    });
    std::fs::write(args.out.join("totals.json"), format!("{json:#}\n"))?;
    Ok(())
}

/// Units of 10^-10 as a decimal without trailing zeros.
fn decimal(units: i128) -> String {
    let text = format!(
        "{}{}.{:010}",
        if units < 0 { "-" } else { "" },
        units.abs() / 10_000_000_000,
        units.abs() % 10_000_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
