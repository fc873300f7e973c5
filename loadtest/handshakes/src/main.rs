//! Makes new TLS 1.3 connections to one port in a closed loop, each with one request, and with a full or a resumed
//! handshake: what other load tools cannot choose or do not tell. Here are its arguments and its report.

mod client;
mod connection;
mod load;
mod response;
mod tally;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use client::{Client, Sessions};
use load::Plan;

const USAGE: &str = "\
usage: loadtest-handshakes --port PORT --certificate FILE [--name NAME] [--path PATH] [--connections N] [--seconds N]
                           [--sessions new|resumed]

  --port         where to connect, on 127.0.0.1
  --certificate  the server's certificate, a PEM file; any other is refused
  --name         whom to ask for (default localhost)
  --path         what to ask for (default /)
  --connections  how many are under way (default 64)
  --seconds      how long (default 10)
  --sessions     new: a full handshake for each connection (default)
                 resumed: each but the first of those under way resumes the session of the one before it

Prints one line of JSON: `requests` that were answered, of which how many handshakes were `full`, `resumed` and `retried`
(full, after a HelloRetryRequest); what they agreed on; `errors`; latencies from the connect to the end of the response.
";

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    port: u16,
    certificate: String,
    name: String,
    path: String,
    connections: usize,
    seconds: u64,
    sessions: Sessions,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--version") {
        println!("loadtest-handshakes {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprint!("loadtest-handshakes: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadtest-handshakes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut port, mut certificate) = (None, None);
    let (mut name, mut path) = ("localhost".to_owned(), "/".to_owned());
    let (mut connections, mut seconds, mut sessions) = (64, 10, Sessions::New);
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        let wrong = || format!("`{value}` is no value of `{option}`");
        match option.as_str() {
            "--port" => port = Some(value.parse().map_err(|_| wrong())?),
            "--certificate" => certificate = Some(value),
            "--name" => name = value,
            "--path" => path = value,
            "--connections" => {
                connections = value.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
            }
            "--seconds" => seconds = value.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?,
            "--sessions" => {
                sessions = match value.as_str() {
                    "new" => Sessions::New,
                    "resumed" => Sessions::Resumed,
                    _ => return Err(wrong()),
                };
            }
            _ => return Err(format!("unknown option `{option}`")),
        }
    }
    let port = port.ok_or("--port is needed")?;
    let certificate = certificate.ok_or("--certificate is needed")?;
    Ok(Arguments { port, certificate, name, path, connections, seconds, sessions })
}

fn run(arguments: Arguments) -> Result<String, Box<dyn Error>> {
    let Arguments { port, certificate, name, path, connections, seconds, sessions } = arguments;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").into_bytes();
    let plan = Plan {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        clients: (0..connections)
            .map(|_| Client::new(&certificate, &name, sessions))
            .collect::<Result<_, _>>()?,
        request,
        time: Duration::from_secs(seconds),
    };
    Ok(load::run(plan)?.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn arguments_have_defaults() {
        let arguments = parsed("--port 443 --certificate a.pem --sessions resumed").unwrap();
        let expected = Arguments {
            port: 443,
            certificate: "a.pem".to_owned(),
            name: "localhost".to_owned(),
            path: "/".to_owned(),
            connections: 64,
            seconds: 10,
            sessions: Sessions::Resumed,
        };
        assert_eq!(arguments, expected);
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert_eq!(parsed("--certificate a.pem").unwrap_err(), "--port is needed");
        assert_eq!(parsed("--port x").unwrap_err(), "`x` is no value of `--port`");
        assert_eq!(parsed("--connections 0").unwrap_err(), "`0` is no value of `--connections`");
        assert_eq!(parsed("--port").unwrap_err(), "`--port` needs a value");
        assert_eq!(parsed("--speed 1").unwrap_err(), "unknown option `--speed`");
    }
}
