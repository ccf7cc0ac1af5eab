//! Who may connect, and what is known of them from then on.

use std::{any::Any, fmt, net::SocketAddr, sync::Arc};

use axum::http::HeaderMap;
use serde::de::DeserializeOwned;

use super::Error;
use crate::socket::{Param, Params};

/// A client that wants to connect.
pub struct Connect {
    pub(crate) params: Params,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: SocketAddr,
    pub(crate) auth_token: Option<String>,
}

impl Connect {
    /// The text of a parameter of the connect's query; `None` when it is missing or nested.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// All parameters, read into a value. They nest as web frameworks have it: `a[b]=c` is a map in a
    /// map, `a[]=b` a list. All values are texts.
    ///
    /// # Errors
    ///
    /// They have another shape.
    ///
    /// ```
    /// # use wingbeat::{Connect, Refused};
    /// #[derive(serde::Deserialize)]
    /// struct Params { user_id: String }
    ///
    /// fn user(connect: &Connect) -> Result<String, Refused> {
    ///     let params: Params = connect.params().map_err(|_| Refused::reason("who?"))?;
    ///     Ok(params.user_id)
    /// }
    /// ```
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let members = self.params.iter().map(|(name, param)| (name.to_owned(), value(param)));
        Ok(serde_json::from_value(serde_json::Value::Object(members.collect()))?)
    }

    /// The headers of the request; none over plain TCP.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where the connection comes from: the client, or the proxy before it.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What the client gave as its `authToken`; `None` over plain TCP, where it is a parameter like others.
    ///
    /// ```
    /// # use wingbeat::{Accepted, Connect, Refused};
    /// # fn user_of(token: &str) -> Option<String> { Some(token.to_owned()) }
    /// struct User { id: String }
    ///
    /// async fn connect(connect: Connect) -> Result<Accepted<User>, Refused> {
    ///     let user = connect.auth_token().and_then(user_of);
    ///     let id = user.ok_or_else(|| Refused::reason("log in first"))?;
    ///     Ok(Accepted::new(User { id: id.clone() }).id(format!("users_socket:{id}")))
    /// }
    /// ```
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }
}

impl fmt::Debug for Connect {
    /// Leaves values out: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("params", &self.params)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn value(param: &Param) -> serde_json::Value {
    match param {
        Param::Text(text) => text.as_str().into(),
        Param::List(items) => items.iter().map(value).collect(),
        Param::Map(map) => map.iter().map(|(name, param)| (name.clone(), value(param))).collect(),
    }
}

/// A client may connect: what its channels know of it.
#[derive(Debug)]
#[must_use = "return it from the connect callback"]
pub struct Accepted<A> {
    assigns: A,
    id: Option<String>,
}

impl<A: Send + Sync + 'static> Accepted<A> {
    /// All channels of the socket share `assigns`: see [`Socket::assigns`](super::Socket::assigns).
    pub const fn new(assigns: A) -> Self {
        Self { assigns, id: None }
    }

    /// Names the socket, for example `users_socket:42`:
    /// [`NodeHandle::disconnect`](super::NodeHandle::disconnect) closes all sockets of an id, on all
    /// nodes.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(super) fn erase(self) -> Admitted {
        Admitted { assigns: Arc::new(self.assigns), id: self.id }
    }
}

/// An accepted client, whatever the type of its assigns.
pub(crate) struct Admitted {
    pub(crate) assigns: Assigns,
    pub(crate) id: Option<String>,
}

/// The application's own, of the type that its channels expect.
pub(crate) type Assigns = Arc<dyn Any + Send + Sync>;
