//! Policies that ask someone else before a request goes on: an authorisation service, an issuer of tokens.
#![allow(clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/http2.rs"]
mod http2;
mod support;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
};

use support::{Gateway, Response, Upstream, ok, route};

/// A gateway before a service at `inside`, which asks one at `door`.
fn gateway(inside: SocketAddr, door: SocketAddr, rest: &str) -> Gateway {
    Gateway::start(&config(inside, door, "", rest))
}

fn config(inside: SocketAddr, door: SocketAddr, listener: &str, rest: &str) -> String {
    format!(
        "runtime.workers = 1\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[cluster]]\nname = \"c\"\nendpoints = [{{ address = \"{inside}\" }}]\n\
         [[cluster]]\nname = \"door\"\nendpoints = [{{ address = \"{door}\" }}]\n{rest}"
    )
}

fn authorize(keys: &str) -> String {
    let policy =
        format!("[[policy]]\nname = \"p\"\ndefault = true\nauthorize = {{ cluster = \"door\", {keys} }}\n");
    [policy, route("/*", "")].concat()
}

fn ask(gateway: &Gateway, method: &str, target: &str, lines: &str) -> Response {
    let mut peer = gateway.connect();
    peer.send(format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"));
    peer.response()
}

/// Answers everything, and tells what it got.
fn recording(
    answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let upstream = Upstream::answering(move |head, body| {
        seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(body)));
        answer(head, body)
    });
    (upstream, heads)
}

fn has_line(head: &str, line: &str) -> bool {
    head.lines().any(|own| own.eq_ignore_ascii_case(line))
}

#[test]
fn the_service_sees_the_request_and_says_who_it_is() {
    let (inside, seen) = recording(|_, _| ok(b"inside"));
    let (door, asked) = recording(|_, _| {
        b"HTTP/1.1 200 OK\r\nX-User: ada\r\nX-Role: a\r\nX-Role: b\r\nX-Other: no\r\nContent-Length: 4\r\n\r\ngood".to_vec()
    });
    let gateway = gateway(
        inside.address,
        door.address,
        &authorize("path = \"/check?for=gateway\", copy = [\"X-User\", \"x-role\", \"x-none\"]"),
    );
    let lines = "Authorization: Bearer abc\r\nCookie: a=b\r\nX-User: root\r\nX_User: root\r\nX-None: root\r\nX-Forwarded-Uri: /forged\r\n\
                 X-Forwarded-For: 9.9.9.9\r\nIf-None-Match: \"x\"\r\nRange: bytes=0-1\r\nContent-Length: 5\r\n";
    let mut peer = gateway.connect();
    peer.send(format!("POST /a%20b?c=d HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\nhello"));
    assert_eq!(peer.response().text(), "inside");
    let asked = asked.lock().unwrap();
    let [question] = &asked[..] else { panic!("it is asked once: {asked:?}") };
    assert!(question.starts_with("GET /check?for=gateway HTTP/1.1\r\n"), "{question}");
    for line in [
        "host: shop.example",
        "authorization: Bearer abc",
        "cookie: a=b",
        "x-forwarded-method: POST",
        "x-forwarded-uri: /a%20b?c=d",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(has_line(question, line), "{line}: {question}");
    }
    for part in ["forged", "9.9.9.9", "range", "if-none-match", "content-length", "hello"] {
        assert!(!question.to_ascii_lowercase().contains(part), "{part}: {question}");
    }
    let seen = seen.lock().unwrap();
    let [request] = &seen[..] else { panic!("one request: {seen:?}") };
    for line in ["x-user: ada", "x-role: a", "x-role: b", "if-none-match: \"x\""] {
        assert!(has_line(request, line), "{line}: {request}");
    }
    for part in ["root", "x-other", "x-none", "x-forwarded-uri"] {
        assert!(!request.to_ascii_lowercase().contains(part), "{part}: {request}");
    }
    assert!(request.ends_with("hello"));
    // One line for the client's request, none for the question.
    peer.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.response();
    assert_eq!(gateway.log_line()["path"], "/a%20b");
    assert_eq!(gateway.log_line()["path"], "/second");
}

#[test]
fn only_named_fields_are_shown() {
    let inside = Upstream::saying("inside");
    let (door, asked) = recording(|_, _| ok(b""));
    let gateway = gateway(inside.address, door.address, &authorize("headers = [\"Authorization\"]"));
    ask(&gateway, "GET", "/", "Authorization: x\r\nCookie: secret=1\r\nX-Own: 2\r\n");
    let asked = asked.lock().unwrap();
    assert!(has_line(&asked[0], "authorization: x"), "{asked:?}");
    assert!(!asked[0].contains("secret") && !asked[0].contains("X-Own"), "{asked:?}");
}

#[test]
fn a_refusal_is_the_clients_answer() {
    let (inside, seen) = recording(|_, _| ok(b"inside"));
    let door = Upstream::answering(|head, _| {
        let status = if head.contains("/login") {
            "302 Found\r\nLocation: https://login.example/"
        } else {
            "401 Unauthorized\r\nWWW-Authenticate: Custom\r\nSet-Cookie: a=b\r\nConnection: x-hop\r\nX-Hop: 1\r\nAccess-Control-Allow-Origin: *"
        };
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nsign in")
            .into_bytes()
    });
    let cors =
        "[[policy]]\nname = \"pages\"\ndefault = true\ncors = { origins = [\"https://shop.example\"] }\n";
    let rest = [cors, &authorize("path = \"/\"")].concat();
    let gateway = gateway(inside.address, door.address, &rest);
    let mut peer = gateway.connect();
    for (target, status) in [("/", 401), ("/login", 302), ("/again", 401)] {
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\n\r\n"));
        let response = peer.response();
        assert_eq!((response.status, &response.text()[..]), (status, "sign in"), "{target}");
        assert_eq!(response.field("content-type").as_deref(), Some("text/plain"));
        assert_eq!(response.field("x-hop"), None);
        assert_eq!(
            response.field("access-control-allow-origin").as_deref(),
            Some("https://shop.example"),
            "the gateway says"
        );
        assert_eq!(response.field("www-authenticate").as_deref(), (status == 401).then_some("Custom"));
        assert_eq!(
            response.field("location").as_deref(),
            (status == 302).then_some("https://login.example/")
        );
        assert_eq!(gateway.log_line()["end"], "denied");
    }
    // A body that was not read is in no one's way.
    let response = ask(&gateway, "POST", "/", "Content-Length: 1000000\r\n");
    assert_eq!((response.status, response.text()), (401, "sign in".into()));
    peer.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(peer.head().starts_with("HTTP/1.1 401 "));
    peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.response().text(), "sign in", "nothing came behind the head");
    assert!(seen.lock().unwrap().is_empty(), "nothing that was refused");
    gateway.signal("QUIT");
    let told = gateway.message("policy=p ");
    assert!(told.contains("passed=0 refused=6"), "{told}");
}

/// An address where no one listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn without_an_answer_requests_are_refused_or_pass_as_configured() {
    for (policy, status) in [("", 503), ("on_failure = \"allow\", ", 200)] {
        let failing = Upstream::answering(|_, _| {
            b"HTTP/1.1 500 No\r\nX-User: root\r\nContent-Length: 2\r\n\r\nno".to_vec()
        });
        let garbage = Upstream::answering(|_, _| b"what?\r\n\r\n".to_vec());
        let endless = Upstream::answering(|_, _| {
            [&b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"[..], &[b'a'; 300_000]].concat()
        });
        for door in [failing.address, garbage.address, endless.address, nowhere()] {
            let (inside, seen) = recording(|_, _| ok(b"inside"));
            let gateway = gateway(inside.address, door, &authorize(&format!("{policy}copy = [\"x-user\"]")));
            let response = ask(&gateway, "GET", "/", "X-User: root\r\n");
            assert_eq!(response.status, status, "{door}: {}", response.text());
            assert_eq!(response.text().contains("authorize-failed"), status == 503);
            assert_eq!(response.field("retry-after").is_some(), status == 503);
            assert!(!seen.lock().unwrap().concat().contains("root"), "no one is root for that");
        }
    }
}

#[test]
fn a_head_of_any_size_opens_no_door() {
    let (inside, seen) = recording(|_, _| ok(b"inside"));
    let (door, asked) = recording(|_, _| b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_vec());
    let rest = authorize("on_failure = \"allow\"");
    let limits = "limits = { head_bytes = \"2KiB\", headers = 10, target_bytes = \"1KiB\" }";
    let gateway = Gateway::start(&config(inside.address, door.address, limits, &rest));
    for length in (1850..2048).step_by(3) {
        let response = ask(&gateway, "GET", "/", &format!("X-Long: {}\r\n", "a".repeat(length)));
        assert!(matches!(response.status, 403 | 431), "{length}: {}", response.status);
    }
    let fields: String = (0..9).map(|number| format!("X-{number}: {number}\r\n")).collect();
    assert_eq!(ask(&gateway, "GET", "/", &fields).status, 403);
    assert_eq!(ask(&gateway, "GET", &format!("/{}", "a".repeat(1000)), "").status, 403);
    assert!(seen.lock().unwrap().is_empty() && !asked.lock().unwrap().is_empty());
}

#[test]
fn a_silent_service_has_its_time() {
    let inside = Upstream::saying("inside");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let rest = authorize("timeout = \"50ms\"");
    let gateway = gateway(inside.address, silent.local_addr().unwrap(), &rest);
    let response = ask(&gateway, "GET", "/", "");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("authorize-failed"), "{}", response.text());
}

#[test]
fn a_client_that_leaves_takes_its_question_back() {
    let inside = Upstream::saying("inside");
    let (told, heard) = channel();
    let (ended, end) = channel();
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut peer = support::Peer::new(door.accept().unwrap().0);
        peer.head();
        told.send(()).unwrap();
        ended.send(peer.is_ended()).unwrap();
    });
    let gateway = gateway(inside.address, address, &authorize("timeout = \"60s\""));
    let mut peer = gateway.connect();
    peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    heard.recv_timeout(support::PATIENCE).unwrap();
    peer.reset();
    assert!(end.recv_timeout(support::PATIENCE).unwrap(), "the question ends with its client");
    gateway.wait_for_figure("exchanges_active", 0);
    assert_eq!(gateway.log_line()["end"], "client-gone");
}

#[test]
fn clients_of_http2_and_callers_of_grpc_are_asked_about_too() {
    let inside = Upstream::saying("inside");
    let door = Upstream::answering(|head, _| {
        if head.contains("good") {
            ok(b"")
        } else {
            b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_vec()
        }
    });
    let gateway =
        Gateway::start(&config(inside.address, door.address, "h2c = true", &authorize("path = \"/\"")));
    let client = http2::Client::connect(gateway.address());
    let good = http2::request("GET", "http://a/x", &[("authorization", "good")]);
    assert_eq!(client.ask(good, "").text(), "inside");
    let bad = client.ask(http2::get("/x"), "");
    assert_eq!((bad.status, bad.text()), (403, "no".into()));
    let call =
        http2::request("POST", "http://a/x", &[("content-type", "application/grpc"), ("te", "trailers")]);
    let refused = client.ask(call, "");
    assert_eq!((refused.status, refused.field("grpc-status")), (200, Some("7")), "PERMISSION_DENIED");
}

#[test]
fn limits_count_those_who_passed_by_who_they_are() {
    let inside = Upstream::saying("inside");
    let (door, asked) = recording(|head, _| {
        if head.contains("good") { ok(b"") } else { b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_vec() }
    });
    let limit = "[[policy]]\nname = \"l\"\ndefault = true\nrate_limit = { limit = 1, per = \"1h\" }\n";
    let gateway = gateway(inside.address, door.address, &[limit, &authorize("path = \"/\"")].concat());
    for (lines, status) in
        [("", 403), ("", 403), ("Authorization: good\r\n", 200), ("Authorization: good\r\n", 429)]
    {
        assert_eq!(ask(&gateway, "GET", "/", lines).status, status);
    }
    // Where no route is found, the question comes first too.
    assert_eq!(asked.lock().unwrap().len(), 4);
}

fn introspect(keys: &str) -> String {
    let policy = format!(
        "[[policy]]\nname = \"p\"\ndefault = true\nintrospect = {{ cluster = \"door\", path = \"/introspect\", client_id = \"gateway\", \
         client_secret = \"hush-hush\", {keys} }}\n"
    );
    [policy, route("/*", "request_headers.set = { x-subject = \"{claims.sub}\" }")].concat()
}

/// An issuer that knows some tokens.
fn issuer() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    recording(|_, body| {
        let body = String::from_utf8_lossy(body);
        let said = match body.split('&').next().unwrap() {
            "token=good" => r#"{"active":true,"sub":"ada","scope":"read write","aud":"api"}"#,
            "token=poor" => r#"{"active":true,"sub":"bob","scope":"read","aud":"api"}"#,
            "token=old" => r#"{"active":true,"sub":"ada","scope":"read write","aud":"api","exp":1000}"#,
            "token=other" => r#"{"active":true,"sub":"ada","scope":"read write","aud":"elsewhere"}"#,
            "token=odd" => "{}",
            _ => r#"{"active":false}"#,
        };
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{said}",
            said.len()
        )
        .into_bytes()
    })
}

#[test]
fn an_issuer_says_what_tokens_are() {
    let (inside, seen) = recording(|_, _| ok(b"inside"));
    let (issuer, asked) = issuer();
    let rest = introspect("audience = [\"api\"], scopes = [\"write\"], forward = false");
    let gateway = gateway(inside.address, issuer.address, &rest);
    for (lines, status, reason, challenge) in [
        ("Authorization: Bearer good\r\n", 200, "", None),
        ("", 401, "token-missing", Some("Bearer")),
        ("Authorization: Basic good\r\n", 401, "token-missing", Some("Bearer")),
        ("Authorization: Bearer bad\r\n", 401, "token-invalid", Some("Bearer error=\"invalid_token\"")),
        ("Authorization: Bearer old\r\n", 401, "token-expired", Some("Bearer error=\"invalid_token\"")),
        ("Authorization: Bearer other\r\n", 401, "token-invalid", Some("Bearer error=\"invalid_token\"")),
        ("Authorization: Bearer poor\r\n", 403, "token-scope", Some("Bearer error=\"insufficient_scope\"")),
        ("Authorization: Bearer odd\r\n", 503, "introspect-failed", None),
        (
            "Authorization: Bearer good\r\nAuthorization: Bearer good\r\n",
            401,
            "token-invalid",
            Some("Bearer error=\"invalid_token\""),
        ),
    ] {
        let response = ask(&gateway, "GET", "/", lines);
        assert_eq!(response.status, status, "{lines}: {}", response.text());
        assert!(response.text().contains(reason), "{lines}: {}", response.text());
        assert_eq!(response.field("www-authenticate").as_deref(), challenge, "{lines}");
        let line = gateway.log_line();
        let subject = match status {
            200 => Some("ada"),
            403 => Some("bob"),
            _ => None,
        };
        assert_eq!(line["subject"].as_str(), subject, "{line}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 1 && has_line(&seen[0], "x-subject: ada"), "{seen:?}");
    assert!(!seen[0].to_ascii_lowercase().contains("authorization"), "{seen:?}");
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("POST /introspect HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].ends_with("\r\n\r\ntoken=good&token_type_hint=access_token"), "{asked:?}");
    for line in
        ["authorization: Basic Z2F0ZXdheTpodXNoLWh1c2g=", "content-type: application/x-www-form-urlencoded"]
    {
        assert!(has_line(&asked[0], line), "{line}: {asked:?}");
    }
    assert!(
        !asked.concat().contains("Bearer"),
        "the client's field is no one's but the gateway's: {asked:?}"
    );
}

#[test]
fn answers_of_issuers_are_remembered_as_long_as_may_be() {
    let inside = Upstream::saying("inside");
    for (cache, tokens, questions) in
        [("60s", ["good", "bad"], 2), ("0s", ["good", "bad"], 6), ("60s", ["odd", "odd"], 6)]
    {
        let (issuer, asked) = issuer();
        let gateway = gateway(inside.address, issuer.address, &introspect(&format!("cache = \"{cache}\"")));
        for _ in 0..3 {
            for token in tokens {
                ask(&gateway, "GET", "/", &format!("Authorization: Bearer {token}\r\n"));
            }
        }
        assert_eq!(asked.lock().unwrap().len(), questions, "{cache} {tokens:?}");
    }
}

#[test]
fn one_question_serves_all_who_show_the_token_at_once() {
    let inside = Upstream::saying("inside");
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let issuer = Upstream::answering(move |_, _| {
        asked.fetch_add(1, Ordering::SeqCst);
        wait.lock().unwrap().recv_timeout(support::PATIENCE).unwrap();
        let said = r#"{"active":true}"#;
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).into_bytes()
    });
    let gateway = gateway(inside.address, issuer.address, &introspect("timeout = \"60s\""));
    let mut peers: Vec<_> = (0..10).map(|_| gateway.connect()).collect();
    for peer in &mut peers {
        peer.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n");
    }
    // All of them, and the one exchange that asks.
    gateway.wait_for_figure("exchanges_active", 11);
    go.send(()).unwrap();
    for peer in &mut peers {
        assert_eq!(peer.response().status, 200);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn an_issuer_that_is_gone_refuses_all_but_those_it_spoke_of() {
    let inside = Upstream::saying("inside");
    let count = AtomicUsize::new(0);
    let issuer = Upstream::answering(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"active\":true}".to_vec(),
        _ => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let gateway = gateway(inside.address, issuer.address, &introspect("cache = \"60s\""));
    let good = "Authorization: Bearer good\r\n";
    assert_eq!(ask(&gateway, "GET", "/", good).status, 200);
    assert_eq!(ask(&gateway, "GET", "/", good).status, 200);
    let response = ask(&gateway, "GET", "/", "Authorization: Bearer new\r\n");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("introspect-failed") && response.field("retry-after").is_some());
    assert!(!response.text().contains("hush"));
    gateway.signal("TERM");
    let mut gateway = gateway;
    gateway.wait();
    let log = gateway.rest_of_log().concat();
    assert!(log.contains("introspect-failed") && !log.contains("hush"), "{log}");
}
