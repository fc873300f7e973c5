//! What is wrong with `[[listener]]`.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::{address, process, tls};
use crate::config::{diagnostic::Diagnostic, report::Report, source::key_path, types::Config};

pub(super) fn validate(config: &Config, report: &mut Report) {
    if config.listener.is_empty() && !report.is_replaced(&key_path!["listener"]) {
        let error = Diagnostic::error("there is no listener");
        report.push(error.hint("add `[[listener]]` with a `name` and an `address` such as \"0.0.0.0:8080\""));
    }
    let mut ports: HashMap<u16, Vec<(SocketAddr, usize)>> = HashMap::new();
    for (index, listener) in config.listener.iter().enumerate() {
        let path = key_path!["listener", index, "address"];
        let is_own = !report.is_replaced(&path);
        if let Some(address) = is_own.then(|| address::parse(&path, &listener.address, report)).flatten() {
            clash(config, index, address, ports.entry(address.port()).or_default(), report);
        }
        for (place, network) in listener.trusted_proxies.iter().enumerate() {
            address::network(&key_path!["listener", index, "trusted_proxies", place], network, report);
        }
        if let Some(proxy) = &listener.proxy_protocol {
            let path = key_path!["listener", index, "proxy_protocol", "from"];
            if proxy.from.is_empty() {
                let error = Diagnostic::error("no peer is in an empty list");
                report.push_at(
                    &path,
                    error.hint("from = [\"10.0.0.0/8\"]: the load balancers in front of this gateway"),
                );
            }
            for (place, network) in proxy.from.iter().enumerate() {
                address::network(
                    &key_path!["listener", index, "proxy_protocol", "from", place],
                    network,
                    report,
                );
            }
        }
        process::limits_override(index, &listener.limits, &config.limits, report);
        process::timeouts_override(index, &listener.timeouts, report);
        tls::listener(index, listener, report);
    }
}

/// Reports the first earlier listener on the same port whose address overlaps. A wildcard overlaps every address of its
/// family; the families do not overlap, since an IPv6 socket takes IPv6 only. Port 0 is another one every time.
fn clash(
    config: &Config,
    index: usize,
    address: SocketAddr,
    same_port: &mut Vec<(SocketAddr, usize)>,
    report: &mut Report,
) {
    if address.port() == 0 {
        return;
    }
    let overlaps = |other: IpAddr| {
        let ip = address.ip();
        other == ip || (other.is_ipv4() == ip.is_ipv4() && (other.is_unspecified() || ip.is_unspecified()))
    };
    match same_port.iter().find(|(other, _)| overlaps(other.ip())) {
        Some((_, earlier)) => {
            let path = key_path!["listener", index, "address"];
            let first = key_path!["listener", *earlier, "address"];
            let name =
                report.shown(&key_path!["listener", *earlier, "name"], &config.listener[*earlier].name);
            let place = report.diagnostics.source().locate(&first);
            let error = Diagnostic::error(format!("this listener clashes with listener {name}"));
            let error = error.label("the same port and address").also(place, "taken here");
            report.push_at(&path, error.hint("give one of them another port or address"));
        }
        None => same_port.push((address, index)),
    }
}
