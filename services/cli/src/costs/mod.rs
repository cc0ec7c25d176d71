//! `rolebridge costs`: what a tenant's costs add up to, and how they come in.
//!
//! Each subcommand has a file of its own: its arguments, what it asks, how the answer is printed. Here is only the list of them.

mod exports;
mod print;
mod query;
mod watch;

use clap::{Args as ClapArgs, Subcommand};
use messaging::Bus;

use crate::{error::CliError, show::Output};

/// `rolebridge costs TENANT` is short for `rolebridge costs query TENANT`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Costs {
    #[command(subcommand)]
    command: Option<CostsCommand>,

    #[command(flatten)]
    query: Option<query::Query>,
}

#[derive(Debug, Subcommand)]
enum CostsCommand {
    /// Add up a tenant's costs; the word may be left out.
    Query(Box<query::Query>),
    /// Show how it stands with each billing period of each export: what is read, what waits, what failed and why.
    Exports(exports::Exports),
    /// Show how far reading is, until nothing is left to be read.
    Watch(watch::Watch),
}

pub(crate) async fn run(bus: &Bus, args: Costs, output: Output) -> Result<(), CliError> {
    match (args.command, args.query) {
        (Some(CostsCommand::Exports(args)), _) => exports::run(bus, &args, output).await,
        (Some(CostsCommand::Watch(args)), _) => watch::run(bus, &args, output).await,
        (Some(CostsCommand::Query(query)), _) => query::run(bus, &query, output).await,
        (None, Some(query)) => query::run(bus, &query, output).await,
        // Neither: clap has shown the help.
        (None, None) => Ok(()),
    }
}
