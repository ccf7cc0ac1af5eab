//! Questions to a peer, each on a stream of its own.

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::{Parts, frame, kind};
use crate::error::WireError;

/// A question to a peer, asked on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicsRequest {
    /// Only topics that start so.
    pub prefix: String,
    /// Most topics in the answer.
    pub limit: u32,
}

/// The answer: topics with the peer's own subscribers, ordered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topics {
    /// (topic, subscribers).
    pub topics: Vec<(String, u32)>,
}

/// A question as a request body.
pub fn encode_topics_request(request: &TopicsRequest) -> Bytes {
    frame(kind::TOPICS_REQUEST, request, &[])
}

/// Reads a question.
pub fn decode_topics_request(body: &Bytes) -> Result<TopicsRequest, WireError> {
    match Parts::of(body)? {
        parts if parts.kind == kind::TOPICS_REQUEST => parts.whole("topics request"),
        Parts { kind, .. } => Err(WireError::UnknownKind { kind }),
    }
}

/// An answer as a response body. The peer refuses one of more than
/// [`HEADER_LEN_MAX`](super::HEADER_LEN_MAX) bytes.
pub fn encode_topics(topics: &Topics) -> Bytes {
    frame(kind::TOPICS, topics, &[])
}

/// Reads an answer.
pub fn decode_topics(body: &Bytes) -> Result<Topics, WireError> {
    match Parts::of(body)? {
        parts if parts.kind == kind::TOPICS => parts.whole("topics"),
        Parts { kind, .. } => Err(WireError::UnknownKind { kind }),
    }
}
