//! WebSockets with clients and servers that people use: node's `ws`, node's `http2` (RFC 8441), and Autobahn's suite, whose every case
//! must come out through the gateway as it does without.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/http2.rs"]
mod h2peers;
mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use h2peers::Trust;
use support::{Gateway, all_to_with, config, repository, tempdir::TempDir};

fn node(script: &str) -> Command {
    let packages = repository("target/node/node_modules");
    assert!(packages.join("ws").is_dir(), "target/node is missing; `scripts/install-tools --tests` makes it");
    // The whole of Autobahn's suite takes minutes.
    let mut command = Command::new("timeout");
    command.args(["3600", "node"]).arg(repository("tests/clients").join(script)).env("PACKAGES", packages);
    command
}

/// An echo by node's `ws`. It ends with its standard input.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let mut child = node("ws_server.mjs").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the server's port");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn passes(mut command: Command) {
    let run = command.output().unwrap();
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(run.status.success(), "{command:?}: {}\n{said}", run.status);
}

/// A plain listener, and one with TLS, to an endpoint.
fn both_listeners(trust: &Trust, endpoint: SocketAddr, cluster: &str) -> Gateway {
    Gateway::start(&config(&format!(
        "h2c = true\n[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n{}\n\
         [[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n{cluster}\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"\n",
        trust.listener("")
    )))
}

fn through(gateway: &Gateway, trust: &Trust) {
    let mut command = node("ws_through.mjs");
    let secure = gateway.address_of("secure").port();
    command.args([
        format!("http://{}", gateway.address()),
        format!("https://localhost:{secure}"),
        trust.root(),
    ]);
    passes(command);
    gateway.wait_for_figure("exchanges_active", 0);
    assert_eq!(gateway.figure("panics"), 0);
}

#[test]
fn by_both_versions_with_tls_and_without() {
    let echo = Echo::start();
    let trust = Trust::new();
    let gateway = both_listeners(&trust, echo.address, "");
    through(&gateway, &trust);
    assert!(gateway.figure("upgrades") >= 6);
}

#[test]
fn to_endpoints_of_http2() {
    let echo = Echo::start();
    let trust = Trust::new();
    // The endpoint is a gateway that speaks HTTP/2, without TLS and with.
    let inner = both_listeners(&trust, echo.address, "");
    let outer = both_listeners(&trust, inner.address(), "protocol = \"h2\"");
    through(&outer, &trust);
    let by_tls = format!("protocol = \"auto\"\n{}", trust.cluster());
    let outer = both_listeners(&trust, inner.address_of("secure"), &by_tls);
    through(&outer, &trust);
    assert_eq!(inner.figure("panics"), 0);
}

/// Cases of Autobahn's suite that are run: all but what measures speed (9), and, since each takes seconds, of compression
/// (12, 13) the first of each kind. `scripts/autobahn` runs all.
const CASES: &str = r#"["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "12.1.1", "12.2.1", "12.3.1", "12.4.1", "12.5.1", "13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.1"]"#;

#[test]
fn autobahn_finds_no_difference() {
    let wstest = repository("target/autobahn/bin/wstest");
    assert!(wstest.is_file(), "target/autobahn is missing; `scripts/install-tools --tests` makes it");
    let echo = Echo::start();
    let gateway = Gateway::start(&all_to_with(echo.address, "", "", ""));
    let dir = TempDir::new();
    let reports = dir.path().join("reports");
    let spec = dir.path().join("spec.json");
    let cases = std::env::var("AUTOBAHN_CASES").unwrap_or_else(|_| CASES.into());
    std::fs::write(
        &spec,
        format!(
            r#"{{"outdir": "{}", "servers": [{{"agent": "direct", "url": "ws://{}"}}, {{"agent": "gateway", "url": "ws://{}"}}],
                "cases": {cases}, "exclude-cases": ["9.*"], "exclude-agent-cases": {{}}}}"#,
            reports.display(),
            echo.address,
            gateway.address()
        ),
    )
    .unwrap();
    let mut command = Command::new("timeout");
    command.arg("3600").arg(wstest).args(["-m", "fuzzingclient", "-s"]).arg(spec).current_dir(dir.path());
    passes(command);
    let index = std::fs::read(reports.join("index.json")).unwrap();
    let results: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(&index).unwrap();
    let said = |agent: &str| -> BTreeMap<String, String> {
        let of = |result: &serde_json::Value| {
            format!("{} {} {}", result["behavior"], result["behaviorClose"], result["remoteCloseCode"])
        };
        results[agent].iter().map(|(case, result)| (case.clone(), of(result))).collect()
    };
    let (direct, through) = (said("direct"), said("gateway"));
    assert!(direct.len() > 200, "{} cases", direct.len());
    let differing: Vec<_> = direct
        .iter()
        .filter(|(case, said)| through.get(*case) != Some(said))
        .map(|(case, said)| (case, said, through.get(case)))
        .collect();
    assert!(differing.is_empty() && direct.len() == through.len(), "{differing:?}");
    let failed = direct.values().filter(|said| said.contains("FAILED")).count();
    println!("{} cases, {failed} fail with and without the gateway", direct.len());
}
