//! TLS as it is configured, on listeners and towards endpoints: names of files, not what is in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::Span;

/// Speaks TLS on this address. Versions 1.2 and 1.3, sessions resumed by tickets, no 0-RTT.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Certificates. The names that a certificate is for decide which one a client gets: an exact name before a wildcard. A
    /// client that asks for no name, or for one that none is for, gets the first. Certificates of different key types may
    /// be for the same name: ECDSA is preferred where the client can use it.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// The protocols that clients may agree on by ALPN (RFC 7301), the preferred one first. A client that offers
    /// others only is refused; one that does not use ALPN gets HTTP/1.1.
    #[serde(default = "alpn")]
    pub alpn: Vec<AlpnProtocol>,
    /// Asks clients for certificates.
    pub client_auth: Option<ClientAuth>,
    /// Tells browsers with each response to come by HTTPS only (`Strict-Transport-Security`, RFC 6797). An upstream's own
    /// field stays.
    pub hsts: Option<Hsts>,
}

/// Tells browsers to come by HTTPS only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// How long they shall remember it, such as `"365d"`. `"0s"` makes them forget.
    pub max_age: Span,
    /// Whether it goes for all names below the host's too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether browsers may have it built in. The lists want a year, and subdomains included.
    #[serde(default)]
    pub preload: bool,
}

fn alpn() -> Vec<AlpnProtocol> {
    vec![AlpnProtocol::Http2, AlpnProtocol::Http11]
}

/// A protocol, by its name in ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlpnProtocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl AlpnProtocol {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }
}

/// The version of HTTP that is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "h1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
    /// What the endpoint chooses by ALPN.
    #[serde(rename = "auto")]
    Auto,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// A PEM file: the certificate itself, then the intermediate ones, each signed by the one after it.
    pub cert: String,
    /// A PEM file with the certificate's private key (PKCS#8, PKCS#1 or SEC1), not encrypted. It may be the same file.
    pub key: String,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246, with forward secrecy and authenticated encryption only.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Asks clients for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// A PEM file with the certificates of the authorities that clients' certificates must come from.
    pub ca: String,
    /// `"require"` refuses clients without a certificate; `"optional"` lets them in. A certificate that does not come from
    /// `ca`, or is not valid now, is refused either way.
    #[serde(default)]
    pub mode: ClientAuthMode,
}

/// Whether a client must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// It must.
    #[default]
    Require,
    /// It may.
    Optional,
}

/// Speaks TLS to the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterTls {
    /// A PEM file with the certificates of the authorities that an endpoint's certificate must come from. Default: those
    /// that the system trusts.
    pub ca: Option<String>,
    /// The name that is asked for and that an endpoint's certificate must be for. Default: the endpoint's address.
    pub server_name: Option<String>,
    /// Whether an endpoint must prove who it is. `false` protects from those who only listen, not from those who step in
    /// between.
    pub verify: bool,
    /// The certificate shown to endpoints that ask for one.
    pub client_cert: Option<CertificateFiles>,
}

impl Default for ClusterTls {
    fn default() -> Self {
        Self { ca: None, server_name: None, verify: true, client_cert: None }
    }
}
