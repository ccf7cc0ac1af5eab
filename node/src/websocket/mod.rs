//! WebSocket (RFC 6455) frames of a server: bytes to messages and back.
//!
//! Nothing here reads or writes a connection. Its driver hands in what it read, in a buffer that it
//! shares among its connections, and gets whole messages back; so a connection on which nothing is
//! under way keeps no buffer. Frames to a client are encoded once, however many clients get them.

mod decode;
mod encode;
mod frame;
mod handshake;
mod violation;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    decode::{Decoder, Message, Rules},
    encode::{FrameBuf, Head, close, head, pong},
    frame::Opcode,
    handshake::accept_key,
    violation::Violation,
};
