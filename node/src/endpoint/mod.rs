//! Towards clients: bytes, no protocol rules.
//!
//! - `listener`: accepts connections and serves HTTP on them.
//! - `upgrade`: turns a request at `/socket/websocket` into a WebSocket, or refuses it.
//! - `websocket`: frames of one WebSocket.
//! - `patient`: gives up a client that does not read.
//! - `connection`: the driver of one socket, whatever carries its frames.
//! - `origin`: which pages may connect.

mod connection;
mod listener;
mod origin;
mod patient;
mod upgrade;
mod websocket;

pub(crate) use listener::{Listener, ListenerStats};
pub(crate) use origin::{Origins, host_name, is_loopback};
pub(crate) use upgrade::websocket;
