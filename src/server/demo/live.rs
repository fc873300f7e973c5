//! What happens, line by line: an access-log record of the gateway, in JSON, as a short line for people. It knows the
//! record's keys and the names of the demo's upstreams; where the records come from and the lines go is not its matter.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Addresses;

/// Characters of a path before it is cut.
const PATH_CHARS_MAX: usize = 48;
/// How a record says that its exchange ended as it should.
const ENDED_WELL: &str = "ok";

const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Renders access-log records.
#[derive(Debug, Clone)]
pub struct Live {
    upstreams: Addresses,
    colour: bool,
}

/// The part of a record that is shown. What a record lacks is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    /// RFC 3339.
    time: Option<String>,
    method: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    route: Option<String>,
    /// The address of the endpoint that answered.
    endpoint: Option<String>,
    tries: Option<u64>,
    core: Option<u64>,
    total_us: Option<u64>,
    end: Option<String>,
}

impl Live {
    /// Calls the endpoints at these addresses by their upstreams' names. `colour`: with ANSI escapes, for a terminal.
    pub fn new(upstreams: &Addresses, colour: bool) -> Self {
        Self { upstreams: upstreams.clone(), colour }
    }

    /// One record, JSON with or without its line end, as a line without one: time, request, status, route and
    /// endpoint, core, duration, then what was out of the ordinary. `None` when it is no such record.
    pub fn render_line(&self, json: &[u8]) -> Option<String> {
        let record: Record = serde_json::from_slice(json).ok()?;
        let method = visible(record.method.as_deref()?);
        let path = shortened(&visible(record.path.as_deref().unwrap_or("-")));
        let status = record.status.map_or_else(|| "---".into(), |status| status.to_string());
        let mut line = String::with_capacity(160);
        if let Some(time) = &record.time {
            self.paint(&mut line, DIM, &format!("{:<8}  ", visible(time_of_day(time))));
        }
        // Text is padded before it is coloured: escapes have no width.
        line.push_str(&format!("{method:<6} {path:<24}  "));
        self.paint(&mut line, status_colour(record.status), &status);
        line.push_str(&format!("  {:<24}", self.destination(&record)));
        if let Some(core) = record.core {
            self.paint(&mut line, DIM, &format!("  core {core}"));
        }
        if let Some(total_us) = record.total_us {
            line.push_str(&format!("  {:>8}", duration(total_us)));
        }
        if let Some(tries) = record.tries.filter(|tries| *tries > 1) {
            self.paint(&mut line, YELLOW, &format!("  {tries} tries"));
        }
        if let Some(end) = record.end.as_deref().filter(|end| *end != ENDED_WELL) {
            self.paint(&mut line, YELLOW, &format!("  {}", visible(end)));
        }
        Some(line)
    }

    fn paint(&self, line: &mut String, colour: &str, text: &str) {
        let (on, off) = if self.colour { (colour, RESET) } else { ("", "") };
        line.extend([on, text, off]);
    }

    /// Who took the request: `user → plain-2`, or the route alone where no endpoint was asked.
    fn destination(&self, record: &Record) -> String {
        let route = record.route.as_deref().map_or_else(|| "no route".into(), visible);
        let Some(endpoint) = record.endpoint.as_deref() else { return route };
        let address: Option<SocketAddr> = endpoint.parse().ok();
        let name = self.upstreams.iter().find(|(_, known)| Some(*known) == address).map(|(name, _)| name);
        format!("{route} → {}", name.map_or_else(|| visible(endpoint), str::to_owned))
    }
}

/// `12:00:01` of `2031-07-01T12:00:01.5Z`; the text itself when it is something else.
fn time_of_day(time: &str) -> &str {
    time.split_once('T').and_then(|(_, of_day)| of_day.get(..8)).unwrap_or(time)
}

fn status_colour(status: Option<u16>) -> &'static str {
    match status {
        Some(100..=199 | 300..=399) => CYAN,
        Some(200..=299) => GREEN,
        Some(400..=499) => YELLOW,
        _ => RED,
    }
}

/// Microseconds as people read them, to two or three digits.
fn duration(total_us: u64) -> String {
    match total_us {
        0..1000 => format!("{total_us} µs"),
        1000..1_000_000 => format!("{}.{} ms", total_us / 1000, total_us % 1000 / 100),
        _ => format!("{}.{} s", total_us / 1_000_000, total_us % 1_000_000 / 100_000),
    }
}

/// The text without control characters: a client chooses part of it, and the terminal must not obey.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shortened(path: &str) -> String {
    match path.char_indices().nth(PATH_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"time":"2031-07-01T12:00:01.250Z","client":"127.0.0.1","method":"GET","host":"localhost",
        "path":"/users/7","status":200,"bytes_sent":321,"route":"user","cluster":"users","endpoint":"127.0.0.1:9102",
        "tries":1,"core":1,"request_id":"0190","total_us":1234,"end":"ok"}"#;

    fn plain() -> Live {
        Live::new(&Addresses::of_config(), false)
    }

    #[test]
    fn a_record_is_one_short_line() {
        let line = plain().render_line(RECORD.as_bytes()).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.join(" "), "12:00:01 GET /users/7 200 user → plain-2 core 1 1.2 ms");
    }

    #[test]
    fn colour_adds_escapes_and_changes_no_text() {
        let mut coloured = Live::new(&Addresses::of_config(), true).render_line(RECORD.as_bytes()).unwrap();
        assert!(coloured.contains("\x1b[32m200\x1b[0m"), "{coloured:?}");
        for escape in [DIM, GREEN, CYAN, YELLOW, RED, RESET] {
            coloured = coloured.replace(escape, "");
        }
        assert_eq!(Some(coloured), plain().render_line(RECORD.as_bytes()));
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_said() {
        let record =
            br#"{"method":"GET","path":"/hurry","status":504,"route":"hurry","endpoint":"192.0.2.1:80",
            "tries":2,"total_us":500123,"end":"timeout"}"#;
        let line = plain().render_line(record).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.join(" "), "GET /hurry 504 hurry → 192.0.2.1:80 500.1 ms 2 tries timeout");
    }

    #[test]
    fn an_answer_without_route_or_endpoint() {
        let record =
            br#"{"method":"GET","path":"/nowhere","status":404,"route":null,"endpoint":null,"total_us":12}"#;
        let line = plain().render_line(record).unwrap();
        assert!(line.contains("404  no route") && line.ends_with("12 µs") && !line.contains('→'), "{line}");
    }

    #[test]
    fn columns_stay_in_place_whatever_the_method() {
        let column = |method: &str| {
            let record = format!(r#"{{"method":"{method}","path":"/a","status":200}}"#);
            plain().render_line(record.as_bytes()).unwrap().find("200")
        };
        assert!(column("GET").is_some());
        assert_eq!(column("GET"), column("DELETE"));
    }

    #[test]
    fn a_client_cannot_write_escapes_to_the_terminal() {
        let record = br#"{"method":"G\u001bET","path":"/\u001b[2J\u009b1m\n","status":200,"end":"\u0007","route":"\u001b"}"#;
        let line = plain().render_line(record).unwrap();
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let record = format!(r#"{{"method":"GET","path":"/{}","status":200}}"#, "ü".repeat(100));
        let line = plain().render_line(record.as_bytes()).unwrap();
        assert!(line.contains(&format!("/{}…  200", "ü".repeat(PATH_CHARS_MAX - 1))), "{line}");
    }

    #[test]
    fn what_is_no_record_is_not_rendered() {
        for text in ["", "listening", "[]", "{}", r#"{"method":1}"#, &RECORD[..RECORD.len() - 1]] {
            assert_eq!(plain().render_line(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn durations_in_their_unit() {
        let shown = [0, 999, 1000, 999_999, 1_000_000, 61_500_000].map(duration);
        assert_eq!(shown, ["0 µs", "999 µs", "1.0 ms", "999.9 ms", "1.0 s", "61.5 s"]);
    }
}
