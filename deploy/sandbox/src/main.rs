//! `cargo demo`: one customer account connects, is used, is attacked and leaves, for real, on this machine.

// A demonstration speaks on standard output.
#![allow(clippy::print_stdout, reason = "what the demo shows goes to standard output")]

mod demo;

use std::process::ExitCode;

use clap::Parser;

/// Runs the whole of rolebridge on this machine and does its main job once.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", version)]
struct Args {
    /// Print the results as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Leave everything running afterwards, and print how to reach it; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = runtime::usage::parse();
    tokio::select! {
        result = demo::run(args.json, args.keep) => runtime::main_exit("cargo demo", result),
        // Dropping the demo ends everything that it has started.
        _ = interrupted() => {
            println!("\ninterrupted: everything is ended");
            ExitCode::from(130)
        }
    }
}

/// Ctrl-C, or a SIGTERM.
async fn interrupted() {
    runtime::shutdown_on_signals().cancelled().await;
}
