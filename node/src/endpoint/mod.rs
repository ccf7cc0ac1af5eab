//! Towards clients: bytes, no protocol rules.
//!
//! - `listener`: accepts connections and serves HTTP on them.
//! - `upgrade`: turns a request at `/socket/websocket` into a WebSocket, or refuses it.
//! - `websocket`: the task of one WebSocket, which reads it and ends it.
//! - `stream`: what carries its bytes: plain TCP, or any other stream.
//! - `connection`: what the socket does on this node, whatever carries its frames.
//! - `patient`: gives up an HTTP client that does not read.
//! - `origin`: which pages may connect.

mod connection;
mod listener;
mod origin;
mod patient;
mod stream;
mod upgrade;
mod websocket;

pub(crate) use listener::{Listener, ListenerStats};
pub(crate) use origin::{Origins, host_name, is_loopback};
pub(crate) use upgrade::websocket;
