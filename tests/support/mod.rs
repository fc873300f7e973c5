//! What the integration tests share: the real binary on ephemeral ports, scripted byte peers as upstreams and clients,
//! and waiting for events with a deadline instead of sleeping.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, reason = "a module that every test binary includes")]

pub mod mint;
pub mod secure;
pub mod strict;

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

pub mod demo;

/// How long a test waits for anything before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway, the real binary. Killed when dropped.
pub struct Gateway {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    /// Access-log lines, as they come.
    log: Receiver<String>,
    /// Lines of standard error after the start.
    pub messages: Receiver<String>,
    /// Those until it listened.
    pub start_messages: Vec<String>,
    pub dir: tempdir::TempDir,
}

/// A configuration with one listener `public`, one worker and this rest.
pub fn config(rest: &str) -> String {
    format!("[runtime]\nworkers = 1\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{rest}\n")
}

/// The configuration of a gateway before a cluster `c` of this endpoint, believing its peers about their clients.
pub fn trusting(endpoint: SocketAddr, rest: &str) -> String {
    let cluster = format!("[[cluster]]\nname = \"c\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n");
    let trusted = "[[listener]]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    config(&[&cluster, rest].concat()).replacen("[[listener]]\n", trusted, 1)
}

/// A route to the cluster `c`, named after its path.
pub fn route(path: &str, keys: &str) -> String {
    let name = path.replace(['/', '*'], "");
    format!("[[route]]\nname = \"r{name}\"\nmatch.path = \"{path}\"\ncluster = \"c\"\n{keys}\n")
}

/// A cluster `all` of these endpoints with further keys, and a route `all` to it.
pub fn cluster(endpoints: &[SocketAddr], keys: &str) -> String {
    weighted(&endpoints.iter().map(|address| (*address, 1)).collect::<Vec<_>>(), keys)
}

/// The same with weights.
pub fn weighted(endpoints: &[(SocketAddr, u32)], keys: &str) -> String {
    let list: Vec<String> = endpoints
        .iter()
        .map(|(address, weight)| format!("{{ address = \"{address}\", weight = {weight} }}"))
        .collect();
    format!(
        "[[cluster]]\nname = \"all\"\nendpoints = [{}]\n{keys}\n[[route]]\nname = \"all\"\ncluster = \"all\"\n",
        list.join(", ")
    )
}

/// A configuration whose only route sends everything to these endpoints.
pub fn all_to(endpoints: &[SocketAddr]) -> String {
    let list: Vec<String> =
        endpoints.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    config(&format!(
        "[[cluster]]\nname = \"all\"\nendpoints = [{}]\n[[route]]\nname = \"all\"\ncluster = \"all\"",
        list.join(", ")
    ))
}

/// The same for one endpoint, with further keys of the listener, the cluster and the route.
pub fn all_to_with(endpoint: SocketAddr, listener: &str, cluster: &str, route: &str) -> String {
    config(&format!(
        "{listener}\n[[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n{cluster}\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"\n{route}"
    ))
}

impl Gateway {
    /// Starts a gateway with this configuration and waits until it listens. Listeners should use port 0.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with environment variables.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.envs(environment.iter().copied());
        let mut gateway = Self::start_by(command, config);
        gateway.log = lines(gateway.child.stdout.take().unwrap());
        gateway
    }

    /// The same, with at most so many descriptors.
    pub fn start_limited(config: &str, descriptors: u32) -> Self {
        let mut command = Command::new("sh");
        let limit = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_ringgate")]);
        let mut gateway = Self::start_by(command, config);
        gateway.log = lines(gateway.child.stdout.take().unwrap());
        gateway
    }

    /// The same, with a standard output that is not read until [`Gateway::read_log`].
    pub fn start_unread(config: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_ringgate")), config)
    }

    /// Begins to read the standard output.
    pub fn read_log(&mut self) {
        self.log = lines(self.child.stdout.take().unwrap());
    }

    fn start_by(mut command: Command, config: &str) -> Self {
        let dir = tempdir::TempDir::new();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = command
            .args(["run", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let messages = lines(child.stderr.take().unwrap());
        let wanted = config.matches("[[listener]]").count();
        let mut addresses = HashMap::new();
        let mut said = Vec::new();
        while addresses.len() < wanted {
            let Ok(line) = messages.recv_timeout(PATIENCE) else {
                panic!("the gateway did not start; it said:\n{}", said.join("\n"));
            };
            if let Some((name, address)) = listening(&line) {
                addresses.insert(name, address);
            }
            said.push(line);
        }
        let (_, log) = channel();
        Self { child, addresses, log, messages, start_messages: said, dir }
    }

    /// Where the listener `public` (or the only one) listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses.get("public").or_else(|| self.addresses.values().next()).copied().unwrap()
    }

    /// Where a listener listens.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process ends.
    pub fn wait(&mut self) -> ExitStatus {
        within("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// The next access-log line, parsed.
    pub fn log_line(&self) -> serde_json::Value {
        let line = self.log.recv_timeout(PATIENCE).expect("an access-log line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line of the standard output, as it is.
    pub fn raw_log_line(&self) -> String {
        self.log.recv_timeout(PATIENCE).expect("an access-log line")
    }

    /// Lines of the standard output until its end.
    pub fn rest_of_log(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("the log does not end"),
            }
        }
    }

    /// The next line of standard error that has this in it.
    pub fn message(&self, part: &str) -> String {
        let mut said = Vec::new();
        loop {
            let Ok(line) = self.messages.recv_timeout(PATIENCE) else {
                panic!("no message with `{part}`; it said:\n{}", said.join("\n"));
            };
            if line.contains(part) {
                return line;
            }
            said.push(line);
        }
    }

    /// The figures of all cores; one that is 0 is missing.
    pub fn figures(&self) -> HashMap<String, u64> {
        self.signal("QUIT");
        let mut figures = HashMap::new();
        loop {
            let line = self.messages.recv_timeout(PATIENCE).expect("figures");
            if line.contains(" exchanges responses=") {
                return figures;
            }
            if let Some((_, figure)) = line.split_once("figure=\"") {
                let (name, value) = figure.split_once("\" value=").unwrap();
                figures.insert(name.to_owned(), value.trim().parse().unwrap());
            }
        }
    }

    /// One figure.
    pub fn figure(&self, name: &str) -> u64 {
        self.figures().get(name).copied().unwrap_or(0)
    }

    /// Waits until a figure is so much.
    pub fn wait_for_figure(&self, name: &str, value: u64) {
        within(&format!("{name} = {value}"), || (self.figure(name) == value).then_some(()));
    }

    /// Processor time used so far, in clock ticks (hundredths of a second).
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// A client connection to the gateway.
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory there has been, in KiB.
    pub fn resident_max_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `listener="public" address=127.0.0.1:4711` of a start message.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let (_, rest) = line.split_once("listening listener=\"")?;
    let (name, rest) = rest.split_once("\" address=")?;
    Some((name.to_owned(), rest.trim().parse().ok()?))
}

pub fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Asks until there is an answer. For what gives no event: it yields the processor between two looks.
pub fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    panic!("waited in vain: {what}");
}

/// Waits until the processes at the other ends have received all that was sent over these connections (of 127.0.0.1), or
/// have closed them: what is sent next then comes to them by itself. The kernel says so.
pub fn all_received<'s>(connections: impl IntoIterator<Item = &'s TcpStream>) {
    let kernel = queues::Kernel::new();
    for stream in connections {
        let (Ok(near), Ok(far)) = (stream.local_addr(), stream.peer_addr()) else { continue };
        let is_empty = |queues: Option<queues::Queues>, which: fn(queues::Queues) -> u32| {
            queues.is_none_or(|queues| which(queues) == 0).then_some(())
        };
        within("all is delivered", || is_empty(kernel.queues(near, far), |queues| queues.send));
        within("all is received", || is_empty(kernel.queues(far, near), |queues| queues.receive));
    }
}

/// What waits in the queues of a socket, asked of the kernel (sock_diag(7)).
mod queues {
    use std::{
        io::{Read, Write},
        net::SocketAddr,
    };

    use socket2::{Domain, Protocol, Socket, Type};

    const NETLINK: i32 = 16;
    const SOCK_DIAG: i32 = 4;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const INET: u8 = 2;
    const TCP: u8 = 6;
    /// The state of a listener (tcp_states.h).
    const LISTEN: u8 = 10;

    pub(super) struct Kernel(Socket);

    /// Bytes that wait.
    #[derive(Clone, Copy)]
    pub(super) struct Queues {
        /// To be acknowledged.
        pub(super) send: u32,
        /// To be read.
        pub(super) receive: u32,
    }

    impl Kernel {
        pub(super) fn new() -> Self {
            Self(Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(SOCK_DIAG))).unwrap())
        }

        /// The queues of the socket between two addresses of IPv4; `None` when there is none.
        pub(super) fn queues(&self, near: SocketAddr, far: SocketAddr) -> Option<Queues> {
            let mut ask = Vec::with_capacity(72);
            ask.extend_from_slice(&72_u32.to_ne_bytes());
            ask.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            // A request for one socket in whatever state.
            ask.extend_from_slice(&1_u16.to_ne_bytes());
            ask.extend_from_slice(&[0; 8]);
            ask.extend_from_slice(&[INET, TCP, 0, 0]);
            ask.extend_from_slice(&[0xff; 4]);
            ask.extend_from_slice(&near.port().to_be_bytes());
            ask.extend_from_slice(&far.port().to_be_bytes());
            for address in [near, far] {
                let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
                ask.extend_from_slice(&address.ip().octets());
                ask.extend_from_slice(&[0; 12]);
            }
            // Any interface, any cookie.
            ask.extend_from_slice(&[0; 4]);
            ask.extend_from_slice(&[0xff; 8]);
            (&self.0).write_all(&ask).unwrap();
            let mut answer = [0; 4096];
            let len = (&self.0).read(&mut answer).unwrap();
            let number = |at: usize| u32::from_ne_bytes(*answer[at..].first_chunk().unwrap());
            let kind = u16::from_ne_bytes(*answer[4..].first_chunk().unwrap());
            // Where there is none, it may be the listener that is found.
            let is_found = kind == SOCK_DIAG_BY_FAMILY && len >= 80 && answer[17] != LISTEN;
            is_found.then(|| Queues { receive: number(72), send: number(76) })
        }
    }
}

/// One end of a connection, with deadlines on every wait.
pub struct Peer {
    pub stream: TcpStream,
    /// What was received and not yet taken.
    pub inbox: Vec<u8>,
    /// Once hands were shaken ([`Peer::secured`], [`Peer::serving`]): what is sent goes in records, and what comes too.
    tls: Option<Arc<Mutex<secure::Session>>>,
}

impl Peer {
    pub fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, inbox: Vec::new(), tls: None }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(bytes.as_ref()).unwrap();
    }

    /// Sends, and says whether the other side still took it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write(bytes.as_ref()).is_ok()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.tls {
            Some(_) => self.stream.write_all(&self.records(&[bytes])),
            None => self.stream.write_all(bytes),
        }
    }

    /// Ends this side.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Receives more; 0 at the end, a reset included.
    pub fn more(&mut self) -> usize {
        if self.tls.is_some() {
            return self.more_secured();
        }
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.inbox.extend_from_slice(&chunk[..count]);
                count
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => 0,
            Err(error) => panic!("nothing came: {error}; so far: {:?}", String::from_utf8_lossy(&self.inbox)),
        }
    }

    /// Everything up to and with `mark`. Panics when the connection ends before.
    pub fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        self.try_until(mark).unwrap_or_else(|| {
            panic!(
                "ended before {:?}: {:?}",
                String::from_utf8_lossy(mark),
                String::from_utf8_lossy(&self.inbox)
            )
        })
    }

    /// The same, or `None` when the connection ends before.
    pub fn try_until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.inbox, mark) {
                let rest = self.inbox.split_off(at + mark.len());
                return Some(std::mem::replace(&mut self.inbox, rest));
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    /// The next message head, as text.
    pub fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n")).unwrap()
    }

    /// The next message head, or `None` when the connection ends.
    pub fn try_head(&mut self) -> Option<String> {
        self.try_until(b"\r\n\r\n").map(|head| String::from_utf8(head).unwrap())
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.inbox.len() < count {
            assert!(self.more() > 0, "ended after {} of {count} bytes", self.inbox.len());
        }
        let rest = self.inbox.split_off(count);
        std::mem::replace(&mut self.inbox, rest)
    }

    /// Whether the other side has ended, with nothing sent before. Waits for either.
    pub fn is_ended(&mut self) -> bool {
        self.inbox.is_empty() && self.more() == 0
    }

    /// Everything until the other side ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.inbox)
    }

    /// A response: its head and its body, by Content-Length or in chunks (decoded), or to the end.
    pub fn response(&mut self) -> Response {
        let head = self.head();
        self.body_of(head)
    }

    /// The body that belongs to a head that was already received.
    pub fn body_of(&mut self, head: String) -> Response {
        let status: u16 = head[9..12].parse().unwrap();
        let field = |name: &str| field(&head, name);
        let body = if matches!(status, 204 | 304) || status < 200 {
            Vec::new()
        } else if field("transfer-encoding").as_deref() == Some("chunked") {
            self.chunked()
        } else if let Some(length) = field("content-length") {
            self.exactly(length.parse().unwrap())
        } else {
            self.rest()
        };
        Response { status, head, body }
    }

    /// A chunked body, decoded, trailers dropped.
    pub fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n")).unwrap();
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                while self.until(b"\r\n") != b"\r\n" {}
                return body;
            }
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n");
        }
    }
}

/// A response as received.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A field's value in a head's text.
pub fn field(head: &str, name: &str) -> Option<String> {
    fields(head, name).into_iter().next()
}

/// All values of a field in a head's text.
pub fn fields(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(at, _)| at.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

/// An upstream that does what a test says, one thread per connection.
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
}

/// The connections of a [`Upstream::manual`], as they come.
pub struct Accepted(Receiver<Peer>);

impl Accepted {
    /// The next connection.
    pub fn next(&self) -> Peer {
        self.0.recv_timeout(PATIENCE).expect("a connection to the upstream")
    }
}

#[derive(Default)]
struct State {
    accepted: Mutex<usize>,
    changed: Condvar,
}

impl Upstream {
    /// Runs `script` for each connection, with its number from 0.
    pub fn scripted(script: impl Fn(Peer, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let script = Arc::new(script);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                *shared.accepted.lock().unwrap() += 1;
                shared.changed.notify_all();
                let script = Arc::clone(&script);
                thread::spawn(move || script(Peer::new(stream), number));
            }
        });
        Self { address, state }
    }

    /// Hands each connection to the test, which plays the upstream's part itself.
    pub fn manual() -> (Self, Accepted) {
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let upstream = Self::scripted(move |peer, _| {
            let _ = sender.lock().unwrap().send(peer);
        });
        (upstream, Accepted(receiver))
    }

    /// Answers every request (of any connection, kept alive) with what `answer` makes of its head and body.
    pub fn answering(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |mut peer, _| {
            while let Some(head) = peer.try_head() {
                let body = request_body(&mut peer, &head);
                if !peer.try_send(answer(&head, &body)) {
                    return;
                }
            }
        })
    }

    /// Answers 200 with a body of its choice.
    pub fn saying(text: &'static str) -> Self {
        Self::answering(move |_, _| ok(text.as_bytes()))
    }

    /// Sends everything it receives, connection by connection, and never answers.
    pub fn witness() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver): (Sender<Vec<u8>>, _) = channel();
        let sender = Mutex::new(sender);
        let upstream = Self::scripted(move |mut peer, _| {
            let seen = peer.rest();
            let _ = sender.lock().unwrap().send(seen);
        });
        (upstream, receiver)
    }

    /// Asks the test for every answer, and tells it when a connection ends.
    pub fn asking() -> (Self, Asked) {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let upstream = Self::scripted(move |mut peer, connection| {
            let sender = sender.lock().unwrap().clone();
            while let Some(head) = peer.try_head() {
                let Some(body) = try_request_body(&mut peer, &head) else { break };
                let (answer, answers) = channel();
                let _ = sender.send(Event::Asked(Question { connection, head, body, answer }));
                // `None` says that the connection lives on; without it the question was dropped.
                let lives_on = loop {
                    match answers.recv() {
                        Ok(Some(bytes)) if peer.try_send(&bytes) => {}
                        Ok(Some(_)) | Err(_) => break false,
                        Ok(None) => break true,
                    }
                };
                if !lives_on {
                    break;
                }
            }
            drop(peer);
            let _ = sender.send(Event::Ended(connection));
        });
        (upstream, Asked { events, ended: Vec::new(), questions: VecDeque::new() })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        *self.state.accepted.lock().unwrap()
    }

    /// Waits until so many connections were accepted.
    pub fn wait_for(&self, connections: usize) {
        let accepted = self.state.accepted.lock().unwrap();
        let (accepted, timeout) = self
            .state
            .changed
            .wait_timeout_while(accepted, PATIENCE, |accepted| *accepted < connections)
            .unwrap();
        assert!(!timeout.timed_out(), "{} of {connections} connections came", *accepted);
    }
}

/// A GET of this path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A POST of this body.
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

enum Event {
    Asked(Question),
    Ended(usize),
}

/// What an [`Upstream::asking`] is asked.
pub struct Asked {
    events: Receiver<Event>,
    ended: Vec<usize>,
    questions: VecDeque<Question>,
}

impl Asked {
    /// The next request.
    pub fn question(&mut self) -> Question {
        loop {
            if let Some(question) = self.questions.pop_front() {
                return question;
            }
            self.event();
        }
    }

    /// The next connection that ends, by its number.
    pub fn ended(&mut self) -> usize {
        while self.ended.is_empty() {
            self.event();
        }
        self.ended.remove(0)
    }

    /// Whether a request has come that was not taken yet.
    pub fn has_question(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        !self.questions.is_empty()
    }

    fn event(&mut self) {
        let event = self.events.recv_timeout(PATIENCE).expect("something happens at the upstream");
        self.note(event);
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Asked(question) => self.questions.push_back(question),
            Event::Ended(connection) => self.ended.push(connection),
        }
    }
}

/// A request that waits for its answer. Dropped unanswered, its connection is closed.
pub struct Question {
    /// The connection's number.
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
    answer: Sender<Option<Vec<u8>>>,
}

impl Question {
    /// Answers 200 with this body; the connection lives on.
    pub fn ok(self, body: &str) {
        self.part(ok(body.as_bytes()));
        let _ = self.answer.send(None);
    }

    /// Sends these bytes and closes the connection.
    pub fn last(self, bytes: impl AsRef<[u8]>) {
        self.part(bytes);
    }

    /// Sends these bytes; more may follow.
    pub fn part(&self, bytes: impl AsRef<[u8]>) {
        let _ = self.answer.send(Some(bytes.as_ref().to_vec()));
    }

    /// Ends the answer; the connection lives on.
    pub fn end(self) {
        let _ = self.answer.send(None);
    }

    /// The request's path.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

/// A request's body, or `None` when the connection ends within it.
fn try_request_body(peer: &mut Peer, head: &str) -> Option<Vec<u8>> {
    if field(head, "transfer-encoding").is_some() {
        return Some(peer.chunked());
    }
    let length: usize = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
    while peer.inbox.len() < length {
        if peer.more() == 0 {
            return None;
        }
    }
    Some(peer.exactly(length))
}

/// A request's body, by its head.
pub fn request_body(peer: &mut Peer, head: &str) -> Vec<u8> {
    if field(head, "transfer-encoding").as_deref() == Some("chunked") {
        peer.chunked()
    } else {
        let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
        peer.exactly(length)
    }
}

/// A 200 with this body.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

/// A port on which nothing listens, and nothing will while the guard lives.
pub fn closed_port() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// A directory that goes away with its value.
pub mod tempdir {
    use std::{
        path::{Path, PathBuf},
        sync::atomic::{AtomicU32, Ordering},
    };

    pub struct TempDir(PathBuf);

    impl TempDir {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("ringgate-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
