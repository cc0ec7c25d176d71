//! The last thing a program says.

use std::{error::Error, process::ExitCode};

/// Turns the result of `run` into an exit code; an error and its causes become one line on standard error.
#[must_use]
#[allow(
    clippy::print_stderr,
    reason = "the one place where a service speaks to its starter: logging may not be up, or may go elsewhere"
)]
pub fn main_exit<E: Into<Box<dyn Error>>>(program: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", chain(error.into().as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The error and its sources, joined by colons; a source that its parent has already said is left out.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_all_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the database\nat x")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no space"));
        assert_eq!(chain(&error), "cannot open the database at x: no space");
    }
}
