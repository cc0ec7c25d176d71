//! Whose records fill the journal: nobody may hold more of it than is left free. No I/O.
//!
//! So one who is loud while the stream of events is away fills half of it, two fill a third each, and whoever comes then still finds room: the rule of
//! dynamic thresholds for shared buffers (Choudhury and Hahne, 1998). It bounds those who are loud by mistake: `user` is whose inbox was answered, and
//! whoever goes without the answer can name another's.

use std::collections::HashMap;

/// Users that are told apart; those beyond share one part. Else names that somebody makes up would fill the memory.
const MOST_USERS: usize = 4096;

/// Bytes of one user.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    all: u64,
    /// Of them in the segment that is written to.
    active: u64,
}

/// What each user holds of the journal.
#[derive(Debug, Default)]
pub(super) struct Shares {
    users: HashMap<Box<str>, Held>,
    /// What users hold in segments that nothing is written to any more, by the segment's number.
    sealed: HashMap<u64, Vec<(Box<str>, u64)>>,
}

impl Shares {
    /// Whether `bytes` more are within the user's share, with so many bytes left `free` for all.
    pub(super) fn has_room(&self, user: Option<&str>, bytes: u64, free: u64) -> bool {
        self.held(user) + bytes <= free
    }

    fn held(&self, user: Option<&str>) -> u64 {
        self.users.get(self.key(user)).map_or(0, |held| held.all)
    }

    /// Nobody's, where the user is not known, or one too many.
    fn key<'u>(&self, user: Option<&'u str>) -> &'u str {
        user.filter(|user| self.users.len() < MOST_USERS || self.users.contains_key(*user)).unwrap_or_default()
    }

    pub(super) fn add(&mut self, user: Option<&str>, bytes: u64) {
        let key = self.key(user);
        if !self.users.contains_key(key) {
            self.users.insert(key.into(), Held::default());
        }
        if let Some(held) = self.users.get_mut(key) {
            held.all += bytes;
            held.active += bytes;
        }
    }

    /// The segment that is written to gets no more.
    pub(super) fn seal(&mut self, segment: u64) {
        let users = self.users.iter_mut().filter(|(_, held)| held.active > 0);
        let active = users.map(|(user, held)| (user.clone(), std::mem::take(&mut held.active)));
        self.sealed.insert(segment, active.collect());
    }

    /// The segment is gone.
    pub(super) fn done(&mut self, segment: u64) {
        for (user, bytes) in self.sealed.remove(&segment).unwrap_or_default() {
            if let Some(held) = self.users.get_mut(&user) {
                held.all = held.all.saturating_sub(bytes);
                if held.all == 0 {
                    self.users.remove(&user);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a journal of `most` bytes by `loud` users in turn; gives what each has.
    fn filled(most: u64, loud: usize) -> Vec<u64> {
        let (mut shares, mut used) = (Shares::default(), 0);
        let names: Vec<String> = (0..loud).map(|number| format!("job-{number}")).collect();
        let mut written = true;
        while written {
            written = false;
            for name in &names {
                if shares.has_room(Some(name), 21, most - used) {
                    shares.add(Some(name), 21);
                    (used, written) = (used + 21, true);
                }
            }
        }
        names.iter().map(|name| shares.held(Some(name))).collect()
    }

    #[test]
    fn nobody_holds_more_than_is_left_free() {
        for loud in [1, 2, 3, 10] {
            let each = filled(1 << 20, loud);
            let free = (1 << 20) - each.iter().sum::<u64>();
            let share = (1 << 20) / (loud as u64 + 1);
            assert!(each.iter().all(|held| held.abs_diff(share) < 100), "{each:?}");
            assert!(free.abs_diff(share) < 21 * 20, "whoever comes finds room: {free}");
        }
    }

    #[test]
    fn what_is_published_is_nobodys_any_more() {
        let mut shares = Shares::default();
        shares.add(Some("job"), 60);
        shares.seal(0);
        shares.add(Some("job"), 30);
        assert!(!shares.has_room(Some("job"), 10, 99) && shares.has_room(Some("other"), 10, 99));
        shares.done(0);
        assert_eq!(shares.held(Some("job")), 30);
        shares.seal(1);
        shares.done(1);
        assert!(shares.users.is_empty() && shares.sealed.is_empty());
    }

    #[test]
    fn made_up_names_share_one_part() {
        let mut shares = Shares::default();
        for number in 0..10_000 {
            shares.add(Some(&format!("made-up-{number}")), 1);
        }
        assert!(shares.users.len() <= MOST_USERS + 1);
        assert!(shares.held(Some("made-up-9999")) > 5_000, "it stands for all that are beyond");
        assert_eq!(shares.held(Some("made-up-1")), 1);
    }
}
