//! A place in the changes of a view, as text that a reader keeps and gives back.
//!
//! Opaque: base64url of version, generation, epoch, name and a checksum, so that a damaged one is told from one of another run.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::types::Epoch;

const VERSION: u8 = 1;
/// Version, generation, epoch; the name follows, then the checksum.
const HEAD_BYTES: usize = 1 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub view: String,
    /// Of the run that the epoch belongs to.
    pub generation: u64,
    pub epoch: Epoch,
}

impl Token {
    /// `None` where it is not one that we wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (head, view) = body.split_at_checked(HEAD_BYTES)?;
        let number = |from: usize| u64::from_be_bytes(head[from..from + 8].try_into().expect("eight bytes"));
        (head[0] == VERSION).then_some(())?;
        let view = String::from_utf8(view.to_vec()).ok()?;
        Some(Self {
            view,
            generation: number(1),
            epoch: Epoch(number(9)),
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.view.len() + CHECKSUM_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_be_bytes());
        bytes.extend_from_slice(self.view.as_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was(view in ".{0,40}", generation: u64, epoch: u64) {
            let token = Token { view, generation, epoch: Epoch(epoch) };
            prop_assert_eq!(Token::parse(&token.to_string()), Some(token));
        }

        #[test]
        fn a_changed_token_is_none(at in 0usize..40, to in "[A-Za-z0-9_-]") {
            let text = Token { view: "candles_5m".into(), generation: 3, epoch: Epoch(95) }.to_string();
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(Token::parse(&changed).is_some(), changed == text);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            Token::parse(&text);
        }
    }

    #[test]
    fn a_cut_or_padded_token_is_none() {
        let text = Token {
            view: "v".into(),
            generation: 1,
            epoch: Epoch(1),
        }
        .to_string();
        for wrong in [
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!(" {text}"),
            &format!("{text}A"),
            "",
        ] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}
