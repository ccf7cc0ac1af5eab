//! Proof of belonging: who knows the cluster secret can say so without showing it.
//!
//! A proof is an HMAC over the connection's own keying material (RFC 5705 exporter), the prover's
//! role and the cluster name. It is worth nothing on another connection, so a man in the middle,
//! who has two connections, cannot pass one on; and nothing in the other role, so it cannot be
//! sent back to its maker.

use std::{fmt, sync::Arc};

use ring::{hkdf, hmac};

/// The fewest bytes of a cluster secret.
pub const SECRET_LEN_MIN: usize = 32;
/// The length of a proof, in bytes.
pub(crate) const PROOF_LEN: usize = 32;
/// The length of the keying material that ties a proof to its connection, in bytes.
pub(crate) const BINDING_LEN: usize = 32;

/// A cluster secret. Cheap to clone; never printed. Only a key derived from it is kept.
#[derive(Clone)]
pub struct Secret(Arc<hmac::Key>);

/// The given secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster secret has at least {SECRET_LEN_MIN} bytes, this one has {len}")]
pub struct SecretError {
    /// How many bytes were given.
    pub len: usize,
}

impl Secret {
    /// Takes a secret of at least 32 bytes, all of which count.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        let bytes = bytes.as_ref();
        if bytes.len() < SECRET_LEN_MIN {
            return Err(SecretError { len: bytes.len() });
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"wingbeat cluster secret");
        // An expansion fails only beyond 255 blocks; one is asked for.
        let key = match salt.extract(bytes).expand(&[b"proof of belonging"], hmac::HMAC_SHA256) {
            Ok(okm) => hmac::Key::from(okm),
            Err(ring::error::Unspecified) => return Err(SecretError { len: bytes.len() }),
        };
        Ok(Self(Arc::new(key)))
    }

    /// The proof that `role` knows this secret, on the connection that `binding` comes from.
    pub(crate) fn prove(
        &self,
        role: Role,
        binding: &[u8; BINDING_LEN],
        cluster: &str,
    ) -> [u8; PROOF_LEN] {
        let tag = hmac::sign(&self.0, &statement(role, binding, cluster));
        let mut proof = [0; PROOF_LEN];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Checks a proof in constant time.
    pub(crate) fn verify(
        &self,
        role: Role,
        binding: &[u8; BINDING_LEN],
        cluster: &str,
        proof: &[u8; PROOF_LEN],
    ) -> bool {
        hmac::verify(&self.0, &statement(role, binding, cluster), proof).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The side of a connection that a proof is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dialler,
    Acceptor,
}

/// What is signed. Fixed lengths before the only variable part leave one reading of it.
fn statement(role: Role, binding: &[u8; BINDING_LEN], cluster: &str) -> Vec<u8> {
    let role = match role {
        Role::Dialler => b'd',
        Role::Acceptor => b'a',
    };
    let mut statement = Vec::with_capacity(BINDING_LEN + 1 + cluster.len());
    statement.extend_from_slice(binding);
    statement.push(role);
    statement.extend_from_slice(cluster.as_bytes());
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; BINDING_LEN] = [7; BINDING_LEN];

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; 32]).expect("long enough")
    }

    #[test]
    fn a_proof_holds_for_its_secret_role_connection_and_cluster_only() {
        let proof = secret(1).prove(Role::Dialler, &BINDING, "c");
        assert!(secret(1).verify(Role::Dialler, &BINDING, "c", &proof));
        assert!(!secret(2).verify(Role::Dialler, &BINDING, "c", &proof));
        assert!(!secret(1).verify(Role::Acceptor, &BINDING, "c", &proof));
        assert!(!secret(1).verify(Role::Dialler, &[8; BINDING_LEN], "c", &proof));
        assert!(!secret(1).verify(Role::Dialler, &BINDING, "d", &proof));
    }

    #[test]
    fn a_short_secret_is_refused_and_none_is_printed() {
        assert_eq!(Secret::new([0; 31]).map(|_| ()), Err(SecretError { len: 31 }));
        assert_eq!(format!("{:?}", secret(42)), "Secret(…)");
    }
}
