//! What is wrong with the `tls` of listeners and clusters, as far as the file alone tells. What is in the files that it
//! names is judged where they are read.

use super::fields;
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{CertificateFiles, Cluster, Listener, UpstreamProtocol},
};

pub(super) fn listener(index: usize, listener: &Listener, report: &mut Report) {
    let redirect = key_path!["listener", index, "https_redirect"];
    if listener.https_redirect == Some(0) {
        report.push_at(&redirect, Diagnostic::error("there is no port 0; HTTPS is usually on 443"));
    }
    let Some(tls) = &listener.tls else { return };
    if listener.h2c {
        let error = Diagnostic::error("a listener with `tls` does not speak HTTP/2 without it");
        report.push_at(
            &key_path!["listener", index, "h2c"],
            error.hint("`tls.alpn` says whether it speaks HTTP/2"),
        );
    }
    let alpn = key_path!["listener", index, "tls", "alpn"];
    if tls.alpn.is_empty() {
        let error = Diagnostic::error("no protocol is left to agree on");
        report.push_at(&alpn, error.hint("leave `alpn` out, or write [\"h2\", \"http/1.1\"]"));
    }
    if (1..tls.alpn.len()).any(|place| tls.alpn[..place].contains(&tls.alpn[place])) {
        report.push_at(&alpn, Diagnostic::error("a protocol stands here twice"));
    }
    if listener.https_redirect.is_some() {
        let error = Diagnostic::error("a listener with `tls` would redirect to where requests come from");
        report.push_at(&redirect, error.hint("give it to the listener without `tls`"));
    }
    let list = key_path!["listener", index, "tls", "certificates"];
    if tls.certificates.is_empty() {
        let error = Diagnostic::error("a listener with `tls` needs at least one certificate");
        report
            .push_at(&list, error.hint("certificates = [{ cert = \"example.pem\", key = \"example.key\" }]"));
    }
    for (place, files) in tls.certificates.iter().enumerate() {
        certificate(&key_path!["listener", index, "tls", "certificates", place], files, report);
    }
    if let Some(auth) = &tls.client_auth {
        file(&key_path!["listener", index, "tls", "client_auth", "ca"], &auth.ca, report);
    }
}

pub(super) fn cluster(index: usize, cluster: &Cluster, report: &mut Report) {
    if cluster.protocol == UpstreamProtocol::Auto && cluster.tls.is_none() {
        let error = Diagnostic::error("without `tls` there is nothing to choose by");
        report.push_at(&key_path!["cluster", index, "protocol"], error.hint("write \"h1\" or \"h2\""));
    }
    let Some(tls) = &cluster.tls else { return };
    let at = |key| key_path!["cluster", index, "tls", key];
    if let Some(ca) = &tls.ca {
        file(&at("ca"), ca, report);
    }
    if let Some(name) = &tls.server_name {
        server_name(&at("server_name"), name, report);
    }
    if let Some(files) = &tls.client_cert {
        certificate(&at("client_cert"), files, report);
    }
    if !tls.verify {
        let warning = Diagnostic::warning("whoever answers at an endpoint's address is believed")
            .label("its certificate is not verified");
        let warning = match tls.ca {
            Some(_) => warning.hint("`ca` has no effect with it; leave `verify` out"),
            None => warning.hint("leave `verify` out, and name the authority of the endpoints in `ca`"),
        };
        report.push_at(&at("verify"), warning);
    }
}

fn certificate(path: &[Key<'_>], files: &CertificateFiles, report: &mut Report) {
    for (key, name) in [("cert", &files.cert), ("key", &files.key)] {
        let below: Vec<Key<'_>> = path.iter().copied().chain([key.into()]).collect();
        file(&below, name, report);
    }
}

fn file(path: &[Key<'_>], name: &str, report: &mut Report) {
    if name.is_empty() {
        report.push_at(path, Diagnostic::error("this needs the name of a file"));
    } else if name.starts_with("-----BEGIN") {
        let error = Diagnostic::error("this takes the name of a file, not what is in it");
        report.push_at(path, error.hint("`${file:…}` puts in a file's text; here its name is enough"));
    }
}

fn server_name(path: &[Key<'_>], name: &str, report: &mut Report) {
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let is_name = fields::is_host(name) && !name.contains([':', '*']);
    if !is_address && !is_name {
        let error = Diagnostic::error(format!("{} is not a name of a server", report.shown(path, name)));
        report.push_at(path, error.hint("a host's name or an IP address, without a port"));
    }
}
