//! Socket addresses and networks as text. Names are not resolved: a bad address is met with the one that was probably
//! meant.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::config::{diagnostic::Diagnostic, report::Report, source::Key};

const FORM: &str = "write `ip:port` or `[ipv6]:port`";

/// The address at `path`. Reports it, and returns nothing, when it is none.
pub(super) fn parse(path: &[Key<'_>], text: &str, report: &mut Report) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let error = Diagnostic::error(format!("{} is not an address", report.shown(path, text)));
    // A hint may repeat parts of the value.
    let hint = if report.diagnostics.source().is_interpolated(path) { FORM.into() } else { hint(text) };
    report.push_at(path, error.label("not an address").hint(hint));
    None
}

/// What was probably meant by something that is no address.
fn hint(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let port = if scheme == "https" { 443 } else { 80 };
        return match rest.parse::<IpAddr>() {
            Ok(ip) => format!("leave out `{scheme}://` and name the port: `{}`", SocketAddr::new(ip, port)),
            Err(_) => format!("leave out `{scheme}://`: `{rest}`"),
        };
    }
    if text.parse::<u16>().is_ok() {
        return format!("for every address of this host write `0.0.0.0:{text}`");
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => return format!("it has no port: `{ip}:8080`"),
        Ok(IpAddr::V6(ip)) => return format!("it has no port: `[{ip}]:8080`"),
        Err(_) => {}
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return format!("for every address of this host write `0.0.0.0:{port}` or `[::]:{port}`");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return FORM.into() };
    if port.parse::<u16>().is_err() {
        return format!("`{port}` is not a port: it is a number from 0 to 65535");
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return format!("an IPv6 address stands in brackets: `[{host}]:{port}`");
    }
    if host == "localhost" {
        return format!("names are not resolved: `127.0.0.1:{port}`");
    }
    format!("{FORM}; names are not resolved")
}

/// Reports a network that is none.
pub(super) fn network(path: &[Key<'_>], text: &str, report: &mut Report) {
    let is_shown = !report.diagnostics.source().is_interpolated(path);
    match text.parse::<IpNet>() {
        // Addresses are compared as IPv4 ones: it would never match.
        Ok(IpNet::V6(network)) if network.prefix_len() >= 96 && network.addr().to_ipv4_mapped().is_some() => {
            let error = Diagnostic::error(format!(
                "{} is a network of IPv4 written as one of IPv6",
                report.shown(path, text)
            ));
            let mapped =
                network.addr().to_ipv4_mapped().map(|ip| format!("{ip}/{}", network.prefix_len() - 96));
            let hint = match mapped {
                Some(mapped) if is_shown => format!("write `{mapped}`"),
                _ => "write it as `10.0.0.0/8`".into(),
            };
            report.push_at(path, error.hint(hint));
        }
        Ok(network) if network.trunc() == network => {}
        Ok(network) => {
            let warning = Diagnostic::warning(format!("{} has host bits set", report.shown(path, text)));
            let meant =
                if is_shown { format!("it means `{}`", network.trunc()) } else { "they are ignored".into() };
            report.push_at(path, warning.hint(meant));
        }
        Err(_) => {
            let error = Diagnostic::error(format!("{} is not a network", report.shown(path, text)));
            let hint = match text.parse::<IpAddr>() {
                Ok(ip) if is_shown => format!("one address is `{}`", IpNet::from(ip)),
                _ => "write it as `10.0.0.0/8` or `fd00::/8`".into(),
            };
            report.push_at(path, error.label("not a network").hint(hint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_say_what_was_meant() {
        for (text, expected) in [
            ("http://10.0.0.1:80/", "`10.0.0.1:80`"),
            ("https://10.0.0.1", "`10.0.0.1:443`"),
            (":8080", "`0.0.0.0:8080`"),
            ("*:8080", "`0.0.0.0:8080`"),
            ("8080", "`0.0.0.0:8080`"),
            ("10.0.0.1", "`10.0.0.1:8080`"),
            ("::1", "`[::1]:8080`"),
            ("[::1]", "`[::1]:8080`"),
            ("10.0.0.1:99999", "`99999` is not a port"),
            ("fd00::1:zz", "`zz` is not a port"),
            ("localhost:80", "`127.0.0.1:80`"),
            ("example.com:80", "names are not resolved"),
            ("", FORM),
        ] {
            assert!(text.parse::<SocketAddr>().is_err(), "{text}");
            assert!(hint(text).contains(expected), "{text}: {}", hint(text));
        }
    }
}
