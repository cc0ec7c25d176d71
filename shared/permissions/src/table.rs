//! The matrix as a table for people.

use std::collections::BTreeMap;

use contracts::Stream;

use crate::{Right, User};

const HEAD: &str = "\
| user | publishes | serves (subscribes) | keeps | reads |
|---|---|---|---|---|
";

/// One row for each user.
#[must_use]
pub fn table(users: &[User]) -> String {
    std::iter::once(HEAD.to_owned()).chain(users.iter().map(row)).collect()
}

fn row(user: &User) -> String {
    let rights = &user.rights;
    let mut publishes = of(rights, |right| match right {
        Right::Publish(subject) => Some(subject.as_str()),
        _ => None,
    });
    publishes.extend(named("asks", rights, |right| match right {
        Right::Ask(subject) => Some(subject.as_str()),
        _ => None,
    }));
    publishes.extend(named("replays", rights, |right| match right {
        Right::Replay(subject) => Some(subject.as_str()),
        _ => None,
    }));
    publishes.extend(rights.contains(&Right::Discover).then(|| "`$SRV.>`".to_owned()));
    let serves = grouped(rights.iter().flat_map(Right::subscribe).filter(|subject| !subject.starts_with('$')));
    let (mut keeps, mut reads) = (Vec::new(), Vec::new());
    for right in rights {
        match right {
            Right::Keep(stream) => keeps.push(short(*stream)),
            Right::Bucket(name) => keeps.push(format!("bucket `{name}`")),
            Right::Remove(stream) => keeps.push(format!("removes messages of {}", short(*stream))),
            Right::Consume { stream, durable } => reads.push(format!("{} as `{durable}`", short(*stream))),
            Right::Read(stream) => reads.push(format!("{} (any)", short(*stream))),
            Right::ReadOnly { stream, consumer, filter } => {
                reads.push(format!("{} as `{consumer}`, `{filter}`", short(*stream)));
            }
            Right::SeeState => reads.push("the state of all streams and consumers".to_owned()),
            _ => {}
        }
    }
    format!("| `{}` | {} | {} | {} | {} |\n", user.name, cell(&publishes), cell(&serves), cell(&keeps), cell(&reads))
}

fn of<'a>(rights: &'a [Right], subject: impl Fn(&'a Right) -> Option<&'a str>) -> Vec<String> {
    grouped(rights.iter().filter_map(subject).map(ToOwned::to_owned))
}

fn named<'a>(verb: &str, rights: &'a [Right], subject: impl Fn(&'a Right) -> Option<&'a str>) -> Option<String> {
    let found = of(rights, subject);
    (!found.is_empty()).then(|| format!("{verb} {}", found.join(", ")))
}

/// Without the prefix `rolebridge.`, and with what has the same beginning together: `events.v1.tenant.{created.*, suspended.*}`.
fn grouped(subjects: impl Iterator<Item = String>) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for subject in subjects {
        let subject = subject.strip_prefix("rolebridge.").unwrap_or(&subject);
        let (stem, rest) = subject.match_indices('.').nth(2).map_or((subject, ""), |(at, _)| subject.split_at(at));
        groups.entry(stem.to_owned()).or_default().push(rest.trim_start_matches('.').to_owned());
    }
    let written = groups.into_iter().map(|(stem, rest)| match rest.as_slice() {
        [one] if one.is_empty() => format!("`{stem}`"),
        [one] => format!("`{stem}.{one}`"),
        many => format!("`{stem}.{}`", braces(many)),
    });
    written.collect()
}

/// `{created, suspended}.*`: stars that all end with stand once.
fn braces(rests: &[String]) -> String {
    let bare = |rest: &String| rest.trim_end_matches(".*").to_owned();
    let stars = |rest: &String| rest.get(bare(rest).len()..).unwrap_or_default().to_owned();
    let common = rests.first().map(stars).unwrap_or_default();
    if rests.iter().all(|rest| stars(rest) == common) {
        let bare: Vec<String> = rests.iter().map(bare).collect();
        return format!("{{{}}}{common}", bare.join(", "));
    }
    format!("{{{}}}", rests.join(", "))
}

fn short(stream: Stream) -> String {
    format!("`{}`", stream.name().trim_start_matches("ROLEBRIDGE_"))
}

fn cell(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../../deploy/nats/README.md");
        let table = super::table(&crate::matrix::users());
        assert!(page.contains(&table), "put it in again (rolebridge nats permissions --table):\n{table}");
    }
}
