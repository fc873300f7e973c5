//! Responses that are made of several services' answers.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/http2.rs"]
mod http2;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use support::{Gateway, Response, Upstream, closed_port};

/// A gateway with a route to `/home/{id}` that asks these legs of the clusters `a` and `b`.
fn gateway(endpoints: [SocketAddr; 2], aggregate: &str, legs: &[&str], rest: &str) -> Gateway {
    Gateway::start(&config(endpoints, aggregate, legs, rest))
}

fn config([a, b]: [SocketAddr; 2], aggregate: &str, legs: &[&str], rest: &str) -> String {
    let legs: String = legs.iter().map(|leg| format!("[[route.aggregate.legs]]\n{leg}\n")).collect();
    format!(
        "runtime.workers = 1\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nh2c = true\n\
         [[cluster]]\nname = \"a\"\nendpoints = [{{ address = \"{a}\" }}]\n\
         [[cluster]]\nname = \"b\"\nendpoints = [{{ address = \"{b}\" }}]\n\
         [[route]]\nname = \"home\"\nmatch.path = \"/home/{{id}}\"\n{rest}\n[route.aggregate]\n{aggregate}\n{legs}"
    )
}

const USER: &str = "name = \"user\"\ncluster = \"a\"\npath = \"/users/{id}\"";
const CART: &str = "name = \"cart\"\ncluster = \"b\"\npath = \"/carts/{id}\"";

fn optional(leg: &str) -> String {
    format!("{leg}\nrequired = false")
}

fn ask(gateway: &Gateway, target: &str, lines: &str) -> Response {
    let mut peer = gateway.connect();
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"));
    peer.response()
}

fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{}", response.text()))
}

fn answer(status: &str, lines: &str, body: impl AsRef<str>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn saying(body: &'static str) -> Upstream {
    Upstream::answering(move |_, _| answer("200 OK", "", body))
}

/// Answers everything by `body`, and keeps the heads that it got.
fn recording(body: &'static str) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let upstream = Upstream::answering(move |head, _| {
        seen.lock().unwrap().push(head.to_owned());
        answer("200 OK", "", body)
    });
    (upstream, heads)
}

#[test]
fn all_are_asked_at_once() {
    let (a, mut of_a) = Upstream::asking();
    let (b, mut of_b) = Upstream::asking();
    let gateway = gateway([a.address, b.address], "", &[USER, CART], "");
    let mut peer = gateway.connect();
    peer.send("GET /home/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    // Neither has been answered.
    let (cart, user) = (of_b.question(), of_a.question());
    assert_eq!((user.path(), cart.path()), ("/users/7", "/carts/7"));
    cart.last(answer("200 OK", "", "[1,2]"));
    user.last(answer("200 OK", "", "{\"name\":\"Ada\"}"));
    let response = peer.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(json_of(&response), json!({ "user": { "name": "Ada" }, "cart": [1, 2] }));
    let line = gateway.log_line();
    assert_eq!((&line["route"], &line["status"], &line["end"]), (&json!("home"), &json!(200), &json!("ok")));
}

#[test]
fn one_may_need_what_another_says() {
    let (a, seen_a) = recording(r#"{"data":{"city":"b?c#d é","slash":"a/b","ids":[5,6],"none":null}}"#);
    let (b, seen_b) = recording(r#"{"ok":true}"#);
    let user = format!("{USER}\nselect = \"/data\"");
    let legs = [
        &*user,
        "name = \"offers\"\ncluster = \"b\"\npath = \"/offers/{legs.user/city}?first={legs.user/ids/0}\"",
        &optional("name = \"lost\"\ncluster = \"b\"\npath = \"/lost/{legs.user/none}\""),
        &optional("name = \"after\"\ncluster = \"b\"\npath = \"/after/{legs.lost/x}\""),
        &optional("name = \"dots\"\ncluster = \"b\"\npath = \"/dots/{legs.user/ids/1}/{header.x-dots}\""),
        &optional("name = \"slash\"\ncluster = \"b\"\npath = \"/slash/{legs.user/slash}\""),
    ];
    let gateway = gateway([a.address, b.address], "", &legs, "");
    let document = json_of(&ask(&gateway, "/home/7", "X-Dots: ..\r\n"));
    assert_eq!(document["offers"], json!({ "ok": true }));
    let problems = json!([
        { "leg": "lost", "reason": "not-asked" },
        { "leg": "after", "reason": "not-asked" },
        { "leg": "dots", "reason": "path-invalid" },
    ]);
    assert_eq!(document["problems"], problems);
    assert_eq!(seen_a.lock().unwrap().len(), 1);
    let seen = seen_b.lock().unwrap();
    let [offers, slash] = &seen[..] else { panic!("two questions: {seen:?}") };
    assert!(slash.starts_with("GET /slash/a%2Fb HTTP/1.1\r\n"), "{slash}");
    let encoded = "GET /offers/b%3Fc%23d%20%C3%A9?first=5 HTTP/1.1\r\n";
    assert!(offers.starts_with(encoded), "{offers}");
}

#[test]
fn a_failure_is_told_or_is_the_whole_answers() {
    let good = saying(r#"{"a":1}"#);
    let status = |status: &'static str| Upstream::answering(move |_, _| answer(status, "", "{\"secret\":1}"));
    let html = Upstream::saying("<html>");
    let large = Upstream::answering(|_, _| answer("200 OK", "", format!("\"{}\"", "a".repeat(5000))));
    let endless = Upstream::answering(|_, _| {
        [
            &b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"[..],
            &[b' '; 200_000],
        ]
        .concat()
    });
    let deep =
        Upstream::answering(|_, _| answer("200 OK", "", format!("{}{}", "[".repeat(500), "]".repeat(500))));
    let (closed, _guard) = closed_port();
    let (missing, broken, moved) = (status("404 Not Found"), status("500 No"), status("302 Found"));
    for (address, reason, whole) in [
        (missing.address, "status", 404),
        (broken.address, "status", 502),
        (moved.address, "status", 502),
        (html.address, "answer-not-json", 502),
        (large.address, "answer-too-large", 502),
        (endless.address, "answer-too-large", 502),
        (deep.address, "answer-not-json", 502),
        (closed, "connect-failed", 502),
    ] {
        let small = format!("{CART}\nbody_bytes = \"4KiB\"");
        let partial = gateway([good.address, address], "", &[USER, &optional(&small)], "");
        let response = ask(&partial, "/home/7", "");
        let document = json_of(&response);
        assert_eq!(
            (response.status, &document["user"], &document["cart"]),
            (200, &json!({ "a": 1 }), &Value::Null),
            "{reason}"
        );
        assert_eq!(
            (&document["problems"][0]["leg"], &document["problems"][0]["reason"]),
            (&json!("cart"), &json!(reason))
        );
        assert_eq!(response.field("x-partial").as_deref(), Some("cart"));
        assert_eq!(response.field("cache-control").as_deref(), Some("no-store"));
        assert!(
            !response.text().contains("secret") && !response.text().contains("127.0.0.1"),
            "{}",
            response.text()
        );
        let strict = gateway([good.address, address], "", &[USER, &small], "");
        let response = ask(&strict, "/home/7", "");
        assert_eq!(response.status, whole, "{reason}");
        assert!(
            response.text().contains("leg-failed") && !response.text().contains("secret"),
            "{}",
            response.text()
        );
        assert_eq!(strict.log_line()["end"], "leg-failed");
    }
}

#[test]
fn each_has_its_time_and_all_have_the_routes() {
    let good = saying("1");
    let (slow, mut questions) = Upstream::asking();
    let timed = format!("{CART}\ntimeout = \"50ms\"");
    let partial = gateway([good.address, slow.address], "", &[USER, &optional(&timed)], "");
    let document = json_of(&ask(&partial, "/home/7", ""));
    assert_eq!(document["problems"][0]["reason"], "exchange-timeout");
    assert_eq!(document["user"], 1);
    drop(questions.question());
    let strict = gateway([good.address, slow.address], "", &[USER, &timed], "");
    assert_eq!(ask(&strict, "/home/7", "").status, 504);
    drop(questions.question());
    let whole = gateway([good.address, slow.address], "", &[USER, &optional(CART)], "timeout = \"50ms\"");
    let response = ask(&whole, "/home/7", "");
    assert_eq!(response.status, 504);
    assert!(response.text().contains("exchange-timeout"), "{}", response.text());
}

#[test]
fn a_client_that_leaves_takes_its_questions_back() {
    let (a, mut of_a) = Upstream::asking();
    let (b, mut of_b) = Upstream::asking();
    let gateway = gateway([a.address, b.address], "", &[USER, CART], "");
    let mut peer = gateway.connect();
    peer.send("GET /home/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    let _held = (of_a.question(), of_b.question());
    peer.reset();
    gateway.wait_for_figure("exchanges_active", 0);
    assert_eq!(gateway.log_line()["end"], "client-gone");
}

#[test]
fn a_required_failure_ends_the_others() {
    let broken = Upstream::answering(|_, _| answer("404 Not Found", "", "{}"));
    let (b, mut of_b) = Upstream::asking();
    let gateway = gateway([broken.address, b.address], "", &[CART, USER], "");
    assert_eq!(ask(&gateway, "/home/7", "").status, 404);
    drop(of_b.question());
    gateway.wait_for_figure("exchanges_active", 0);
}

#[test]
fn fields_go_and_come_by_rule() {
    let (a, seen) = recording("{}");
    let b = Upstream::answering(|_, _| {
        answer("200 OK", "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Own: 1\r\nX-Other: 2\r\n", "{}")
    });
    let cart = format!("{CART}\npass = [\"Set-Cookie\", \"x-own\"]");
    let rest = "request_headers.set = { x-route = \"{route}\", x-client = \"{client.ip}\" }\nresponse_headers.set = { x-done = \"yes\" }";
    let gateway = gateway([a.address, b.address], "", &[USER, &cart], rest);
    let lines = "Authorization: Bearer x\r\nCookie: k=v\r\nX-Secret: s\r\nX-Client: forged\r\nX-Forwarded-For: 9.9.9.9\r\n\
                 Range: bytes=0-1\r\nAccept-Encoding: gzip\r\nIf-None-Match: \"a\"\r\n";
    let response = ask(&gateway, "/home/7?q=1", lines);
    assert_eq!(support::fields(&response.head, "set-cookie"), ["a=b", "c=d"]);
    assert_eq!(response.field("x-own").as_deref(), Some("1"));
    assert_eq!(response.field("x-other"), None);
    assert_eq!(response.field("x-done").as_deref(), Some("yes"));
    assert_eq!(response.field("x-partial"), None);
    let seen = seen.lock().unwrap();
    let head = &seen[0];
    let has = |line: &str| head.lines().any(|own| own.eq_ignore_ascii_case(line));
    for line in [
        "GET /users/7 HTTP/1.1",
        "host: shop.example",
        "authorization: Bearer x",
        "cookie: k=v",
        "accept: application/json",
        "x-route: home",
        "x-client: 127.0.0.1",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(has(line), "{line}: {head}");
    }
    for part in ["x-secret", "forged", "9.9.9.9", "range:", "gzip", "if-none-match"] {
        assert!(!head.to_ascii_lowercase().contains(part), "{part}: {head}");
    }
}

#[test]
fn legs_pass_policies_of_their_own_and_may_not_be_asked() {
    let a = saying("1");
    let (b, seen) = recording("2");
    let policies = "\n[[policy]]\nname = \"few\"\nrate_limit = { limit = 1, per = \"1h\", by = [] }\n";
    let cart = optional(&format!("{CART}\nuse = [\"few\"]"));
    let sometimes =
        "name = \"extra\"\ncluster = \"a\"\npath = \"/extra\"\nwhen = \"'full' in request.query\"";
    let legs = [USER, &*cart, &format!("{sometimes}{policies}")];
    let gateway = gateway([a.address, b.address], "", &legs, "");
    assert_eq!(json_of(&ask(&gateway, "/home/7?full=1", "")), json!({ "user": 1, "cart": 2, "extra": 1 }));
    let second = json_of(&ask(&gateway, "/home/7", ""));
    let problems = json!([{ "leg": "cart", "reason": "quota-exceeded" }]);
    assert_eq!(second, json!({ "user": 1, "cart": null, "problems": problems }));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn what_needs_a_leg_that_is_left_out_is_left_out() {
    let (a, b) = (saying(r#"{"x":1}"#), saying("2"));
    let user = format!("{USER}\nwhen = \"'full' in request.query\"");
    let more = "name = \"more\"\ncluster = \"b\"\npath = \"/more/{legs.user/x}\"";
    let gateway = gateway([a.address, b.address], "", &[&user, more, CART], "");
    assert_eq!(json_of(&ask(&gateway, "/home/7", "")), json!({ "cart": 2 }));
    let whole = json!({ "user": { "x": 1 }, "more": 2, "cart": 2 });
    assert_eq!(json_of(&ask(&gateway, "/home/7?full=1", "")), whole);
}

#[test]
fn a_value_is_one_segment_whatever_clients_paths_mean() {
    let a = saying(r#"{"x":"7/admin","y":"7\\admin"}"#);
    let (b, seen) = recording("2");
    let x = "name = \"x\"\ncluster = \"b\"\npath = \"/v/{legs.user/x}\"";
    let y = "name = \"y\"\ncluster = \"b\"\npath = \"/v/{legs.user/y}\"";
    let config = config([a.address, b.address], "", &[USER, x, y], "")
        .replace("h2c = true", "path = { encoded_slash = \"decode\", backslash = \"slash\" }");
    let gateway = Gateway::start(&config);
    ask(&gateway, "/home/7", "");
    let mut targets: Vec<String> =
        seen.lock().unwrap().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    targets.sort();
    assert_eq!(targets.iter().filter(|target| target.contains("admin")).count(), targets.len());
    assert!(targets.iter().all(|target| target.matches('/').count() == 2), "{targets:?}");
}

#[test]
fn parts_say_nothing_of_how_long_a_whole_with_gaps_is_good() {
    let a = Upstream::answering(|_, _| {
        answer("200 OK", "Cache-Control: max-age=60\r\nExpires: 0\r\nX-A: 1\r\n", "1")
    });
    let broken = Upstream::answering(|_, _| answer("500 No", "", "{}"));
    let user = format!("{USER}\npass = [\"cache-control\", \"expires\", \"x-a\"]");
    let whole = gateway([a.address, broken.address], "", &[&user], "");
    assert_eq!(ask(&whole, "/home/7", "").field("cache-control").as_deref(), Some("max-age=60"));
    let partial = gateway([a.address, broken.address], "", &[&user, &optional(CART)], "");
    let response = ask(&partial, "/home/7", "");
    assert_eq!(support::fields(&response.head, "cache-control"), ["no-store"]);
    assert_eq!((response.field("expires"), response.field("x-a").as_deref()), (None, Some("1")));
}

#[test]
fn members_become_one_objects() {
    let a = saying(r#"{"user":{"name":"Ada","secret":"x"},"list":[1]}"#);
    let b = saying(r#"{"user":{"city":"Berlin"},"list":[2]}"#);
    let user = format!("{USER}\nremove = [\"/user/secret\"]");
    let legs =
        [&*user, CART, &optional("name = \"plain\"\ncluster = \"a\"\npath = \"/x\"\nselect = \"/list\"")];
    let gateway = gateway([a.address, b.address], "merge = \"deep\"\nproblems = \"failed\"", &legs, "");
    let document = json_of(&ask(&gateway, "/home/7", ""));
    let failed = json!([{ "leg": "plain", "reason": "answer-lacks-value" }]);
    assert_eq!(
        document,
        json!({ "user": { "name": "Ada", "city": "Berlin" }, "list": [2], "failed": failed })
    );
}

#[test]
fn every_version_and_method_of_asking() {
    let (a, b) = (saying("1"), saying("2"));
    let gateway = gateway([a.address, b.address], "", &[USER, CART], "");
    let mut peer = gateway.connect();
    peer.send("HEAD /home/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = peer.head();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && support::field(&head, "content-length").as_deref() == Some("19"),
        "{head}"
    );
    peer.send("GET /home/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(json_of(&peer.response()), json!({ "user": 1, "cart": 2 }), "the connection is sound");
    peer.send("POST /home/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(peer.response().status, 405);
    let client = http2::Client::connect(gateway.address());
    for _ in 0..3 {
        let said: Value = serde_json::from_str(&client.says("/home/7")).unwrap();
        assert_eq!(said, json!({ "user": 1, "cart": 2 }));
    }
    assert_eq!(a.accepted(), 1, "legs use the pool");
}

#[test]
fn large_answers_and_many_legs() {
    let a = Upstream::answering(|_, _| answer("200 OK", "", format!("\"{}\"", "a".repeat(300_000))));
    let b = saying("2");
    let legs: Vec<String> = (0..32)
        .map(|number| format!("name = \"l{number}\"\ncluster = \"a\"\npath = \"/{number}\""))
        .collect();
    let legs: Vec<&str> = legs.iter().map(String::as_str).collect();
    let gateway = gateway([a.address, b.address], "", &legs, "");
    let mut peer = gateway.connect();
    for _ in 0..2 {
        peer.send("GET /home/7 HTTP/1.1\r\nHost: a\r\n\r\n");
        let document = json_of(&peer.response());
        let members = document.as_object().unwrap();
        assert_eq!(members.len(), 32);
        assert!(members.values().all(|value| value.as_str().is_some_and(|text| text.len() == 300_000)));
    }
}

#[test]
fn captured_values_lead_nowhere_else() {
    let (a, seen) = recording("1");
    let b = saying("2");
    let gateway = gateway([a.address, b.address], "", &[USER], "");
    for id in ["a%2fb", "..%2f..", "%2e%2e", "a;b", "a%3fb"] {
        ask(&gateway, &format!("/home/{id}"), "");
    }
    for head in &*seen.lock().unwrap() {
        let target = head.split(' ').nth(1).unwrap();
        assert!(target.starts_with("/users/") && !target[7..].contains(['/', '?']), "{head}");
    }
}

#[test]
fn faults_are_pointed_at_and_explain_shows_legs() {
    let file = support::repository("target/tmp");
    std::fs::create_dir_all(&file).unwrap();
    let file = file.join(format!("aggregate-{}.toml", std::process::id()));
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let run = |legs: &[&str], arguments: &[&str]| {
        std::fs::write(&file, config([nowhere; 2], "", legs, "")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringgate"));
        let (name, rest) = arguments.split_first().unwrap();
        let output = command.arg(name).arg(&file).args(rest).output().unwrap();
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat(),
        )
    };
    for (legs, fault) in [
        (&[][..], "missing"),
        (&["name = \"a b\"\ncluster = \"a\"\npath = \"/\""], "is no name of a leg"),
        (&[USER, USER], "two legs of this route are called"),
        (&["name = \"x\"\ncluster = \"none\"\npath = \"/\""], "unknown cluster"),
        (&["name = \"x\"\ncluster = \"a\"\npath = \"/{legs.y/a}\""], "there is no leg `y` before this one"),
        (&[USER, "name = \"x\"\ncluster = \"a\"\npath = \"/{legs.user/~a}\""], "is no JSON pointer"),
        (&["name = \"x\"\ncluster = \"a\"\npath = \"x\""], "begins with `/`"),
        (&["name = \"x\"\ncluster = \"a\"\npath = \"/\"\nselect = \"a\""], "is no JSON pointer"),
        (
            &["name = \"x\"\ncluster = \"a\"\npath = \"/\"\npass = [\"content-length\"]"],
            "cannot be taken over",
        ),
        (
            &["name = \"x\"\ncluster = \"a\"\npath = \"/\"\npass = [\"content-type\"]"],
            "is not a leg's to say",
        ),
        (&["name = \"x\"\ncluster = \"a\"\npath = \"/\"\nwhen = \"1\""], "when"),
        (&["name = \"problems\"\ncluster = \"a\"\npath = \"/\""], "is called like the member"),
        (&["name = \"x\"\ncluster = \"a\"\npath = \"/\"\nuse = [\"none\"]"], "none"),
    ] {
        let (is_good, said) = run(legs, &["check"]);
        assert!(!is_good && said.contains(fault), "{fault}: {said}");
    }
    let offers = optional("name = \"offers\"\ncluster = \"b\"\npath = \"/offers/{legs.user/city}\"");
    let (is_good, said) = run(&[USER, &offers], &["explain", "GET", "http://a/home/7"]);
    assert!(
        is_good && said.contains("user: a (required)") && said.contains("offers: b (optional, after user)"),
        "{said}"
    );
    std::fs::remove_file(&file).unwrap();
}
