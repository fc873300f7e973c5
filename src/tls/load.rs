//! From what the operator wrote to what is served with: reads the files that a `tls` table names, and reports everything
//! that is wrong with them at the key that names them. Keys are those below the `tls` table.

use std::{net::SocketAddr, path::Path};

use rustls_pki_types::{ServerName, UnixTime};

use super::{
    authority::{Authorities, SystemRoots},
    certificate::{Certificate, Concern},
    client::{ClientTls, Trust},
    pem::{FileError, Part},
    server::{ClientAuthority, ServerTls},
};
use crate::config::{
    Diagnostic, Key,
    types::{CertificateFiles, ClusterTls, ListenerTls},
};

/// Where faults go: each with the keys it is about.
pub type Report<'r> = dyn FnMut(&[Key<'_>], Diagnostic) + 'r;

/// Reads the files of one configuration.
#[derive(Debug)]
pub struct Loader {
    now: UnixTime,
    system: SystemRoots,
}

impl Loader {
    /// What is valid is judged by the time `now`.
    pub fn new(now: UnixTime) -> Self {
        Self { now, system: SystemRoots::default() }
    }

    /// What a listener serves with. Every fault is reported; with an error among them there is nothing.
    pub fn server(&mut self, tls: &ListenerTls, report: &mut Report<'_>) -> Option<ServerTls> {
        let mut certificates = Vec::with_capacity(tls.certificates.len());
        for (place, files) in tls.certificates.iter().enumerate() {
            let path = ["certificates".into(), place.into()];
            certificates.extend(self.certificate(&path, files, true, report));
        }
        let client_auth = match &tls.client_auth {
            Some(auth) => {
                let authorities = self.authorities(&["client_auth".into(), "ca".into()], &auth.ca, report);
                Some(authorities.map(|authorities| ClientAuthority { authorities, mode: auth.mode }))
            }
            None => None,
        };
        let is_whole = certificates.len() == tls.certificates.len() && !certificates.is_empty();
        let client_auth = client_auth.map_or(Some(None), |auth| auth.map(Some)).filter(|_| is_whole)?;
        match ServerTls::new(certificates, tls.min_version, client_auth) {
            Ok(server) => {
                shadowed(&server, report);
                Some(server.offering(&tls.alpn))
            }
            Err(error) => {
                report(&[], Diagnostic::error(format!("TLS cannot be set up: {error}")));
                None
            }
        }
    }

    /// What a cluster's connections are made with. Every fault is reported; with an error among them there is nothing.
    pub fn client(
        &mut self,
        tls: &ClusterTls,
        endpoints: &[SocketAddr],
        report: &mut Report<'_>,
    ) -> Option<ClientTls> {
        let trust = self.trust(tls, report);
        let certificate = match &tls.client_cert {
            Some(files) => self.certificate(&["client_cert".into()], files, false, report).map(Some),
            None => Some(None),
        };
        let name = match &tls.server_name {
            Some(name) => server_name(name, report).map(Some),
            None => Some(None),
        };
        match ClientTls::new(trust?, certificate?, name?, endpoints) {
            Ok(client) => Some(client),
            Err(error) => {
                report(&[], Diagnostic::error(format!("TLS cannot be set up: {error}")));
                None
            }
        }
    }

    fn trust(&mut self, tls: &ClusterTls, report: &mut Report<'_>) -> Option<Trust> {
        if !tls.verify {
            return Some(Trust::Anyone);
        }
        if let Some(ca) = &tls.ca {
            let authorities = self.authorities(&["ca".into()], ca, report)?;
            return Some(Trust::Authorities(authorities.roots().clone()));
        }
        match self.system.get() {
            Ok(roots) => Some(Trust::Authorities(roots)),
            Err(error) => {
                let hint = "name a file in `ca`, or install the system's (ca-certificates)";
                report(&[], Diagnostic::error(error).hint(hint));
                None
            }
        }
    }

    /// `is_server`: it is for clients that look for a name in it.
    fn certificate(
        &self,
        path: &[Key<'_>],
        files: &CertificateFiles,
        is_server: bool,
        report: &mut Report<'_>,
    ) -> Option<Certificate> {
        let below = |key: &'static str| [path, &[key.into()]].concat();
        match Certificate::read(Path::new(&files.cert), Path::new(&files.key)) {
            Ok(certificate) => {
                let concerns = certificate.concerns(self.now);
                for concern in concerns.into_iter().filter(|one| is_server || *one != Concern::Nameless) {
                    report(&below("cert"), warning(concern));
                }
                Some(certificate)
            }
            Err(errors) => {
                for error in errors {
                    let key = if error.part == Part::Certificate { "cert" } else { "key" };
                    report(&below(key), diagnostic(&error.error));
                }
                None
            }
        }
    }

    fn authorities(&self, path: &[Key<'_>], file: &str, report: &mut Report<'_>) -> Option<Authorities> {
        match Authorities::read(Path::new(file)) {
            Ok(authorities) => {
                for concern in authorities.concerns(self.now) {
                    report(path, warning(concern));
                }
                Some(authorities)
            }
            Err(error) => {
                report(path, diagnostic(&error));
                None
            }
        }
    }
}

/// The file's name is left to the excerpt: it may come from `${…}`.
fn diagnostic(error: &FileError) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.fault.to_string());
    match error.fault.hint() {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

fn warning(concern: Concern) -> Diagnostic {
    let warning = Diagnostic::warning(concern.to_string());
    match concern {
        Concern::Nameless => warning.hint("clients look for their host's name there and nowhere else"),
        Concern::Expired { .. } | Concern::NotYetValid { .. } => warning,
    }
}

fn server_name(name: &str, report: &mut Report<'_>) -> Option<ServerName<'static>> {
    let parsed = ServerName::try_from(name.to_owned());
    if parsed.is_err() {
        let error = Diagnostic::error("this is not a name of a server");
        report(&["server_name".into()], error.hint("a host's name or an IP address, without a port"));
    }
    parsed.ok()
}

/// Reports certificates whose names earlier ones have, once for each two of them.
fn shadowed(server: &ServerTls, report: &mut Report<'_>) {
    let all = server.shadowed();
    for (at, one) in all.iter().enumerate() {
        let is_same = |other: &&super::Shadowed| (other.certificate, other.by) == (one.certificate, one.by);
        if all[..at].iter().any(|other| is_same(&other)) {
            continue;
        }
        let more = match all[at + 1..].iter().filter(is_same).count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let key = server.certificates()[one.certificate].facts().key;
        let warning = Diagnostic::warning(format!(
            "this certificate is never used for `{}`{more}: certificate {} of the list is for it too",
            one.name,
            one.by + 1
        ));
        report(
            &["certificates".into(), one.certificate.into(), "cert".into()],
            warning.hint(format!("both have an {key} key; leave one of them out")),
        );
    }
}
