//! Cross-origin resource sharing, as the Fetch standard has it (§3.3): which origins' pages may read a response, and what a
//! preflight is told. A browser enforces it; what is said here protects its user, not the upstream. Which route's rule is
//! asked is not known here.

use crate::{
    config::types::{self, OriginMatch},
    regex::WholeRegex,
    telemetry::text::append_decimal,
};

/// Who may read, and how that is said.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Origins,
    /// What every origin that may read is told beside its own name.
    granted: Box<[u8]>,
    /// What such an origin is told with a response.
    exposed: Box<[u8]>,
    /// What it is told with the answer to a preflight.
    preflight: Box<[u8]>,
    allows_private_network: bool,
}

/// Whose pages.
#[derive(Debug, Clone)]
enum Origins {
    /// Everyone's.
    Any,
    These(Box<[Origin]>),
}

#[derive(Debug, Clone)]
enum Origin {
    /// `https://shop.example`, or `null`.
    Exact(Box<[u8]>),
    /// Every name below another.
    Below {
        /// `https://`
        scheme: Box<[u8]>,
        /// `.shop.example`, with its port if it has one.
        suffix: Box<[u8]>,
    },
    Regex(Box<WholeRegex>),
}

/// Why an origin cannot be a page's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginError {
    /// Its place in the list.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Cors {
    /// Compiles a rule; all that is wrong with its origins is said. Its other lists were checked before.
    pub fn compile(rule: &types::Cors) -> Result<Self, Vec<OriginError>> {
        let mut origins = Vec::with_capacity(rule.origins.len());
        let mut errors = Vec::new();
        let mut is_any = false;
        for (at, origin) in rule.origins.iter().enumerate() {
            match Origin::compile(origin) {
                Ok(Some(origin)) if rule.credentials && origin.takes_all() => errors.push(OriginError {
                    at,
                    message:
                        "this regex takes everyone's pages, and with `credentials` they would act as the user"
                            .into(),
                    hint: Some("name the origins that are yours".into()),
                }),
                Ok(Some(origin)) => origins.push(origin),
                Ok(None) => is_any = true,
                Err((message, hint)) => errors.push(OriginError { at, message, hint }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut granted = Vec::new();
        if rule.credentials {
            granted.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\n");
        }
        let mut exposed = Vec::new();
        append_list(b"Access-Control-Expose-Headers", &rule.expose, &mut exposed);
        let mut preflight = Vec::new();
        append_list(b"Access-Control-Allow-Methods", &rule.methods, &mut preflight);
        append_list(b"Access-Control-Allow-Headers", &rule.headers, &mut preflight);
        preflight.extend_from_slice(b"Access-Control-Max-Age: ");
        append_decimal(rule.max_age.as_millis() / 1000, &mut preflight);
        preflight.extend_from_slice(b"\r\n");
        Ok(Self {
            origins: if is_any { Origins::Any } else { Origins::These(origins.into()) },
            granted: granted.into(),
            exposed: exposed.into(),
            preflight: preflight.into(),
            allows_private_network: rule.private_network,
        })
    }

    /// Whether pages of `origin`, the value of the field `Origin`, may read.
    pub fn allows(&self, origin: &[u8]) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::These(origins) => origins.iter().any(|one| one.takes(origin)),
        }
    }

    /// Appends what goes with a response to a page of `origin`, if there was one. Where it depends on the origin a cache is
    /// told, in responses to no origin too.
    pub fn append_response(&self, origin: Option<&[u8]>, lines: &mut Vec<u8>) {
        if !matches!(self.origins, Origins::Any) {
            lines.extend_from_slice(b"Vary: Origin\r\n");
        }
        if self.append_grant(origin, lines) {
            lines.extend_from_slice(&self.exposed);
        }
    }

    /// Appends the answer to a preflight from a page of `origin`; `false`: it may not read, and there is none.
    /// `asks_private_network`: the page is on a public network, and this gateway is not.
    pub fn append_preflight(&self, origin: &[u8], asks_private_network: bool, lines: &mut Vec<u8>) -> bool {
        if !self.append_grant(Some(origin), lines) {
            return false;
        }
        lines.extend_from_slice(&self.preflight);
        // Routes differ by the method and the fields that are asked for, and with them what is said here.
        lines.extend_from_slice(
            b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        );
        if self.allows_private_network {
            lines.extend_from_slice(b", Access-Control-Request-Private-Network");
        }
        lines.extend_from_slice(b"\r\n");
        if self.allows_private_network && asks_private_network {
            lines.extend_from_slice(b"Access-Control-Allow-Private-Network: true\r\n");
        }
        true
    }

    /// Appends who may read, if this origin may.
    fn append_grant(&self, origin: Option<&[u8]>, lines: &mut Vec<u8>) -> bool {
        let named: &[u8] = match (&self.origins, origin) {
            (Origins::Any, _) => b"*",
            (Origins::These(_), Some(origin)) if self.allows(origin) => origin,
            (Origins::These(_), _) => return false,
        };
        for part in [b"Access-Control-Allow-Origin: ", named, b"\r\n", &self.granted] {
            lines.extend_from_slice(part);
        }
        true
    }
}

/// Whether a response's field says who may read it, which only the rule does.
pub fn is_grant(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"access-control-";
    let Some((prefix, rest)) = name.split_at_checked(PREFIX.len()) else { return false };
    prefix.eq_ignore_ascii_case(PREFIX)
        && (rest.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"allow-"))
            || rest.eq_ignore_ascii_case(b"expose-headers")
            || rest.eq_ignore_ascii_case(b"max-age"))
}

fn append_list(name: &[u8], values: &[String], lines: &mut Vec<u8>) {
    if !values.is_empty() {
        for part in [name, b": ", values.join(", ").as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
}

/// What is wrong, and what to do about it.
type Fault = (String, Option<String>);

impl Origin {
    /// One origin, or `None` for everyone's.
    fn compile(origin: &OriginMatch) -> Result<Option<Self>, Fault> {
        let text = match origin {
            OriginMatch::Text(text) => text.as_str(),
            OriginMatch::Regex(regex) => {
                let (regex, _) =
                    WholeRegex::compile(&regex.regex).map_err(|error| (error.message, error.hint))?;
                return Ok(Some(Self::Regex(regex.into())));
            }
        };
        match text {
            "*" => return Ok(None),
            "null" => return Ok(Some(Self::Exact(b"null".as_slice().into()))),
            _ => check(text)?,
        }
        Ok(Some(match text.split_once("://*") {
            Some((scheme, suffix)) => Self::Below {
                scheme: format!("{scheme}://").into_bytes().into(),
                suffix: suffix.as_bytes().into(),
            },
            None => Self::Exact(text.as_bytes().into()),
        }))
    }

    fn takes(&self, origin: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => origin == &**exact,
            Self::Below { scheme, suffix } => origin
                .strip_prefix(&**scheme)
                .and_then(|rest| rest.strip_suffix(&**suffix))
                .is_some_and(|labels| labels.split(|byte| *byte == b'.').all(is_label)),
            Self::Regex(regex) => regex.is_match(origin),
        }
    }

    /// Whether it takes origins that can be nobody's (RFC 2606 §2).
    fn takes_all(&self) -> bool {
        ["https://a.invalid", "http://b.invalid:1"].iter().all(|origin| self.takes(origin.as_bytes()))
    }
}

fn is_label(label: &[u8]) -> bool {
    !label.is_empty()
        && label
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}

/// What is wrong with an origin as written: no browser would send it so (RFC 6454 §6.2).
fn check(text: &str) -> Result<(), Fault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let hint = if text.contains('/') { None } else { Some(format!("\"https://{text}\"")) };
        return Err((format!("`{text}` is not an origin: it has no scheme"), hint));
    };
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let message = format!("browsers send origins in lower case, so `{text}` would never match");
        return Err((message, Some(format!("\"{}\"", text.to_ascii_lowercase()))));
    }
    if let Some(at) = rest.find(['/', '?', '#']) {
        let message = format!("an origin ends behind its host and port, and `{text}` does not");
        return Err((message, Some(format!("\"{scheme}://{}\"", &rest[..at]))));
    }
    let name = rest.strip_prefix("*.").unwrap_or(rest);
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (name, None),
    };
    let is_name = host.split('.').all(|label| is_label(label.as_bytes()));
    let is_ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_ip = is_ip.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    let is_scheme = !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !is_scheme || !(is_name || is_ip) || !is_port {
        let hint = "\"https://shop.example\", \"http://localhost:3000\", \"https://*.shop.example\"".into();
        return Err((format!("`{text}` is not an origin"), Some(hint)));
    }
    if matches!((scheme, port), ("http", Some("80")) | ("https", Some("443"))) {
        let hint = text.rsplit_once(':').map(|(before, _)| format!("\"{before}\""));
        return Err((format!("browsers leave a scheme's own port out, so `{text}` would never match"), hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> types::Cors {
        toml::from_str(text).unwrap()
    }

    fn cors(text: &str) -> Cors {
        Cors::compile(&rule(text)).unwrap()
    }

    fn response(cors: &Cors, origin: Option<&str>) -> String {
        let mut lines = Vec::new();
        cors.append_response(origin.map(str::as_bytes), &mut lines);
        String::from_utf8(lines).unwrap()
    }

    fn preflight(cors: &Cors, origin: &str, asks_private_network: bool) -> Option<String> {
        let mut lines = Vec::new();
        let is_allowed = cors.append_preflight(origin.as_bytes(), asks_private_network, &mut lines);
        is_allowed.then(|| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn origins_are_exact_below_a_name_or_a_regex() {
        let cors = cors(
            r#"origins = ["https://shop.example", "https://*.shop.example", "http://localhost:3000", "null",
                "https://*.dev.example:8443", "http://[::1]:8080", { regex = 'https://pr-\d+\.preview\.example' }]"#,
        );
        for origin in [
            "https://shop.example",
            "https://a.shop.example",
            "https://a.b-1.shop.example",
            "http://localhost:3000",
            "null",
            "https://x.dev.example:8443",
            "http://[::1]:8080",
            "https://pr-17.preview.example",
        ] {
            assert!(cors.allows(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "",
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://evilshop.example",
            "https://.shop.example",
            "https://a..shop.example",
            "https://evil.example/.shop.example",
            "https://evil.example#.shop.example",
            "https://a@b.shop.example",
            "https://Shop.example",
            "http://localhost",
            "NULL",
            "https://x.dev.example",
            "https://pr-17.preview.example.evil.example",
            "xhttps://pr-17.preview.example",
            "*",
        ] {
            assert!(!cors.allows(origin.as_bytes()), "{origin}");
        }
    }

    #[test]
    fn what_no_browser_would_send_is_refused_with_what_it_would() {
        let fault = |origin: &str| check(origin).unwrap_err();
        assert_eq!(fault("shop.example").1.as_deref(), Some("\"https://shop.example\""));
        assert_eq!(fault("https://Shop.example").1.as_deref(), Some("\"https://shop.example\""));
        assert_eq!(fault("https://shop.example/").1.as_deref(), Some("\"https://shop.example\""));
        assert_eq!(fault("https://shop.example:443").1.as_deref(), Some("\"https://shop.example\""));
        assert_eq!(fault("http://shop.example:80").1.as_deref(), Some("\"http://shop.example\""));
        for origin in
            ["https://", "https://*", "https://a.*.b", "https://*shop.example", "https://a:0", "https://a:x"]
        {
            assert!(check(origin).is_err(), "{origin}");
        }
        let errors = Cors::compile(&rule("origins = ['https://a', 'b', { regex = '(' }]")).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.at).collect::<Vec<_>>(), [1, 2]);
        let all = "origins = [{ regex = 'https?://.*' }]";
        assert!(Cors::compile(&rule(all)).is_ok());
        let errors = Cors::compile(&rule(&format!("{all}\ncredentials = true"))).unwrap_err();
        assert!(errors[0].message.contains("everyone's pages"));
    }

    #[test]
    fn a_response_says_who_may_read_it() {
        let some = cors(
            "origins = ['https://a.example']\ncredentials = true\nexpose = ['x-total', 'grpc-status']\n",
        );
        assert_eq!(
            response(&some, Some("https://a.example")),
            "Vary: Origin\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
             Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: x-total, grpc-status\r\n"
        );
        assert_eq!(response(&some, Some("https://b.example")), "Vary: Origin\r\n");
        assert_eq!(response(&some, None), "Vary: Origin\r\n");
        let any = cors("origins = ['*']\n");
        assert_eq!(response(&any, None), "Access-Control-Allow-Origin: *\r\n");
        assert_eq!(response(&any, Some("https://b.example")), "Access-Control-Allow-Origin: *\r\n");
    }

    #[test]
    fn a_preflight_is_told_what_may_be_sent() {
        let some = cors(
            "origins = ['https://a.example']\nmethods = ['GET', 'PUT']\nheaders = ['x-a', 'authorization']\n\
             max_age = '2h'\n",
        );
        assert_eq!(
            preflight(&some, "https://a.example", true).unwrap(),
            "Access-Control-Allow-Origin: https://a.example\r\nAccess-Control-Allow-Methods: GET, PUT\r\n\
             Access-Control-Allow-Headers: x-a, authorization\r\nAccess-Control-Max-Age: 7200\r\n\
             Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
        );
        assert_eq!(preflight(&some, "https://b.example", false), None);
        let private = cors("origins = ['*']\nprivate_network = true\nmax_age = '0s'\n");
        assert!(
            preflight(&private, "x", true)
                .unwrap()
                .contains("Access-Control-Allow-Private-Network: true\r\n")
        );
        let asked_not = preflight(&private, "x", false).unwrap();
        assert!(!asked_not.contains("Access-Control-Allow-Private-Network"));
        assert!(asked_not.contains("Access-Control-Allow-Methods: GET, HEAD, POST\r\n"));
        assert!(asked_not.contains("Access-Control-Max-Age: 0\r\n"));
    }

    #[test]
    fn the_fields_that_grant_are_known_and_those_that_ask_are_not() {
        for name in ["Access-Control-Allow-Origin", "access-control-max-age", "ACCESS-CONTROL-EXPOSE-HEADERS"]
        {
            assert!(is_grant(name.as_bytes()), "{name}");
        }
        for name in ["Access-Control-Request-Method", "access-control-", "access-control", "vary", ""] {
            assert!(!is_grant(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        /// Whatever an origin is, it is allowed by `*.` only when it is a name below with the same scheme.
        #[test]
        fn nothing_but_names_below_is_below(origin in "(https?://)?[a-z.:/@*-]{0,12}(\\.shop\\.example)?") {
            let allowed = cors("origins = ['https://*.shop.example']").allows(origin.as_bytes());
            let labels = origin.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".shop.example"));
            let expected = labels.is_some_and(|labels| {
                !labels.contains([':', '/', '@', '*']) && labels.split('.').all(|label| !label.is_empty())
            });
            prop_assert_eq!(allowed, expected);
        }

        /// No line is ever broken by what is echoed.
        #[test]
        fn lines_stay_lines(origin in proptest::collection::vec(b' '..=b'~', 0..40)) {
            let mut lines = Vec::new();
            let cors = cors("origins = [{ regex = '.*' }]");
            cors.append_response(Some(&origin), &mut lines);
            prop_assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
        }
    }
}
