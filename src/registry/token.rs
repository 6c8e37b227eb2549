//! The form of API keys and operator tokens: prefix, public id, secret, checksum.
//!
//! Promises: 256 random bits in each; the prefix and the checksum let people and secret scanners recognise one. Nothing is
//! ever decided by them: a token is found by the SHA-256 of the whole string, so that imported ones of any form work too.

use aws_lc_rs::{digest, rand};

/// The prefix of operator tokens.
pub const OPERATOR_PREFIX: &str = "tgo_";
/// The prefix of API keys, where the configuration names none.
pub const KEY_PREFIX: &str = "oag_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PUBLIC: usize = 8;
const SECRET: usize = 43; // 62^43 > 2^256
const CHECKSUM: usize = 6; // 62^6 > 2^32

/// A new token, to be shown once, with what is kept of it.
pub struct NewToken {
    /// The token itself. Not kept.
    pub text: String,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
    /// Prefix and public id.
    pub hint: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewToken({}...)", self.hint)
    }
}

impl NewToken {
    /// Makes one.
    ///
    /// # Panics
    /// When the system has no randomness to give: nothing safe can be made then.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        let mut bytes = [0_u8; 40];
        rand::fill(&mut bytes).expect("the system's random source works: without it no key may be made");
        let (public, secret) = bytes.split_at(8);
        let hint = format!("{prefix}{}", base62(public, PUBLIC));
        let body = format!("{hint}{}", base62(secret, SECRET));
        let text = format!("{body}{}", checksum(&body));
        Self { digest: digest_of(&text), text, hint }
    }
}

/// What a token is found by.
#[must_use]
pub fn digest_of(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// Whether `token` has the form of one made here and its checksum is right: a typing error or a fake has not.
#[must_use]
pub fn is_well_formed(prefix: &str, token: &str) -> bool {
    let Some(rest) = token.strip_prefix(prefix) else { return false };
    rest.len() == PUBLIC + SECRET + CHECKSUM
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && checksum(&token[..token.len() - CHECKSUM]) == token[token.len() - CHECKSUM..]
}

fn checksum(text: &str) -> String {
    base62(&crc32fast::hash(text.as_bytes()).to_be_bytes(), CHECKSUM)
}

/// The lowest `width` digits of a big-endian number.
fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::with_capacity(width);
    for _ in 0..width {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("rest < 62, so value < 62 * 256");
            rest = value % 62;
        }
        digits.push(char::from(ALPHABET[rest as usize]));
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_prefix_public_id_secret_and_checksum() {
        let token = NewToken::generate(KEY_PREFIX);
        assert_eq!(token.text.len(), 4 + 8 + 43 + 6);
        assert_eq!(token.hint, token.text[..12]);
        assert_eq!(token.digest, digest_of(&token.text));
        assert!(is_well_formed(KEY_PREFIX, &token.text), "{}", token.text);
        assert!(!is_well_formed(OPERATOR_PREFIX, &token.text));
        assert_ne!(NewToken::generate(KEY_PREFIX).text, token.text);
    }

    #[test]
    fn a_typing_error_is_noticed() {
        let token = NewToken::generate(KEY_PREFIX).text;
        for at in 4..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_well_formed(KEY_PREFIX, std::str::from_utf8(&wrong).expect("ASCII")), "at {at}");
        }
        assert!(!is_well_formed(KEY_PREFIX, "oag_"));
        // Of the right length, with a letter of two bytes where the checksum begins.
        assert!(!is_well_formed(KEY_PREFIX, &format!("oag_{}ü{}", "x".repeat(50), "x".repeat(5))));
    }

    #[test]
    fn base62_is_exact_at_both_ends() {
        assert_eq!(base62(&[0; 32], 43), "0".repeat(43));
        assert_eq!(base62(&u32::MAX.to_be_bytes(), 6), "4gfFC3");
        // 2^256 - 1 fits into 43 digits: the 44th is zero.
        assert!(base62(&[255; 32], 44).starts_with('0'));
        assert!(!base62(&[255; 32], 43).starts_with('0'));
    }

    #[test]
    fn a_new_token_does_not_show_its_secret_in_logs() {
        let token = NewToken::generate(KEY_PREFIX);
        assert!(!format!("{token:?}").contains(&token.text[12..]));
    }
}
