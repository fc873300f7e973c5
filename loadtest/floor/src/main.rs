//! A bare layer-4 relay on io_uring: accepts, connects to the upstream, and sends on what each side says, byte for
//! byte, without looking at it. One thread, multishot receives into provided buffers, one send for each receive: the
//! kernel's TCP work and next to nothing else, which makes it the floor that a proxy's cost is compared to. Not for
//! production: slow readers may hold all buffers, and there are no timeouts.

mod buffers;
mod relay;
mod ring;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use socket2::{Domain, Protocol, Socket, Type};

const USAGE: &str = "\
usage: loadtest-floor --upstream ADDRESS:PORT [--listen ADDRESS:PORT] [--cpu CPU]

  --upstream  where the bytes go
  --listen    where to listen; port 0 takes a free one (default 127.0.0.1:0).
              The first line on stdout says which: `listening 127.0.0.1:NNNN`
  --cpu       the CPU to run on (default: not pinned)
";

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 4096;

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    listen: SocketAddr,
    upstream: SocketAddr,
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--version") {
        println!("loadtest-floor {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprint!("loadtest-floor: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut upstream, mut cpu) = (None, None);
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        let wrong = || format!("`{value}` is no value of `{option}`");
        match option.as_str() {
            "--listen" => listen = value.parse().map_err(|_| wrong())?,
            "--upstream" => upstream = Some(value.parse().map_err(|_| wrong())?),
            "--cpu" => cpu = Some(value.parse().map_err(|_| wrong())?),
            _ => return Err(format!("unknown option `{option}`")),
        }
    }
    Ok(Arguments { listen, upstream: upstream.ok_or("--upstream is needed")?, cpu })
}

/// Relays until the ring fails.
fn run(arguments: &Arguments) -> io::Result<()> {
    if let Some(id) = arguments.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(io::Error::other(format!("cannot run on CPU {id}")));
    }
    let listener = listen(arguments.listen)?;
    writeln!(io::stdout(), "listening {}", listener.local_addr()?)?;
    relay::serve(&listener, arguments.upstream)
}

/// Accepted sockets inherit TCP_NODELAY.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_are_understood() {
        let arguments = parsed("--listen 127.0.0.1:81 --upstream 127.0.0.1:82 --cpu 1").unwrap();
        assert_eq!((arguments.listen.port(), arguments.upstream.port(), arguments.cpu), (81, 82, Some(1)));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in ["", "--upstream", "--upstream x", "--upstream 127.0.0.1:1 --cpu one", "--frob 1"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
