//! `ringgate demo`, the real binary with its embedded upstreams: a gateway before servers that are not of the tests'
//! own making.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::Receiver,
};

use super::{PATIENCE, Peer, lines, within};

/// A running demo. Killed when dropped.
pub struct Demo {
    child: Child,
    pub address: SocketAddr,
    /// What it printed up to its banner's end.
    pub banner: String,
    /// The lines of standard output that follow.
    pub live: Receiver<String>,
    /// The lines of standard error.
    pub messages: Receiver<String>,
}

impl Demo {
    /// Starts the demo on a free port and waits until it has said what to try.
    pub fn start() -> Self {
        let mut child = Self::command("127.0.0.1:0").spawn().unwrap();
        let live = lines(child.stdout.take().unwrap());
        let messages = lines(child.stderr.take().unwrap());
        let mut banner = String::new();
        while !banner.ends_with("Ctrl-C ends the demo.\n") {
            let line = live.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("no banner, only: {banner}{}", messages.try_iter().collect::<Vec<_>>().join("\n"))
            });
            banner.push_str(&line);
            banner.push('\n');
        }
        let (_, rest) = banner.split_once("ringgate listens on http://").unwrap();
        let (address, _) = rest.split_once(". Try").unwrap();
        Self { child, address: address.parse().unwrap(), banner, live, messages }
    }

    /// What starts it. Its output is the caller's to read.
    pub fn command(listen: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.args(["demo", "--listen", listen]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A client connection to the gateway.
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a signal by name, such as `INT`, and waits for the end.
    pub fn end_by(mut self, signal: &str) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
        within("the demo ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
