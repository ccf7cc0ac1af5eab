//! Secrets: the cluster's and the API's. They come from files or one variable, never from the
//! configuration itself, and never appear in a message.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::parts::Cluster;

/// Bytes of the shortest cluster secret.
pub const CLUSTER_SECRET_LEN_MIN: usize = 32;

/// Bytes of the shortest API token.
pub const API_TOKEN_LEN_MIN: usize = 16;

/// The variable that holds the cluster secret.
pub(super) const SECRET_VARIABLE: &str = "WINGBEAT_CLUSTER_SECRET";

/// Secrets accepted at a time: the present one and, during a rotation, the other.
const CLUSTER_SECRETS_MAX: usize = 2;

/// The longest file of secrets that is read.
const FILE_LEN_MAX: u64 = 16 << 10;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Why a secret cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{key} {}: cannot be read: {why}", .path.display())]
    Unreadable {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It holds no secret, or something that is no line of visible ASCII.
    #[error("{source_name}: want {wanted}")]
    Malformed {
        /// The file or the variable.
        source_name: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// A secret that could be guessed.
    #[error(
        "{source_name}: a secret of {len} bytes, want at least {min}: \
         make one with openssl rand -base64 32"
    )]
    Short {
        /// The file or the variable.
        source_name: String,
        /// Its length.
        len: usize,
        /// The length wanted.
        min: usize,
    },
    /// Nodes of other machines are to join without a proof that they may.
    #[error(
        "cluster.listen is {listen}, not loopback, and there is no cluster secret: \
         set {SECRET_VARIABLE} or cluster.secret_file to at least {CLUSTER_SECRET_LEN_MIN} bytes \
         that all nodes share, as openssl rand -base64 32 makes them"
    )]
    Missing {
        /// Where the cluster is to listen.
        listen: SocketAddr,
    },
}

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// See [`Config::cluster_secrets`](super::Config::cluster_secrets).
pub(super) fn cluster_secrets(
    cluster: &Cluster,
    listen: Option<SocketAddr>,
) -> Result<Vec<Vec<u8>>, SecretError> {
    const WANTED: &str = "one secret, or two during a rotation, of visible ASCII without commas";
    let (source_name, text) = match (&cluster.secret, &cluster.secret_file) {
        (Some(secret), _) => (SECRET_VARIABLE.to_owned(), secret.clone()),
        (None, Some(path)) => {
            let text = read("cluster.secret_file", path)?;
            (format!("cluster.secret_file {}", path.display()), text)
        }
        (None, None) => match listen.filter(|listen| !listen.ip().is_loopback()) {
            Some(listen) => return Err(SecretError::Missing { listen }),
            None => return Ok(vec![loopback_secret(&cluster.name)]),
        },
    };
    let secrets: Vec<_> = text.expose().split([',', '\n']).map(str::trim).collect();
    let secrets: Vec<_> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
    let visible = secrets.iter().all(|secret| secret.bytes().all(|b| b.is_ascii_graphic()));
    if !visible || !(1..=CLUSTER_SECRETS_MAX).contains(&secrets.len()) {
        return Err(SecretError::Malformed { source_name, wanted: WANTED });
    }
    match secrets.iter().find(|secret| secret.len() < CLUSTER_SECRET_LEN_MIN) {
        Some(short) => {
            let (len, min) = (short.len(), CLUSTER_SECRET_LEN_MIN);
            Err(SecretError::Short { source_name, len, min })
        }
        None => Ok(secrets.into_iter().map(|secret| secret.as_bytes().to_vec()).collect()),
    }
}

/// The key of a cluster on loopback that was given no secret. Anyone can derive it: it keeps
/// clusters of different names apart, and nobody out.
fn loopback_secret(cluster_name: &str) -> Vec<u8> {
    format!("wingbeat loopback cluster without a secret: {cluster_name}").into_bytes()
}

/// Reads the API token: one line of visible ASCII.
pub(super) fn read_api_token(path: &Path) -> Result<Secret, SecretError> {
    let text = read("auth.api_token_file", path)?;
    let token = text.expose().trim();
    let source_name = format!("auth.api_token_file {}", path.display());
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let wanted = "one line of visible ASCII, as openssl rand -hex 32 makes it";
        return Err(SecretError::Malformed { source_name, wanted });
    }
    match token.len() {
        len @ ..API_TOKEN_LEN_MIN => {
            Err(SecretError::Short { source_name, len, min: API_TOKEN_LEN_MIN })
        }
        _ => Ok(Secret::new(token)),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |why: String| SecretError::Unreadable { key, path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let read = file.take(FILE_LEN_MAX).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| SecretError::Malformed {
        source_name: format!("{key} {}", path.display()),
        wanted: "text, as openssl rand -base64 32 makes it",
    })?;
    Ok(Secret::new(&text))
}

/// Whether others than its owner may read the file; `false` where that cannot be told.
pub(super) fn others_may_read(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        const GROUP_AND_OTHER: u32 = 0o077;
        path.metadata().is_ok_and(|meta| meta.permissions().mode() & GROUP_AND_OTHER != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}
