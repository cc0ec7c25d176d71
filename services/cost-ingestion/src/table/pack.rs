//! Small numbers as Parquet packs them: runs of one number, and groups of eight packed bit by bit.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>

/// A run that is shorter costs as much as its numbers packed.
const SHORTEST_RUN: usize = 16;

/// Levels of a page, one for each value or gap.
#[derive(Clone, Copy)]
pub(super) enum Levels<'a> {
    /// That many times the same.
    Same(u32, usize),
    Each(&'a [u32]),
}

impl Levels<'_> {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Same(_, count) => *count,
            Self::Each(all) => all.len(),
        }
    }

    /// With its length before it, as first pages of data have them. `max` is the highest level there can be; of none nothing is written.
    pub(super) fn write(&self, max: i16, out: &mut Vec<u8>) {
        if max <= 0 {
            return;
        }
        let before = out.len();
        out.extend_from_slice(&[0; 4]);
        let width = width(u32::from(max.unsigned_abs()));
        match self {
            Self::Same(level, count) => run(*level, *count, width, out),
            Self::Each(all) => pack(all, width, out),
        }
        let length = (out.len() - before - 4) as u32;
        if let Some(place) = out.get_mut(before..before + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Bits of the largest of some numbers.
pub(super) fn width(largest: u32) -> u32 {
    u32::BITS - largest.leading_zeros()
}

/// Writes numbers that have at most `width` bits.
pub(super) fn pack(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    // What is not written yet begins with `ahead` numbers that are to be packed.
    let (mut rest, mut ahead) = (numbers, 0_usize);
    while let Some((first, others)) = rest.get(ahead..).and_then(<[u32]>::split_first) {
        let same = 1 + others.iter().take_while(|number| *number == first).count();
        // Groups are of eight: a run gives them what they lack.
        let lacking = ahead.next_multiple_of(8) - ahead;
        if same < lacking + SHORTEST_RUN {
            ahead += same;
            continue;
        }
        let (groups, next) = rest.split_at_checked(ahead + lacking).unwrap_or((rest, &[]));
        pack_groups(groups, width, out);
        run(*first, same - lacking, width, out);
        (rest, ahead) = (next.get(same - lacking..).unwrap_or_default(), 0);
    }
    pack_groups(rest, width, out);
}

/// Writes one number that many times.
pub(super) fn run(number: u32, count: usize, width: u32, out: &mut Vec<u8>) {
    if count > 0 {
        varint((count as u64) << 1, out);
        out.extend(number.to_le_bytes().iter().take(width.div_ceil(8) as usize));
    }
}

fn pack_groups(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(8);
    varint(((groups as u64) << 1) | 1, out);
    out.reserve(groups * width as usize);
    let (mut held, mut bits) = (0_u64, 0);
    let padding = std::iter::repeat_n(0, groups * 8 - numbers.len());
    for number in numbers.iter().copied().chain(padding) {
        held |= u64::from(number) << bits;
        bits += width;
        if bits >= 32 {
            out.extend_from_slice(&(held as u32).to_le_bytes());
            held >>= 32;
            bits -= 32;
        }
    }
    out.extend(held.to_le_bytes().iter().take(bits.div_ceil(8) as usize));
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the specification says.
    fn unpack(mut bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
        let mut all = Vec::new();
        while all.len() < count {
            let (mut header, mut shift) = (0_u64, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                header |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            let times = (header >> 1) as usize;
            if header & 1 == 0 {
                let (value, rest) = bytes.split_at(width.div_ceil(8) as usize);
                let value = value.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte));
                all.extend(std::iter::repeat_n(value, times));
                bytes = rest;
            } else {
                let (packed, rest) = bytes.split_at(times * width as usize);
                let bit = |at: usize| u32::from(packed[at / 8] >> (at % 8)) & 1;
                let number = |at: usize| (0..width as usize).fold(0, |n, b| n | (bit(at * width as usize + b) << b));
                all.extend((0..times * 8).map(number));
                bytes = rest;
            }
        }
        assert!(bytes.is_empty());
        all.truncate(count);
        all
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            runs in proptest::collection::vec((0_u32..1 << 20, prop_oneof![1_usize..4, 1_usize..60]), 0..80),
            bits in 0_u32..=20,
        ) {
            let numbers: Vec<u32> =
                runs.iter().flat_map(|(number, count)| std::iter::repeat_n(number & ((1 << bits) - 1), *count)).collect();
            let mut out = Vec::new();
            pack(&numbers, bits, &mut out);
            prop_assert_eq!(unpack(&out, bits, numbers.len()), numbers);
        }
    }

    #[test]
    fn levels_have_their_length_before_them() {
        let mut out = Vec::new();
        Levels::Same(1, 300).write(1, &mut out);
        assert_eq!(out, [3, 0, 0, 0, 0xd8, 0x04, 1]);
        Levels::Same(0, 300).write(0, &mut out);
        assert_eq!(out.len(), 7);
    }
}
