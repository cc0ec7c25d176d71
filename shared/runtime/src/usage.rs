//! Flags and variables, and one sentence when they make no sense.

use clap::{
    ArgMatches, Args, Command, CommandFactory, FromArgMatches, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Exit code of a program that was started wrongly, as of clap and most of Unix.
const USAGE: i32 = 2;

/// Reads the process's flags and variables. Help and version are printed, and a mistake is said in one sentence on standard error; either ends the
/// process.
#[must_use]
pub fn parse<C: CommandFactory + FromArgMatches>() -> C {
    let matches = matches(C::command());
    C::from_arg_matches(&matches).unwrap_or_else(|error| refuse(&error, &C::command()))
}

/// As [`parse`], for a command that is put together by hand.
#[must_use]
pub fn matches(mut command: Command) -> ArgMatches {
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    parsed.unwrap_or_else(|error| refuse(&error, &command))
}

/// What a service's program is asked to do: to serve, or one of its small commands.
#[derive(Debug)]
pub enum Invocation<S, C> {
    Serve(Box<S>),
    Command(C),
}

impl<S: Args, C: Subcommand> Invocation<S, C> {
    /// Reads the process's flags and variables against [`Self::command`]. Ends the process as [`parse`] does.
    #[must_use]
    pub fn parse(program: &Command) -> Self {
        let matches = matches(program.clone());
        let read = if matches.subcommand_name().is_some() {
            C::from_arg_matches(&matches).map(Self::Command)
        } else {
            S::from_arg_matches(&matches).map(|settings| Self::Serve(Box::new(settings)))
        };
        read.unwrap_or_else(|error| refuse(&error, program))
    }

    /// All flags, variables and commands. Put together by hand, since with derives alone the settings would be demanded of the commands too, or not be
    /// seen when all of them come from the environment.
    #[must_use]
    pub fn command(name: &'static str, version: &'static str, about: &'static str) -> Command {
        C::augment_subcommands(S::augment_args(Command::new(name).version(version).about(about)))
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true)
    }
}

/// Says what is wrong with the arguments, and ends the process.
#[allow(clippy::print_stderr, reason = "there is no log yet, and a person is waiting")]
pub fn refuse(error: &clap::Error, command: &Command) -> ! {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    eprintln!("{}: {}", command.get_name(), sentence(error, command));
    std::process::exit(USAGE)
}

fn sentence(error: &clap::Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => {
            texts.iter().map(|text| with_variable(text, command)).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    let argument = with_variable(&text(ContextKind::InvalidArg), command);
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            format!("settings are missing: {}; --help says what they mean", text(ContextKind::InvalidArg))
        }
        ErrorKind::UnknownArgument => format!("there is no {argument}; --help lists what there is"),
        ErrorKind::InvalidSubcommand => {
            format!("there is no command {}; --help lists what there is", text(ContextKind::InvalidSubcommand))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let reason =
                std::error::Error::source(error).map_or_else(|| allowed(error), |source| format!(": {source}"));
            format!("'{}' is no value for {argument}{reason}", text(ContextKind::InvalidValue))
        }
        _ => first_sentence(&error.to_string()),
    }
}

fn allowed(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!(": it takes {}", values.join(", ")),
        _ => String::new(),
    }
}

/// `--nats-url <URL>` becomes `--nats-url <URL> (ROLEBRIDGE_NATS_URL)`.
fn with_variable(shown: &str, command: &Command) -> String {
    let named: Vec<String> = command
        .get_arguments()
        .filter(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            long.is_some_and(|long| shown.split([' ', '|', '<', '>', '=']).any(|word| word == long))
        })
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()))
        .collect();
    if named.is_empty() { shown.to_owned() } else { format!("{shown} ({})", named.join(" or ")) }
}

/// The library's own words up to the first empty line, on one line.
fn first_sentence(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    paragraph.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(name = "program")]
    #[command(group = clap::ArgGroup::new("key").required(true).args(["key_file", "kms_key"]))]
    struct Settings {
        #[arg(long, env = "TEST_USAGE_URL", value_name = "URL")]
        _url: String,
        #[arg(long, env = "TEST_USAGE_COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
        _count: u8,
        #[arg(long, env = "TEST_USAGE_KEY_FILE", id = "key_file")]
        _key_file: Option<String>,
        #[arg(long, env = "TEST_USAGE_KMS_KEY", id = "kms_key")]
        _kms_key: Option<String>,
    }

    fn said(arguments: &[&str]) -> String {
        let mut command = Settings::command();
        let all = ["program"].iter().chain(arguments);
        let error = command.try_get_matches_from_mut(all).unwrap_err();
        sentence(&error, &command)
    }

    #[test]
    fn one_sentence_that_names_flag_and_variable() {
        let missing = said(&[]);
        assert!(missing.contains("--url <URL> (TEST_USAGE_URL)"), "{missing}");
        assert!(missing.contains("TEST_USAGE_KEY_FILE or TEST_USAGE_KMS_KEY"), "{missing}");
        let range = said(&["--url", "x", "--key-file", "y", "--count", "9"]);
        assert!(
            range.contains("'9' is no value for --count")
                && range.contains("TEST_USAGE_COUNT")
                && range.contains("1..=5"),
            "{range}"
        );
        assert_eq!(said(&["--bogus"]), "there is no --bogus; --help lists what there is");
        for arguments in [vec![], vec!["--bogus"], vec!["--url"], vec!["stray"], vec!["--url", "x", "--count", "9"]] {
            assert!(!said(&arguments).contains('\n'), "{:?}", said(&arguments));
        }
    }
}
