//! Which node a command talks to.

use super::{Failure, client::Client};

/// The node to talk to.
#[derive(Clone, clap::Args)]
pub struct ApiArgs {
    /// The node's HTTP address
    #[arg(long, env = "WINGBEAT_URL", default_value = "http://127.0.0.1:4000")]
    pub url: String,
    /// The node's API token; others of this machine see flags, so prefer the variable
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

impl ApiArgs {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.url, self.token.as_deref().filter(|token| !token.is_empty()))
    }
}

impl std::fmt::Debug for ApiArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiArgs").field("url", &self.url).finish_non_exhaustive()
    }
}
