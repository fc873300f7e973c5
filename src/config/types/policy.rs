//! `[[policy]]`, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ValueRegex;
use crate::config::values::{Hidden, Span};

/// What requests must pass, or what is done to them, by name. It does nothing until it is attached: as the default, by a
/// listener's `use` or by a route's `use`. Exactly one kind: `cors`, `ip`, `client_cert`, `key`,
/// `basic`, `jwt`, `introspect`, `authorize`, `allow`, `rate_limit` or `concurrency`.
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
    /// Asks for a client certificate.
    pub client_cert: Option<ClientCert>,
    /// Asks for an API key, and so knows who asks.
    pub key: Option<Key>,
    /// Asks for a name and a password (RFC 7617), and so knows who asks.
    pub basic: Option<Basic>,
    /// Asks for a JSON Web Token, and so knows who asks.
    pub jwt: Option<Jwt>,
    /// Asks for a token, of which its issuer is asked, and so knows who asks.
    pub introspect: Option<Introspect>,
    /// Asks someone else whether a request may pass.
    pub authorize: Option<Authorize>,
    /// An expression that must hold (see [Expressions](#expressions)): of `request`, `auth`, `claims` and `now`. A request for which it does not, or for
    /// which it has no value, is answered 403, `not-allowed`. Several on a route must all hold.
    pub allow: Option<String>,
    /// Says how often requests may come.
    pub rate_limit: Option<RateLimit>,
    /// Says how many exchanges may be under way at once.
    pub concurrency: Option<Concurrency>,
}

/// Says how many exchanges may be under way at once, all together, from their admission until they are over; a tunnel lasts as long as it is open. Exact for the whole host, on
/// however many cores its connections are. Beyond it: 503, `concurrency-exceeded`, with `Retry-After`. Several on a route are all asked. A new configuration begins to count
/// anew: what is under way by the one before it does not count.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Exchanges at once.
    #[schemars(range(min = 1))]
    pub limit: u32,
}

/// Says how often requests may come, of each whom `by` tells apart: `limit` in `per`, evenly (a bucket that refills all the time; GCRA), with
/// `burst` at once. Exact for the whole host, on however many cores its connections are; a limit of at least 100 for each core may be off by 2 %. Beyond it: 429,
/// `quota-exceeded`, with `Retry-After`. Several on a route are all asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in `per`; at most 1,000,000 a second.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// The time that `limit` is about.
    #[serde(default = "defaults::per")]
    pub per: Span,
    /// Requests at once after a pause. Left out: `limit`.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// What one request counts for: a number, or an expression (see [Expressions](#expressions)) that comes to one, such as `"request.method == 'GET' ? 1 : 5"`. Of that, 0
    /// counts nothing, more than `burst` counts `burst`, and what is less than 0, or fails, counts 1.
    #[serde(default = "defaults::one")]
    pub cost: Cost,
    /// What tells those apart that are counted each by themselves: `"client_ip"`, `"consumer"`, `"subject"` (a user, or `sub` of a token), `"route"`, `{ header = "…" }`, `{ claim = "…" }`, `{ expression = "…" }` (a text), or several of
    /// them together. A request that has none of a kind is told by its client's address there. Empty: all requests together.
    #[serde(default = "defaults::by")]
    pub by: Vec<CountedBy>,
    /// Bits of an IPv6 address that tell clients apart: a whole network is easily one client's.
    #[serde(default = "defaults::ipv6_prefix")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: u8,
    /// How many are told apart at once: some 22 to 43 bytes of memory each, once they come. Beyond it, whose bucket is closest to full is forgotten.
    #[serde(default = "defaults::keys")]
    #[schemars(range(min = 1, max = 16777216))]
    pub keys: u32,
    /// Whether all responses say what is left (`RateLimit`, `RateLimit-Policy`), not only those beyond the limit.
    #[serde(default = "defaults::yes")]
    pub headers: bool,
}

/// What requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// The client's address.
    ClientIp,
    /// The consumer whose key it shows.
    Consumer,
    /// The user whose password it shows, or `sub` of its token.
    Subject,
    /// The route.
    Route,
    /// The field of this name.
    Header(String),
    /// The claim of this name in its token.
    Claim(String),
    /// The text that an expression comes to.
    Expression(String),
}

/// What one request counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cost {
    /// So much.
    Fixed(#[schemars(range(min = 1))] u32),
    /// What an expression comes to.
    Expression(String),
}

/// Someone who uses the API, and may be told from others by a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Its name, unique among consumers: `{consumer.name}` in texts, and in the log.
    pub name: String,
    /// Hashes of its keys, `"sha256:…"` with 64 hexadecimal digits each. More than one lets it change keys without a pause. Keys are long
    /// random words, such as `openssl rand -hex 24` makes; `printf %s "$KEY" | sha256sum` makes the hash.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Words by which policies tell groups of consumers.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How often it may come, in place of the numbers of each `rate_limit` policy that counts by `"consumer"`.
    pub limit: Option<ConsumerLimit>,
}

/// How often a consumer may come.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerLimit {
    /// Requests in `per`; at most 1,000,000 a second.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// The time that `limit` is about.
    #[serde(default = "defaults::per")]
    pub per: Span,
    /// Requests at once after a pause. Left out: `limit`.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}

/// The field that a key comes in where nothing else is said.
pub const KEY_HEADER: &str = "x-api-key";

/// Asks for an API key of a `[[consumer]]`, in one place: a field, a parameter of the query or a cookie. A request without one, or with one that is no consumer's, is answered 401; one with the key
/// of a consumer who may not ask here, 403.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The field that the key comes in. Left out, with `query` and `cookie` too: `x-api-key`.
    pub header: Option<String>,
    /// The parameter of the query that it comes in instead. What is in a query is soon in the logs of others, and in histories: a field is
    /// better where clients can send one.
    pub query: Option<String>,
    /// The cookie that it comes in instead.
    pub cookie: Option<String>,
    /// Names of the consumers who may ask. Left out, with `tags` too: all.
    pub consumers: Option<Vec<String>>,
    /// Consumers with one of these tags may ask too.
    pub tags: Option<Vec<String>>,
    /// Whether the upstream gets to see the key.
    #[serde(default)]
    pub forward: bool,
}

/// Asks for the name and password of a user (Basic, RFC 7617), in `Authorization`. A request without them, or with wrong ones, is answered 401. Passwords are
/// verified beside the cores, as that takes long; when too many wait for it, of all or of one client, a request is answered 503. Without TLS everyone on the
/// way reads them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// What it is for, as browsers show it to people: visible ASCII.
    #[serde(default = "defaults::realm")]
    pub realm: String,
    /// Who may ask.
    #[serde(default)]
    pub users: Vec<User>,
    /// A file of further users, by its absolute path, with `name:hash` in each line as `htpasswd -B` writes them. It is watched; one that cannot be used
    /// changes nothing.
    pub file: Option<String>,
    /// How long a password that was right is remembered (as a hash under a secret), so that it is not verified for each request. `"0s"`: not at all.
    #[serde(default = "defaults::remember")]
    pub remember: Span,
    /// Whether the upstream gets to see them.
    #[serde(default)]
    pub forward: bool,
}

/// A user of a `basic` policy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name, without a colon: `{auth.subject}` in texts, and in the log.
    pub name: String,
    /// The hash of the password: argon2id (`"$argon2id$…"`) or bcrypt (`"$2y$…"`, `$2a$`, `$2b$`).
    pub password: Hidden,
}

/// Asks for a JSON Web Token (RFC 7519) that one of `keys`, or of those that its issuer publishes (`jwks`, `discovery`), has signed: as a bearer token (RFC 6750), or in another field, a parameter of the query
/// or a cookie. A request without one, or with one that is not to be believed, is answered 401; with one that lacks a scope, 403. A token must have `exp`. Its claims are
/// `{claims.NAME}` in texts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// How tokens may be signed: `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// By whom they may be signed.
    #[serde(default)]
    pub keys: Vec<JwtKey>,
    /// Where the issuer publishes its keys (a JSON Web Key Set, RFC 7517): `"https://login.example/keys.json"`, or a file by its absolute path, which is watched. They are
    /// fetched once for the host, and again as `refresh` says; a token with a `kid` that is not among them has them fetched at once, twice a minute at most. While the
    /// issuer cannot be reached the last ones stay; until there are some, requests are answered 503.
    pub jwks: Option<String>,
    /// Whether `issuer` tells where its keys are, in its `/.well-known/openid-configuration` (OpenID Connect Discovery). Instead of `jwks`.
    #[serde(default)]
    pub discovery: bool,
    /// How often published keys are fetched.
    #[serde(default = "defaults::refresh")]
    pub refresh: Span,
    /// A PEM file with the authorities that the issuer's certificate must come from. Left out: those that the system trusts.
    pub jwks_ca: Option<String>,
    /// What `iss` must be. Left out: it is not looked at.
    pub issuer: Option<String>,
    /// One of these must be in `aud`. Empty: it is not looked at.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Claims that there must be, beside `exp`.
    #[serde(default)]
    pub require: Vec<String>,
    /// Words that must all be in `scope` (or `scp`). A token that lacks one is answered 403.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How far clocks may be apart when `exp` and `nbf` are looked at.
    #[serde(default = "defaults::leeway")]
    pub leeway: Span,
    /// The field that the token comes in. Left out, with `query` and `cookie` too: `authorization`, behind `Bearer`.
    pub header: Option<String>,
    /// The parameter of the query that it comes in instead. What is in a query is soon in the logs of others.
    pub query: Option<String>,
    /// The cookie that it comes in instead.
    pub cookie: Option<String>,
    /// Whether the upstream gets to see the token.
    #[serde(default = "defaults::yes")]
    pub forward: bool,
}

/// What tokens are verified with: `public_key`, or a `secret` for the algorithms that begin with `HS`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtKey {
    /// The `kid` of tokens that are signed with it. Left out: it is tried for every token.
    pub id: Option<String>,
    /// The public key in PEM, as `"${file:/etc/ringgate/issuer.pem}"`: RSA of 2048 bits or more, P-256, P-384 or Ed25519.
    pub public_key: Option<String>,
    /// A shared secret of 32 bytes or more, as `"${TOKEN_SECRET}"`.
    pub secret: Option<Hidden>,
}

/// Asks for a token (an opaque one, as a rule) and asks its issuer what it says (token introspection, RFC 7662): by a POST to `path` of the cluster, with the
/// client's credentials. A request without one, or with one that is not active, is answered 401; with one that lacks a scope, 403; one that the issuer says nothing of in
/// time, 503, `introspect-failed`. What the issuer says are its claims: `{claims.NAME}` in texts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspect {
    /// The cluster that the issuer is.
    pub cluster: String,
    /// The path, and perhaps a query, of its introspection endpoint.
    pub path: String,
    /// As whom the gateway asks.
    pub client_id: String,
    /// What shows that it is.
    pub client_secret: Hidden,
    /// How long an answer is remembered by each core, though never beyond `exp`; that a token is none, 10 s at most. A token that is revoked passes for so long. `"0s"`: not at all.
    #[serde(default = "defaults::cache")]
    pub cache: Span,
    /// How long the issuer may take to answer.
    #[serde(default = "defaults::answer")]
    pub timeout: Span,
    /// What `iss` must be. Left out: it is not looked at.
    pub issuer: Option<String>,
    /// One of these must be in `aud`. Empty: it is not looked at.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Claims that there must be.
    #[serde(default)]
    pub require: Vec<String>,
    /// Words that must all be in `scope` (or `scp`). A token that lacks one is answered 403.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How far clocks may be apart when `exp` and `nbf` are looked at.
    #[serde(default = "defaults::leeway")]
    pub leeway: Span,
    /// The field that the token comes in. Left out, with `query` and `cookie` too: `authorization`, behind `Bearer`.
    pub header: Option<String>,
    /// The parameter of the query that it comes in instead. What is in a query is soon in the logs of others.
    pub query: Option<String>,
    /// The cookie that it comes in instead.
    pub cookie: Option<String>,
    /// Whether the upstream gets to see the token.
    #[serde(default = "defaults::yes")]
    pub forward: bool,
}

/// Asks an authorisation service whether a request may pass: by a GET of `path` with the request's fields, but for those about its content, and with its method and target in
/// `X-Forwarded-Method` and `X-Forwarded-Uri`. 2xx: it may. 3xx and 4xx: it may not, and the answer is the client's, with its fields and content. Anything else, or
/// nothing in time: see `on_failure`. The request's content is not sent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// The cluster that is asked.
    pub cluster: String,
    /// The path, and perhaps a query, of the question.
    #[serde(default = "defaults::root")]
    pub path: String,
    /// Fields of the request that the service gets to see. Left out: all, but for credentials that other policies keep from upstreams.
    pub headers: Option<Vec<String>>,
    /// Fields of its answer that go upstream with a request that may pass, such as `x-user`. What the client itself says in fields of these names never does.
    #[serde(default)]
    pub copy: Vec<String>,
    /// How long it may take to answer.
    #[serde(default = "defaults::answer")]
    pub timeout: Span,
    /// What becomes of requests while it does not answer: `"deny"`, they are answered 503, `authorize-failed`; `"allow"`, they pass.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What becomes of requests while someone who is to be asked does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are refused.
    #[default]
    Deny,
    /// They pass.
    Allow,
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

/// Asks for a client certificate, which the handshake has found to be good (`listener.tls.client_auth`): a request of a client without one, or with
/// another, is answered 403. Empty: any.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCert {
    /// DNS names, one of which it must be for. `*.` in front stands for one label.
    #[serde(default)]
    pub names: Vec<String>,
    /// SHA-256 fingerprints, one of which may be its own instead: 64 hexadecimal digits, as `openssl x509 -noout -sha256 -fingerprint` prints them.
    #[serde(default)]
    pub fingerprints: Vec<String>,
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
    use super::{Cost, CountedBy};
    use crate::config::values::Span;

    pub(super) fn per() -> Span {
        Span::secs(1)
    }
    pub(super) fn one() -> Cost {
        Cost::Fixed(1)
    }
    pub(super) fn by() -> Vec<CountedBy> {
        vec![CountedBy::ClientIp]
    }
    pub(super) fn ipv6_prefix() -> u8 {
        64
    }
    pub(super) fn keys() -> u32 {
        100_000
    }
    pub(super) fn methods() -> Vec<String> {
        ["GET", "HEAD", "POST"].map(String::from).into()
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn realm() -> String {
        "restricted".into()
    }
    pub(super) fn remember() -> Span {
        Span::secs(300)
    }
    pub(super) fn refresh() -> Span {
        Span::secs(900)
    }
    pub(super) fn cache() -> Span {
        Span::secs(60)
    }
    pub(super) fn answer() -> Span {
        Span::secs(2)
    }
    pub(super) fn root() -> String {
        "/".into()
    }
    pub(super) fn leeway() -> Span {
        Span::secs(30)
    }
    pub(super) fn max_age() -> Span {
        Span::secs(600)
    }
}
