//! Trailers, and interim responses, through the real binary: what a head may not say, they may not either.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/http2.rs"]
mod h2peers;
mod support;

use h2peers::{Answer, Client, Server, fields, post};
use support::{Gateway, Peer, Upstream, all_to_with, fields as fields_of};

/// What no client may say, and what anyone may.
const SAID: [(&str, &str); 10] = [
    ("x-consumer", "admin"),
    ("x_consumer", "admin"),
    ("x.consumer", "admin"),
    ("x-secret", "admin"),
    ("x_forwarded_for", "6.6.6.6"),
    ("transfer_encoding", "chunked"),
    ("x-api_key", "admin"),
    ("x-forwarded-user", "admin"),
    ("x-sum", "1"),
    ("x_sum", "2"),
];

const EDITS: &str = "[route.request_headers]\nremove = [\"X-Secret\", \"X-Api-Key\"]\n\
                     [route.request_headers.set]\nX-Consumer = \"anna\"\n";

fn lines(said: &[(&str, &str)]) -> String {
    said.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// What the endpoint gets behind the request's body.
fn section(endpoint: &mut Peer) -> String {
    let head = endpoint.head();
    assert_eq!(fields_of(&head, "x-consumer"), ["anna"], "{head}");
    let wire = endpoint.until(b"\r\n\r\n");
    String::from_utf8(wire).unwrap()
}

#[test]
fn trailers_say_what_heads_may_say() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, "h2c = true", "", EDITS));
    let mut client = gateway.connect();
    let mut endpoint = None;
    let begin = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    // All at once, and with the end of the body in a piece of its own.
    for is_apart in [false, true] {
        client.send(begin);
        if !is_apart {
            client.send(format!("2\r\nhi\r\n0\r\n{}\r\n", lines(&SAID)));
        }
        let endpoint = endpoint.get_or_insert_with(|| accepted.next());
        if is_apart {
            client.send("2\r\nhi\r\n");
            client.send(format!("0\r\n{}\r\n", lines(&SAID)));
        }
        assert_eq!(section(endpoint), "2\r\nhi\r\n0\r\nx-sum: 1\r\nx_sum: 2\r\n\r\n");
        endpoint.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.response().status, 204);
    }
    let client = Client::connect(gateway.address());
    let mut exchange = client.begin(post("/"), false);
    exchange.send("hi");
    exchange.send.send_trailers(fields(&SAID)).unwrap();
    let mut endpoint = endpoint.unwrap();
    assert_eq!(section(&mut endpoint), "2\r\nhi\r\n0\r\nx-sum: 1\r\nx_sum: 2\r\n\r\n");
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(exchange.answer().unwrap().status, 204);
}

const RESPONSE_EDITS: &str = "[route.response_headers]\nremove = [\"X-Secret\"]\n\
                              [route.response_headers.set]\nX-Consumer = \"anna\"\n\
                              [[policy]]\nname = \"pages\"\ncors = { origins = [\"https://shop.test\"] }\n";

/// What the endpoint says behind its body.
const ANSWERED: [(&str, &str); 5] = [
    ("x-secret", "s"),
    ("x-consumer", "root"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("x-sum", "1"),
];

#[test]
fn what_responses_keep_back_is_in_no_part_of_them() {
    let edits = format!("use = [\"pages\"]\n{RESPONSE_EDITS}");
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, "h2c = true", "", &edits));
    let mut client = gateway.connect();
    let mut endpoint = None;
    for is_apart in [false, true] {
        client.send(support::get("/"));
        let endpoint = endpoint.get_or_insert_with(|| accepted.next());
        endpoint.head();
        endpoint.send(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n{}\r\n", lines(&ANSWERED)));
        let interim = client.head();
        assert!(interim.starts_with("HTTP/1.1 103 ") && interim.contains("Link: </a>"), "{interim}");
        for gone in ["secret", "consumer", "control"] {
            assert!(!interim.to_lowercase().contains(gone), "{gone}: {interim}");
        }
        endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        if is_apart {
            endpoint.send("2\r\nhi\r\n");
            client.until(b"hi\r\n");
            endpoint.send(format!("0\r\n{}\r\n", lines(&ANSWERED)));
            assert_eq!(String::from_utf8(client.until(b"\r\n\r\n")).unwrap(), "0\r\nx-sum: 1\r\n\r\n");
        } else {
            endpoint.send(format!("2\r\nhi\r\n0\r\n{}\r\n", lines(&ANSWERED)));
            let rest = String::from_utf8(client.until(b"0\r\nx-sum: 1\r\n\r\n")).unwrap();
            assert!(rest.contains("2\r\nhi\r\n0\r\nx-sum"), "{rest}");
        }
    }
    // The same by HTTP/2, on both sides; what must not stand behind a body is left out.
    let said = [&ANSWERED[..], &[("content-length", "7"), ("set-cookie", "a=b")]].concat();
    let server = Server::answering(move |_, _| Answer { trailers: fields(&said), ..Answer::ok("hi") });
    let gateway = Gateway::start(&all_to_with(server.address, "h2c = true", "protocol = \"h2\"", &edits));
    let answer = Client::connect(gateway.address()).ask(post("/"), "body");
    assert_eq!((answer.text().as_str(), answer.trailers), ("hi", fields(&[("x-sum", "1")])));
}
