//! An ordinary exchange allocates nothing on the worker. The gateway runs in this process, so that a counting allocator
//! can stand under it; clients and upstreams are other threads, whose allocations do not count.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unsafe_code, reason = "a global allocator, and the name of the thread that calls it")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Barrier, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
};

use ringgate::{
    config::{self, interpolate::NoEnvironment},
    server::{self, Options},
    table,
};
use support::{PATIENCE, Peer, Upstream, ok};

/// Exchanges that are watched, per case, and between two looks at the log: what a core may have in flight to the log's
/// writer before that must allocate is more than these make.
const EXCHANGES: usize = 2000;
const EXCHANGES_PER_ROUND: usize = 250;
/// Connections that take turns.
const CLIENTS: usize = 8;
/// Exchanges before the watch, while the log is stalled: each batch that is filled meanwhile stays in circulation.
const WARM_UP: usize = 4000;

/// The system's allocator, watched.
struct Watched;

/// Whether allocations of workers count.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);
/// Those that were made.
static OFFENCES: AtomicU64 = AtomicU64::new(0);
/// Where the first was made.
static FIRST: Mutex<Option<Backtrace>> = Mutex::new(None);

thread_local! {
    /// Looking at an offence allocates itself.
    static IS_LOOKING: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        notice();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        notice();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        notice();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Counts an allocation if a worker made it under watch.
fn notice() {
    if !IS_WATCHING.load(Ordering::Relaxed) || IS_LOOKING.get() || !is_worker() {
        return;
    }
    IS_LOOKING.set(true);
    if OFFENCES.fetch_add(1, Ordering::Relaxed) == 0 {
        *FIRST.lock().unwrap() = Some(Backtrace::force_capture());
    }
    IS_LOOKING.set(false);
}

/// Whether this thread is called `core-…`, as workers are. Asks the kernel, for that allocates nothing.
fn is_worker() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, its zero included.
    let got = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    got == 0 && name.starts_with(b"core-")
}

/// The allocations that workers make while `act` goes on, and where the first was made.
fn watched(act: impl FnOnce()) -> (u64, String) {
    OFFENCES.store(0, Ordering::Relaxed);
    IS_WATCHING.store(true, Ordering::SeqCst);
    act();
    IS_WATCHING.store(false, Ordering::SeqCst);
    let first = FIRST.lock().unwrap().take().map_or_else(String::new, |first| first.to_string());
    (OFFENCES.load(Ordering::Relaxed), first)
}

/// Where the access log goes: its lines are counted, and it can be stalled.
#[derive(Default)]
struct Log {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Log {
    fn stall(&self, stalled: bool) {
        self.state.lock().unwrap().1 = stalled;
        self.changed.notify_all();
    }

    /// Waits until so many lines have come.
    fn wait_for(&self, lines: usize) {
        let state = self.state.lock().unwrap();
        let (state, timeout) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| state.0 < lines).unwrap();
        assert!(!timeout.timed_out(), "{} of {lines} log lines came", state.0);
    }
}

struct LogSink(Arc<Log>);

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let state = self.0.state.lock().unwrap();
        let mut state = self.0.changed.wait_while(state, |state| state.1).unwrap();
        state.0 += bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A gateway in this process. It runs until the process ends: a core's runtime is not taken down.
struct InProcess {
    address: SocketAddr,
    log: Arc<Log>,
    /// Exchanges so far, each of which is a line.
    exchanges: usize,
}

impl InProcess {
    fn start(text: &str) -> Self {
        let loaded = config::parse("test", text, &NoEnvironment).unwrap();
        let table = table::compile(&loaded.config, &mut |_, diagnostic| panic!("{diagnostic:?}")).unwrap();
        let log = Arc::new(Log::default());
        let (tell, told) = channel();
        let sink = LogSink(Arc::clone(&log));
        thread::spawn(move || {
            let options = Options {
                config: loaded.config,
                table,
                log_sink: Some(Box::new(sink)),
                on_ready: Box::new(move |listeners| tell.send(listeners[0].1).unwrap()),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server::run(options)).unwrap();
        });
        let address = told.recv_timeout(PATIENCE).expect("the gateway listens");
        Self { address, log, exchanges: 0 }
    }

    /// Connections to it.
    fn clients(&self) -> Vec<Peer> {
        (0..CLIENTS).map(|_| Peer::new(TcpStream::connect(self.address).unwrap())).collect()
    }

    /// Sends `request` `count` times, each on the next connection, and looks at every answer.
    fn exchange(&mut self, clients: &mut [Peer], count: usize, request: &str, body: &[u8]) {
        for number in 0..count {
            let client = &mut clients[number % CLIENTS];
            client.send(request);
            let response = client.response();
            assert_eq!((response.status, response.body.as_slice()), (200, body), "{}", response.head);
        }
        self.exchanges += count;
    }
}

/// The one gateway of all tests, and with it the right to watch.
fn gateway() -> &'static Mutex<InProcess> {
    static GATEWAY: OnceLock<Mutex<InProcess>> = OnceLock::new();
    GATEWAY.get_or_init(|| {
        let upstream = Upstream::answering(|head, body| match head.split(' ').nth(1) {
            Some("/chunked") => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n again\r\n0\r\n\r\n"
                    .to_vec()
            }
            Some("/echo") => ok(body),
            _ => ok(b"hello"),
        });
        Mutex::new(InProcess::start(&support::all_to(&[upstream.address])))
    })
}

/// Asserts that `request`, answered with `body`, costs a worker no allocation once it has been served for a while.
fn allocates_nothing(request: &str, body: &[u8]) {
    let mut gateway = gateway().lock().unwrap_or_else(|_| panic!("another test failed"));
    let mut clients = gateway.clients();
    gateway.log.stall(true);
    gateway.exchange(&mut clients, WARM_UP, request, body);
    gateway.log.stall(false);
    for _ in 0..EXCHANGES / EXCHANGES_PER_ROUND {
        // What the last exchange left to do is done when its line is written.
        gateway.log.wait_for(gateway.exchanges);
        let (allocations, first) = watched(|| {
            gateway.exchange(&mut clients, EXCHANGES_PER_ROUND, request, body);
            gateway.log.wait_for(gateway.exchanges);
        });
        assert_eq!(allocations, 0, "the first was made here:\n{first}");
    }
}

#[test]
fn a_plain_get_allocates_nothing() {
    allocates_nothing(
        "GET /users/42?q=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n",
        b"hello",
    );
}

#[test]
fn a_small_post_allocates_nothing() {
    allocates_nothing(
        "POST /echo HTTP/1.1\r\nHost: example.com\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world",
        b"hello world",
    );
}

#[test]
fn a_chunked_response_allocates_nothing() {
    allocates_nothing("GET /chunked HTTP/1.1\r\nHost: example.com\r\n\r\n", b"hello again");
}

/// What the watch is to find.
#[inline(never)]
fn allocate_on_purpose() {
    drop(std::hint::black_box(vec![0u8; 100]));
}

#[test]
fn the_watch_sees_a_worker_allocate_and_no_one_else() {
    // Only one may watch at a time.
    let _gateway = gateway().lock().unwrap_or_else(|_| panic!("another test failed"));
    let is_there = |thread: std::io::Result<std::fs::DirEntry>| {
        let name = std::fs::read_to_string(thread.unwrap().path().join("comm"));
        name.is_ok_and(|name| name.starts_with("core-"))
    };
    assert!(std::fs::read_dir("/proc/self/task").unwrap().any(is_there), "workers have another name");

    let allocate_in = |name: &str| {
        let start = Arc::new(Barrier::new(2));
        let started = Arc::clone(&start);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // A thread allocates when it begins.
            started.wait();
            started.wait();
            allocate_on_purpose();
        });
        start.wait();
        watched(move || {
            start.wait();
            thread.unwrap().join().unwrap();
        })
    };
    let (allocations, first) = allocate_in("core-test");
    assert!(allocations > 0 && first.contains("allocate_on_purpose"), "{allocations}: {first}");
    assert_eq!(allocate_in("other-test"), (0, String::new()));
}
