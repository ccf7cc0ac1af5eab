//! Session tokens: what a client shows with each request, on whatever node it lands.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cluster::wire::SessionId;
use ring::{hkdf, hmac};

/// The first byte of a token's statement; another layout gets another one.
const LAYOUT: u8 = 1;

/// Bytes of a signature.
const TAG_LEN: usize = 32;

/// Bytes of the longest token as text.
const TEXT_LEN_MAX: usize = 256;

/// Makes tokens and checks them. All nodes with the same secrets take each other's.
///
/// A token names its session's node and is opaque to clients. What protects a session is its id,
/// 128 random bits; the signature keeps strangers from making nodes ask each other for nothing.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The first one signs.
    keys: Vec<hmac::Key>,
}

/// A token that was checked: which session it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The name of the session's node.
    pub(super) node: String,
    pub(super) session: SessionId,
}

impl Tokens {
    /// With keys derived from the cluster's secrets, of which the first signs. Without any, with one
    /// of this process alone.
    pub(super) fn new(secrets: &[Vec<u8>]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"wingbeat long-poll token");
        let derived = secrets.iter().filter_map(|secret| {
            // Fails only beyond 255 blocks; one is asked for.
            let okm = salt.extract(secret).expand(&[b"session"], hmac::HMAC_SHA256).map(Into::into);
            okm.ok()
        });
        let mut keys: Vec<hmac::Key> = derived.collect();
        if keys.is_empty() {
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()));
        }
        Self { keys }
    }

    /// The token of a session, always the same.
    pub(super) fn sign(&self, token: &Token) -> String {
        let statement = [&[LAYOUT], &token.session[..], token.node.as_bytes()].concat();
        let tag = self.keys.first().map(|key| hmac::sign(key, &statement));
        let tag = tag.as_ref().map_or(&[][..], AsRef::as_ref);
        URL_SAFE_NO_PAD.encode([tag, &statement].concat())
    }

    /// What a token says; `None` when it is none of this cluster.
    pub(super) fn check(&self, text: &str) -> Option<Token> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, statement) = bytes.split_at_checked(TAG_LEN)?;
        self.keys.iter().find(|key| hmac::verify(key, statement, tag).is_ok())?;
        let (&layout, rest) = statement.split_first()?;
        let (session, node) = rest.split_first_chunk()?;
        let node = std::str::from_utf8(node).ok()?.to_owned();
        (layout == LAYOUT).then_some(Token { node, session: *session })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(byte: u8) -> Vec<u8> {
        vec![byte; 32]
    }

    fn token() -> Token {
        Token { node: "n".repeat(128), session: *b"0123456789abcdef" }
    }

    #[test]
    fn nodes_of_one_secret_take_each_others_tokens_and_no_others() {
        let [a, b, c] = [1, 1, 2].map(|byte| Tokens::new(&[secret(byte)]));
        let text = a.sign(&token());
        assert_eq!(b.check(&text), Some(token()));
        assert_eq!(b.sign(&token()), text, "and make the same ones");
        assert_eq!(c.check(&text), None);
    }

    #[test]
    fn during_a_rotation_both_secrets_count() {
        let old = Tokens::new(&[secret(1), secret(2)]);
        let new = Tokens::new(&[secret(2), secret(1)]);
        let text = old.sign(&token());
        assert_eq!(new.check(&text), Some(token()));
        assert_ne!(new.sign(&token()), text);
        assert_eq!(Tokens::new(&[secret(2)]).check(&text), None, "it is over");
    }

    #[test]
    fn nodes_without_a_secret_take_none_but_their_own() {
        let (a, b) = (Tokens::new(&[]), Tokens::new(&[]));
        let text = a.sign(&token());
        assert_eq!(a.check(&text), Some(token()));
        assert_eq!(b.check(&text), None);
    }

    proptest! {
        #[test]
        fn a_changed_token_is_none(at in any::<prop::sample::Index>(), by in any::<char>()) {
            let tokens = Tokens::new(&[secret(1)]);
            let text = tokens.sign(&token());
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            prop_assume!(chars[at] != by);
            chars[at] = by;
            // Bits that base64 leaves unused at the end must be zero as well.
            prop_assert_eq!(tokens.check(&chars.into_iter().collect::<String>()), None);
        }

        #[test]
        fn garbage_is_no_token(text in ".{0,300}") {
            prop_assert_eq!(Tokens::new(&[secret(1)]).check(&text), None);
        }
    }
}
