//! Consumers in a file beside the configuration: read with it, taken when they change, and never confused.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::Command;

use support::{Gateway, Peer, Upstream, mint::Files, route, trusting, within};

/// Hashes of `secret` and of `other`.
const SECRET: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";
/// Of `third`.
const THIRD: &str = "sha256:b1e99324505bd32da0e1f85dcf5e19a09db0481e8a15f62c41eb320304a8e927";

fn consumer(name: &str, hash: &str, tags: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nkeys = [\"{hash}\"]\ntags = [{tags}]\n")
}

fn config(upstream: &Upstream, file: &str) -> String {
    let rest = [
        consumer("own", THIRD, ""),
        "[[policy]]\nname = \"any\"\nkey = {}\n".into(),
        "[[policy]]\nname = \"gold\"\nkey = { tags = [\"gold\"] }\n".into(),
        route("/any", "use = [\"any\"]\nresponse_headers.set = { x-consumer = \"{consumer.name}\" }"),
        route("/gold", "use = [\"gold\"]"),
    ];
    format!("consumers = \"{file}\"\n{}", trusting(upstream.address, &rest.concat()))
}

fn ask(gateway: &Gateway, path: &str, key: &str) -> (u16, Option<String>) {
    let mut peer = gateway.connect();
    asked(&mut peer, path, key)
}

fn asked(peer: &mut Peer, path: &str, key: &str) -> (u16, Option<String>) {
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
    let response = peer.response();
    (response.status, response.field("x-consumer"))
}

#[test]
fn consumers_come_and_go_with_their_file() {
    let (files, upstream) = (Files::new(), Upstream::saying("ok"));
    let file = files.write("consumers.toml", &consumer("acme", SECRET, "\"gold\""));
    let gateway = Gateway::start(&config(&upstream, &file));
    let named = |name: &str| (200, Some(name.to_owned()));
    let mut kept = gateway.connect();
    assert_eq!(asked(&mut kept, "/any", "secret"), named("acme"));
    assert_eq!(ask(&gateway, "/any", "third"), named("own"));
    assert_eq!(ask(&gateway, "/any", "other").0, 401);
    assert_eq!(ask(&gateway, "/gold", "secret").0, 200);
    assert_eq!(ask(&gateway, "/gold", "third").0, 403);

    // Others, and whoever was there has another place and another key.
    files.write(
        "consumers.toml",
        &[consumer("globex", OTHER, "\"gold\""), consumer("acme", SECRET, "")].concat(),
    );
    within("the new ones are known", || (ask(&gateway, "/any", "other") == named("globex")).then_some(()));
    assert_eq!(asked(&mut kept, "/any", "secret"), named("acme"), "and no connection was lost");
    assert_eq!(ask(&gateway, "/any", "third"), named("own"));
    assert_eq!(ask(&gateway, "/gold", "other").0, 200);
    assert_eq!(ask(&gateway, "/gold", "secret").0, 403);

    // What cannot be used changes nothing.
    for (broken, fault) in [
        ("[[consumer]]\nname = ", "consumers.toml:2: "),
        ("[[consumer]]\nname = \"a\"\nkyes = []\n", "consumers.toml:3: unknown key `kyes`"),
        (&consumer("a", "secret", ""), "consumers.toml:2: key 1 of this consumer is no hash of a key"),
        (&consumer("own", SECRET, ""), "consumers.toml:2: `own` is in the configuration already"),
        (&consumer("a", THIRD, ""), "consumers.toml:2: key 1 of this consumer is one of the configuration's"),
        (&[consumer("a", SECRET, ""), consumer("a", OTHER, "")].concat(), "duplicate consumer name `a`"),
        ("[[listener]]\n", "unknown key `listener`"),
    ] {
        files.write("consumers.toml", broken);
        let said = gateway.message(fault);
        assert!(said.contains("the consumers before stay in force") && !said.contains("sha256"), "{said}");
        assert_eq!(ask(&gateway, "/any", "other"), named("globex"));
        assert_eq!(asked(&mut kept, "/any", "secret"), named("acme"));
    }
    assert_eq!(gateway.figure("certificates_refused"), 7);

    // Whoever is gone is no one.
    files.write("consumers.toml", "");
    within("they are gone", || (ask(&gateway, "/any", "other").0 == 401).then_some(()));
    assert_eq!(ask(&gateway, "/any", "secret").0, 401);
    assert_eq!(ask(&gateway, "/any", "third"), named("own"));
}

/// An exchange that lasts while consumers change places is its consumer's to the end.
#[test]
fn an_exchange_is_its_consumers_to_the_end() {
    let files = Files::new();
    let (upstream, mut upstream_asked) = Upstream::asking();
    let file = files.write("consumers.toml", &consumer("acme", SECRET, ""));
    let gateway = Gateway::start(&config(&upstream, &file));
    let mut slow = gateway.connect();
    slow.send("GET /any HTTP/1.1\r\nHost: a\r\nX-Api-Key: secret\r\n\r\n");
    let question = upstream_asked.question();
    files.write("consumers.toml", &consumer("globex", OTHER, ""));
    within("others are known", || (ask(&gateway, "/gold", "other").0 == 403).then_some(()));
    question.ok("late");
    let response = slow.response();
    assert_eq!((response.status, response.field("x-consumer").as_deref()), (200, Some("acme")));
    let line = std::iter::from_fn(|| Some(gateway.log_line())).find(|line| line["status"] == 200).unwrap();
    assert_eq!(line["consumer"], "acme");
}

#[test]
fn faults_of_the_file_are_shown_with_those_of_the_configuration() {
    let (files, upstream) = (Files::new(), Upstream::saying("ok"));
    let file = files.write("consumers.toml", &consumer("acme", "secret", ""));
    let check = |text: &str| {
        let config = files.write("gateway.toml", text);
        let output = Command::new(env!("CARGO_BIN_EXE_ringgate")).args(["check", &config]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_good, said) = check(&config(&upstream, &file).replace("key = {}", "key = {}\nwhat = 1"));
    assert!(!is_good && said.contains("unknown key `what`"), "{said}");
    assert!(said.contains("consumers.toml:2:") && said.contains("is no hash of a key"), "{said}");
    assert!(!said.contains("\"secret\""), "{said}");

    files.write("consumers.toml", &consumer("acme", SECRET, ""));
    let (is_good, said) = check(&config(&upstream, &file));
    assert!(is_good && said.contains("no consumer has the tag `gold` now"), "{said}");
    let (is_good, said) = check(&config(&upstream, "relative.toml"));
    assert!(!is_good && said.contains("`relative.toml` is not the absolute path of a file"), "{said}");
    let (is_good, said) = check(&config(&upstream, "/nonexistent/consumers.toml"));
    assert!(!is_good && said.contains("the file cannot be read"), "{said}");
}

/// A consumer's own numbers go before the policy's, on all cores together, and change with the file.
#[test]
fn a_consumer_may_have_a_limit_of_its_own() {
    let (files, upstream) = (Files::new(), Upstream::saying("ok"));
    let own =
        |name: &str, hash: &str, limit: &str| format!("{}limit = {{ {limit} }}\n", consumer(name, hash, ""));
    let file = files.write(
        "consumers.toml",
        &[own("acme", SECRET, "limit = 5, per = \"1h\""), consumer("globex", OTHER, "")].concat(),
    );
    let rest = [
        own("own", THIRD, "limit = 60, per = \"1m\", burst = 1"),
        "[[policy]]\nname = \"any\"\nkey = {}\n".into(),
        "[[policy]]\nname = \"each\"\nrate_limit = { limit = 2, per = \"1h\", by = [\"consumer\"] }\n".into(),
        "[[policy]]\nname = \"dear\"\nrate_limit = { limit = 9, cost = 9, per = \"1h\", by = [\"consumer\"] }\n".into(),
        "[[policy]]\nname = \"all\"\nrate_limit = { limit = 3, per = \"1h\", by = [] }\n".into(),
        route("/each", "use = [\"any\", \"each\"]"),
        route("/dear", "use = [\"any\", \"dear\"]"),
        route("/all", "use = [\"any\", \"all\"]"),
    ];
    let text = format!("consumers = \"{file}\"\n{}", trusting(upstream.address, &rest.concat()));
    let gateway = Gateway::start(&text.replacen("workers = 1", "workers = 2", 1));
    let mut peers: Vec<Peer> = (0..8).map(|_| gateway.connect()).collect();
    let mut passed = |path: &str, key: &str| {
        let asks = (0..24).map(|number| asked(&mut peers[number % 8], path, key).0);
        asks.filter(|status| *status == 200).count()
    };
    assert_eq!([passed("/each", "secret"), passed("/each", "other")], [5, 2]);
    // What one request costs is never more than there is.
    assert_eq!([passed("/dear", "secret"), passed("/dear", "other")], [1, 1]);
    // What is not counted by consumers knows no one's own.
    assert_eq!(passed("/all", "secret"), 3);
    let mut peer = gateway.connect();
    let mut policy = |key: &str| {
        peer.send(format!("GET /each HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        peer.response().field("ratelimit-policy").unwrap()
    };
    assert_eq!(policy("secret"), "\"each\";q=5;w=3600");
    assert_eq!(policy("other"), "\"each\";q=2;w=3600");
    assert_eq!(policy("third"), "\"each\";q=60;w=60");

    // Another limit is another bucket, which is full.
    files.write("consumers.toml", &own("acme", SECRET, "limit = 7, per = \"1h\""));
    within("the new limit is in force", || (policy("secret") == "\"each\";q=7;w=3600").then_some(()));
    within("on both cores", || (ask(&gateway, "/each", "other").0 == 401).then_some(()));
    assert!(passed("/each", "secret") <= 6);
    files.write("consumers.toml", &own("acme", SECRET, "limit = 7, per = \"0s\""));
    gateway.message("consumers.toml:5: there is no rate in no time");
}
