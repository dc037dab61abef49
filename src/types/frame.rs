//! Records one after another in a file, each with its length and checksums: a torn end is told from damage.
//!
//! ```text
//! frame = length u32 │ crc32c of those 4 bytes │ crc32c of the record │ record        little endian
//! ```
//! What was synced is whole. What was being written when the power went ends early, or where sectors were not written yet: there it is
//! zero. Anything else was changed afterwards.

/// Bytes in front of each record.
pub const FRAME_BYTES: usize = 12;
/// Disks write sectors whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What stands at a place of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A record, and where the next frame begins.
    Record(&'a [u8], usize),
    End,
    /// The end of a file that was being written.
    Torn,
    /// With what is wrong.
    Damaged(&'static str),
}

/// `None` where a record is longer than a frame can say.
pub fn write_frame(record: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(record.len()).ok()?.to_le_bytes();
    let mut frame = Vec::with_capacity(FRAME_BYTES + record.len());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&crc32c::crc32c(&length).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
    frame.extend_from_slice(record);
    Some(frame)
}

/// What stands at `at` of a whole file.
pub fn read_frame(bytes: &[u8], at: usize) -> Framed<'_> {
    let rest = &bytes[at..];
    if rest.is_empty() {
        return Framed::End;
    }
    let Some((head, body)) = rest.split_at_checked(FRAME_BYTES) else {
        return Framed::Torn;
    };
    let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four bytes"));
    if crc32c::crc32c(&head[..4]) != number(4) {
        return if has_hole(bytes, at) {
            Framed::Torn
        } else {
            Framed::Damaged("a damaged length")
        };
    }
    let length = number(0) as usize;
    let Some(record) = body.get(..length) else {
        return Framed::Torn;
    };
    let next = at + FRAME_BYTES + length;
    if crc32c::crc32c(record) == number(8) {
        return Framed::Record(record, next);
    }
    match next == bytes.len() && has_hole(bytes, at) {
        true => Framed::Torn,
        false => Framed::Damaged("a damaged record"),
    }
}

/// Whether a sector behind `from` was never written.
fn has_hole(bytes: &[u8], from: usize) -> bool {
    let first = from - from % SECTOR_BYTES;
    let mut sectors = (first..bytes.len()).step_by(SECTOR_BYTES);
    sectors.any(|start| {
        let sector = &bytes[start.max(from)..bytes.len().min(start + SECTOR_BYTES)];
        sector.iter().all(|byte| *byte == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[&[u8]]) -> Vec<u8> {
        records.iter().flat_map(|record| write_frame(record).unwrap()).collect()
    }

    fn read(bytes: &[u8]) -> (usize, Framed<'_>) {
        let (mut at, mut count) = (0, 0);
        loop {
            match read_frame(bytes, at) {
                Framed::Record(_, next) => (at, count) = (next, count + 1),
                end => return (count, end),
            }
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_torn_behind_its_whole_records() {
        let bytes = file(&[b"one", &[7; 1000], b""]);
        assert_eq!(read(&bytes), (3, Framed::End));
        let ends = [15, 15 + 1012, bytes.len()];
        for length in 0..bytes.len() {
            let (count, end) = read(&bytes[..length]);
            let whole = ends.iter().filter(|end| **end <= length).count();
            let expected = if length == 0 || ends.contains(&length) {
                Framed::End
            } else {
                Framed::Torn
            };
            assert_eq!((count, end), (whole, expected), "cut at {length}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let bytes = file(&[b"one", &[7; 1000], b"three"]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let (count, end) = read(&flipped);
                assert!(
                    count < 3 && matches!(end, Framed::Damaged(_)),
                    "byte {at} bit {bit}: {count} {end:?}"
                );
            }
        }
    }

    #[test]
    fn sectors_that_were_not_written_are_a_torn_end() {
        let bytes = file(&[b"one", &[7; 3000]]);
        for sector in 1..bytes.len().div_ceil(SECTOR_BYTES) {
            let mut torn = bytes.clone();
            let end = torn.len().min((sector + 1) * SECTOR_BYTES);
            torn[sector * SECTOR_BYTES..end].fill(0);
            assert_eq!(read(&torn), (1, Framed::Torn), "sector {sector}");
        }
        let mut torn = bytes.clone();
        torn[15..].fill(0);
        assert_eq!(read(&torn), (1, Framed::Torn), "not a byte of it");
    }
}
