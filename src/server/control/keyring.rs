//! What changes of the cores' secrets while they serve: files of keys and certificates, which are looked at now and then,
//! and the keys of session tickets, which are rotated. A file that cannot be used changes nothing.

use std::{
    fs::Metadata,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::UnixTime;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior},
};

use super::issuers;
use crate::{
    config::{
        Config, Diagnostic, Key, Severity, read_consumers,
        types::{Basic, CertificateFiles, ClusterTls, ListenerTls, UpstreamProtocol},
    },
    policy::{jose::Key as TokenKey, jwks},
    proxy::Renewal,
    table::{self, Table},
    tls::{Loader, TICKET_SECONDS, TicketKeys},
};

/// How often files are looked at. A change is taken when they have stayed the same for as long.
const LOOK: Duration = Duration::from_secs(1);

/// The secrets of all cores, as far as they change.
pub(super) struct Keyring {
    watched: Vec<Watched>,
    tickets: TicketKeys,
    rotate_at: Instant,
    interval: tokio::time::Interval,
    /// Keys that issuers of tokens publish.
    published: Receiver<Renewal>,
    taken: u64,
    refused: u64,
}

/// Files that one listener or cluster is secured with.
struct Watched {
    owner: Owner,
    name: String,
    files: Vec<PathBuf>,
    /// What they were when they were last taken, or refused.
    known: Vec<Option<Stamp>>,
    /// What they were at the last look.
    last: Vec<Option<Stamp>>,
}

enum Owner {
    Listener {
        place: usize,
        tls: ListenerTls,
    },
    Cluster {
        place: usize,
        tls: ClusterTls,
        protocol: UpstreamProtocol,
        endpoints: Vec<SocketAddr>,
    },
    /// A policy with a file of keys that tokens are signed with.
    Policy {
        place: usize,
    },
    /// A policy with a file of users.
    Users {
        place: usize,
        basic: Box<Basic>,
    },
    /// A file of consumers, beside those of the configuration.
    Consumers(Box<Config>),
}

/// What tells a file from what it was. A link is followed, so that one that points elsewhere is a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata: Metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

fn pair(files: &CertificateFiles) -> [PathBuf; 2] {
    [PathBuf::from(&files.cert), PathBuf::from(&files.key)]
}

/// `certificates[0].key`.
fn path(keys: &[Key<'_>]) -> String {
    let mut path = String::from("tls");
    for key in keys {
        match key {
            Key::Name(name) => path.extend([".", name]),
            Key::Index(place) => path.push_str(&format!("[{place}]")),
        }
    }
    path
}

impl Watched {
    fn new(owner: Owner, name: String, files: Vec<PathBuf>) -> Self {
        let stamps: Vec<_> = files.iter().map(|file| Stamp::of(file)).collect();
        Self { owner, name, files, known: stamps.clone(), last: stamps }
    }

    /// The same, to be taken at the first look.
    fn not_taken(self) -> Self {
        Self { known: vec![None; self.files.len()], ..self }
    }

    /// Whether the files are others than those known, and are not just being written.
    fn has_settled_anew(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|file| Stamp::of(file)).collect();
        let has_settled = now == self.last;
        self.last = now;
        if !has_settled || self.last == self.known {
            return false;
        }
        self.known.clone_from(&self.last);
        true
    }

    /// What is in the files.
    fn what(&self) -> &'static str {
        match self.owner {
            Owner::Listener { .. } | Owner::Cluster { .. } => "certificates",
            Owner::Policy { .. } => "keys of tokens",
            Owner::Users { .. } => "users",
            Owner::Consumers(_) => "consumers",
        }
    }

    /// What the files are now, or what is wrong with them.
    fn read(&self) -> Result<Renewal, Vec<String>> {
        let mut faults = Vec::new();
        let mut report = |keys: &[Key<'_>], fault: Diagnostic| match fault.severity {
            Severity::Error => faults.push(format!("{}: {}", path(keys), fault.message)),
            Severity::Warning => tracing::warn!(of = self.name, "{}: {}", path(keys), fault.message),
        };
        let mut loader = Loader::new(UnixTime::now());
        let renewal = match &self.owner {
            Owner::Policy { place } => {
                let keys = read_keys(&self.files[0]).map_err(|fault| vec![fault])?;
                Some(Renewal::Published(*place, keys))
            }
            Owner::Users { place, basic } => Some(Renewal::Users(*place, Arc::new(table::users(basic)?))),
            Owner::Consumers(config) => {
                let consumers = read_consumers(&self.files[0], config)?;
                Some(Renewal::Consumers(Arc::new(table::consumers(config, &consumers))))
            }
            Owner::Listener { place, tls } => {
                loader.server(tls, &mut report).map(|tls| Renewal::Listener(*place, Arc::new(tls)))
            }
            Owner::Cluster { place, tls, protocol, endpoints } => {
                let tls = loader.client(tls, endpoints, &mut report);
                tls.map(|tls| Renewal::Cluster(*place, Arc::new(tls.offering(*protocol))))
            }
        };
        renewal.ok_or(faults)
    }
}

/// A file of keys that tokens are signed with.
fn read_keys(file: &Path) -> Result<Arc<[TokenKey]>, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    jwks::parse(&text).map(Into::into).map_err(|why| format!("{} {why}", file.display()))
}

impl Keyring {
    /// Those of a configuration and its table, which was made from the files as they are now.
    pub(super) fn new(config: &Config, table: &Table, tickets: TicketKeys) -> Self {
        let listeners = config.listener.iter().enumerate().filter_map(|(place, listener)| {
            let tls = listener.tls.clone()?;
            let mut files: Vec<PathBuf> = tls.certificates.iter().flat_map(pair).collect();
            files.extend(tls.client_auth.as_ref().map(|auth| PathBuf::from(&auth.ca)));
            Some(Watched::new(Owner::Listener { place, tls }, format!("listener `{}`", listener.name), files))
        });
        let clusters = config.cluster.iter().enumerate().filter_map(|(place, cluster)| {
            let tls = cluster.tls.clone()?;
            let mut files: Vec<PathBuf> = tls.client_cert.iter().flat_map(pair).collect();
            files.extend(tls.ca.as_ref().map(PathBuf::from));
            let endpoints = table.clusters[place].endpoints.iter().map(|endpoint| endpoint.address).collect();
            let owner = Owner::Cluster { place, tls, protocol: cluster.protocol, endpoints };
            Some(Watched::new(owner, format!("cluster `{}`", cluster.name), files))
        });
        let files = config.policy.iter().enumerate().filter_map(|(place, policy)| {
            let file = policy.jwt.as_ref()?.jwks.as_ref().filter(|place| place.starts_with('/'))?;
            let watched =
                Watched::new(Owner::Policy { place }, format!("policy `{}`", policy.name), vec![file.into()]);
            // The cores have none yet.
            Some(watched.not_taken())
        });
        let users = config.policy.iter().enumerate().filter_map(|(place, policy)| {
            let basic = policy.basic.clone()?;
            let file = PathBuf::from(basic.file.as_ref()?);
            let owner = Owner::Users { place, basic: Box::new(basic) };
            Some(Watched::new(owner, format!("policy `{}`", policy.name), vec![file]).not_taken())
        });
        let consumers = config.consumers.iter().map(|file| {
            let owner = Owner::Consumers(Box::new(config.clone()));
            // They may have changed since the configuration was read: a key that was taken back must not stay.
            Watched::new(owner, "consumers".into(), vec![file.into()]).not_taken()
        });
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            watched: listeners.chain(clusters).chain(files).chain(users).chain(consumers).collect(),
            tickets,
            rotate_at: Instant::now() + ROTATION,
            interval,
            published: issuers::begin(config, table),
            taken: 0,
            refused: 0,
        }
    }

    /// Waits for the next look, or for what issuers publish, and says what the cores are to take.
    pub(super) async fn next(&mut self) -> Vec<Renewal> {
        tokio::select! {
            _ = self.interval.tick() => self.look(),
            Some(published) = self.published.recv() => vec![published],
        }
    }

    fn look(&mut self) -> Vec<Renewal> {
        let mut renewals = Vec::new();
        for watched in &mut self.watched {
            if !watched.has_settled_anew() {
                continue;
            }
            match watched.read() {
                Ok(renewal) => {
                    self.taken += 1;
                    tracing::info!(of = watched.name, "new {} are in force", watched.what());
                    renewals.push(renewal);
                }
                Err(faults) => {
                    self.refused += 1;
                    for fault in faults {
                        tracing::error!(
                            of = watched.name,
                            "{fault}; the {} before stay in force",
                            watched.what()
                        );
                    }
                }
            }
        }
        if Instant::now() >= self.rotate_at {
            self.rotate_at = Instant::now() + ROTATION;
            match self.tickets.rotated() {
                Ok(tickets) => {
                    self.tickets = tickets.clone();
                    renewals.push(Renewal::Tickets(tickets));
                }
                Err(error) => tracing::error!(%error, "the keys of session tickets cannot be rotated"),
            }
        }
        renewals
    }

    /// How often files were taken, and refused.
    pub(super) fn figures(&self) -> [(&'static str, u64); 2] {
        [("certificates_taken", self.taken), ("certificates_refused", self.refused)]
    }
}

const ROTATION: Duration = Duration::from_secs(TICKET_SECONDS as u64);

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock is the test's: hours pass at once.
    #[test]
    fn the_keys_of_tickets_are_rotated_by_the_clock() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let config: Config =
                toml::from_str("[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n").unwrap();
            let table = table::compile(&config, &mut |_, fault| panic!("{fault:?}")).unwrap();
            let began = Instant::now();
            let mut keyring = Keyring::new(&config, &table, TicketKeys::generate().unwrap());
            let mut rotations = Vec::new();
            while rotations.len() < 3 {
                for renewal in keyring.next().await {
                    assert!(matches!(renewal, Renewal::Tickets(_)));
                    rotations.push(began.elapsed().as_secs() / ROTATION.as_secs());
                }
            }
            assert_eq!(rotations, [1, 2, 3]);
        });
    }
}
