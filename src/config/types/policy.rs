//! `[[policy]]`, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ValueRegex;
use crate::config::values::Span;

/// What requests must pass, or what is done to them, by name. It does nothing until it is attached: as the default, by a
/// listener's `use` or by a route's `use`. Exactly one kind: `cors` or `ip`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name, unique among policies.
    pub name: String,
    /// Attaches it to every route of every listener.
    #[serde(default)]
    pub default: bool,
    /// Lets pages of other origins read responses (cross-origin resource sharing).
    pub cors: Option<Cors>,
    /// Lets requests pass, or refuses them, by their client's address.
    pub ip: Option<Ip>,
}

/// Lets requests pass, or refuses them with 403, by their client's address: that of the connection, or the one that a trusted proxy
/// names (`listener.trusted_proxies`, `listener.proxy_protocol`). At least one of the lists says something. An IPv4 address
/// in an IPv6 one is the IPv4 address; `0.0.0.0/0` and `::/0` are two families.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ip {
    /// Networks whose requests pass, such as `10.0.0.0/8`. Left out: all.
    pub allow: Option<Vec<String>>,
    /// Networks whose requests do not, even when `allow` has them.
    pub deny: Option<Vec<String>>,
}

/// Lets pages of other origins read responses (CORS, as the Fetch standard has it). The gateway answers preflights itself and
/// is the one who says so: an upstream's own `Access-Control-Allow-` fields and the like do not go on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Whose pages: `"https://shop.example"`, exact; `"https://*.shop.example"`, every name below it; `{ regex = "…" }`
    /// over the whole origin; `"null"`, pages without an origin of their own; `"*"`, everyone's, alone and without
    /// `credentials`.
    pub origins: Vec<OriginMatch>,
    /// Methods they may use. GET, HEAD and POST may always be sent. `"*"`: any, without `credentials`.
    #[serde(default = "defaults::methods")]
    pub methods: Vec<String>,
    /// Fields they may send beside those that always may be. `"*"`: any but `Authorization`, without `credentials`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Fields of a response they may read beside those that always may be. `"*"`: any, without `credentials`.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether their requests may carry cookies and other credentials.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight. `"0s"`: not at all.
    #[serde(default = "defaults::max_age")]
    pub max_age: Span,
    /// Lets public pages reach this gateway in a private network (`Access-Control-Allow-Private-Network`).
    #[serde(default)]
    pub private_network: bool,
}

/// An origin: exact text, a name with a `*.` before it, or `{ regex = "…" }` over the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OriginMatch {
    /// This one, or with `*.` all names below it.
    Text(String),
    /// A regex over the whole origin.
    Regex(ValueRegex),
}

/// Defaults that serde needs as functions.
mod defaults {
    use crate::config::values::Span;

    pub(super) fn methods() -> Vec<String> {
        ["GET", "HEAD", "POST"].map(String::from).into()
    }
    pub(super) fn max_age() -> Span {
        Span::secs(600)
    }
}
