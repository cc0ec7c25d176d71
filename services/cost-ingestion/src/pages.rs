//! Page headers of a Parquet column chunk, read for one thing: how much a page says it unpacks to.
//!
//! The Parquet reader makes room for whatever a header claims, up to 2 GiB, before it looks at the page. A file of a few bytes must not cost that.
//! The header is a Thrift struct in the compact protocol (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>):
//! field 2 is the unpacked size, field 3 the size in the file (<https://github.com/apache/parquet-format>, `PageHeader`).

/// Structs within structs that are followed; real headers have three.
const MAX_DEPTH: u8 = 8;

/// Whether every page of this chunk says that it unpacks to at most `limit` bytes. A chunk that is cut off is left for the Parquet reader to refuse.
pub(crate) fn are_bounded(chunk: &[u8], limit: usize) -> bool {
    let mut rest = chunk;
    while !rest.is_empty() {
        let mut reader = Reader(rest);
        let Some((unpacked, packed)) = reader.header() else { return false };
        let (Ok(unpacked), Ok(packed)) = (usize::try_from(unpacked), usize::try_from(packed)) else { return false };
        if unpacked > limit {
            return false;
        }
        rest = reader.0.get(packed..).unwrap_or_default();
    }
    true
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// (unpacked, packed) sizes; leaves the reader behind the header.
    fn header(&mut self) -> Option<(i64, i64)> {
        let (mut field, mut unpacked, mut packed) = (0, None, None);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (2, 5) => unpacked = Some(self.integer()?),
                (3, 5) => packed = Some(self.integer()?),
                (_, kind) => self.skip(kind, MAX_DEPTH)?,
            }
        }
        Some((unpacked?, packed?))
    }

    /// The next field's type, and its ID in `field`; `Some(None)` at the struct's end.
    fn field(&mut self, field: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *field = match byte >> 4 {
            0 => self.integer()?,
            delta => field.checked_add(i64::from(delta))?,
        };
        Some(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => Some(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                self.elements(count, byte & 0x0f, depth)
            }
            12 => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth)?;
                }
                Some(())
            }
            // Page headers have no maps, and nothing else is known.
            _ => None,
        }
    }

    /// Elements of a list; there, unlike in fields, booleans take a byte.
    fn elements(&mut self, count: u64, kind: u8, depth: u8) -> Option<()> {
        // Each element takes at least a byte, so more than there are bytes is a lie, and not worth counting to.
        if count > self.0.len() as u64 {
            return None;
        }
        for _ in 0..count {
            if kind <= 2 { self.bytes(1)? } else { self.skip(kind, depth)? }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A page header with these sizes, as parquet-mr writes it: type, sizes, and a data page header with statistics.
    fn page(unpacked: i64, packed: i64) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x00, 0x15];
        varint(&mut bytes, unpacked);
        bytes.push(0x15);
        varint(&mut bytes, packed);
        bytes.extend([
            0x2c, 0x15, 0x02, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x18, 0x02, b'a', b'b', 0x00, 0x00, 0x00,
        ]);
        bytes
    }

    fn varint(bytes: &mut Vec<u8>, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            bytes.push((rest as u8) | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }

    #[test]
    fn attack_32_a_page_that_unpacks_to_absurd_sizes_is_found_wherever_it_stands() {
        let mut chunk = page(100, 3);
        chunk.extend([0; 3]);
        assert!(are_bounded(&chunk, 100));
        assert!(!are_bounded(&chunk, 99));
        chunk.extend(page(i64::from(i32::MAX), 1));
        chunk.push(0);
        assert!(!are_bounded(&chunk, 1 << 20));
        assert!(!are_bounded(&page(-1, 0), 1 << 20));
        assert!(!are_bounded(&[0x15, 0x00, 0x00], 1 << 20), "without sizes it is no header");
        assert!(are_bounded(&page(10, 1000), 1 << 20), "cut off: the reader's business");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_hang(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = are_bounded(&bytes, 1 << 20);
        }

        #[test]
        fn honest_pages_pass(sizes in proptest::collection::vec((0_i64..5000, 0_usize..50), 0..20)) {
            let mut chunk = Vec::new();
            for (unpacked, packed) in &sizes {
                chunk.extend(page(*unpacked, *packed as i64));
                chunk.extend(vec![0xff; *packed]);
            }
            prop_assert!(are_bounded(&chunk, 5000));
            prop_assert_eq!(are_bounded(&chunk, 100), sizes.iter().all(|(unpacked, _)| *unpacked <= 100));
        }
    }
}
