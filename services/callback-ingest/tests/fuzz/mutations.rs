//! Small changes to a good text, as an attacker or a broken sender would make them.

use proptest::{
    prelude::*,
    sample::{Index, select},
};

/// What is put into texts: what separates, what looks alike, what is dropped or folded by parsers.
const PIECES: [&str; 40] = [
    ".",
    "..",
    "@",
    ":",
    "/",
    "//",
    "\\",
    "?",
    "#",
    "%",
    "%2e",
    "%2F",
    "%40",
    "%00",
    "%0d%0a",
    "%65",
    "\t",
    "\n",
    "\r",
    " ",
    "\0",
    "\u{3002}",
    "\u{ff0e}",
    "\u{ff61}",
    "\u{ad}",
    "\u{200b}",
    "\u{202e}",
    "\u{430}",
    "\u{ff53}3",
    "ß",
    "xn--",
    "-",
    "*",
    ">",
    "[::1]",
    "127.0.0.1",
    ":443",
    ":8443",
    ".evil.example",
    "user:pw@",
];

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, &'static str),
    Remove(Index),
    Replace(Index, char),
    Double(Index),
    Upper(Index),
    Cut(Index),
    Splice(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), select(&PIECES[..])).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        2 => any::<Index>().prop_map(Edit::Remove),
        2 => (any::<Index>(), any::<char>()).prop_map(|(at, with)| Edit::Replace(at, with)),
        1 => any::<Index>().prop_map(Edit::Double),
        1 => any::<Index>().prop_map(Edit::Upper),
        1 => any::<Index>().prop_map(Edit::Cut),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Splice(from, to)),
    ]
}

fn apply(text: &mut Vec<char>, edit: &Edit) {
    let length = text.len();
    if length == 0 {
        return;
    }
    match edit {
        Edit::Insert(at, piece) => {
            let at = at.index(length + 1);
            text.splice(at..at, piece.chars());
        }
        Edit::Remove(at) => drop(text.remove(at.index(length))),
        Edit::Replace(at, with) => text[at.index(length)] = *with,
        Edit::Double(at) => text.insert(at.index(length), text[at.index(length)]),
        Edit::Upper(at) => text[at.index(length)].make_ascii_uppercase(),
        Edit::Cut(at) => text.truncate(at.index(length)),
        Edit::Splice(from, to) => {
            let (from, to) = (from.index(length), to.index(length));
            let part: Vec<char> = text[from.min(to)..from.max(to)].to_vec();
            text.splice(from..from, part);
        }
    }
}

/// `good` with up to `most` edits; unchanged now and then.
pub(crate) fn edited(good: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    (good, prop::collection::vec(edit(), 0..=most)).prop_map(|(good, edits)| {
        let mut text: Vec<char> = good.chars().collect();
        edits.iter().for_each(|edit| apply(&mut text, edit));
        text.into_iter().collect()
    })
}

/// `good` as bytes, with up to eight of them changed and the end cut off now and then: no longer UTF-8, as often as not.
pub(crate) fn mangled(good: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..8);
    (good, changes, prop::option::weighted(0.2, any::<Index>())).prop_map(|(good, changes, cut)| {
        let mut bytes = good.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len().max(1));
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    })
}
