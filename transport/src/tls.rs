//! QUIC and TLS settings. The certificate is made anew by each process and says nothing about who
//! its owner is: TLS gives privacy and a channel to bind to, [`proof`](crate::proof) the rest.

use std::sync::Arc;

use quinn::{
    IdleTimeout, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::TLS13,
};

use crate::{config::Config, error::BindError};

/// The only application protocol offered and taken.
const ALPN: &[u8] = b"wingbeat";
/// The name that diallers ask for. Nobody checks it; TLS wants one.
pub(crate) const SERVER_NAME: &str = "wingbeat";
/// How many bytes of one lane may be on the way or unread.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// How many bytes of one link may be on the way or unread, once it is up.
pub(crate) const LINK_WINDOW: u32 = 16 * 1024 * 1024;
/// The same before the peer has proved itself: enough for a hello, little for a stranger.
const STRANGER_WINDOW: u32 = 64 * 1024;
/// How many sent bytes of one link may wait for their acknowledgement.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;
/// How many bytes of datagrams may wait on either side; beyond it the oldest are dropped.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// The round trip assumed before one is measured: nodes are near each other.
const INITIAL_RTT: std::time::Duration = std::time::Duration::from_millis(100);

/// The QUIC configurations of both roles.
pub(crate) fn quic(
    config: &Config,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), BindError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let transport = Arc::new(transport(config)?);

    let crypto = QuicServerConfig::try_from(server(provider.clone())?)
        .map_err(|e| BindError::Certificate(e.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport.clone()).migration(false).max_incoming(config.incoming_max);
    server.incoming_buffer_size(64 * 1024).incoming_buffer_size_total(8 * 1024 * 1024);

    let crypto = QuicClientConfig::try_from(client(provider)?)
        .map_err(|e| BindError::Certificate(e.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport);
    Ok((server, client))
}

fn transport(config: &Config) -> Result<TransportConfig, BindError> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|_| BindError::Config("idle_timeout is too long"))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive))
        .initial_rtt(INITIAL_RTT)
        // One stream, for the hello. A link opens the rest when it is up.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Ok(transport)
}

fn server(provider: Arc<CryptoProvider>) -> Result<rustls::ServerConfig, BindError> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])
        .map_err(|e| BindError::Certificate(e.to_string()))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())
        })
        .map_err(|e| BindError::Certificate(e.to_string()))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption, so no early data: it could be replayed.
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    Ok(server)
}

fn client(provider: Arc<CryptoProvider>) -> Result<rustls::ClientConfig, BindError> {
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| BindError::Certificate(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    Ok(client)
}

/// Takes any certificate, but only from who holds its key: the handshake's signature is checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
