//! Towards clients: bytes, no protocol rules.
//!
//! - `listener`: accepts connections and serves HTTP on them.
//! - `upgrade`: turns a request at `/socket/websocket` into a WebSocket, or refuses it.
//! - `tcp`: takes in clients that speak over plain TCP, without HTTP or WebSocket.
//! - `driver`: the task of one socket, which reads it and ends it.
//! - `codec`: what its bytes mean: WebSocket frames, or (`prefixed`) messages behind their lengths.
//! - `stream`: what carries its bytes: plain TCP, or any other stream.
//! - `connection`: what the socket does on this node, whatever carries its frames.
//! - `longpoll`: sockets of clients that send requests instead.
//! - `patient`: gives up an HTTP client that does not read.
//! - `origin`: which pages may connect.

mod codec;
mod connection;
mod driver;
mod listener;
mod longpoll;
mod origin;
mod patient;
mod prefixed;
mod stream;
mod tcp;
mod upgrade;

pub(crate) use listener::{Listener, ListenerStats};
pub(crate) use longpoll::{LongPoll, Sessions, answer as answer_longpoll, longpoll, preflight};
pub(crate) use origin::{Origins, host_name, is_loopback};
pub(crate) use tcp::serve_tcp;
pub(crate) use upgrade::{allows_origin, websocket};
