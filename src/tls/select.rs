//! Which certificate a client gets: by the name it asks for (SNI, RFC 6066 §3), then by the signatures it can verify. Made
//! once from the names of all certificates of a listener, and only looked at afterwards.

use std::{cell::RefCell, collections::HashMap, fmt, sync::Arc};

use foldhash::fast::FixedState;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::{Facts, KeyType};

/// Bytes of a DNS name as text.
const NAME_BYTES_MAX: usize = 253;

/// Certificates for one name, of different key types, the preferred one first. Never empty.
type Group = Box<[usize]>;

/// The certificates of a listener by the names that they are for.
#[derive(Debug, Clone)]
pub struct Selection {
    exact: HashMap<Box<str>, Group, FixedState>,
    /// `*.example.com` by `example.com`.
    wildcard: HashMap<Box<str>, Group, FixedState>,
    default: Group,
}

/// A name for which a certificate is never used, since an earlier one with a key of the same type has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadowed {
    /// The certificate's place in the list.
    pub certificate: usize,
    /// The earlier one's.
    pub by: usize,
    /// The name.
    pub name: Box<str>,
}

impl Selection {
    /// Selects among the certificates with these facts, the first of which is for everyone whose name is in none; with the
    /// names for which a certificate is never used.
    pub fn new<'f>(facts: impl IntoIterator<Item = &'f Facts>) -> (Self, Vec<Shadowed>) {
        let facts: Vec<&Facts> = facts.into_iter().collect();
        let types: Vec<KeyType> = facts.iter().map(|facts| facts.key).collect();
        let mut groups: [HashMap<Box<str>, Vec<usize>>; 2] = Default::default();
        let mut shadowed = Vec::new();
        for (certificate, facts) in facts.iter().enumerate() {
            for name in &facts.names {
                let (kind, key) = match name.strip_prefix("*.") {
                    Some(parent) => (1, parent),
                    None => (0, &**name),
                };
                let group = groups[kind].entry(key.into()).or_default();
                match group.iter().copied().find(|other| types[*other] == types[certificate]) {
                    None => group.push(certificate),
                    // A certificate may repeat a name.
                    Some(by) if by == certificate => {}
                    Some(by) => shadowed.push(Shadowed { certificate, by, name: name.clone() }),
                }
            }
        }
        let [exact, wildcard] = groups.map(|groups| {
            let sorted = groups.into_iter().map(|(name, mut group)| {
                group.sort_by_key(|certificate| types[*certificate]);
                (name, group.into_boxed_slice())
            });
            sorted.collect::<HashMap<_, _, _>>()
        });
        let mut selection = Self { exact, wildcard, default: Box::new([0]) };
        // Others with a key of another type for the first one's name stand beside it here too.
        let first = facts.first().and_then(|first| first.names.first());
        let beside = first.and_then(|name| match name.strip_prefix("*.") {
            Some(parent) => selection.wildcard.get(parent),
            None => selection.exact.get(name),
        });
        if let Some(group) = beside {
            selection.default = group.clone();
        }
        (selection, shadowed)
    }

    /// The certificates for `name`, the preferred one first: those for exactly this name, else those for a wildcard in
    /// place of its first label, else the default ones. Case counts for nothing, nor does a dot at the end; no name, and an
    /// address, get the default ones.
    pub fn group(&self, name: Option<&str>) -> &[usize] {
        name.and_then(|name| self.named(name)).unwrap_or(&self.default)
    }

    pub(super) fn named(&self, name: &str) -> Option<&[usize]> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(lower).ok()?;
        let found = self.exact.get(name).or_else(|| {
            let (label, parent) = name.split_once('.')?;
            self.wildcard.get(parent).filter(|_| !label.is_empty())
        });
        found.map(|group| &**group)
    }
}

/// Gives rustls the certificate for a client.
pub(super) struct Resolver {
    selection: Selection,
    keys: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    /// `keys` are those that `selection` selects among.
    pub(super) fn new(selection: Selection, keys: Vec<Arc<CertifiedKey>>) -> Self {
        Self { selection, keys }
    }
}

thread_local! {
    /// The name that the client of the last handshake here asked for. rustls tells it to the resolver only.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The name that was asked for in the step of a handshake that is just over, if there was one.
pub(super) fn take_asked() -> Option<Box<str>> {
    ASKED.take()
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(client.server_name().map(|name| name.to_ascii_lowercase().into()));
        let group = self.selection.group(client.server_name());
        let (last, better) = group.split_last()?;
        // A TLS 1.2 client's suites are in this already: rustls leaves out schemes that go with none of them.
        let schemes = client.signature_schemes();
        let is_usable = |certificate: &&usize| self.keys[**certificate].key.choose_scheme(schemes).is_some();
        // Who can use none of them is refused by rustls, with the right alert.
        let chosen = better.iter().find(is_usable).unwrap_or(last);
        self.keys.get(*chosen).map(Arc::clone)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("selection", &self.selection).finish_non_exhaustive()
    }
}
