//! What events carry: raw bytes until somebody asks.

use std::fmt;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Error;
use crate::pubsub;

/// What an event, a reply or a broadcast carries: JSON, or bytes.
///
/// A JSON payload stays the text that its sender wrote: it is parsed by [`parse`](Self::parse) and
/// nowhere else, and passing it on copies a pointer.
///
/// ```
/// use wingbeat::Payload;
///
/// #[derive(serde::Deserialize)]
/// struct Said { text: String }
///
/// # fn run() -> Result<(), wingbeat::Error> {
/// let payload = Payload::from(serde_json::json!({ "text": "hello" }));
/// let said: Said = payload.parse()?;
/// assert_eq!(said.text, "hello");
/// assert!(Payload::binary(vec![1, 2, 3]).is_binary());
/// # Ok(())
/// # }
/// # run().unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    binary: bool,
    bytes: Bytes,
}

impl Payload {
    /// `{}`.
    pub const EMPTY: Self = Self { binary: false, bytes: Bytes::from_static(b"{}") };

    /// Any value, as JSON. Clients expect an object.
    ///
    /// # Errors
    ///
    /// The value's own, or one of maps whose keys are no strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self { binary: false, bytes: serde_json::to_vec(value)?.into() })
    }

    /// Bytes. They reach clients of V2 in a binary frame, those of V1 not at all.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { binary: true, bytes: bytes.into() }
    }

    /// As messages within the node carry it; `None` for what only realtime topics carry.
    pub(crate) fn of(payload: pubsub::Payload<'_>) -> Option<Self> {
        match payload {
            pubsub::Payload::Json(json) => Some(Self::raw_json(Bytes::copy_from_slice(json))),
            pubsub::Payload::Binary(data) => Some(Self::binary(Bytes::copy_from_slice(data))),
            pubsub::Payload::User(_) => None,
        }
    }

    /// As messages within the node carry it.
    pub(crate) fn as_carried(&self) -> pubsub::Payload<'_> {
        if self.binary {
            pubsub::Payload::Binary(&self.bytes)
        } else {
            pubsub::Payload::Json(&self.bytes)
        }
    }

    /// Well-formed JSON.
    pub(crate) fn raw_json(bytes: impl Into<Bytes>) -> Self {
        Self { binary: false, bytes: bytes.into() }
    }

    /// Whether it is bytes rather than JSON.
    pub const fn is_binary(&self) -> bool {
        self.binary
    }

    /// The JSON text, or the bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The JSON text, or the bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Reads JSON into a value.
    ///
    /// # Errors
    ///
    /// The JSON has another shape, or the payload is binary.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if self.binary {
            return Err(Error::new("a binary payload where JSON is wanted"));
        }
        Ok(serde_json::from_slice(&self.bytes)?)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::raw_json(value.to_string())
    }
}

impl From<()> for Payload {
    /// `{}`.
    fn from((): ()) -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Payload {
    /// Leaves the content out: it is the clients' own, and may be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("binary", &self.binary)
            .field("len", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_stays_as_it_was_written_until_it_is_parsed() {
        let payload = Payload::of(pubsub::Payload::Json(b"{ \"a\" :1}")).expect("JSON");
        assert_eq!(payload.bytes(), "{ \"a\" :1}");
        assert_eq!(payload.parse::<Value>().expect("JSON"), json!({ "a": 1 }));
        assert!(payload.parse::<Vec<u8>>().is_err(), "of another shape");
        assert_eq!(payload.as_carried(), pubsub::Payload::Json(b"{ \"a\" :1}"));
    }

    #[test]
    fn bytes_are_no_json_even_when_they_look_so() {
        let payload = Payload::of(pubsub::Payload::Binary(b"{}")).expect("bytes");
        assert!(payload.is_binary() && payload.parse::<Value>().is_err());
        assert_eq!(payload.as_carried(), pubsub::Payload::Binary(b"{}"));
    }

    #[test]
    fn debug_output_hides_what_clients_say() {
        let shown = format!("{:?}", Payload::from(json!({ "password": "hush" })));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
