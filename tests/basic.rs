//! Users with names and passwords: who passes, what is verified and how often, and what no one gets to see.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::Command;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use support::{Gateway, Peer, Response, Upstream, mint::Files, ok, route, trusting, within};

/// Of `correct horse`: quick, slower, and by argon2id.
const QUICK: &str = "$2b$04$vD3bmPSQMMQ.e4TsdZ86ve7cCUn73a6aH6x9W4xW1VdvOQhgQ1vhm";
const SLOWER: &str = "$2b$10$zACPE4D.KHgquuxZkEDgAOy9Gh7gLV.a180ebHsIguzEVqCvorXj2";
const ARGON2: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQxNmJ5dGVzIQ$8RQhbwLdAK6SPE9P6gAYRg";
/// Of nothing that is known, and hardly ever found out.
const SLOWEST: &str = "$2b$16$zACPE4D.KHgquuxZkEDgAOy9Gh7gLV.a180ebHsIguzEVqCvorXj2";

const PASSWORD: &str = "correct horse";

fn user(name: &str, hash: &str) -> String {
    format!("{{ name = \"{name}\", password = \"{hash}\" }}")
}

fn policy(name: &str, keys: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\n{keys}\n")
}

/// A gateway before an upstream that answers with the head and body that it gets.
fn gateway(rest: &[String]) -> Gateway {
    let upstream = Upstream::answering(|head, body| ok(&[head.as_bytes(), body].concat()));
    Gateway::start(&trusting(upstream.address, &rest.concat()))
}

/// The field that shows a name and a password.
fn shown(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

fn request(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn asked(peer: &mut Peer, path: &str, lines: &str) -> Response {
    peer.send(request(path, lines));
    peer.response()
}

fn ask(gateway: &Gateway, path: &str, lines: &str) -> Response {
    asked(&mut gateway.connect(), path, lines)
}

#[test]
fn who_shows_the_password_passes() {
    let users = [user("ada", QUICK), user("böb", ARGON2)].join(", ");
    let gateway = gateway(&[
        policy("people", &format!("basic = {{ realm = \"the \\\"inner\\\" room\", users = [{users}] }}")),
        policy("shown", &format!("basic = {{ users = [{users}], forward = true }}")),
        policy("ada-only", "allow = \"auth.subject == 'ada'\""),
        route(
            "/inside",
            "use = [\"people\"]\nrequest_headers.set = { x-user = \"{auth.subject}\" }\n\
             response_headers.set = { x-user = \"{auth.subject}\" }",
        ),
        route("/shown", "use = [\"shown\"]"),
        route("/ada", "use = [\"people\", \"ada-only\"]"),
        route("/open", "request_headers.set = { x-user = \"{auth.subject}\" }"),
    ]);
    let challenge = "Basic realm=\"the \\\"inner\\\" room\", charset=\"UTF-8\"";
    let two = [shown("ada", PASSWORD), shown("ada", PASSWORD)].concat();
    for (path, lines, status, end, subject) in [
        ("/inside", shown("ada", PASSWORD), 200, "ok", Some("ada")),
        ("/inside", shown("böb", PASSWORD).replace("Basic", "bAsIc"), 200, "ok", Some("böb")),
        ("/inside", shown("ada", "correct hors"), 401, "password-wrong", None),
        ("/inside", shown("Ada", PASSWORD), 401, "password-wrong", None),
        ("/inside", shown("eve", PASSWORD), 401, "password-wrong", None),
        ("/inside", shown("ada", ""), 401, "password-wrong", None),
        ("/inside", String::new(), 401, "password-missing", None),
        ("/inside", "X-User: ada\r\n".into(), 401, "password-missing", None),
        ("/inside", "Authorization: Bearer a.b.c\r\n".into(), 401, "password-missing", None),
        ("/inside", "Authorization: Basic\r\n".into(), 401, "password-malformed", None),
        ("/inside", "Authorization: Basic !\r\n".into(), 401, "password-malformed", None),
        ("/inside", "Authorization: Basic YWRh\r\n".into(), 401, "password-malformed", None),
        ("/inside", shown("ada", "a\nb"), 401, "password-malformed", None),
        ("/inside", two, 401, "password-malformed", None),
        ("/inside", shown(&"a".repeat(256), PASSWORD), 401, "password-malformed", None),
        ("/shown", shown("ada", PASSWORD), 200, "ok", Some("ada")),
        ("/ada", shown("ada", PASSWORD), 200, "ok", Some("ada")),
        ("/ada", shown("böb", PASSWORD), 403, "not-allowed", Some("böb")),
        ("/ada", String::new(), 401, "password-missing", None),
        ("/open", shown("ada", PASSWORD), 200, "ok", None),
    ] {
        let response = ask(&gateway, path, &lines);
        let line = gateway.log_line();
        assert_eq!((response.status, line["end"].as_str()), (status, Some(end)), "{path} {lines}");
        assert_eq!(line["subject"].as_str(), subject, "{path} {lines}");
        assert_eq!(response.field("www-authenticate").as_deref(), (status == 401).then_some(challenge));
        let told = [line.to_string(), response.head.clone()].concat();
        assert!(!told.contains("correct") && !told.contains("Y29ycmVjdCBob3JzZ"), "{told}");
        if status == 200 {
            let goes_on = response.text().to_ascii_lowercase().contains("authorization");
            assert_eq!(goes_on, path == "/shown" || path == "/open", "{}", response.text());
        }
        if path == "/inside" && status == 200 {
            assert_eq!(support::fields(&response.text(), "x-user"), [subject.unwrap()]);
            let forged = [&lines, "X-User: root\r\n"].concat();
            let told = ask(&gateway, path, &forged);
            gateway.log_line();
            assert_eq!(support::fields(&told.text(), "x-user"), [subject.unwrap()]);
        }
        if path == "/open" {
            assert_eq!(support::field(&response.text(), "x-user").unwrap_or_default(), "");
        }
    }
}

#[test]
fn a_password_is_verified_once_and_one_of_no_user_too() {
    let keys = |remember: &str| format!("basic = {{ users = [{}]{remember} }}", user("ada", QUICK));
    let gateway = gateway(&[
        policy("people", &keys("")),
        policy("forgetful", &keys(", remember = \"0s\"")),
        route("/people", "use = [\"people\"]"),
        route("/forgetful", "use = [\"forgetful\"]"),
    ]);
    let tried = || gateway.figure("passwords_tried");
    let mut peer = gateway.connect();
    for _ in 0..5 {
        assert_eq!(asked(&mut peer, "/people", &shown("ada", PASSWORD)).status, 200);
    }
    assert_eq!(tried(), 1, "it is remembered");
    for _ in 0..2 {
        assert_eq!(asked(&mut peer, "/people", &shown("ada", "wrong")).status, 401);
        assert_eq!(asked(&mut peer, "/people", &shown("eve", "wrong")).status, 401);
    }
    assert_eq!(tried(), 5, "who is wrong is tried each time, and who is no one as well");
    for _ in 0..3 {
        assert_eq!(asked(&mut peer, "/forgetful", &shown("ada", PASSWORD)).status, 200);
    }
    assert_eq!(tried(), 8, "what another policy remembers is nothing to this one");
}

/// Many at once, on one core, from one client: they wait together for one answer.
#[test]
fn the_same_password_at_once_is_verified_once() {
    let gateway = gateway(&[
        policy("people", &format!("basic = {{ users = [{}] }}", user("ada", SLOWER))),
        route("/*", "use = [\"people\"]"),
    ]);
    let mut peers: Vec<Peer> = (0..20).map(|_| gateway.connect()).collect();
    for peer in &mut peers {
        peer.send(request("/", &shown("ada", PASSWORD)));
    }
    assert!(peers.iter_mut().all(|peer| peer.response().status == 200));
    assert_eq!(gateway.figure("passwords_tried"), 1);
}

#[test]
fn what_comes_while_a_request_waits_is_not_lost() {
    let gateway = gateway(&[
        policy("people", &format!("basic = {{ users = [{}], remember = \"0s\" }}", user("ada", SLOWER))),
        route("/*", "use = [\"people\"]"),
    ]);
    let lines = shown("ada", PASSWORD);
    let mut peer = gateway.connect();
    peer.send(request("/first", &lines));
    peer.send(request("/second", &lines));
    peer.send(request("/third", &shown("ada", "wrong")));
    assert!(peer.response().text().starts_with("GET /first "));
    assert!(peer.response().text().starts_with("GET /second "));
    assert_eq!(peer.response().status, 401);
    // A body behind its head, in pieces, and a request behind that.
    peer.send(format!("POST /body HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 10\r\n\r\n01234"));
    peer.send(format!("56789{}", request("/next", &lines)));
    let response = peer.response().text();
    assert!(response.starts_with("POST /body ") && response.ends_with("0123456789"), "{response}");
    assert!(peer.response().text().starts_with("GET /next "));
}

/// One client guesses while its guesses take long: beyond a few it is told to come again, and whoever is known passes.
#[test]
fn the_queue_is_bounded_and_who_leaves_is_let_go() {
    let users = [user("ada", QUICK), user("slow", SLOWEST)].join(", ");
    let gateway = gateway(&[
        policy("people", &format!("basic = {{ users = [{users}] }}")),
        route("/*", "use = [\"people\"]"),
    ]);
    assert_eq!(ask(&gateway, "/", &shown("ada", PASSWORD)).status, 200);
    assert_eq!(gateway.log_line()["status"], 200);
    let guessing: Vec<Peer> = (0..12)
        .map(|number| {
            let mut peer = gateway.connect();
            peer.send(request("/", &shown("slow", &format!("guess {number}"))));
            peer
        })
        .collect();
    for _ in 0..4 {
        let line = gateway.log_line();
        assert_eq!(
            (line["status"].as_u64(), line["end"].as_str()),
            (Some(503), Some("passwords-busy")),
            "{line}"
        );
    }
    // Which of them were refused, their connections tell: each has its answer by now.
    assert_eq!(ask(&gateway, "/", &shown("ada", PASSWORD)).status, 200);
    assert_eq!(gateway.log_line()["status"], 200);
    let refused = ask(&gateway, "/", &shown("slow", "one more"));
    assert_eq!((refused.status, refused.field("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(refused.field("www-authenticate"), None);
    assert_eq!(gateway.log_line()["end"], "passwords-busy");
    // Those who wait leave: they are not waited for.
    guessing.into_iter().for_each(Peer::reset);
    for _ in 0..8 {
        assert_eq!(gateway.log_line()["end"], "client-gone");
    }
    assert_eq!(ask(&gateway, "/", &shown("ada", PASSWORD)).status, 200);
}

#[test]
fn users_come_and_go_with_their_file() {
    let files = Files::new();
    let file = files.write("users", &format!("# people\nada:{QUICK}\n"));
    let keys = format!("basic = {{ file = \"{file}\", users = [{}] }}", user("own", QUICK));
    let gateway = gateway(&[policy("people", &keys), route("/*", "use = [\"people\"]")]);
    let status = |name: &str| ask(&gateway, "/", &shown(name, PASSWORD)).status;
    assert_eq!([status("ada"), status("own"), status("bob")], [200, 200, 401]);
    files.write("users", &format!("bob:{ARGON2}\r\n"));
    within("bob is known", || (status("bob") == 200).then_some(()));
    // She was remembered, and is no user any more.
    assert_eq!([status("ada"), status("own")], [401, 200]);
    for (broken, fault) in [
        (format!("bob:{ARGON2}\neve:hunter2\n"), "users:2: the line has a password that is no hash"),
        (format!("bob:{ARGON2}\neve:$apr1$x$hunter2\n"), "is hashed by MD5 (apr1)"),
        (format!("bob:{ARGON2}\nbob:{QUICK}\n"), "users:2: the line is of the same user as line 1"),
        ("hunter2\n".to_owned(), "users:1: the line is not `name:hash`"),
        (format!("own:{QUICK}\n"), "are among the policy's `users` too"),
    ] {
        files.write("users", &broken);
        let said = gateway.message(fault);
        assert!(said.contains("the users before stay in force") && !said.contains("hunter2"), "{said}");
        assert_eq!([status("ada"), status("own"), status("bob")], [401, 200, 200]);
    }
    std::fs::remove_file(&file).unwrap();
    gateway.message("cannot be read");
    assert_eq!([status("own"), status("bob")], [200, 200]);
}

#[test]
fn users_are_counted_each_by_themselves() {
    let users = [user("ada", QUICK), user("bob", QUICK)].join(", ");
    let gateway = gateway(&[
        policy("people", &format!("basic = {{ users = [{users}] }}")),
        policy("few", "rate_limit = { limit = 2, per = \"1h\", by = [\"subject\"] }"),
        route("/*", "use = [\"people\", \"few\"]"),
    ]);
    let status = |name: &str| ask(&gateway, "/", &shown(name, PASSWORD)).status;
    assert_eq!([status("ada"), status("ada"), status("ada"), status("bob")], [200, 200, 429, 200]);
}

/// Each core asks and is answered, on either driver.
#[test]
fn every_core_has_its_answers() {
    for driver in ["auto", "epoll"] {
        let text = support::config(
            &[
                policy(
                    "people",
                    &format!(
                        "default = true\nbasic = {{ users = [{}], remember = \"0s\" }}",
                        user("ada", QUICK)
                    ),
                ),
                "[[route]]\nname = \"here\"\nrespond = { body = \"yes\" }\n".into(),
            ]
            .concat(),
        );
        let several = format!("workers = 2\ndriver = \"{driver}\"");
        let gateway = Gateway::start(&text.replacen("workers = 1", &several, 1));
        let mut peers: Vec<Peer> = (0..16).map(|_| gateway.connect()).collect();
        for (password, status) in [(PASSWORD, 200), ("wrong", 401)] {
            for peer in &mut peers {
                assert_eq!(asked(peer, "/", &shown("ada", password)).status, status);
            }
        }
        let lines = (0..32).map(|_| gateway.log_line()["core"].as_u64());
        let cores: std::collections::HashSet<_> = lines.collect();
        assert_eq!(cores.len(), 2);
        assert_eq!(gateway.figure("passwords_tried"), 32);
    }
}

#[test]
fn what_is_no_hash_is_refused_and_not_shown() {
    let files = Files::new();
    let check = |keys: &str| {
        let text = support::config(&policy("people", &format!("default = true\nbasic = {keys}")));
        let config = files.write("gateway.toml", &text);
        let output = Command::new(env!("CARGO_BIN_EXE_ringgate")).args(["check", &config]).output().unwrap();
        assert!(!output.status.success(), "{keys}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("hunter2"), "{said}");
        said
    };
    let said = check("{ users = [{ name = \"ada\", password = \"hunter2\" }] }");
    assert!(
        said.contains("the password of user 1 of this policy is no hash by bcrypt or argon2id"),
        "{said}"
    );
    assert!(said.contains("htpasswd -nB NAME"), "{said}");
    let said = check("{ users = [{ name = \"ada\", password = \"$apr1$salt$hunter2\" }] }");
    assert!(said.contains("is hashed by MD5 (apr1)"), "{said}");
    let file = files.write("users", "ada:hunter2\n");
    let said = check(&format!("{{ file = \"{file}\" }}"));
    assert!(said.contains("users:1: the line has a password that is no hash"), "{said}");
    assert!(check("{}").contains("there are no users"));
    let jwt = "[[policy]]\nname = \"login\"\njwt = { algorithms = [\"HS256\"], keys = [{ secret = \"an example, which everyone knows\" }] }";
    let users = format!("{{ users = [{}] }}", user("ada", QUICK));
    let routes = "[[route]]\nname = \"both\"\nrespond = {}\nuse = [\"login\"]";
    let said = check(&format!("{users}\n{jwt}\n{routes}"));
    assert!(said.contains("`people` and `login` ask for two things in one place"), "{said}");
    assert!(check("{ file = \"users\" }").contains("is not the absolute path of a file"));
    assert!(check(&format!("{{ realm = \"\", users = [{}] }}", user("a", QUICK))).contains("is no realm"));
}
