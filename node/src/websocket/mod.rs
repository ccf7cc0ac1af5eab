//! WebSocket (RFC 6455) frames of a server: bytes to messages and back.
//!
//! Nothing here reads or writes a connection. Its driver hands in what it read, in a buffer that it
//! shares among its connections, and gets whole messages back; so a connection on which nothing is
//! under way keeps no buffer. Frames to a client are encoded once, however many clients get them; with
//! permessage-deflate (RFC 7692) they are deflated once too, as no message refers to one before it.

mod decode;
mod deflate;
mod encode;
mod frame;
mod handshake;
mod offer;
mod violation;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    decode::{Decoder, Message, Rules},
    deflate::deflate_text,
    encode::{FrameBuf, close, pong},
    handshake::accept_key,
    offer::accept_deflate,
    violation::Violation,
};
