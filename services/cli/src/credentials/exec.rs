//! `credentials exec`: a program with credentials of one connection, for as long as it runs.
//!
//! The program's SDK finds the variables of an endpoint that is served by this process beside it, and asks there whenever it needs fresh credentials: so a program that runs for days never holds any that last
//! longer than a session. With `--env` the credentials themselves are put into its environment, for programs that know nothing else; they end with the session, and nothing renews them.
//!
//! Cancel: signals are the program's; this process ends when it has ended. Failure: the program is not started without credentials. Later the endpoint says what is wrong to whoever asks, and the program goes on.

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::Args;
use client::Session;
use messaging::Bus;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::{
    Asked,
    endpoint::{Endpoint, Token},
    environment::{self, Changes, Keep},
};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    asked: Asked,
    /// Put the credentials themselves into the environment instead of an endpoint: they are not renewed.
    #[arg(long)]
    env: bool,
    /// Leave the program the AWS configuration files; a [default] profile with credentials in them wins over the endpoint.
    #[arg(long)]
    keep_aws_config: bool,
    /// Leave the program the ROLEBRIDGE_ variables, which say where the seed file is.
    #[arg(long)]
    keep_rolebridge: bool,
    /// The program and its arguments, after --.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(super) async fn run(bus: &Bus, args: Exec) -> Result<ExitCode, CliError> {
    let credentials = args.asked.cached(bus)?;
    let session = credentials.get().await?;
    let (way, endpoint) = if args.env {
        tell_end(&session);
        (environment::keys(&session.credentials), None)
    } else {
        let endpoint = Endpoint::bind(0, Token::random(), credentials).await?;
        (endpoint.variables(), Some(endpoint))
    };
    let keep = Keep { aws_config: args.keep_aws_config, ours: args.keep_rolebridge };
    let changes = environment::changes(std::env::vars_os(), way, &session.about.region, keep);
    // Before the program starts: a signal that comes in between must not end us alone.
    let signals = signals::Signals::listen();
    let (mut child, program) = start(&args.program, &changes)?;
    let ending = CancellationToken::new();
    let serving = endpoint.map(|endpoint| tokio::spawn(serve(endpoint, ending.clone())));
    let status = signals.pass_on_until_ended(&mut child).await;
    ending.cancel();
    if let Some(serving) = serving {
        // Nobody is left to be answered.
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    }
    status.map(exit_code).map_err(|source| CliError::Wait { program, source })
}

#[allow(clippy::print_stderr, reason = "standard output is the program's")]
async fn serve(endpoint: Endpoint, ending: CancellationToken) {
    if let Err(error) = endpoint.serve(ending).await {
        eprintln!("rolebridge: {error}; the program goes on without fresh credentials");
    }
}

#[allow(clippy::print_stderr, reason = "standard output is the program's")]
fn tell_end(session: &Session) {
    let end = session.credentials.expires_at;
    eprintln!("rolebridge: these credentials end at {end}, and are not renewed");
}

fn start(words: &[OsString], changes: &Changes) -> Result<(Child, String), CliError> {
    let (program, arguments) = words.split_first().ok_or_else(|| CliError::NoProgram { program: String::new() })?;
    let mut command = Command::new(program);
    command.args(arguments).envs(&changes.set);
    for name in &changes.removed {
        // Ours may stand under the same name.
        if !name.to_str().is_some_and(|name| changes.set.contains_key(name)) {
            command.env_remove(name);
        }
    }
    let shown = program.to_string_lossy().into_owned();
    match command.spawn() {
        Ok(child) => Ok((child, shown)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(CliError::NoProgram { program: shown }),
        Err(source) => Err(CliError::CannotRun { program: shown, source }),
    }
}

/// The program's own status; 128 and the signal's number, as of shells, when a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    let code = status.code().or_else(|| signal.map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(unix)]
mod signals {
    use std::{fs::File, process::ExitStatus};

    use nix::{
        sys::signal::{Signal, kill},
        unistd::{Pid, getpgrp, tcgetpgrp},
    };
    use tokio::{
        process::Child,
        signal::unix::{SignalKind, signal},
        sync::mpsc,
    };

    /// What is passed on.
    const PASSED_ON: [Signal; 6] =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    /// What a terminal sends to the program itself, as to all that runs in its foreground.
    const OF_THE_TERMINAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

    /// Whether we run in the foreground of a terminal, wherever standard input comes from; the program is in our group.
    fn in_foreground() -> bool {
        let terminal = File::open("/dev/tty").ok();
        terminal.and_then(|terminal| tcgetpgrp(&terminal).ok()).is_some_and(|group| group == getpgrp())
    }

    /// Signals that came; none of these ends this process any more.
    pub(super) struct Signals(mpsc::UnboundedReceiver<Signal>);

    impl Signals {
        pub(super) fn listen() -> Self {
            let (came, coming) = mpsc::unbounded_channel();
            for number in PASSED_ON {
                // One that cannot be listened for keeps its default action.
                let Ok(mut listened) = signal(SignalKind::from_raw(number as i32)) else { continue };
                let came = came.clone();
                tokio::spawn(async move { while listened.recv().await.is_some() && came.send(number).is_ok() {} });
            }
            Self(coming)
        }

        pub(super) async fn pass_on_until_ended(mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
            // Of a child that was not waited for: its number is nobody else's yet.
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    Some(signal) = self.0.recv() => {
                        if let Some(pid) = pid.filter(|_| !(OF_THE_TERMINAL.contains(&signal) && in_foreground())) {
                            // It may have ended this moment.
                            let _ = kill(pid, signal);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(not(unix))]
mod signals {
    pub(super) struct Signals;

    impl Signals {
        pub(super) fn listen() -> Self {
            Self
        }

        pub(super) async fn pass_on_until_ended(
            self,
            child: &mut tokio::process::Child,
        ) -> std::io::Result<std::process::ExitStatus> {
            child.wait().await
        }
    }
}
