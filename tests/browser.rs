//! Pages in a real Chromium: over HTTP/2 with TLS, with WebSocket and server-sent events; and of several origins, which the policy `cors`
//! lets read or not.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/http2.rs"]
mod h2peers;
mod support;

use std::process::Command;

use h2peers::{Answer, Server, Trust};
use support::{Gateway, config, demo::Demo, repository};

/// Runs a script of playwright's against URLs.
fn passes(script: &str, arguments: &[String]) {
    let packages = repository("target/node/node_modules");
    assert!(
        packages.join("playwright-core").is_dir(),
        "target/node is missing; `scripts/install-tools --tests` makes it"
    );
    let mut command = Command::new("timeout");
    command.args(["100", "node"]).arg(repository("tests/clients").join(script)).args(arguments);
    let run = command.env("PACKAGES", packages).output().unwrap();
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(run.status.success(), "{script}: {}\n{said}", run.status);
}

#[test]
fn a_page_over_http2_with_websocket_and_events() {
    let trust = Trust::new();
    let demo = Demo::start();
    let endpoint = demo.url();
    let endpoint = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{}\n\
         [[cluster]]\nname = \"demo\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n\
         [[route]]\nname = \"page\"\nmatch = {{ path = \"/page\" }}\nrespond = {{ body = \"<p>a page\", content_type = \"text/html\" }}\n\
         [[route]]\nname = \"demo\"\ncluster = \"demo\"\n",
        trust.listener("")
    ));
    passes("page.mjs", &[format!("https://localhost:{}", gateway.address().port())]);
    assert!(gateway.figure("upgrades") > 0);
    let mut awaited = vec!["/page", "/users/7", "/ws", "/events"];
    while !awaited.is_empty() {
        let line = gateway.log_line();
        assert_eq!(line["version"], "2", "{line}");
        awaited.retain(|path| line["path"] != *path);
    }
}

#[test]
fn pages_of_several_origins() {
    let server = Server::answering(|head, body| {
        assert_eq!(head.headers["content-type"], "application/grpc+proto");
        Answer {
            fields: h2peers::fields(&[("content-type", "application/grpc+proto")]),
            trailers: h2peers::fields(&[("grpc-status", "0")]),
            ..Answer::ok(body)
        }
    });
    let page = "respond = { body = \"<p>a page\", content_type = \"text/html\" }";
    // Three origins by their hosts: all are this machine's, and none is another's.
    let gateway = Gateway::start(&config(&format!(
        "[[cluster]]\nname = \"calls\"\nprotocol = \"h2\"\ngrpc_web = true\nendpoints = [{{ address = \"{}\" }}]\n\
         [[policy]]\nname = \"shop\"\n[policy.cors]\norigins = [{{ regex = 'http://web\\.shop\\.localhost:\\d+' }}]\n\
         methods = [\"GET\", \"PUT\"]\nheaders = [\"x-token\", \"content-type\", \"x-grpc-web\"]\nexpose = [\"x-total\", \"grpc-status\"]\ncredentials = true\n\
         [[route]]\nname = \"page\"\nmatch = {{ path = \"/page\" }}\n{page}\n\
         [[route]]\nname = \"cookie\"\nmatch = {{ path = \"/cookie\" }}\nresponse_headers.set = {{ Set-Cookie = \"who=me; Path=/\" }}\n{page}\n\
         [[route]]\nname = \"api\"\nmatch = {{ path = \"/api\", method = [\"GET\", \"PUT\", \"DELETE\"] }}\nuse = [\"shop\"]\n\
         response_headers.set = {{ X-Total = \"7\", X-Secret = \"no\" }}\nrespond = {{ body = \"{{header.cookie}}\" }}\n\
         [[route]]\nname = \"calls\"\nmatch = {{ grpc = {{ service = \"shop.Cart\" }} }}\nuse = [\"shop\"]\ncluster = \"calls\"\n\
         [[route]]\nname = \"closed\"\nmatch = {{ path = \"/closed\" }}\nrespond = {{ body = \"mine\" }}\n",
        server.address
    )));
    passes("origins.mjs", &[gateway.address().port().to_string()]);
}
