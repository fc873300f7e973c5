//! A fast, minimal HTTP/1.1 upstream for load tests: arguments, and one thread with its own `SO_REUSEPORT` listener
//! for each `--threads`. Not for production.

mod exchange;
mod reply;
mod request;
mod server;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use socket2::{Domain, Protocol, Socket, Type};

use server::IdleClose;

const USAGE: &str = "\
usage: loadtest-upstream [--listen ADDRESS:PORT] [--threads N] [--cpu CPU[,CPU...]] [--idle-close random|never]

  --listen      where to listen; port 0 takes a free one (default 127.0.0.1:0).
                The first line on stdout says which: `listening 127.0.0.1:NNNN`
  --threads     threads, each with its own listener (default 1)
  --cpu         CPUs to pin the threads to, in turn (default: not pinned)
  --idle-close  random: closes an idle connection 1 to 20 ms after a response (default never)

  GET /             100 bytes              GET /delay/MS     the same, MS milliseconds later
  GET /any/...      the same               GET /headers/N    the same, with N response fields
  GET /bytes/N      N bytes, sized         GET /head         the request's head, as received
  GET /chunked/N    N bytes, in chunks     POST /echo        the request's body, as it comes
                                           POST /...         the length of the request's body
";

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 4096;

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    listen: SocketAddr,
    threads: usize,
    cpus: Vec<usize>,
    idle_close: IdleClose,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprint!("loadtest-upstream: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest-upstream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 1,
        cpus: Vec::new(),
        idle_close: IdleClose::Never,
    };
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        let wrong = || format!("`{value}` is no value of `{option}`");
        match option.as_str() {
            "--listen" => arguments.listen = value.parse().map_err(|_| wrong())?,
            "--threads" => {
                arguments.threads = value.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
            }
            "--cpu" => {
                arguments.cpus =
                    value.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            }
            "--idle-close" => {
                arguments.idle_close = match value.as_str() {
                    "random" => IdleClose::Random,
                    "never" => IdleClose::Never,
                    _ => return Err(wrong()),
                };
            }
            _ => return Err(format!("unknown option `{option}`")),
        }
    }
    Ok(arguments)
}

/// Serves until a thread fails.
fn run(arguments: &Arguments) -> io::Result<()> {
    let first = listen(arguments.listen)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..arguments.threads {
        listeners.push(listen(address)?);
    }
    writeln!(io::stdout(), "listening {address}")?;
    let (failed, failure) = std::sync::mpsc::channel();
    for (index, listener) in listeners.into_iter().enumerate() {
        let cpu = arguments.cpus.get(index % arguments.cpus.len().max(1)).copied();
        let idle_close = arguments.idle_close;
        let failed = failed.clone();
        std::thread::Builder::new().name(format!("upstream-{index}")).spawn(move || {
            let _ = failed.send(pin(cpu).and_then(|()| server::serve(listener, idle_close)));
        })?;
    }
    failure.recv().map_err(io::Error::other)?
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn pin(cpu: Option<usize>) -> io::Result<()> {
    match cpu {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(io::Error::other(format!("cannot run on CPU {id}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_are_understood() {
        let arguments = parsed("--listen 127.0.0.1:81 --threads 2 --cpu 1,3 --idle-close random").unwrap();
        assert_eq!(arguments.listen, SocketAddr::from(([127, 0, 0, 1], 81)));
        assert_eq!((arguments.threads, arguments.cpus), (2, vec![1, 3]));
        assert_eq!(arguments.idle_close, IdleClose::Random);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in ["--listen", "--listen x", "--threads 0", "--cpu one", "--idle-close often", "--frob 1"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
