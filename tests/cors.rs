//! Pages of other origins: what a preflight is told, who may read a response, the gateway's own errors included, and how the
//! policy is attached.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;

use support::{Gateway, Peer, Response, Upstream, closed_port, config, fields};

const PAGE: &str = "https://shop.example";

/// A policy for [`PAGE`].
const SHOP: &str = "[[policy]]\nname = \"shop\"\n[policy.cors]\norigins = [\"https://shop.example\"]\n\
    methods = [\"GET\", \"PUT\"]\nheaders = [\"x-token\"]\nexpose = [\"x-total\"]\ncredentials = true\n";

fn cluster(endpoint: SocketAddr) -> String {
    format!("[[cluster]]\nname = \"c\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n")
}

/// An upstream that says of itself who may read.
fn lavish() -> Upstream {
    Upstream::answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Accept\r\nAccess-Control-Allow-Origin: *\r\n\
          access-control-expose-headers: x-secret\r\nX-Total: 7\r\n\r\nok"
            .to_vec()
    })
}

fn ask(gateway: &Gateway, method: &str, path: &str, lines: &[&str]) -> Response {
    let mut client = gateway.connect();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client.response()
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str, names: &str) -> Response {
    let origin = format!("Origin: {origin}");
    let method = format!("Access-Control-Request-Method: {method}");
    let names = format!("Access-Control-Request-Headers: {names}");
    ask(gateway, "OPTIONS", path, &[&origin, &method, &names])
}

/// Who may read a response.
fn readers(response: &Response) -> Vec<String> {
    fields(&response.head, "access-control-allow-origin")
}

#[test]
fn a_page_of_an_allowed_origin_reads_and_others_do_not() {
    let upstream = lavish();
    let route = "[[route]]\nname = \"r\"\ncluster = \"c\"\nuse = [\"shop\"]\n";
    let gateway = Gateway::start(&config(&[SHOP, &cluster(upstream.address), route].concat()));

    let response = ask(&gateway, "GET", "/", &["Origin: https://shop.example"]);
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(readers(&response), [PAGE]);
    assert_eq!(fields(&response.head, "access-control-allow-credentials"), ["true"]);
    assert_eq!(fields(&response.head, "access-control-expose-headers"), ["x-total"]);
    assert_eq!(fields(&response.head, "vary"), ["Accept", "Origin"]);

    for other in [&["Origin: https://evil.example"][..], &["Origin: https://shop.example.evil.example"], &[]]
    {
        let response = ask(&gateway, "GET", "/", other);
        // A browser keeps it from the page; the request itself is as good as any.
        assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{other:?}");
        assert!(readers(&response).is_empty(), "{other:?}");
        assert!(fields(&response.head, "access-control-allow-credentials").is_empty());
        assert!(fields(&response.head, "access-control-expose-headers").is_empty());
        assert_eq!(fields(&response.head, "vary"), ["Accept", "Origin"], "for caches, whoever asks");
    }
    let twice = ask(&gateway, "GET", "/", &["Origin: https://shop.example", "Origin: https://evil.example"]);
    assert!(readers(&twice).is_empty());
}

#[test]
fn a_preflight_is_answered_by_the_gateway() {
    let (upstream, seen) = Upstream::witness();
    let route = "[[route]]\nname = \"r\"\ncluster = \"c\"\nuse = [\"shop\"]\n";
    let gateway = Gateway::start(&config(&[SHOP, &cluster(upstream.address), route].concat()));

    let allowed = preflight(&gateway, "/items", PAGE, "PUT", "x-token");
    assert_eq!((allowed.status, allowed.body.len()), (204, 0));
    assert_eq!(readers(&allowed), [PAGE]);
    assert_eq!(fields(&allowed.head, "access-control-allow-methods"), ["GET, PUT"]);
    assert_eq!(fields(&allowed.head, "access-control-allow-headers"), ["x-token"]);
    assert_eq!(fields(&allowed.head, "access-control-allow-credentials"), ["true"]);
    assert_eq!(fields(&allowed.head, "access-control-max-age"), ["600"]);
    assert_eq!(
        fields(&allowed.head, "vary"),
        ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
    );
    let line = gateway.log_line();
    assert_eq!(
        (line["status"].as_u64(), line["route"].as_str(), line["end"].as_str()),
        (Some(204), Some("r"), Some("ok"))
    );

    let refused = preflight(&gateway, "/items", "https://evil.example", "PUT", "x-token");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("cors-origin-refused"));
    assert!(readers(&refused).is_empty());
    assert_eq!(gateway.log_line()["end"], "cors-origin-refused");
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
    gateway.signal("QUIT");
    assert!(gateway.message("policy=shop").contains("passed=1 refused=1"));
}

#[test]
fn other_requests_with_options_go_upstream() {
    let (upstream, mut asked) = Upstream::asking();
    let route = "[[route]]\nname = \"r\"\ncluster = \"c\"\nuse = [\"shop\"]\n";
    let gateway = Gateway::start(&config(&[SHOP, &cluster(upstream.address), route].concat()));
    for lines in [&[][..], &["Origin: https://shop.example\r\n"], &["Access-Control-Request-Method: GET\r\n"]]
    {
        let mut client = gateway.connect();
        client.send(format!("OPTIONS /x HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat()));
        let question = asked.question();
        assert!(question.head.starts_with("OPTIONS /x HTTP/1.1\r\n"), "{}", question.head);
        question.ok("own");
        assert_eq!(client.response().text(), "own");
    }
}

#[test]
fn a_preflight_is_about_the_route_of_the_request_to_come() {
    let upstream = lavish();
    let routes = "[[route]]\nname = \"write\"\nmatch = { path = \"/items\", method = \"PUT\" }\ncluster = \"c\"\nuse = [\"shop\"]\n\
        [[route]]\nname = \"beta\"\nmatch = { path = \"/items\", method = \"GET\", header = { x-token = \"1\" } }\ncluster = \"c\"\nuse = [\"shop\"]\n\
        [[route]]\nname = \"read\"\nmatch = { path = \"/items\", method = \"GET\" }\ncluster = \"c\"\n\
        [[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\ncluster = \"c\"\n";
    let gateway = Gateway::start(&config(&[SHOP, &cluster(upstream.address), routes].concat()));
    let route = |path: &str, method: &str, names: &str| {
        let response = preflight(&gateway, path, PAGE, method, names);
        let line = gateway.log_line();
        (response.status, line["route"].as_str().unwrap_or("none").to_owned())
    };
    assert_eq!(route("/items", "PUT", "x-token"), (204, "write".into()));
    assert_eq!(route("/items", "GET", "x-other, X-Token"), (204, "beta".into()));
    // Without a policy there the upstream answers, if a route takes the preflight itself: `/items` has none for OPTIONS.
    assert_eq!(route("/items", "GET", "x-other"), (404, "none".into()));
    assert_eq!(route("/own", "PUT", ""), (200, "own".into()));
}

#[test]
fn a_browser_can_read_the_gateways_own_answers() {
    let (closed, _held) = closed_port();
    let routes = "[[route]]\nname = \"down\"\nmatch = { path = \"/down\" }\ncluster = \"c\"\n\
        [[route]]\nname = \"said\"\nmatch = { path = \"/said\" }\nrespond = { body = \"hello\" }\n\
        [[route]]\nname = \"moved\"\nmatch = { path = \"/moved\" }\nredirect = { to = \"/said\" }\n";
    let shop = SHOP.replace("[policy.cors]", "default = true\n[policy.cors]");
    let gateway = Gateway::start(&config(&[&*shop, &cluster(closed), routes].concat()));
    for (path, status) in [("/down", 502), ("/said", 200), ("/moved", 308), ("/nothing", 404)] {
        let response = ask(&gateway, "GET", path, &["Origin: https://shop.example"]);
        assert_eq!((response.status, readers(&response)), (status, vec![PAGE.to_owned()]), "{path}");
        assert_eq!(fields(&response.head, "vary"), ["Origin"], "{path}");
    }
    assert_eq!(preflight(&gateway, "/nothing", PAGE, "GET", "").status, 204, "the listener's own");
}

#[test]
fn the_nearest_policy_answers_and_a_route_may_go_without() {
    let any = "[[policy]]\nname = \"any\"\ndefault = true\ncors = { origins = [\"*\"] }\n";
    let partner = "[[policy]]\nname = \"partner\"\ncors = { origins = [\"https://partner.example\"] }\n";
    let listener = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\nuse = [\"partner\"]\n";
    let routes = "[[route]]\nname = \"plain\"\nmatch = { path = \"/plain\" }\nrespond = {}\n\
        [[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = {}\nuse = [\"shop\"]\n\
        [[route]]\nname = \"none\"\nmatch = { path = \"/none\" }\nrespond = {}\nskip = [\"any\", \"partner\"]\n";
    let gateway = Gateway::start(&config(&[SHOP, any, partner, listener, routes].concat()));
    let at = |listener: &str, path: &str, origin: &str| {
        let mut client = Peer::connect(gateway.address_of(listener));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n"));
        readers(&client.response()).concat()
    };
    let partner = "https://partner.example";
    assert_eq!(at("public", "/plain", partner), "*");
    assert_eq!(at("second", "/plain", partner), partner);
    assert_eq!(at("second", "/plain", PAGE), "");
    for listener in ["public", "second"] {
        assert_eq!(at(listener, "/own", PAGE), PAGE);
        assert_eq!(at(listener, "/own", partner), "");
        assert_eq!(at(listener, "/none", PAGE), "");
    }
}
