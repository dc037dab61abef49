//! What tells the rows that were read from others that stand in their place now.
//!
//! ```text
//! record ─▶ Anchor: its position and checksum ─▶ kept with the state ─▶ read again at a start: the same? go on : stop
//! ```

use std::collections::BTreeMap;

use super::{Position, Records, SplitId};

/// The last record that was read of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Anchor {
    /// Of the record itself, not behind it.
    pub position: Position,
    /// Of its key and value, of which one that is absent is not the same as one that is empty.
    pub crc32c: u32,
}

impl Anchor {
    pub fn of(position: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let crc32c = [key, value].into_iter().fold(0, |sum, part| {
            // The length keeps key and value apart.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            crc32c::crc32c_append(
                crc32c::crc32c_append(sum, &length.to_le_bytes()),
                part.unwrap_or_default(),
            )
        });
        Self {
            position: Position(position),
            crc32c,
        }
    }

    /// `None` where there is no record.
    pub fn of_last(records: &Records) -> Option<Self> {
        let last = records.len().checked_sub(1)?;
        Some(Self::of(
            records.positions()[last],
            records.key(last),
            records.value(last),
        ))
    }
}

/// What a state remembers of its source, or what an epoch adds to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Anchors {
    /// What the source is told from another of its name by, e.g. the id of a topic; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Splits of which no record was read are absent, and so are those whose connector gives no records.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub records: BTreeMap<SplitId, Anchor>,
}

impl Anchors {
    pub fn is_empty(&self) -> bool {
        self.identity.is_none() && self.records.is_empty()
    }

    /// Takes up what came later.
    pub fn add(&mut self, later: &Self) {
        if later.identity.is_some() {
            self.identity.clone_from(&later.identity);
        }
        self.records
            .extend(later.records.iter().map(|(split, anchor)| (split.clone(), *anchor)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_records_have_other_anchors() {
        type Part = Option<&'static [u8]>;
        let cases: [(Part, Part); 7] = [
            (None, None),
            (Some(b""), None),
            (None, Some(b"")),
            (Some(b""), Some(b"")),
            (Some(b"a"), Some(b"b")),
            (Some(b"ab"), Some(b"")),
            (Some(b""), Some(b"ab")),
        ];
        for (index, (key, value)) in cases.iter().enumerate() {
            for (other_key, other_value) in &cases[index + 1..] {
                assert_ne!(
                    Anchor::of(7, *key, *value),
                    Anchor::of(7, *other_key, *other_value),
                    "{key:?} {value:?} and {other_key:?} {other_value:?}"
                );
            }
        }
    }

    #[test]
    fn later_anchors_replace_those_of_their_splits_and_no_other() {
        let anchor = |position| Anchor::of(position, None, Some(b"x"));
        let anchors = |identity: Option<&str>, records: &[(i32, u64)]| Anchors {
            identity: identity.map(str::to_owned),
            records: (records.iter())
                .map(|(split, position)| (SplitId::from(*split), anchor(*position)))
                .collect(),
        };
        let mut all = anchors(Some("id"), &[(0, 5), (1, 6)]);
        all.add(&anchors(None, &[(1, 9), (2, 0)]));
        assert_eq!(all, anchors(Some("id"), &[(0, 5), (1, 9), (2, 0)]));
        let text = serde_json::to_string(&Anchors::default()).unwrap();
        assert_eq!(text, "{}", "nothing takes no room in a journal");
    }
}
