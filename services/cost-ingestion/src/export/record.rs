//! The next line of a CSV file, where all of it is in memory and nothing about it is odd: as `csv_core` reads it, with a search or two for each field in place of a step for each
//! byte. What is odd is left to `csv_core`.

use memchr::{memchr, memchr3};

/// Unquotes the first line of `input` into `line`, each field behind the one before, with its end in `ends`. Gives the bytes that were read and the number of fields; `None` where
/// the line does not end in `input`, is empty, is too long, or has text behind a closing quote.
pub(super) fn split(input: &[u8], line: &mut [u8], ends: &mut [usize]) -> Option<(usize, usize)> {
    if matches!(input.first()?, b'\r' | b'\n') {
        return None;
    }
    let (mut rest, mut written, mut fields) = (input, 0, 0);
    loop {
        let after = match rest.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted, line, &mut written)?,
            None => {
                let (field, after) = rest.split_at_checked(memchr3(b',', b'\n', b'\r', rest)?)?;
                put(field, line, &mut written)?;
                after
            }
        };
        *ends.get_mut(fields)? = written;
        fields += 1;
        rest = match after {
            [b',', rest @ ..] => rest,
            [b'\r', b'\n', rest @ ..] | [b'\n' | b'\r', rest @ ..] => return Some((input.len() - rest.len(), fields)),
            _ => return None,
        };
    }
}

/// Up to the closing quote; a quote that stands twice is one. Gives what is behind it.
fn unquote<'a>(mut quoted: &'a [u8], line: &mut [u8], written: &mut usize) -> Option<&'a [u8]> {
    loop {
        let (text, after) = quoted.split_at_checked(memchr(b'"', quoted)?)?;
        put(text, line, written)?;
        match after {
            [b'"', b'"', rest @ ..] => {
                put(b"\"", line, written)?;
                quoted = rest;
            }
            [_, rest @ ..] => return Some(rest),
            [] => return None,
        }
    }
}

fn put(text: &[u8], line: &mut [u8], written: &mut usize) -> Option<()> {
    line.get_mut(*written..*written + text.len())?.copy_from_slice(text);
    *written += text.len();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `csv_core` reads it.
    fn slow(input: &[u8], line: &mut [u8], ends: &mut [usize]) -> (usize, usize) {
        let (result, read, _, fields) = csv_core::Reader::new().read_record(input, line, ends);
        assert_eq!(result, csv_core::ReadRecordResult::Record);
        (read, fields)
    }

    proptest! {
        #[test]
        fn both_ways_are_one(text in "([ab,\"\r\n]|\"\"|,\"|\",){1,40}") {
            let (mut line, mut ends) = ([0; 100], [0; 100]);
            let input = text.as_bytes();
            if let Some((read, fields)) = split(input, &mut line, &mut ends) {
                let (mut slow_line, mut slow_ends) = ([0; 100], [0; 100]);
                let (slow_read, slow_fields) = slow(input, &mut slow_line, &mut slow_ends);
                prop_assert_eq!((line, ends, fields), (slow_line, slow_ends, slow_fields));
                // `csv_core` leaves the second byte of a line's end for the next line.
                let left = input.get(slow_read..read).unwrap_or_default();
                prop_assert!(left.is_empty() || left == b"\n", "{:?}", left);
            }
        }
    }

    #[test]
    fn odd_lines_are_left_to_the_other() {
        let (mut line, mut ends) = ([0; 8], [0; 2]);
        for odd in ["", "\n", "a,b", "\"a\"b\n", "\"a\n", "a,b,c\n", "123456789\n"] {
            assert_eq!(split(odd.as_bytes(), &mut line, &mut ends), None, "{odd:?}");
        }
        assert_eq!(split(b"a,\"b\"\"\n\"\r\nc", &mut line, &mut ends), Some((10, 2)));
        assert_eq!((&line[..4], ends), (&b"ab\"\n"[..], [1, 4]));
    }
}
