//! Clients that people use, through the real gateway, before real upstreams (the demo's): each is a script in
//! `tests/clients/` that takes the gateway's URL, checks what it gets by itself, and fails with a reason. A tool that is
//! missing is a failure too.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{demo::Demo, repository, tempdir::TempDir};

/// How long a script may take on a slow and busy machine.
const SCRIPT_MAX: Duration = Duration::from_secs(120);

/// Environment variables that would send a client elsewhere.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

fn missing(what: &str) -> ! {
    panic!("{what} is missing; `scripts/install-tools --tests` installs what the tests need");
}

/// Where cargo puts programs, which is often not in PATH.
fn cargo_programs() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from).join("bin")
}

/// A program in PATH, or of cargo.
fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain([cargo_programs()]);
    places.map(|place| place.join(name)).find(|at| at.is_file()).unwrap_or_else(|| missing(name))
}

/// Python with the packages of `scripts/install-tools`.
fn python() -> Command {
    let python = repository("target/venv/bin/python");
    let imports = ["-c", "import httpx, jsonschema, websockets"];
    let has_packages = Command::new(&python).args(imports).stderr(Stdio::null()).status();
    if !has_packages.is_ok_and(|status| status.success()) {
        missing("Python with httpx, jsonschema and websockets, in target/venv,");
    }
    Command::new(python)
}

/// Node with the packages of `scripts/install-tools`.
fn node() -> Command {
    let packages = repository("target/node/node_modules");
    if ["undici", "ws"].iter().any(|name| !packages.join(name).is_dir()) {
        missing("node's undici and ws, in target/node,");
    }
    let mut command = Command::new(program("node"));
    command.env("PACKAGES", packages);
    command
}

fn script(name: &str) -> PathBuf {
    repository("tests/clients").join(name)
}

/// A client that does not outlive its test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a client to its end and fails with what it said when it does.
fn succeeds(command: &mut Command) {
    let dir = TempDir::new();
    let said = dir.path().join("said");
    let out = File::create(&said).unwrap();
    for name in PROXIES {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
    let mut client = Client(command.spawn().unwrap());
    let start = Instant::now();
    let said = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let path = dir.path().join("said");
    let status = loop {
        if let Some(status) = client.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < SCRIPT_MAX, "{command:?} does not end; it said:\n{}", said(&path));
        thread::park_timeout(Duration::from_millis(5));
    };
    assert!(status.success(), "{command:?}: {status}\n{}", said(&path));
}

#[test]
fn curl() {
    let demo = Demo::start();
    succeeds(Command::new(script("curl.sh")).arg(demo.url()).env("CURL", program("curl")));
}

#[test]
fn wrk() {
    let demo = Demo::start();
    for path in ["/users/7", "/healthz", "/bytes?n=100000"] {
        let mut command = Command::new(program("wrk"));
        command.args(["-t1", "-c16", "-d1s", "--timeout", "20s", "-s"]).arg(script("wrk.lua"));
        succeeds(command.arg(format!("{}{path}", demo.url())));
    }
}

#[test]
fn oha() {
    let demo = Demo::start();
    succeeds(python().arg(script("oha_client.py")).arg(demo.url()).env("OHA", program("oha")));
}

#[test]
fn node_fetch() {
    let demo = Demo::start();
    succeeds(node().arg(script("fetch.mjs")).arg(demo.url()));
}

#[test]
fn node_undici() {
    let demo = Demo::start();
    succeeds(node().arg(script("undici.mjs")).arg(demo.url()));
}

#[test]
fn node_ws() {
    let demo = Demo::start();
    succeeds(node().arg(script("ws.mjs")).arg(demo.url()));
}

#[test]
fn python_httpx() {
    let demo = Demo::start();
    succeeds(python().arg(script("httpx_client.py")).arg(demo.url()));
}

#[test]
fn python_websockets() {
    let demo = Demo::start();
    succeeds(python().arg(script("websockets_client.py")).arg(demo.url()));
}

/// An editor checks a file by the schema as this validator does.
#[test]
fn a_json_schema_validator() {
    let dir = TempDir::new();
    let schema = dir.path().join("schema.json");
    let printed = Command::new(env!("CARGO_BIN_EXE_ringgate")).arg("schema").output().unwrap();
    assert!(printed.status.success());
    std::fs::write(&schema, printed.stdout).unwrap();
    let files = ["demo.toml", "reference.toml", "per-core.toml"].map(|name| repository("config").join(name));
    succeeds(python().arg(script("schema.py")).arg(schema).args(files));
}
