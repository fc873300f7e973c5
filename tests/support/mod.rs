//! What the integration tests share: the real binary on ephemeral ports, scripted byte peers as upstreams and clients,
//! and waiting for events with a deadline instead of sleeping.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, reason = "a module that every test binary includes")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

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
    pub dir: tempdir::TempDir,
}

/// A configuration with one listener `public`, one worker and this rest.
pub fn config(rest: &str) -> String {
    format!("[runtime]\nworkers = 1\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{rest}\n")
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
        let dir = tempdir::TempDir::new();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringgate"))
            .args(["run", "-c"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines(child.stdout.take().unwrap());
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
        Self { child, addresses, log, messages, dir }
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

    /// A client connection to the gateway.
    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address()).unwrap())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
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

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
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

/// One end of a connection, with deadlines on every wait.
pub struct Peer {
    pub stream: TcpStream,
    /// What was received and not yet taken.
    pub inbox: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, inbox: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends, and says whether the other side still took it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
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
    fn more(&mut self) -> usize {
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
