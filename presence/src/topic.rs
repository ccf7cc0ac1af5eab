//! Topics, and the one stable hash that places them.

use std::{fmt, hash::Hasher as _, str::FromStr, sync::Arc};

use siphasher::sip::SipHasher24;

/// Bytes of the longest topic name.
pub const TOPIC_LEN_MAX: usize = 512;

/// A topic's name, for example `room:lobby`: 1 to 512 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// Why a text is no topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// The name is empty.
    #[error("topic is empty")]
    Empty,
    /// The name is over [`TOPIC_LEN_MAX`].
    #[error("topic of {len} bytes, limit {TOPIC_LEN_MAX}")]
    TooLong {
        /// Bytes of the refused name.
        len: usize,
    },
    /// The name holds a control character.
    #[error("topic holds a control character at byte {at}")]
    Control {
        /// Offset of the character.
        at: usize,
    },
}

impl Topic {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Places the topic: SipHash-2-4 with a zero key over the name's bytes.
    ///
    /// All nodes of a cluster, of whatever release, agree on it. It is never 0, which stands for
    /// "every topic" in interest.
    pub fn hash64(&self) -> u64 {
        let mut hasher = SipHasher24::new();
        hasher.write(self.0.as_bytes());
        hasher.finish().max(1)
    }
}

/// The shard, of `shards`, that a topic with this [`Topic::hash64`] lives in.
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(name: &str) -> Result<Self, InvalidTopic> {
        match name.len() {
            0 => return Err(InvalidTopic::Empty),
            1..=TOPIC_LEN_MAX => {}
            len => return Err(InvalidTopic::TooLong { len }),
        }
        match name.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(InvalidTopic::Control { at }),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Topic {
    fn eq(&self, name: &str) -> bool {
        self.as_str() == name
    }
}

impl PartialEq<&str> for Topic {
    fn eq(&self, name: &&str) -> bool {
        self.as_str() == *name
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once() {
        assert_eq!("".parse::<Topic>(), Err(InvalidTopic::Empty));
        assert!("a".repeat(512).parse::<Topic>().is_ok());
        assert_eq!("a".repeat(513).parse::<Topic>(), Err(InvalidTopic::TooLong { len: 513 }));
        assert_eq!("a\nb".parse::<Topic>(), Err(InvalidTopic::Control { at: 1 }));
        assert_eq!("é\u{7f}".parse::<Topic>(), Err(InvalidTopic::Control { at: 2 }));
    }

    /// Other releases depend on these values.
    #[test]
    fn the_hash_is_stable() {
        assert_eq!("room:lobby".parse::<Topic>().map(|t| t.hash64()), Ok(0x2f5f12723cbe79fe));
    }
}
