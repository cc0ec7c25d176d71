//! The server's permissions, and users that are limited to some tenants. No bus is needed: the files are for whoever keeps the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use contracts::{Stream, TenantId, credentials::Purpose};
use nkeys::KeyPair;
use permissions::{User, UserName, conf, limited, matrix, table};

use crate::{error::CliError, keys::write_new, show::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum NatsCommand {
    /// Write accounts.conf: what every service may do, and the users of --users.
    Permissions(Permissions),
    /// Make a user: its seed file, and its block for accounts.conf.
    #[command(subcommand)]
    User(NewUser),
}

#[derive(Debug, Args)]
pub(crate) struct Permissions {
    /// File to write, over what is there; standard output when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder with the blocks (*.conf) of users that were made with `nats user`; all of them are taken in.
    #[arg(long, value_name = "DIR")]
    users: Option<PathBuf>,
    /// The table for people instead, in Markdown.
    #[arg(long, conflicts_with = "users")]
    table: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NewUser {
    /// A job that may ask for credentials of some tenants' connections.
    Job {
        #[command(flatten)]
        new: NewFiles,
        /// What it may ask for; may be given more than once.
        #[arg(long, required = true)]
        purpose: Vec<Purpose>,
        /// Whose connections; may be given more than once.
        #[arg(long, required = true)]
        tenant: Vec<TenantId>,
    },
    /// A reader of events.
    Events {
        #[command(flatten)]
        new: NewFiles,
        /// Only events of this tenant; may be given more than once. All tenants when absent.
        #[arg(long)]
        tenant: Vec<TenantId>,
        /// Only events about this (connection, costs, ...); may be given more than once. Everything when absent.
        #[arg(long)]
        event: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewFiles {
    /// The user's name: small letters, digits and -. It names its private inbox, too.
    #[arg(long)]
    name: UserName,
    /// Folder to write NAME.nk (the seed, for the user alone) and NAME.conf (for the server) to; nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(command: &NatsCommand, output: Output) -> Result<(), CliError> {
    match command {
        NatsCommand::Permissions(args) => permissions(args),
        NatsCommand::User(NewUser::Job { new, purpose, tenant }) => {
            make(new, output, |key| Ok(limited::job(&new.name, key, purpose, tenant)))
        }
        NatsCommand::User(NewUser::Events { new, tenant, event }) => make(new, output, |key| {
            let streams = streams(event, !tenant.is_empty())?;
            Ok(limited::reader(&new.name, key, &streams, tenant)?)
        }),
    }
}

fn permissions(args: &Permissions) -> Result<(), CliError> {
    let users = matrix::users();
    let text = if args.table { table::table(&users) } else { conf::accounts(&users, &blocks(args.users.as_deref())?) };
    match &args.out {
        Some(path) => fs::write(path, text).map_err(|source| CliError::Write { path: path.clone(), source }),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// The blocks in the folder, by name.
fn blocks(folder: Option<&Path>) -> Result<Vec<String>, CliError> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Read { path, source }
    };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable(folder))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).map_err(unreadable(path))).collect()
}

/// The streams that are meant; when nothing is said, all that can be read (by tenant).
fn streams(entities: &[String], by_tenant: bool) -> Result<Vec<Stream>, CliError> {
    let known = matrix::public_streams();
    if entities.is_empty() {
        let readable = |stream: &Stream| !by_tenant || limited::names_tenants(*stream);
        return Ok(known.into_iter().filter(readable).collect());
    }
    let find = |entity: &String| {
        limited::stream_of(entity).ok_or_else(|| {
            let known: Vec<&str> = known.iter().map(|stream| limited::entity(*stream)).collect();
            CliError::NoSuchEvents { entity: entity.clone(), known: known.join(", ") }
        })
    };
    entities.iter().map(find).collect()
}

/// Writes the two files of a new user.
fn make(new: &NewFiles, output: Output, user: impl FnOnce(String) -> Result<User, CliError>) -> Result<(), CliError> {
    if new.name.is_taken() {
        return Err(CliError::NameTaken { name: new.name.clone() });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Write { path, source }
    };
    let pair = KeyPair::new_user();
    let user = user(pair.public_key())?;
    fs::create_dir_all(&new.out).map_err(failed(&new.out))?;
    let (seed_file, block) = (new.out.join(format!("{}.nk", new.name)), new.out.join(format!("{}.conf", new.name)));
    write_new(&seed_file, pair.seed().map_err(CliError::Key)?.as_bytes(), 0o600).map_err(failed(&seed_file))?;
    write_new(&block, conf::block(&user).as_bytes(), 0o644).map_err(failed(&block))?;
    let shown = [
        ("user", user.name.clone()),
        ("may", user.about.clone()),
        ("seed file", seed_file.display().to_string()),
        ("server block", block.display().to_string()),
        (
            "next",
            format!(
                "rolebridge nats permissions --users {} --out accounts.conf, then SIGHUP to the server",
                new.out.display()
            ),
        ),
    ];
    let json = serde_json::json!({ "user": user.name, "nkey": pair.public_key(), "seed_file": seed_file, "server_block": block });
    output.one(&json, &shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, name: &str) -> NewFiles {
        NewFiles { name: name.parse().unwrap(), out: folder.to_owned() }
    }

    fn job(folder: &Path, name: &str) -> Result<(), CliError> {
        let command =
            NewUser::Job { new: files(folder, name), purpose: vec![Purpose::CostRead], tenant: vec![TenantId::new()] };
        run(&NatsCommand::User(command), Output::new(true))
    }

    #[test]
    fn a_user_is_a_private_seed_and_a_block_and_overwrites_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        job(folder.path(), "nightly").unwrap();
        let seed = folder.path().join("nightly.nk");
        assert_eq!(fs::metadata(&seed).unwrap().permissions().mode() & 0o777, 0o600);
        let pair = KeyPair::from_seed(&fs::read_to_string(&seed).unwrap()).unwrap();
        let block = fs::read_to_string(folder.path().join("nightly.conf")).unwrap();
        assert!(block.contains(&format!("nkey: {}", pair.public_key())) && !block.contains("SU"));
        assert!(matches!(job(folder.path(), "nightly"), Err(CliError::Write { .. })));
        assert!(matches!(job(folder.path(), "operator"), Err(CliError::NameTaken { .. })));

        let whole = conf::accounts(&matrix::users(), &blocks(Some(folder.path())).unwrap());
        assert!(whole.contains(&pair.public_key()) && whole.contains("$NATS_OPERATOR_NKEY"));
    }

    #[test]
    fn events_are_named_as_in_their_subjects() {
        assert_eq!(streams(&["connection".to_owned()], true).unwrap(), [Stream::ConnectionEvents]);
        let error = streams(&["grants".to_owned()], false).unwrap_err().to_string();
        assert!(error.contains("grants") && error.contains("tenant, principal, enrollment, connection"), "{error}");
        assert!(streams(&[], false).unwrap().contains(&Stream::AuditEvents));
        assert!(!streams(&[], true).unwrap().contains(&Stream::AuditEvents));
    }
}
