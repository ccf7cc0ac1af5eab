//! `wingbeat disconnect`.

use serde_json::json;

use super::{ApiArgs, Failure, Terminal, client::Client, text::printable};

/// Close all sockets of one socket id, on every node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat disconnect users_socket:42")]
pub struct DisconnectArgs {
    /// The socket id
    socket_id: String,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

impl DisconnectArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let body = json!({ "socket_id": self.socket_id }).to_string();
        client.post("/api/disconnect", body.into_bytes()).await?;
        writeln!(terminal.out, "told every node to close {}", printable(&self.socket_id))?;
        Ok(())
    }
}
