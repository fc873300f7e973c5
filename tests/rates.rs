//! How often requests may come: rate limits, on however many cores.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Gateway, Peer, Response, Upstream, route, trusting};

fn policy(name: &str, keys: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nrate_limit = {{ {keys} }}\n")
}

fn gateway(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&trusting(upstream.address, rest).replacen("workers = 1", "workers = 2", 1))
}

fn ask(peer: &mut Peer, path: &str, lines: &str) -> Response {
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    peer.response()
}

/// How many of so many requests pass, over connections in turn.
fn passed(peers: &mut [Peer], count: usize, path: &str, lines: &str) -> usize {
    let count_of = peers.len();
    (0..count).filter(|number| ask(&mut peers[number % count_of], path, lines).status == 200).count()
}

#[test]
fn a_small_limit_is_exact_over_all_cores() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        &upstream,
        &[policy("few", "limit = 5, per = \"1h\""), route("/*", "use = [\"few\"]")].concat(),
    );
    let mut peers: Vec<Peer> = (0..16).map(|_| gateway.connect()).collect();
    let first = ask(&mut peers[0], "/", "");
    assert_eq!(first.field("ratelimit-policy").as_deref(), Some("\"few\";q=5;w=3600"));
    assert_eq!(first.field("ratelimit").as_deref(), Some("\"few\";r=4;t=720"));
    assert_eq!(passed(&mut peers, 40, "/", ""), 4);
    let refused = ask(&mut peers[1], "/", "");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("ratelimit-policy").as_deref(), Some("\"few\";q=5;w=3600"));
    assert!(refused.field("ratelimit").unwrap().starts_with("\"few\";r=0;t="));
    let retry: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=720).contains(&retry), "{retry}");
    let problem: serde_json::Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"][0], "few");
    // Others are counted by themselves; one network of IPv6 is one client.
    assert_eq!(passed(&mut peers, 10, "/", "X-Forwarded-For: 192.0.2.1\r\n"), 5);
    assert_eq!(passed(&mut peers, 3, "/", "X-Forwarded-For: 2001:db8::1\r\n"), 3);
    assert_eq!(passed(&mut peers, 5, "/", "X-Forwarded-For: 2001:db8::ffff:2\r\n"), 2);
    assert_eq!(passed(&mut peers, 5, "/", "X-Forwarded-For: 2001:db8:0:1::1\r\n"), 5);
}

#[test]
fn a_large_limit_is_within_two_percent_over_all_cores() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        &upstream,
        &[
            policy("many", "limit = 1000, per = \"24h\", by = [], headers = false"),
            route("/*", "use = [\"many\"]"),
        ]
        .concat(),
    );
    let mut peers: Vec<Peer> = (0..16).map(|_| gateway.connect()).collect();
    assert!(ask(&mut peers[0], "/", "").field("ratelimit").is_none());
    let passed = 1 + passed(&mut peers, 1200, "/", "");
    assert!((980..=1000).contains(&passed), "{passed}");
}

#[test]
fn what_requests_are_counted_by() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        &upstream,
        &[
            policy("tenant", "limit = 2, per = \"1h\", by = [{ header = \"x-tenant\" }, \"route\"]"),
            policy("all", "limit = 6, per = \"1h\", by = []"),
            route("/a", "use = [\"all\", \"tenant\"]"),
            route("/b", "use = [\"tenant\"]"),
            route("/c", "use = [\"all\"]"),
        ]
        .concat(),
    );
    let mut peers = [gateway.connect()];
    assert_eq!(passed(&mut peers, 4, "/a", "X-Tenant: one\r\n"), 2);
    assert_eq!(passed(&mut peers, 4, "/b", "X-Tenant: one\r\n"), 2);
    // Without the field, by its client's address, which is not what a field can say.
    assert_eq!(passed(&mut peers, 4, "/b", ""), 2);
    assert_eq!(passed(&mut peers, 4, "/b", "X-Tenant: 127.0.0.1\r\n"), 2);
    // What one limit refused, the other has not counted: of the six, two are gone.
    assert_eq!(passed(&mut peers, 8, "/c", ""), 4);
    assert_eq!(gateway.log_line()["status"], 200);
    gateway.signal("QUIT");
    let told = gateway.message("policy=tenant");
    assert!(told.contains("passed=8 refused=8"), "{told}");
}

#[test]
fn expressions_say_who_is_counted_and_what_for() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        &upstream,
        &[
            policy(
                "dear",
                "limit = 10, per = \"1h\", by = [{ expression = \"request.params.tenant.lowerAscii()\" }], cost = \
                 \"request.query.size == 'all' ? 99 : request.method == 'HEAD' ? 0 : int(request.query.size)\"",
            ),
            route("/t/{tenant}", "use = [\"dear\"]"),
            policy("host", "limit = 2, per = \"1h\", by = [{ expression = \"request.headers.nope\" }]"),
            route("/h", "use = [\"host\"]"),
        ]
        .concat(),
    );
    let mut peers = [gateway.connect()];
    // 4 and 4 of 10; then 2 are left, which is less than 4 and enough for two of those that fail and so cost one.
    assert_eq!(passed(&mut peers, 3, "/t/one?size=4", ""), 2);
    assert_eq!(passed(&mut peers, 2, "/t/ONE?size=x", ""), 2);
    assert_eq!(passed(&mut peers, 1, "/t/one", ""), 0);
    // More than there ever is takes all that there is.
    assert_eq!(passed(&mut peers, 2, "/t/two?size=all", ""), 1);
    assert_eq!(passed(&mut peers, 1, "/t/two?size=1", ""), 0);
    // Nothing is not counted, however little is left.
    peers[0].send("HEAD /t/two?size=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = peers[0].head();
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("RateLimit"), "{head}");
    assert_eq!(passed(&mut peers, 2, "/t/two?size=0", ""), 2);
    // Less than nothing is not.
    assert_eq!(passed(&mut peers, 2, "/t/two?size=-5", ""), 0);
    // What has no value is told by its client's address.
    assert_eq!(passed(&mut peers, 3, "/h", "X-Forwarded-For: 192.0.2.1\r\n"), 2);
    assert_eq!(passed(&mut peers, 3, "/h", "X-Forwarded-For: 192.0.2.2\r\n"), 2);
    assert!(gateway.figure("expressions_failed") >= 9);
}

/// The consumer by its key, and a claim of a token, tell callers apart; over HTTP/2 as well.
#[test]
fn identities_are_counted_by_themselves() {
    let upstream = Upstream::saying("ok");
    let consumers = ["web", "app"].map(|name| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("key-of-{name}").as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[consumer]]\nname = \"{name}\"\nkeys = [\"sha256:{hash}\"]\n")
    });
    let rest = [
        consumers.concat(),
        "[[policy]]\nname = \"keys\"\nkey = {}\n".into(),
        policy("fair", "limit = 2, per = \"1h\", by = [\"consumer\"]"),
        route("/*", "use = [\"keys\", \"fair\"]"),
    ]
    .concat();
    let gateway = gateway(&upstream, &rest);
    let mut peers: Vec<Peer> = (0..4).map(|_| gateway.connect()).collect();
    for name in ["web", "app"] {
        assert_eq!(passed(&mut peers, 5, "/", &format!("X-Api-Key: key-of-{name}\r\n")), 2);
    }
    // Whoever is no one is not counted as anyone.
    assert_eq!(ask(&mut peers[0], "/", "X-Api-Key: none\r\n").status, 401);
}

#[test]
fn a_cost_is_paid_at_once() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        &upstream,
        &[policy("dear", "limit = 10, per = \"1h\", burst = 7, cost = 3"), route("/*", "use = [\"dear\"]")]
            .concat(),
    );
    let mut peers = [gateway.connect()];
    assert_eq!(ask(&mut peers[0], "/", "").field("ratelimit").as_deref(), Some("\"dear\";r=4;t=1080"));
    assert_eq!(passed(&mut peers, 4, "/", ""), 1);
}
