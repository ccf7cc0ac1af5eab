//! Why something is not done, and what becomes of it.

use std::{error, fmt};

use presence::InvalidTopic;
use serde_json::{error::Category, json};

use super::Payload;

/// Why a handler failed. Its channel crashes: the client gets `phx_error`, joins anew, and the log has
/// a line with the topic, the event and this.
///
/// Any [`std::error::Error`] becomes one by `?`, and any other by [`new`](Self::new), such as a boxed one or
/// one of `anyhow`. It is shown with its causes; of one of JSON, which quotes what a client sent, no more is shown
/// than what kind it is and where.
///
/// ```
/// fn number(text: &str) -> Result<u32, wingbeat::Error> {
///     let number = text.parse()?;
///     if number > 9 {
///         return Err(wingbeat::Error::new("more than a digit"));
///     }
///     Ok(number)
/// }
/// assert!(number("x").is_err() && number("10").is_err());
/// ```
pub struct Error(Box<dyn error::Error + Send + Sync>);

impl Error {
    /// An error that says so: a text, or whatever becomes a boxed error.
    pub fn new(what: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self(what.into())
    }

    /// An event that the channel does not know: what [`Channel::handle_in`](super::Channel::handle_in)
    /// ends with.
    pub fn unhandled(event: &str) -> Self {
        Self(format!("no handler for the event {event:?}").into())
    }
}

impl<E: error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.downcast_ref() {
            Some(json) => Unquoted(json).fmt(f),
            None => f.write_str(&with_causes(&*self.0)),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error, then what it comes of, unless it says that itself.
fn with_causes(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// What is wrong with JSON of a client, and where, without its words: they are no matter of the log.
pub(crate) struct Unquoted<'a>(pub(crate) &'a serde_json::Error);

impl fmt::Display for Unquoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        f.write_str(match error.classify() {
            Category::Io => "JSON that cannot be read or written",
            Category::Syntax => "malformed JSON",
            Category::Data => "JSON of another shape than wanted",
            Category::Eof => "JSON that breaks off",
        })?;
        // A value that was parsed before has no place.
        if error.line() == 0 {
            return Ok(());
        }
        write!(f, ", line {} column {}", error.line(), error.column())
    }
}

/// Why a join or a connect is refused.
///
/// A client whose join is refused gets the response. One whose connect is refused gets HTTP status 403
/// without a body, and the log has the response.
///
/// Any error becomes one by `?`, and is a failure rather than a decision: the client whose join fails so
/// gets `{"reason":"join crashed"}`, and the log has the error.
///
/// ```
/// # use wingbeat::Refused;
/// fn check(password: &str) -> Result<(), Refused> {
///     if password == "secret" { Ok(()) } else { Err(Refused::reason("unauthorized")) }
/// }
/// # assert!(check("x").is_err());
/// ```
#[derive(Debug)]
pub struct Refused(pub(super) Why);

#[derive(Debug)]
pub(super) enum Why {
    /// The response to the client.
    Decided(Payload),
    Failed(Error),
}

impl Refused {
    /// Refuses with this response.
    pub fn new(response: impl Into<Payload>) -> Self {
        Self(Why::Decided(response.into()))
    }

    /// Refuses with the response `{"reason": reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::new(json!({ "reason": reason }))
    }
}

impl<E: error::Error + Send + Sync + 'static> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(Why::Failed(error.into()))
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(Why::Failed(error))
    }
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The channel's join is not answered yet.
    #[error("the join is not answered yet")]
    NotJoined,
    /// The event's name is empty, over 255 bytes, or begins with `phx_`.
    #[error("event {0:?}: want 1 to 255 bytes that do not begin with phx_")]
    InvalidEvent(String),
    /// The topic's name is not valid.
    #[error(transparent)]
    InvalidTopic(#[from] InvalidTopic),
}

/// Why a presence was not tracked or updated. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The channel's join is not answered yet. To track in a join, see
    /// [`Joined::track`](super::Joined::track).
    #[error("the join is not answered yet")]
    NotJoined,
    /// This channel tracks the key already.
    #[error("this channel tracks {0:?} already: update it")]
    AlreadyTracked(String),
    /// This channel does not track the key.
    #[error("this channel does not track {0:?}")]
    NotTracked(String),
    /// The meta is no JSON object.
    #[error("a meta must be a JSON object")]
    InvalidMeta,
    /// The key or the meta is too long, or the node tracks as many as it may.
    #[error(transparent)]
    Refused(#[from] presence::TrackError),
    /// This channel tracks as many keys as it may.
    #[error("this channel tracks {limit} keys, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// Why a message did not reach a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelGone {
    /// The channel has ended.
    #[error("the channel has ended")]
    Ended,
    /// As many messages wait for the channel as may.
    #[error("too many messages wait for the channel")]
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot load the profile")]
    struct Profile(#[source] fmt::Error);

    #[test]
    fn an_error_is_shown_with_its_causes_and_may_be_boxed() {
        let cause = fmt::Error.to_string();
        let shown = format!("cannot load the profile: {cause}");
        assert_eq!(Error::from(Profile(fmt::Error)).to_string(), shown);
        let boxed: Box<dyn error::Error + Send + Sync> = Box::new(Profile(fmt::Error));
        assert_eq!(Error::new(boxed).to_string(), shown);
        assert_eq!(Error::new("so").to_string(), "so");
        let told = InvalidTopic::Empty;
        assert_eq!(Error::from(SendError::from(told)).to_string(), told.to_string(), "once");
    }

    #[test]
    fn what_a_client_sent_is_not_quoted() {
        let payload = Payload::from(json!({ "password": "hunter2" }));
        let parsed = || payload.parse::<Vec<u8>>().map_err(Refused::from);
        let Err(Refused(Why::Failed(error))) = parsed() else {
            panic!("of another shape, by no decision");
        };
        assert_eq!(error.to_string(), "JSON of another shape than wanted, line 1 column 0");
        let user = || -> Result<u32, Error> { Ok(serde_json::from_slice(payload.bytes())?) };
        let params = || -> Result<u32, Error> { Ok(serde_json::from_value(json!("hunter2"))?) };
        for (error, shown) in [
            (user(), "JSON of another shape than wanted, line 1 column 0"),
            (params(), "JSON of another shape than wanted"),
            (
                Payload::raw_json("[").parse::<Vec<u32>>().map(|_| 0),
                "JSON that breaks off, line 1 column 1",
            ),
            (Payload::raw_json("hunter2").parse(), "malformed JSON, line 1 column 1"),
        ] {
            let error = error.expect_err("no number");
            assert_eq!((error.to_string(), format!("{error:?}")), (shown.into(), shown.into()));
        }
    }
}
