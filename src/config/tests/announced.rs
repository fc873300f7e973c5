//! What is said about the PROXY protocol and gRPC.

use super::assert_added;

#[test]
fn proxy_headers_from_peers_and_to_endpoints() {
    let listener = |from: &str| {
        format!("[[listener]]\nname = 's'\naddress = '127.0.0.1:8443'\nproxy_protocol = {{ from = {from} }}")
    };
    let cluster = |keys: &str| {
        format!(
            "[[cluster]]\nname = 's'\nendpoints = [{{ address = '10.0.0.1:443' }}]\nproxy_protocol = 'v2'\n{keys}\n\
             [[route]]\nname = 's'\nmatch.path = '/s'\ncluster = 's'"
        )
    };
    for (added, expected) in [
        (listener("['10.0.0.0/8', 'fd00::/8']"), &[][..]),
        (cluster("tls = {}"), &[]),
        (listener("[]"), &["4:27 error: no peer is in an empty list"]),
        (listener("['10.0.0.1']"), &["4:28 error: `10.0.0.1` is not a network"]),
        (
            cluster("protocol = 'h2'"),
            &[
                "4:18 error: a connection of HTTP/2 carries requests of many clients, and a PROXY header names one",
            ],
        ),
    ] {
        assert_added(&added, expected);
    }
}

#[test]
fn calls_of_grpc() {
    let route = |matches: &str| format!("[[route]]\nname = 's'\ncluster = 'c'\nmatch = {{ {matches} }}");
    let cluster = |keys: &str| {
        format!(
            "[[cluster]]\nname = 's'\nendpoints = [{{ address = '10.0.0.1:443' }}]\ngrpc_web = true\n{keys}\n\
             [[route]]\nname = 's'\nmatch.path = '/s'\ncluster = 's'"
        )
    };
    for (added, expected) in [
        (route("grpc = { service = 'a.v1.B_c', method = 'D' }, host = 'x'"), &[][..]),
        (cluster("protocol = 'h2'"), &[]),
        (cluster(""), &["4:12 error: gRPC is spoken by HTTP/2 only"]),
        (
            route("grpc = { service = 'a/b', method = 'c d' }"),
            &[
                "4:30 error: this is not the name of a service",
                "4:46 error: this is not the name of a method",
            ],
        ),
        (
            route("grpc = {}, path = '/x', method = 'GET'"),
            &[
                "4:22 error: `grpc` says what `path` would: calls are POSTs to `/service/method`",
                "4:35 error: `grpc` says what `method` would: calls are POSTs to `/service/method`",
            ],
        ),
    ] {
        assert_added(&added, expected);
    }
}
