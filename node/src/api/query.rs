//! Query strings of the API.

use crate::api::error::ApiError;

/// The pairs of a query, decoded; what is no UTF-8 is replaced.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = match byte {
            b'%' => tail.get(..2).and_then(hex),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some(value)) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// The `limit` of a query, within its bounds.
pub(super) fn limit(value: Option<&String>, default: usize, max: usize) -> Result<usize, ApiError> {
    let Some(value) = value else {
        return Ok(default);
    };
    match value.parse() {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => {
            Err(ApiError::bad_request("bad_limit", format!("limit must be 1 to {max}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_broken_escapes_taken_as_they_are() {
        let pairs: Vec<_> = pairs("topic=room%3Aa&x=a+b%2&&flag").collect();
        let want = [("topic", "room:a"), ("x", "a b%2"), ("flag", "")];
        assert_eq!(pairs, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_limit_stays_within_its_bounds() {
        assert_eq!(limit(None, 5, 10).ok(), Some(5));
        assert_eq!(limit(Some(&"10".to_owned()), 5, 10).ok(), Some(10));
        assert!(limit(Some(&"11".to_owned()), 5, 10).is_err());
        assert!(limit(Some(&"-1".to_owned()), 5, 10).is_err());
    }
}
