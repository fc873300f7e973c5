//! The access-log record: one exchange as an operator wants to read it, borrowed from wherever its parts live, and
//! its two written forms. It knows no queue and no file. Query strings are deliberately not part of it: they carry
//! tokens, and logs travel further than requests do.

use std::net::IpAddr;

use super::{
    date::DateCache,
    line::{LINE_BYTES_MAX, Line},
};

/// Bytes of a logged path; the rest is cut off. The other limits likewise: a line is bounded whatever is asked.
pub const PATH_BYTES_MAX: usize = 2048;
/// Bytes of a logged `User-Agent` or `Referer`.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Bytes of a logged host: a name of 255 bytes and a port.
pub const HOST_BYTES_MAX: usize = 261;
/// Bytes of a logged request id, route, cluster or endpoint name, end reason.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of a logged method.
pub const METHOD_BYTES_MAX: usize = 32;

/// Bytes of a certificate's logged subject, and of its names.
pub const CERT_BYTES_MAX: usize = 256;

/// What a byte may grow to: `\u001f`.
const ESCAPED_BYTES_MAX: usize = 6;
/// Keys, punctuation, numbers, date and address of a JSON line, generously.
const FRAME_BYTES_MAX: usize = 1024;
const _: () = assert!(
    LINE_BYTES_MAX
        >= FRAME_BYTES_MAX
            + ESCAPED_BYTES_MAX
                * (PATH_BYTES_MAX
                    + 2 * FIELD_BYTES_MAX
                    + HOST_BYTES_MAX
                    + 9 * NAME_BYTES_MAX
                    + METHOD_BYTES_MAX)
);

/// How long each part of an exchange took, in µs. What did not happen is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// From the request's first byte to the response's last.
    pub total: u64,
    /// In the gateway itself: from the complete head to the choice of an endpoint.
    pub gateway: u64,
    /// Opening a connection to the endpoint, or waiting for one from the pool.
    pub connect: u64,
    /// From having a connection to the endpoint to its response's head.
    pub first_byte: u64,
    /// From the response's head received to its last byte sent.
    pub body: u64,
}

/// One exchange, for its log line.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// When the request's first byte came: µs since 1970, UTC.
    pub time_us: u64,
    /// The client's address; behind a trusted proxy, the one that the proxy names.
    pub client: IpAddr,
    /// The port of the peer.
    pub client_port: u16,
    /// The method, as sent.
    pub method: &'a [u8],
    /// The host the request is for, as sent; empty when it has none.
    pub host: &'a [u8],
    /// The canonical path, without the query.
    pub path: &'a [u8],
    /// The HTTP version as digits: `1.0`, `1.1`, `2`.
    pub version: &'static str,
    /// The status sent to the client; 499, as nginx has it, when the client left before there was one.
    pub status: u16,
    /// Bytes of the request as it came, head included.
    pub received_bytes: u64,
    /// Bytes of the response as it was sent, head included.
    pub sent_bytes: u64,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The cluster's name.
    pub cluster: Option<&'a str>,
    /// The address of the endpoint that was tried last.
    pub endpoint: Option<&'a str>,
    /// How often the request was sent to an endpoint.
    pub tries: u32,
    /// The index of the core that served it.
    pub core: u32,
    /// The request's id.
    pub request_id: &'a [u8],
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// How long what took.
    pub phases: Phases,
    /// Whether the connection to the endpoint had served a request before.
    pub reused: bool,
    /// The version of TLS that the request came by.
    pub tls: Option<&'static str>,
    /// The certificate that the client has shown.
    pub client_cert: Option<ClientCert<'a>>,
    /// The name of the consumer whose key it shows.
    pub consumer: Option<&'a str>,
    /// Who it is by the token that it shows.
    pub subject: Option<&'a str>,
    /// How the exchange ended: `complete`, `client-gone`, … A code of the gateway's own.
    pub end: &'static str,
}

/// A client's certificate.
#[derive(Debug, Clone, Copy)]
pub struct ClientCert<'a> {
    /// Its SHA-256 in hexadecimal digits.
    pub fingerprint: &'a str,
    /// Its subject (RFC 4514).
    pub subject: &'a str,
    /// The names and addresses it is for.
    pub names: &'a str,
}

impl AccessRecord<'_> {
    /// Writes the record as one JSON object, without a newline. Every byte is printable ASCII; [`Line::json`] says what
    /// stands for the others. What is absent has no key. Keys keep their order.
    pub fn write_json(&self, dates: &mut DateCache, line: &mut Line<'_>) {
        let mut out = line.local();
        out.text(b"{\"time\":\"");
        out.text(dates.rfc3339(self.time_us));
        out.text(b"\",\"client\":\"");
        out.ip(self.client);
        number(&mut out, b"\",\"client_port\":", self.client_port.into());
        string(&mut out, b",\"method\":\"", self.method, METHOD_BYTES_MAX);
        string(&mut out, b",\"host\":\"", self.host, HOST_BYTES_MAX);
        string(&mut out, b",\"path\":\"", self.path, PATH_BYTES_MAX);
        string(&mut out, b",\"version\":\"", self.version.as_bytes(), NAME_BYTES_MAX);
        number(&mut out, b",\"status\":", self.status.into());
        number(&mut out, b",\"received_bytes\":", self.received_bytes);
        number(&mut out, b",\"sent_bytes\":", self.sent_bytes);
        if let Some(route) = self.route {
            string(&mut out, b",\"route\":\"", route.as_bytes(), NAME_BYTES_MAX);
        }
        if let Some(cluster) = self.cluster {
            string(&mut out, b",\"cluster\":\"", cluster.as_bytes(), NAME_BYTES_MAX);
        }
        if let Some(endpoint) = self.endpoint {
            string(&mut out, b",\"endpoint\":\"", endpoint.as_bytes(), NAME_BYTES_MAX);
        }
        number(&mut out, b",\"tries\":", self.tries.into());
        number(&mut out, b",\"core\":", self.core.into());
        string(&mut out, b",\"request_id\":\"", self.request_id, NAME_BYTES_MAX);
        if let Some(user_agent) = self.user_agent {
            string(&mut out, b",\"user_agent\":\"", user_agent, FIELD_BYTES_MAX);
        }
        if let Some(referer) = self.referer {
            string(&mut out, b",\"referer\":\"", referer, FIELD_BYTES_MAX);
        }
        number(&mut out, b",\"total_us\":", self.phases.total);
        number(&mut out, b",\"gateway_us\":", self.phases.gateway);
        number(&mut out, b",\"connect_us\":", self.phases.connect);
        number(&mut out, b",\"first_byte_us\":", self.phases.first_byte);
        number(&mut out, b",\"body_us\":", self.phases.body);
        if self.reused {
            out.text(b",\"reused\":true");
        } else {
            out.text(b",\"reused\":false");
        }
        if let Some(version) = self.tls {
            string(&mut out, b",\"tls\":\"", version.as_bytes(), NAME_BYTES_MAX);
        }
        if let Some(ClientCert { fingerprint, subject, names }) = self.client_cert {
            string(&mut out, b",\"client_cert\":\"", fingerprint.as_bytes(), NAME_BYTES_MAX);
            string(&mut out, b",\"client_subject\":\"", subject.as_bytes(), CERT_BYTES_MAX);
            string(&mut out, b",\"client_names\":\"", names.as_bytes(), CERT_BYTES_MAX);
        }
        if let Some(consumer) = self.consumer {
            string(&mut out, b",\"consumer\":\"", consumer.as_bytes(), NAME_BYTES_MAX);
        }
        if let Some(subject) = self.subject {
            string(&mut out, b",\"subject\":\"", subject.as_bytes(), NAME_BYTES_MAX);
        }
        string(&mut out, b",\"end\":\"", self.end.as_bytes(), NAME_BYTES_MAX);
        out.text(b"}");
        let end = out.end();
        line.resume(end);
    }

    /// Writes the record in the combined log format, without a newline: `client - - [date] "request line" status
    /// bytes "referer" "user agent"`, escaped as nginx does. The request line has the canonical path and no query;
    /// an absent value is `-`.
    pub fn write_combined(&self, dates: &mut DateCache, line: &mut Line<'_>) {
        let mut out = line.local();
        out.ip(self.client);
        out.text(b" - - [");
        out.text(dates.clf(self.time_us));
        out.text(b"] \"");
        out.combined(cut(self.method, METHOD_BYTES_MAX));
        out.text(b" ");
        out.combined(cut(self.path, PATH_BYTES_MAX));
        out.text(b" HTTP/");
        out.combined(cut(self.version.as_bytes(), NAME_BYTES_MAX));
        out.text(b"\" ");
        out.number(self.status.into());
        out.text(b" ");
        out.number(self.sent_bytes);
        out.text(b" \"");
        out.combined(cut(self.referer.unwrap_or_default(), FIELD_BYTES_MAX));
        out.text(b"\" \"");
        out.combined(cut(self.user_agent.unwrap_or_default(), FIELD_BYTES_MAX));
        out.text(b"\"");
        let end = out.end();
        line.resume(end);
    }
}

/// Writes `key`, which ends with the opening quote, the value and the closing quote.
#[inline]
fn string<const N: usize>(out: &mut Line<'_>, key: &[u8; N], value: &[u8], bytes_max: usize) {
    out.text(key);
    out.json(cut(value, bytes_max));
    out.text(b"\"");
}

/// Writes `key` and the number.
#[inline]
fn number<const N: usize>(out: &mut Line<'_>, key: &[u8; N], value: u64) {
    out.text(key);
    out.number(value);
}

#[inline]
fn cut(value: &[u8], bytes_max: usize) -> &[u8] {
    value.get(..bytes_max).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*, sample};
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::line::tests::written;

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            time_us: 1_767_225_600_000_123,
            client: IpAddr::from([203, 0, 113, 7]),
            client_port: 51_234,
            method: b"GET",
            host: b"api.example.com",
            path: b"/users/42",
            version: "1.1",
            status: 200,
            received_bytes: 312,
            sent_bytes: 10_245,
            route: Some("user"),
            cluster: Some("users"),
            endpoint: Some("10.0.0.1:9000"),
            tries: 1,
            core: 3,
            request_id: b"019b76da-a800-7000-8000-000000000001",
            user_agent: Some(b"curl/8.14.1"),
            referer: None,
            phases: Phases { total: 1520, gateway: 3, connect: 0, first_byte: 1490, body: 27 },
            reused: true,
            tls: None,
            client_cert: None,
            consumer: None,
            subject: None,
            end: "complete",
        }
    }

    fn json_line(record: &AccessRecord<'_>) -> Vec<u8> {
        written(|line| record.write_json(&mut DateCache::default(), line))
    }

    fn combined_line(record: &AccessRecord<'_>) -> String {
        String::from_utf8(written(|line| record.write_combined(&mut DateCache::default(), line))).unwrap()
    }

    #[test]
    fn a_json_line() {
        let expected = concat!(
            r#"{"time":"2026-01-01T00:00:00.000123Z","client":"203.0.113.7","client_port":51234,"method":"GET","#,
            r#""host":"api.example.com","path":"/users/42","version":"1.1","status":200,"received_bytes":312,"#,
            r#""sent_bytes":10245,"route":"user","cluster":"users","endpoint":"10.0.0.1:9000","tries":1,"core":3,"#,
            r#""request_id":"019b76da-a800-7000-8000-000000000001","user_agent":"curl/8.14.1","total_us":1520,"#,
            r#""gateway_us":3,"connect_us":0,"first_byte_us":1490,"body_us":27,"reused":true,"end":"complete"}"#,
        );
        assert_eq!(String::from_utf8(json_line(&record())).unwrap(), expected);
    }

    #[test]
    fn a_combined_line() {
        let expected = "203.0.113.7 - - [01/Jan/2026:00:00:00 +0000] \"GET /users/42 HTTP/1.1\" 200 10245 \"-\" \
                        \"curl/8.14.1\"";
        assert_eq!(combined_line(&record()), expected);
    }

    #[test]
    fn a_forged_line_stays_inside_its_value() {
        let forged = AccessRecord {
            user_agent: Some(
                b"x\"\n127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] \"GET /admin HTTP/1.1\" 200 1",
            ),
            referer: Some(b"\",\"status\":200}\r\n{\"time\":\""),
            ..record()
        };
        let line = combined_line(&forged);
        assert!(!line.contains('\n') && line.matches('"').count() == 6, "{line}");
        let read: Value = serde_json::from_slice(&json_line(&forged)).unwrap();
        assert_eq!(read["referer"], "\",\"status\":200}\r\n{\"time\":\"");
    }

    #[test]
    fn the_worst_line_is_bounded() {
        let (long, name) = (vec![1; 100_000], "\u{1}".repeat(100_000));
        let worst = AccessRecord {
            time_us: u64::MAX,
            client: "2001:db8:1111:1111:1111:1111:1111:1111".parse().unwrap(),
            client_port: u16::MAX,
            method: &long,
            host: &long,
            path: &long,
            status: u16::MAX,
            received_bytes: u64::MAX,
            sent_bytes: u64::MAX,
            route: Some(&name),
            cluster: Some(&name),
            endpoint: Some(&name),
            tries: u32::MAX,
            core: u32::MAX,
            request_id: &long,
            user_agent: Some(&long),
            referer: Some(&long),
            phases: Phases {
                total: u64::MAX,
                gateway: u64::MAX,
                connect: u64::MAX,
                first_byte: u64::MAX,
                body: u64::MAX,
            },
            reused: false,
            client_cert: Some(ClientCert { fingerprint: &name, subject: &name, names: &name }),
            consumer: Some(&name),
            subject: Some(&name),
            end: "connect-failed",
            ..record()
        };
        let line = json_line(&worst);
        let values = PATH_BYTES_MAX
            + 2 * FIELD_BYTES_MAX
            + HOST_BYTES_MAX
            + 7 * NAME_BYTES_MAX
            + 2 * CERT_BYTES_MAX
            + METHOD_BYTES_MAX;
        assert!(
            line.len() < LINE_BYTES_MAX && line.len() > ESCAPED_BYTES_MAX * values,
            "{} bytes",
            line.len()
        );
        serde_json::from_slice::<Value>(&line).unwrap();
        assert!(combined_line(&worst).len() < LINE_BYTES_MAX);
    }

    /// Bytes that matter to a log: plain, quoting, controls, UTF-8 whole and broken.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[ -~]{0,60}".prop_map(String::into_bytes),
            "\\PC{0,20}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(sample::select(b"\"\\\r\n\x00\x1b\x7f\xc2\x85{}".to_vec()), 0..20),
        ]
    }

    type Texts = (
        Vec<u8>,
        Vec<u8>,
        Vec<u8>,
        Vec<u8>,
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Option<String>,
        Option<String>,
    );

    fn texts() -> impl Strategy<Value = Texts> {
        let name = || option::of("\\PC{0,20}");
        (bytes(), bytes(), bytes(), bytes(), option::of(bytes()), option::of(bytes()), name(), name())
    }

    proptest! {
        #[test]
        fn fields_come_back(
            (method, host, path, id, user_agent, referer, route, endpoint) in texts(),
            (time_us, ip, port, status, sent) in any::<(u64, IpAddr, u16, u16, u64)>(),
            (total, reused, failed) in any::<(u64, bool, bool)>(),
        ) {
            let record = AccessRecord {
                time_us,
                client: ip,
                client_port: port,
                method: &method,
                host: &host,
                path: &path,
                status,
                sent_bytes: sent,
                route: route.as_deref(),
                endpoint: endpoint.as_deref(),
                request_id: &id,
                user_agent: user_agent.as_deref(),
                referer: referer.as_deref(),
                phases: Phases { total, ..Phases::default() },
                reused,
                end: if failed { "connect-failed" } else { "ok" },
                ..record()
            };
            let line = json_line(&record);
            prop_assert!(line.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let read: Value = serde_json::from_slice(&line).unwrap();

            let text = |bytes: &[u8], max: usize| json!(String::from_utf8_lossy(&bytes[..bytes.len().min(max)]));
            prop_assert_eq!(&read["method"], &text(&method, METHOD_BYTES_MAX));
            prop_assert_eq!(&read["host"], &text(&host, HOST_BYTES_MAX));
            prop_assert_eq!(&read["path"], &text(&path, PATH_BYTES_MAX));
            prop_assert_eq!(&read["request_id"], &text(&id, NAME_BYTES_MAX));
            let optional = |value: &Option<Vec<u8>>| value.as_ref().map_or(Value::Null, |v| text(v, FIELD_BYTES_MAX));
            prop_assert_eq!(&read["user_agent"], &optional(&user_agent));
            prop_assert_eq!(&read["referer"], &optional(&referer));
            prop_assert_eq!(&read["route"], &json!(route));
            prop_assert_eq!(&read["endpoint"], &json!(endpoint));
            prop_assert_eq!(&read["client"], &json!(ip.to_canonical().to_string()));
            prop_assert_eq!(&read["client_port"], &json!(port));
            prop_assert_eq!(&read["status"], &json!(status));
            prop_assert_eq!(&read["sent_bytes"], &json!(sent));
            prop_assert_eq!(&read["total_us"], &json!(total));
            prop_assert_eq!(&read["reused"], &json!(reused));
            prop_assert_eq!(&read["end"], &json!(if failed { "connect-failed" } else { "ok" }));
        }

        #[test]
        fn combined_is_one_line_of_nine_parts(
            (method, _, path, _, user_agent, referer, _, _) in texts(),
            status in 100..600_u16,
        ) {
            let record = AccessRecord {
                method: &method,
                path: &path,
                status,
                user_agent: user_agent.as_deref(),
                referer: referer.as_deref(),
                ..record()
            };
            let line = combined_line(&record);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let parts: Vec<_> = line.split('"').collect();
            prop_assert_eq!(parts.len(), 7);
            prop_assert_eq!(parts[0], "203.0.113.7 - - [01/Jan/2026:00:00:00 +0000] ");
            prop_assert!(parts[1].ends_with(" HTTP/1.1"));
            prop_assert_eq!(parts[2], format!(" {status} 10245 "));
            prop_assert_eq!((parts[4], parts[6]), (" ", ""));
        }
    }
}
