//! A user of the server: a key, and what it may do.

use std::{fmt, str::FromStr};

use crate::{Right, matrix, right::hands_off};

/// A name that may stand in a subject, a file name and a consumer's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name for a user: 1 to 32 small letters, digits and -, a letter first")]
pub struct UserNameError {
    text: String,
}

impl FromStr for UserName {
    type Err = UserNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() <= 32
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if fits { Ok(Self(text.to_owned())) } else { Err(UserNameError { text: text.to_owned() }) }
    }
}

impl UserName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a user of the matrix has it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matrix::users().iter().any(|user| user.name == self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the server gets the public half from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The server's environment.
    Variable(String),
    /// `U...`
    Public(String),
}

/// A user with everything that it may do. The rest is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// One sentence: who it is.
    pub about: String,
    pub key: Key,
    pub rights: Vec<Right>,
}

impl User {
    /// A user of the matrix, whose public key comes from the environment.
    pub(crate) fn of_matrix(name: &str, about: &str, rights: Vec<Right>) -> Self {
        Self { name: name.to_owned(), about: about.to_owned(), key: Key::Variable(variable(name)), rights }
    }

    /// The only inboxes that it hears.
    #[must_use]
    pub fn inbox(&self) -> String {
        format!("_INBOX_{}.>", self.name)
    }

    /// The subjects that it may publish to.
    #[must_use]
    pub fn publish(&self) -> Vec<String> {
        self.rights.iter().flat_map(Right::publish).collect()
    }

    /// The subjects that it may subscribe to.
    #[must_use]
    pub fn subscribe(&self) -> Vec<String> {
        std::iter::once(self.inbox()).chain(self.rights.iter().flat_map(Right::subscribe)).collect()
    }

    /// What it may not publish to although a right of it has a wildcard there: services' own consumers on streams that it reads by any name.
    #[must_use]
    pub fn deny(&self) -> Vec<String> {
        let reads = |stream| self.rights.contains(&Right::Read(stream));
        let services = matrix::DURABLES.iter();
        let others = services.filter(|(owner, stream, _)| *owner != self.name && reads(*stream));
        others.flat_map(|(_, stream, durable)| hands_off(*stream, durable)).collect()
    }

    /// Whether it may send one reply to each request that it gets.
    #[must_use]
    pub fn replies(&self) -> bool {
        self.rights.iter().any(|right| matches!(right, Right::Serve { .. }))
    }

    /// Whether it may publish to `subject`.
    #[must_use]
    pub fn may_publish(&self, subject: &str) -> bool {
        let within = |patterns: Vec<String>| patterns.iter().any(|pattern| covers(pattern, subject));
        within(self.publish()) && !within(self.deny())
    }

    /// Whether it may subscribe to `subject`, which may have wildcards.
    #[must_use]
    pub fn may_subscribe(&self, subject: &str) -> bool {
        self.subscribe().iter().any(|pattern| covers(pattern, subject))
    }
}

/// The variable in which the server looks for the public key of the matrix's user `name`.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("NATS_{}_NKEY", name.to_uppercase().replace('-', "_"))
}

/// Whether every subject that `subject` stands for is one that `pattern` stands for.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (_, Some(token)) if token == wanted => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_the_server_says_it_does() {
        for (pattern, subject) in [("a.*", "a.b"), ("a.>", "a.b.c"), ("a.>", "a.*"), ("a.b", "a.b"), ("a.*", "a.*")] {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in
            [("a.*", "a"), ("a.*", "a.b.c"), ("a.>", "a"), ("a.b", "a.*"), ("a.*", "a.>"), ("a", "b")]
        {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_token_or_its_folder() {
        for bad in ["", "a.b", "*", ">", "a>", "../a", "A", "1a", "-a", "a b", "a\"b", &"a".repeat(33)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
        assert!("job-a1".parse::<UserName>().is_ok_and(|name| !name.is_taken()));
        assert!("operator".parse::<UserName>().is_ok_and(|name| name.is_taken()));
    }
}
