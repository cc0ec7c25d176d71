//! The matrix as configuration of nats-server.

use std::fmt::Write as _;

use crate::{Key, Right, User};

const HEAD: &str = "\
# Who may do what on the bus. Written by `rolebridge nats permissions` from shared/permissions: change it there, not here.
# Whatever is not allowed here is denied. Each user is an nkey: the server knows the public half. README.md says the same as a table.

system_account: SYS

accounts {
  # Nobody logs in to the system account by default.
  SYS {}

  ROLEBRIDGE {
    jetstream: enabled
    users: [
";
const TAIL: &str = "    ]\n  }\n}\n";

/// The whole of `accounts.conf`: these users, and then `more`, which are blocks as [`block`] writes them.
#[must_use]
pub fn accounts(users: &[User], more: &[String]) -> String {
    let blocks = users.iter().map(block).chain(more.iter().cloned());
    let indented = blocks.flat_map(|block| block.lines().map(|line| format!("      {line}\n")).collect::<Vec<_>>());
    std::iter::once(HEAD.to_owned()).chain(indented).chain([TAIL.to_owned()]).collect()
}

/// One user, as it stands in the list of users.
#[must_use]
pub fn block(user: &User) -> String {
    let key = match &user.key {
        Key::Variable(name) => format!("${name}"),
        Key::Public(key) => key.clone(),
    };
    let mut text = format!("# {}: {}\n{{\n  nkey: {key}\n  permissions {{\n", user.name, user.about);
    text.push_str("    publish {\n      allow: [\n");
    text.push_str(&lines(&user.rights, Right::publish));
    text.push_str("      ]\n");
    let deny = user.deny();
    if !deny.is_empty() {
        text.push_str("      # Consumers of services, on streams that it reads by any name.\n      deny: [\n");
        deny.iter().for_each(|subject| line(&mut text, subject));
        text.push_str("      ]\n");
    }
    text.push_str("    }\n    subscribe {\n      allow: [\n");
    line(&mut text, &user.inbox());
    text.push_str(&lines(&user.rights, Right::subscribe));
    text.push_str("      ]\n    }\n");
    if user.replies() {
        text.push_str("    # One reply to each request, to whatever inbox it names.\n");
        text.push_str("    allow_responses { max: 1, expires: \"2m\" }\n");
    }
    text.push_str("  }\n}\n");
    text
}

/// The subjects of the rights, each group under its comment.
fn lines(rights: &[Right], subjects: impl Fn(&Right) -> Vec<String>) -> String {
    let (mut text, mut heading) = (String::new(), "");
    for right in rights {
        let subjects = subjects(right);
        if !subjects.is_empty() && right.heading() != heading {
            heading = right.heading();
            let _ = writeln!(text, "        # {heading}");
        }
        subjects.iter().for_each(|subject| line(&mut text, subject));
    }
    text
}

fn line(text: &mut String, subject: &str) {
    // Subjects are of contracts and of checked names: no quotes in them.
    let _ = writeln!(text, "        \"{subject}\"");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_configuration_is_what_is_written() {
        let committed = include_str!("../../../deploy/nats/accounts.conf");
        let written = super::accounts(&crate::matrix::users(), &[]);
        assert!(committed == written, "write it again: rolebridge nats permissions --out deploy/nats/accounts.conf");
    }
}
