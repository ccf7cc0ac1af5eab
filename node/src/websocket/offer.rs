//! What a client offers in `Sec-WebSocket-Extensions`, and whether we take it (RFC 7692, section 7.1).

/// Both ends begin each message anew: so a broadcast is deflated once for all its receivers, and no
/// connection keeps a window.
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The same, for a client that wants to be told how far back our messages refer.
const ACCEPTED_WINDOW: &str = "permessage-deflate; server_no_context_takeover; \
                               client_no_context_takeover; server_max_window_bits=15";

/// The value of the response's `Sec-WebSocket-Extensions` header, for the values of the request's; `None`
/// if no offer of permessage-deflate is one that we can keep to.
///
/// Of several offers the first that we can keep to is taken, as the client prefers those that it names
/// first. We cannot refer less far back than 32 KiB, which is `server_max_window_bits=15`.
pub(crate) fn accept_deflate<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
) -> Option<&'static str> {
    let headers = headers.into_iter().filter_map(|header| str::from_utf8(header).ok());
    headers.flat_map(|header| split_unquoted(header, ',')).find_map(accept)
}

/// Parts of a text between separators, of which those in quotes are none.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |c| {
        let was_escaped = escaped;
        escaped = quoted && !was_escaped && c == '\\';
        quoted ^= c == '"' && !was_escaped;
        c == separator && !quoted
    });
    parts.map(trim)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The answer to one offer, `None` if it is declined.
fn accept(offer: &str) -> Option<&'static str> {
    let mut parts = split_unquoted(offer, ';');
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen = Vec::new();
    for param in parts {
        let (name, value) = match param.split_once('=') {
            Some((name, value)) => (trim(name), Some(unquote(trim(value))?)),
            None => (param, None),
        };
        let understood = match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => true,
            // Whatever window the client keeps to, ours is as large.
            ("client_max_window_bits", bits) => bits.is_none_or(is_window_bits),
            ("server_max_window_bits", Some(bits)) => bits == "15",
            _ => false,
        };
        if !understood || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(if seen.contains(&"server_max_window_bits") { ACCEPTED_WINDOW } else { ACCEPTED })
}

/// The value, without its quotes if it has some; `None` if it is neither a token nor a token in quotes.
fn unquote(value: &str) -> Option<&str> {
    let token = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_token.then_some(token)
}

/// The base-2 logarithm of a window's bytes: 8 to 15, without leading zeros.
fn is_window_bits(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(header: &str) -> Option<&'static str> {
        accept_deflate([header.as_bytes()])
    }

    #[test]
    fn offers_that_we_can_keep_to_are_taken() {
        let offers = [
            "permessage-deflate",
            // What browsers send.
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"10\"",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate ;\tclient_no_context_takeover ; server_no_context_takeover ",
            // Sections 7.1.2.1 and 7.1.3: the client prefers a small window, and can do without.
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, \
             permessage-deflate; client_max_window_bits",
            // An extension that we do not know, with separators in its quotes.
            "x-other; a=\"1, permessage-deflate; b\\\", c\", permessage-deflate",
            ", ,permessage-deflate",
        ];
        for offer in offers {
            assert_eq!(answer(offer), Some(ACCEPTED), "{offer}");
        }
    }

    #[test]
    fn the_window_is_told_to_a_client_that_asks_for_it() {
        for bits in ["15", "\"15\""] {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            assert_eq!(answer(&offer), Some(ACCEPTED_WINDOW));
        }
        assert!(ACCEPTED_WINDOW.starts_with(ACCEPTED));
        assert!(ACCEPTED_WINDOW.ends_with("; server_max_window_bits=15"));
    }

    #[test]
    fn offers_that_we_cannot_keep_to_are_declined() {
        let offers = [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflated",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=8; client_max_window_bits",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
            "permessage-deflate; unknown",
            "permessage-deflate; unknown=1",
            "permessage-deflate;",
            "x-other; a=\"permessage-deflate, permessage-deflate",
        ];
        for offer in offers {
            assert_eq!(answer(offer), None, "{offer}");
        }
    }

    #[test]
    fn offers_may_be_spread_over_several_headers() {
        let headers: [&[u8]; 4] = [
            b"x-other",
            b"\xff",
            b"permessage-deflate; server_max_window_bits=9",
            b"permessage-deflate; server_max_window_bits=15",
        ];
        assert_eq!(accept_deflate(headers), Some(ACCEPTED_WINDOW));
        assert_eq!(accept_deflate(headers[..3].iter().copied()), None);
        assert_eq!(accept_deflate([]), None);
    }
}
