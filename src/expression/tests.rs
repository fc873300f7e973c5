//! Expressions asked of requests that say what they are told.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// A request.
struct Asked {
    headers: Vec<(&'static str, &'static [u8])>,
    query: Vec<(&'static str, &'static str)>,
    claims: Option<Map<String, Value>>,
    size: i64,
}

impl Asked {
    fn new() -> Self {
        let claims = json!({"sub": "anna", "roles": ["admin", "ops"], "level": 7, "org": {"id": "a1"}, "big": u64::MAX});
        let Value::Object(claims) = claims else { unreachable!() };
        Self {
            headers: vec![("x-beta", b"1"), ("accept", b"a"), ("accept", b"b"), ("x-bytes", b"\xff")],
            query: vec![("page", "2"), ("twice", "a"), ("twice", "b")],
            claims: Some(claims),
            size: 12,
        }
    }
}

impl Scene for Asked {
    fn text(&self, text: Text) -> Cow<'_, [u8]> {
        Cow::Borrowed(match text {
            Text::Id => b"id-1",
            Text::Method => b"GET",
            Text::Scheme => b"https",
            Text::Host => b"shop.example",
            Text::Path => b"/users/42",
            Text::ClientIp => b"10.1.2.3",
            Text::TlsVersion => b"TLSv1.3",
            Text::TlsServerName => b"shop.example",
            Text::ClientSubject => b"CN=anna",
            Text::ClientFingerprint => b"ab",
            Text::End => b"ok",
        })
    }

    fn number(&self, number: Number) -> i64 {
        match number {
            Number::Size => self.size,
            Number::ClientPort => 4711,
            Number::Status => 404,
            Number::Milliseconds => 12,
        }
    }

    fn values(&self, map: TextMap, name: &str, each: &mut dyn FnMut(&[u8])) {
        match map {
            TextMap::Headers => {
                let name = name.to_ascii_lowercase();
                self.headers.iter().filter(|(field, _)| *field == name).for_each(|(_, value)| each(value));
            }
            TextMap::Query => self
                .query
                .iter()
                .filter(|(parameter, _)| *parameter == name)
                .for_each(|(_, value)| each(value.as_bytes())),
            TextMap::Params if name == "id" => each(b"42"),
            TextMap::Auth if name == "subject" => each(b"anna"),
            TextMap::ClientNames if name == "pc.example" => each(b"pc.example"),
            TextMap::Cookies | TextMap::Params | TextMap::Auth | TextMap::ClientNames => {}
        }
    }

    fn names(&self, map: TextMap, each: &mut dyn FnMut(&[u8])) {
        match map {
            TextMap::Headers => self.headers.iter().for_each(|(name, _)| each(name.as_bytes())),
            TextMap::Query => self.query.iter().for_each(|(name, _)| each(name.as_bytes())),
            TextMap::ClientNames => each(b"pc.example"),
            TextMap::Cookies => (0..300).for_each(|name| each(name.to_string().as_bytes())),
            TextMap::Params | TextMap::Auth => {}
        }
    }

    fn claims(&self) -> Option<&Map<String, Value>> {
        self.claims.as_ref()
    }

    fn unix_us(&self) -> u64 {
        1_767_225_600_000_000
    }
}

fn compiled(source: &str, kind: Kind) -> Expression {
    Expression::compile(source, kind, Scope::Identity).unwrap_or_else(|fault| panic!("{source}: {fault:?}"))
}

fn holds(source: &str) -> Result<bool, String> {
    compiled(source, Kind::Bool).holds(&Asked::new()).map_err(|failed| failed.to_string())
}

#[test]
fn what_holds_and_what_does_not() {
    for (source, expected) in [
        ("request.method == 'GET' && request.host.endsWith('.example')", true),
        ("request.method in ['PUT', 'POST']", false),
        ("request.scheme == \"https\" && request.path.startsWith('/users/')", true),
        ("request.headers['X-Beta'] == '1' && request.headers.accept == 'a, b'", true),
        ("'x-beta' in request.headers && !('x-gamma' in request.headers)", true),
        ("has(request.headers.accept) && !has(request.headers.nope)", true),
        ("request.headers.exists(name, name.startsWith('x-b'))", true),
        ("size(request.headers) == 3 && request.query.size() == 2", true),
        ("request.query.page == '2' && int(request.query['page']) + 1 == 3", true),
        ("request.params.id == '42'", true),
        ("request.path.matches('^/users/[0-9]+$') && !matches(request.path, 'x')", true),
        ("cidr('10.0.0.0/8').containsIP(request.client.ip)", true),
        ("cidr('10.0.0.1').containsIP(request.client.ip) || request.client.port > 4000", true),
        ("request.size < 1024 && request.size >= 0", true),
        ("request.tls.version == 'TLSv1.3' && 'pc.example' in request.tls.client_names", true),
        ("request.tls.client_names.exists(name, name.endsWith('.example'))", true),
        ("auth.subject == 'anna' && !has(auth.consumer)", true),
        ("['a'].all(now, now == 'a') && [1].exists(request, request == 1)", true),
        ("'admin' in claims.roles && claims.level >= 7 && claims.org.id == 'a1'", true),
        ("claims.roles.exists(role, role in ['ops', 'x']) && claims.roles.all(role, role != '')", true),
        ("has(claims.tenant) ? claims.tenant == 'x' : true", true),
        ("claims.big == 18446744073709551615u", true),
        ("claims.roles.map(role, role + '!') == ['admin!', 'ops!']", true),
        ("claims.roles.filter(role, role == 'ops').size() == 1", true),
        ("now == timestamp('2026-01-01T00:00:00Z') && now.getHours() == 0", true),
        ("now.getHours('Europe/Berlin') == 1 && now.getDayOfWeek() == 4", true),
        ("now - duration('1h') < now && now + duration('90m') - now == duration('1h30m')", true),
        ("now - timestamp('2025-12-31T23:00:00Z') >= duration('60m')", true),
        ("(now - timestamp(0)).getHours() == 490896 && int(now) == 1767225600", true),
        ("now.getFullYear('-01:00') == 2025 && now.getMonth() == 0 && now.getDate() == 1", true),
        ("timestamp(claims.level) < now", true),
        ("'A-b'.lowerAscii().split('-')[1] == 'b' && 'é-x'.split('').size() == 3", true),
        ("'añb'.indexOf('b') == 2 && 'abab'.lastIndexOf('ab') == 2 && 'a'.indexOf('x') == -1", true),
        (
            "'añbc'.substring(1, 3) == 'ñb' && 'abc'.substring(3) == '' && ' a '.trim().upperAscii() == 'A'",
            true,
        ),
        // One side that fails is no matter where the other one decides.
        ("request.headers.nope == '1' || true", true),
        ("false && request.headers.nope == '1'", false),
    ] {
        assert_eq!(holds(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_fails_says_why_and_quotes_no_request() {
    for (source, expected) in [
        ("request.headers.nope == '1'", "there is no `nope`"),
        ("request.headers['x-bytes'] == ''", "`x-bytes` is no UTF-8"),
        ("request.query.twice == 'a'", "`twice` comes more than once"),
        ("claims.tenant == 'a'", "there is no `tenant`"),
        (
            "request.cookies.all(name, name != '')",
            "there are too many names, or one that is too long or no UTF-8",
        ),
        ("claims.level > 'a'", "a value is of another type"),
        // Who is no one is not the one of no name.
        ("auth.consumer == ''", "there is no `consumer`"),
        ("1 / (request.size - 12) == 0", "a division by zero"),
        ("claims.roles[5] == 'a'", "a list is shorter than that"),
        ("'abc'.substring(2, 1) == ''", "`substring` failed"),
        ("'abc'.substring(4) == ''", "`substring` failed"),
        ("'abc'.substring(-1) == ''", "`substring` failed"),
        ("request.size + 9223372036854775807 > 0", "a number is too large"),
        ("int(request.host) == 1", "`int` failed"),
        ("claims.level", "a value is of another type"),
    ] {
        assert_eq!(holds(source), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn numbers_and_texts() {
    let asked = Asked::new();
    assert_eq!(compiled("request.method == 'GET' ? 1 : 5", Kind::Int).number(&asked), Ok(1));
    assert_eq!(compiled("request.size / 4", Kind::Int).number(&asked), Ok(3));
    let tenant = compiled("claims.org.id + ':' + request.client.ip", Kind::Text);
    assert_eq!(tenant.text(&asked).as_deref(), Ok("a1:10.1.2.3"));
    assert_eq!(tenant.clone(), tenant);
    let nobody = Asked { claims: None, ..Asked::new() };
    assert_eq!(tenant.text(&nobody).unwrap_err().to_string(), "there is no `org`");
}

#[test]
fn faults_are_found_at_load() {
    for (source, expected) in [
        ("", "not an expression"),
        ("request.method ==", "not an expression"),
        ("request", "it comes to a group of fields"),
        ("request.method", "it comes to a string, and a bool is wanted"),
        ("request.methods == 'GET'", "there is no field `methods`"),
        ("methods == 'GET'", "there is no `methods`"),
        ("request == request", "a group of fields is no value"),
        ("[request.client].size() == 1", "a group of fields is no value"),
        ("{'a': request.tls}.a.version == ''", "a group of fields is no value"),
        ("request.method == 1", "`==` does not take a string and a int"),
        ("request.size && true", "`&&` does not take"),
        ("!request.host", "`!` does not take"),
        ("request.host + 1 == ''", "`+` does not take"),
        ("request.host < 1", "`<` does not take"),
        ("1 in ['a']", "`in` does not take"),
        ("auth.user == 'a'", "there is no field `user`"),
        ("claims.a.all(x, x in claims.b)", "it may take"),
        ("'a'.cidr('10.0.0.0/8').containsIP(request.client.ip)", "`containsIP` is asked of a network"),
        ("request.host.nope()", "there is no `value.nope(…)`"),
        ("nope(request.host)", "there is no `nope(…)`"),
        ("request.host.replace('a', 'b') == ''", "there is no `value.replace(…)`"),
        ("has(request.host)", "`host` is always there"),
        ("request.host.x == ''", "a string has no field `x`"),
        ("request.path.matches('(')", "not a regex"),
        ("request.path.matches(request.host)", "the pattern of `matches` has to stand"),
        ("cidr('10.0.0.0/99').containsIP(request.client.ip)", "is not a network"),
        ("cidr('::ffff:10.0.0.0/104').containsIP(request.client.ip)", "would match none"),
        ("cidr('10.0.0.0/8') == cidr('10.0.0.0/8')", "a network is only good for"),
        ("request.host.containsIP(request.client.ip)", "`containsIP` is asked of a network"),
        ("request.size.exists(x, true)", "there is nothing to go through"),
        (
            "request.headers.all(a, request.headers.all(b, request.headers.all(c, a + b + c != '')))",
            "it may take",
        ),
        ("now > timestamp('yesterday')", "`yesterday` is not a time"),
        ("now > timestamp(request.host)", "there is no `timestamp(…)`"),
        ("now - now > duration('1 day')", "`1 day` is not a duration"),
        ("now - now > duration(request.host)", "a duration has to stand"),
        ("now.getHours('Mars/Base') == 1", "there is no time zone `Mars/Base`"),
        ("now.getHours(request.host) == 1", "a time zone has to stand"),
        ("now == 5", "`==` does not take"),
        ("request.query.all(name, request.query[name] != '')", "it may take"),
        ("Message{a: 1} == Message{a: 1}", "it makes a message"),
        ("request.?host == 1", "not an expression"),
    ] {
        let fault = Expression::compile(source, Kind::Bool, Scope::Identity).unwrap_err();
        assert!(
            fault.message.starts_with(expected) || fault.message.contains(expected),
            "{source}: {fault:?}"
        );
    }
    let grown = format!("[request.host]{}[0] == ''", ".map(x, x + x)".repeat(12));
    let fault = Expression::compile(&grown, Kind::Bool, Scope::Request).unwrap_err();
    assert!(fault.message.contains("larger than"), "{fault:?}");
    let unknown = Expression::compile("auth.subject == 'a'", Kind::Bool, Scope::Request).unwrap_err();
    assert_eq!(unknown.message, "`auth` is not known where routes are chosen");
    let of_exchange = |source| Expression::compile(source, Kind::Bool, Scope::Exchange);
    let line = of_exchange("response.status >= 400 && response.end == 'ok' && auth.subject != ''").unwrap();
    assert_eq!(line.holds(&Asked::new()), Ok(true));
    assert!(of_exchange("request.params.id == ''").unwrap_err().message.contains("not known"));
    let early = Expression::compile("response.status == 1", Kind::Bool, Scope::Identity).unwrap_err();
    assert!(early.message.contains("only where lines"), "{early:?}");
    let long = format!("'{}' == ''", "a".repeat(EXPRESSION_BYTES_MAX));
    assert!(Expression::compile(&long, Kind::Bool, Scope::Request).unwrap_err().message.contains("at most"));
    let deep = format!("{}true{}", "!(".repeat(80), ")".repeat(80));
    assert!(Expression::compile(&deep, Kind::Bool, Scope::Request).is_err());
}

/// The names that `docs/configuration.md` tells of are those that there are.
#[test]
fn the_documented_names_are_current() {
    let docs = include_str!("../../docs/configuration.md");
    let (_, section) = docs.split_once("\n## Expressions\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut told: Vec<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect();
    fn names(parts: &[(&str, scene::Part)], before: &str, all: &mut Vec<String>) {
        for (name, part) in parts {
            match part {
                scene::Part::Record(below) => names(below, &format!("{before}{name}."), all),
                _ => all.push(format!("{before}{name}")),
            }
        }
    }
    let mut all = Vec::new();
    names(scene::OF_EXCHANGES, "", &mut all);
    told.sort_unstable();
    all.sort_unstable();
    assert_eq!(told, all);
    for function in types::FUNCTIONS
        .split(", ")
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    {
        assert!(section.contains(&format!("`{function}`")), "{function}");
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "request",
        ".",
        "method",
        "headers",
        "query",
        "claims",
        "now",
        "auth",
        "'a'",
        "1",
        "2u",
        "1.5",
        "true",
        "null",
        "==",
        "!=",
        "&&",
        "||",
        "!",
        "+",
        "-",
        "*",
        "/",
        "%",
        "<",
        ">=",
        "in",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "has",
        "size",
        ".exists(x, x == 'a')",
        ".map(x, x)",
        ".matches('a')",
        ".startsWith('a')",
        "cidr('::/0')",
        ".containsIP(",
        "request.host",
        "request.size",
        "claims.roles",
        "@pattern0",
        "[0]",
        "['a']",
        "\\",
        "'",
        "é",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// A request with as many names as loops go through, that counts how often it is looked through.
struct Full(std::sync::atomic::AtomicU64);

impl Full {
    fn count(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Scene for Full {
    fn text(&self, _: Text) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"a")
    }

    fn number(&self, _: Number) -> i64 {
        1
    }

    fn values(&self, _: TextMap, _: &str, each: &mut dyn FnMut(&[u8])) {
        self.count();
        each(b"a");
    }

    fn names(&self, _: TextMap, each: &mut dyn FnMut(&[u8])) {
        self.count();
        (0..scene::NAMES_MAX).for_each(|name| each(format!("n{name}").as_bytes()));
    }

    fn claims(&self) -> Option<&Map<String, Value>> {
        None
    }

    fn unix_us(&self) -> u64 {
        0
    }
}

fn loops() -> impl Strategy<Value = String> {
    let map =
        || prop::sample::select(vec!["request.headers", "request.query", "request.cookies", "['a', 'b']"]);
    let leaf = prop::sample::select(vec![
        "x == 'a'",
        "request.query[x] == 'a'",
        "x in request.headers",
        "has(request.cookies.a)",
        "request.headers['a'] != x",
        "size(request.query) > 0",
    ]);
    let body = leaf.prop_map(str::to_owned).prop_recursive(3, 8, 2, move |inner| {
        let kind = prop::sample::select(vec!["all", "exists", "exists_one"]);
        prop_oneof![
            (map(), kind, inner.clone()).prop_map(|(map, kind, body)| format!("{map}.{kind}(x, {body})")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("({one}) && !({other})")),
        ]
    });
    body.prop_map(|body| format!("['a'].all(x, {body})"))
}

proptest! {
    /// What was let through at load looks a request through no oftener than its steps allow, however full it is.
    #[test]
    fn no_request_is_looked_through_for_ever(source in loops()) {
        if let Ok(expression) = Expression::compile(&source, Kind::Bool, Scope::Request) {
            let full = Full(Default::default());
            let _ = expression.holds(&full);
            let looks = full.0.into_inner();
            prop_assert!(looks <= check::STEPS_MAX / check::LOOK_UP_STEPS, "{looks}: {source}");
        }
    }

    /// Whatever is written is an expression or none; what is one has a value for a request or none, of its kind.
    #[test]
    fn any_text_compiles_or_is_refused(source in pieces(), kind in prop::sample::select(vec![Kind::Bool, Kind::Int, Kind::Text])) {
        if let Ok(expression) = Expression::compile(&source, kind, Scope::Identity) {
            let asked = Asked::new();
            let _ = match kind {
                Kind::Bool => expression.holds(&asked).map(drop),
                Kind::Int => expression.number(&asked).map(drop),
                Kind::Text => expression.text(&asked).map(drop),
            };
        }
    }
}
