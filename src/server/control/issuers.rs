//! Keys that issuers of tokens publish: fetched once for the host, now and then, and when a token names one that is not known. What
//! cannot be had or read changes nothing.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    config::{Config, types::Jwt},
    policy::{
        jose::Key,
        jwks::{self, SET_BYTES_MAX},
        jwt::Published,
    },
    proxy::Renewal,
    table::{Rule, Table},
    tls,
};

/// How long an issuer may take.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// Between two fetches because a token asked for one, at least: clients choose what their tokens name.
const WANTED_MIN: Duration = Duration::from_secs(30);

/// After a failure, at first; each further one doubles it, up to the other.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether a token has asked.
const LOOK: Duration = Duration::from_millis(500);

/// What is fetched for one policy.
struct Issuer {
    /// The policy's place in the table.
    policy: usize,
    name: String,
    source: Source,
    refresh: Duration,
    published: Published,
    client: Fetcher,
}

/// Where keys are.
enum Source {
    /// There.
    Keys(String),
    /// Where the metadata of this issuer say.
    Discovery(String),
}

type Fetcher = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Begins to fetch, for all policies that have keys published. What comes is to be sent to the cores.
pub(super) fn begin(config: &Config, table: &Table) -> Receiver<Renewal> {
    let (sender, receiver) = channel(16);
    for (policy, (configured, compiled)) in config.policy.iter().zip(&table.policies).enumerate() {
        let (Some(jwt), Rule::Jwt(access)) = (&configured.jwt, &compiled.rule) else { continue };
        let (Some(published), Some(source)) = (&access.published, source(jwt)) else { continue };
        let client = match fetcher(jwt) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(policy = configured.name, "keys of tokens cannot be fetched: {error}");
                continue;
            }
        };
        let issuer = Issuer {
            policy,
            name: configured.name.clone(),
            source,
            refresh: Duration::from_millis(jwt.refresh.as_millis()),
            published: published.clone(),
            client,
        };
        drop(tokio::spawn(issuer.run(sender.clone())));
    }
    receiver
}

/// Where a policy's keys are fetched, unless they are in a file.
fn source(jwt: &Jwt) -> Option<Source> {
    match (&jwt.jwks, &jwt.issuer) {
        (Some(place), _) if !place.starts_with('/') => Some(Source::Keys(place.clone())),
        (None, Some(issuer)) if jwt.discovery => Some(Source::Discovery(issuer.clone())),
        _ => None,
    }
}

fn fetcher(jwt: &Jwt) -> Result<Fetcher, String> {
    let config = tls::fetching(jwt.jwks_ca.as_deref().map(Path::new))?;
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

impl Issuer {
    /// Fetches for as long as someone listens.
    async fn run(self, sender: Sender<Renewal>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        let mut wanted_from = due;
        let mut retry = RETRY_MIN;
        let mut known: Option<Arc<[Key]>> = None;
        loop {
            look.tick().await;
            let now = Instant::now();
            let is_wanted = now >= wanted_from && self.published.take_wanted();
            if now < due && !is_wanted {
                continue;
            }
            if is_wanted {
                wanted_from = now + WANTED_MIN;
            }
            match timeout(FETCH_MAX, self.fetch()).await.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(keys) => {
                    due = now + self.refresh;
                    retry = RETRY_MIN;
                    let keys: Arc<[Key]> = keys.into();
                    if known.as_ref() == Some(&keys) {
                        continue;
                    }
                    tracing::info!(policy = self.name, keys = keys.len(), "keys of tokens are in force");
                    known = Some(Arc::clone(&keys));
                    if sender.send(Renewal::Published(self.policy, keys)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let stay = if known.is_some() { "; those before stay in force" } else { "" };
                    tracing::error!(policy = self.name, "keys of tokens: {error}{stay}");
                    due = now + retry.min(self.refresh);
                    retry = (2 * retry).min(RETRY_MAX);
                }
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let place = match &self.source {
            Source::Keys(place) => place.clone(),
            Source::Discovery(issuer) => self.discover(issuer).await?,
        };
        let text = self.get(&place).await?;
        jwks::parse(&text).map_err(|why| format!("{place} {why}"))
    }

    /// Where an issuer's metadata say that its keys are (OpenID Connect Discovery 1.0 §4).
    async fn discover(&self, issuer: &str) -> Result<String, String> {
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let text = self.get(&place).await?;
        let metadata: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| format!("{place} is no JSON"))?;
        let said = |name: &str| metadata.get(name).and_then(serde_json::Value::as_str);
        // §4.3: someone else's metadata are not to be believed.
        if said("issuer") != Some(issuer) {
            return Err(format!("{place} is another issuer's"));
        }
        let keys = said("jwks_uri").ok_or_else(|| format!("{place} has no `jwks_uri`"))?;
        // What came by TLS does not lead away from it.
        if issuer.starts_with("https://") && !keys.starts_with("https://") {
            return Err(format!("{place} names keys that come without TLS"));
        }
        Ok(keys.to_owned())
    }

    async fn get(&self, place: &str) -> Result<Bytes, String> {
        let uri: Uri = place.parse().map_err(|_| format!("{place} is no URL"))?;
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "ringgate")
            .body(Empty::new())
            .map_err(|_| format!("{place} is no URL"))?;
        let response = self.client.request(request).await.map_err(|error| {
            // The reason is what it comes from.
            let mut reason: &dyn std::error::Error = &error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            format!("{place} cannot be had: {reason}")
        })?;
        if response.status() != 200 {
            return Err(format!("{place} is answered with {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), SET_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| format!("{place} cannot be read: {error}"))
    }
}
