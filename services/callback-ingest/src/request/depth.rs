//! How deep JSON is nested, found without recursion, so that depth can be bounded before anything recursive reads it.

/// Whether `text` nests arrays and objects at most `most` deep. Looks at brackets outside strings alone: that the text is JSON at all is for
/// the parser to say.
pub(crate) fn is_within(text: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (false, b'"') => in_string = true,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > most {
                    return false;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert!(is_within(br#"{"a":"[[[[","b\"{{{{":1}"#, 1));
        assert!(!is_within(br#"{"a":[]}"#, 1));
        assert!(is_within(b"[[],[],[]]", 2));
    }

    #[test]
    fn ten_thousand_deep_is_seen_without_going_there() {
        assert!(!is_within("[".repeat(10_000).as_bytes(), 16));
    }

    proptest! {
        #[test]
        fn what_passes_is_no_deeper_for_the_parser_either(depth in 1_usize..40, most in 1_usize..40) {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            prop_assert_eq!(is_within(text.as_bytes(), most), depth <= most);
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            is_within(&bytes, 16);
        }
    }
}
