//! Both halves over real sockets, on either driver, against rustls by blocking calls.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    rc::Rc,
    sync::mpsc,
    task::Poll,
    thread,
};

use rustls::{AlertDescription, ClientConnection, ServerConnection, StreamOwned, version::TLS13};

use super::{
    handshakes::name,
    mint::Mint,
    records::{DATA, ends},
    talk::{client, our_client, our_server, server, suites},
};
use crate::{
    buf::{Buf, LARGE_BYTES, SMALL_BYTES, Size, figures, set_budget},
    config::types::{ClientAuthMode, DriverChoice, TlsVersion},
    net,
    tls::{ClientAuthority, HandshakeError, ServerTls, Stream, TicketKeys, accept, connect},
};

const DRIVERS: [DriverChoice; 2] = [DriverChoice::IoUring, DriverChoice::Epoll];

/// Small buffers of a core, in tests.
const BUFFERS: usize = 1024;

type Theirs = StreamOwned<ClientConnection, TcpStream>;

/// Runs `ours` on a core of its own and `theirs` beside it, with a connection between them.
fn between<F: Future>(
    driver: DriverChoice,
    ours: impl FnOnce(net::Stream) -> F + Send,
    theirs: impl FnOnce(TcpStream) + Send,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let beside = scope.spawn(move || theirs(listener.accept().unwrap().0));
        let core = scope.spawn(move || {
            net::run(driver, 64, BUFFERS, |_| async {
                ours(net::connect(address).await.unwrap()).await;
                // Sockets are closed in a later turn.
                yielded().await;
            })
            .unwrap();
        });
        core.join().unwrap();
        beside.join().unwrap();
    });
}

/// Waits for a few turns.
async fn yielded() {
    for _ in 0..4 {
        let mut is_over = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut is_over, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// The next plaintext.
async fn receive(stream: &mut Stream) -> io::Result<Buf> {
    if !stream.rx.is_armed() {
        assert!(stream.rx.arm_lazily());
    }
    let (result, buf) = poll_fn(|cx| stream.rx.poll_recv(cx)).await;
    result.map(|_| buf)
}

async fn send(stream: &mut Stream, buf: Buf) -> io::Result<()> {
    stream.tx.arm(buf);
    let (result, _) = poll_fn(|cx| stream.tx.poll_sent(cx)).await;
    result
}

fn filled(size: Size, length: usize, first: usize) -> Buf {
    let mut buf = Buf::take(size).unwrap();
    let bytes: Vec<u8> = (first..first + length).map(|place| (place % 251) as u8).collect();
    if length + 64 <= buf.capacity() && first.is_multiple_of(2) {
        buf.reset(32, 32);
    }
    assert!(buf.push(&bytes));
    buf
}

/// rustls' client over a socket.
fn ask(root: &Mint, socket: TcpStream, suite: usize) -> Theirs {
    let (suite, version) = suites()[suite];
    let client = ClientConnection::new(client(root, suite, version), name("a.test")).unwrap();
    StreamOwned::new(client, socket)
}

#[test]
fn what_is_sent_comes_back_whatever_the_buffers() {
    const ALL: usize = 1 << 20;
    let root = Mint::root("root");
    for driver in DRIVERS {
        for suite in [0, 2, 4] {
            let ours = our_server(&root);
            between(
                driver,
                |socket| async move {
                    let mut stream = accept(socket, ours, None).await.unwrap();
                    let mut received = 0;
                    let mut round = 0;
                    while received < ALL {
                        round += 1;
                        // Lazily, into buffers of both sizes, and behind what is in one.
                        match round % 4 {
                            0 => assert!(stream.rx.arm_lazily()),
                            1 => stream.rx.arm(Buf::take(Size::Large).unwrap()),
                            2 => stream.rx.arm(Buf::take(Size::Small).unwrap()),
                            _ => {
                                let mut buf = Buf::take(Size::Small).unwrap();
                                buf.reset(32, 32);
                                assert!(buf.push(b"before"));
                                buf.limit_spare(100);
                                stream.rx.arm(buf);
                            }
                        }
                        let mut buf = receive(&mut stream).await.unwrap();
                        if round % 4 == 3 {
                            assert!(buf.filled().starts_with(b"before") && buf.len() <= 106);
                            buf.consume(6);
                        }
                        let expected: Vec<u8> =
                            (received..received + buf.len()).map(|place| (place % 251) as u8).collect();
                        assert_eq!(buf.filled(), expected);
                        received += buf.len();
                        if round % 2 == 0 {
                            send(&mut stream, buf).await.unwrap();
                        } else {
                            // As many buffers as it takes, without room around.
                            let mut large = Buf::take(Size::Large).unwrap();
                            assert!(large.push(buf.filled()));
                            send(&mut stream, large).await.unwrap();
                        }
                    }
                    assert_eq!(received, ALL);
                    stream.tx.finish();
                    assert_eq!(receive(&mut stream).await.unwrap().len(), 0);
                },
                |socket| {
                    let mut peer = ask(&root, socket.try_clone().unwrap(), suite);
                    let bytes: Vec<u8> = (0..ALL).map(|place| (place % 251) as u8).collect();
                    let mut back = Vec::new();
                    let mut chunk = vec![0; 40_000];
                    for piece in bytes.chunks(39_000) {
                        peer.write_all(piece).unwrap();
                        peer.flush().unwrap();
                        let until = back.len() + piece.len();
                        while back.len() < until {
                            let count = peer.read(&mut chunk).unwrap();
                            assert!(count > 0);
                            back.extend_from_slice(&chunk[..count]);
                        }
                    }
                    assert_eq!(back, bytes);
                    assert_eq!(peer.read(&mut chunk).unwrap(), 0, "it said so");
                    peer.conn.send_close_notify();
                    peer.flush().unwrap();
                },
            );
        }
    }
}

#[test]
fn large_sends_are_one_send() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        let ours = our_server(&root);
        between(
            driver,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                assert_eq!(receive(&mut stream).await.unwrap().filled(), b"go");
                let mut first = 0;
                for (size, length) in [
                    (Size::Large, LARGE_BYTES),
                    (Size::Large, 1),
                    (Size::Large, 3 * 16_384),
                    (Size::Large, 3 * 16_384 + 1),
                    (Size::Small, SMALL_BYTES),
                    (Size::Small, SMALL_BYTES - 64),
                ] {
                    send(&mut stream, filled(size, length, first)).await.unwrap();
                    assert!(!stream.tx.is_sending());
                    first += length;
                }
                // One whose end is only looked at.
                stream.tx.arm(filled(Size::Large, LARGE_BYTES, first));
                poll_fn(|cx| stream.tx.look(cx)).await.unwrap();
                assert!(!stream.tx.is_sending());
                stream.tx.finish();
                assert_eq!(receive(&mut stream).await.unwrap().len(), 0);
            },
            |socket| {
                let mut peer = ask(&root, socket, 0);
                peer.write_all(b"go").unwrap();
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                assert_eq!(all.len(), 2 * LARGE_BYTES + 1 + 6 * 16_384 + 1 + 2 * SMALL_BYTES - 64);
                assert!(all.iter().enumerate().all(|(place, byte)| *byte == (place % 251) as u8));
                peer.conn.send_close_notify();
                peer.flush().unwrap();
            },
        );
    }
}

#[test]
fn our_keys_are_renewed_before_what_is_sent_next() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        for suite in 0..3 {
            assert_eq!(suites()[suite].1, &TLS13);
            let ours = our_server(&root);
            between(
                driver,
                |socket| async move {
                    let mut stream = accept(socket, ours, None).await.unwrap();
                    for round in 0..3 {
                        assert_eq!(receive(&mut stream).await.unwrap().filled(), b"again");
                        let length = [10, LARGE_BYTES, 16_000][round];
                        send(&mut stream, filled(Size::Large, length, 0)).await.unwrap();
                    }
                },
                |socket| {
                    let mut peer = ask(&root, socket, suite);
                    for length in [10, LARGE_BYTES, 16_000] {
                        if !peer.conn.is_handshaking() {
                            peer.conn.refresh_traffic_keys().unwrap();
                            peer.conn.refresh_traffic_keys().unwrap();
                        }
                        peer.write_all(b"again").unwrap();
                        let mut back = vec![0; length];
                        peer.read_exact(&mut back).unwrap();
                        assert!(back.iter().enumerate().all(|(place, byte)| *byte == (place % 251) as u8));
                    }
                    assert_eq!(
                        peer.read(&mut [0]).unwrap(),
                        0,
                        "the end is said when a connection is dropped"
                    );
                },
            );
        }
    }
}

#[test]
fn whoever_waits_may_stop_waiting() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        let ours = our_server(&root);
        between(
            driver,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                for expected in [&b"one"[..], b"two", b"three"] {
                    // Begun, looked at once, and left.
                    assert!(stream.rx.arm_lazily());
                    assert!(poll_fn(|cx| Poll::Ready(stream.rx.poll_recv(cx).is_pending())).await);
                    send(&mut stream, filled(Size::Small, 3, 0)).await.unwrap();
                    assert!(stream.rx.is_armed());
                    assert_eq!(receive(&mut stream).await.unwrap().filled(), expected);
                }
            },
            |socket| {
                let mut peer = ask(&root, socket, 0);
                for said in [&b"one"[..], b"two", b"three"] {
                    peer.read_exact(&mut [0; 3]).unwrap();
                    peer.write_all(said).unwrap();
                }
                assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            },
        );
    }
}

/// The alert that a peer gets, by hand: after a client's handshake it reads until the end.
fn told(mut peer: Theirs) -> io::Result<usize> {
    peer.read(&mut [0; 64])
}

fn alert_of(result: io::Result<usize>) -> AlertDescription {
    let error = result.unwrap_err();
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

#[test]
fn who_sends_what_is_not_understood_is_told_so() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        let ours = our_server(&root);
        between(
            driver,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
                // So that nothing is under way when there is something to be said.
                send(&mut stream, filled(Size::Small, 5, 0)).await.unwrap();
                let error = receive(&mut stream).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                // Again and again, and nothing is sent any more.
                assert_eq!(receive(&mut stream).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
                stream.tx.arm(filled(Size::Small, 5, 0));
                assert!(stream.tx.is_sending() && !stream.tx.goes_on_alone());
                let (result, _) = poll_fn(|cx| stream.tx.poll_sent(cx)).await;
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                assert!(stream.tx.is_sending(), "it has not ended well");
            },
            |socket| {
                let mut peer = ask(&root, socket.try_clone().unwrap(), 0);
                peer.write_all(b"hello").unwrap();
                peer.read_exact(&mut [0; 5]).unwrap();
                (&socket).write_all(&ends(0).0.record(DATA, b"under other keys").unwrap()).unwrap();
                assert_eq!(alert_of(told(peer)), AlertDescription::BadRecordMac);
            },
        );
    }
}

#[test]
fn a_cut_is_no_end_and_an_end_is_said() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        for says_end in [false, true] {
            let ours = our_server(&root);
            between(
                driver,
                |socket| async move {
                    let mut stream = accept(socket, ours, None).await.unwrap();
                    assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
                    match receive(&mut stream).await {
                        Ok(buf) => assert!(says_end && buf.is_empty()),
                        Err(error) => assert!(!says_end && error.kind() == io::ErrorKind::UnexpectedEof),
                    }
                    // Ours is open still.
                    send(&mut stream, filled(Size::Small, 5, 0)).await.unwrap();
                    stream.tx.finish();
                    stream.tx.finish();
                    stream.tx.arm(filled(Size::Small, 5, 0));
                    let (result, _) = poll_fn(|cx| stream.tx.poll_sent(cx)).await;
                    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                },
                |socket| {
                    let mut peer = ask(&root, socket, 0);
                    peer.write_all(b"hello").unwrap();
                    if says_end {
                        peer.conn.send_close_notify();
                        peer.flush().unwrap();
                    }
                    peer.sock.shutdown(Shutdown::Write).unwrap();
                    let mut all = Vec::new();
                    peer.read_to_end(&mut all).unwrap();
                    assert_eq!(all, [0, 1, 2, 3, 4]);
                },
            );
        }
    }
}

/// What ends a body is put into the buffer that comes back with the stream's end.
#[test]
fn the_end_comes_with_the_buffer_that_was_given() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        for size in [Size::Small, Size::Large] {
            let ours = our_server(&root);
            between(
                driver,
                |socket| async move {
                    let mut stream = accept(socket, ours, None).await.unwrap();
                    assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
                    for _ in 0..2 {
                        stream.rx.arm(Buf::take(size).unwrap());
                        let buf = receive(&mut stream).await.unwrap();
                        assert!(buf.is_empty() && buf.has_room(32, 32) && buf.spare_len() > 1000);
                    }
                    let mut buf = Buf::take(size).unwrap();
                    assert!(buf.push(b"before"));
                    stream.rx.arm(buf);
                    assert_eq!(receive(&mut stream).await.unwrap().filled(), b"before");
                },
                |socket| {
                    let mut peer = ask(&root, socket, 0);
                    peer.write_all(b"hello").unwrap();
                    peer.conn.send_close_notify();
                    peer.flush().unwrap();
                    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
                },
            );
        }
    }
}

#[test]
fn a_panic_does_not_look_like_an_end() {
    let root = Mint::root("root");
    let ours = our_server(&root);
    between(
        DriverChoice::IoUring,
        |socket| async move {
            let stream = accept(socket, ours, None).await.unwrap();
            let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _stream = stream;
                panic!("amid a body");
            }));
            assert!(broken.is_err());
        },
        |socket| {
            let mut peer = ask(&root, socket, 0);
            peer.write_all(b"hello").unwrap();
            told(peer).unwrap_err();
        },
    );
}

#[test]
fn what_is_aborted_does_not_look_complete() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        let ours = our_server(&root);
        between(
            driver,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
                stream.tx.abort();
            },
            |socket| {
                let mut peer = ask(&root, socket, 0);
                peer.write_all(b"hello").unwrap();
                told(peer).unwrap_err();
            },
        );
    }
}

/// Nothing of a body that was not sent to its end may look as if that were all.
#[test]
fn a_send_that_is_given_up_is_not_followed_by_an_end() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        let ours = our_server(&root);
        let (has_closed, may_read) = mpsc::channel();
        let root = &root;
        between(
            driver,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
                // Until the peer, which does not read, takes no more.
                let mut rounds = 0;
                let is_over = Rc::new(RefCell::new(false));
                while !*is_over.borrow() {
                    stream.tx.arm(filled(Size::Large, LARGE_BYTES, 0));
                    let mut polls = 0;
                    poll_fn(|cx| {
                        if let Poll::Ready((result, _)) = stream.tx.poll_sent(cx) {
                            result.unwrap();
                            return Poll::Ready(());
                        }
                        polls += 1;
                        if polls > 1000 {
                            *is_over.borrow_mut() = true;
                            return Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    })
                    .await;
                    rounds += 1;
                    assert!(rounds < 10_000);
                }
                drop(stream);
                yielded().await;
                has_closed.send(()).unwrap();
            },
            move |socket| {
                let mut peer = ask(root, socket, 0);
                peer.write_all(b"hello").unwrap();
                may_read.recv().unwrap();
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap_err();
            },
        );
    }
}

/// A client that speaks TLS 1.3 has sent its request by the time that it is refused: with that unread, closing the connection
/// would reset it, and what it is told would be lost.
#[test]
fn who_is_refused_learns_why_though_it_goes_on_talking() {
    let root = Mint::root("root");
    let auth = ClientAuthority { authorities: root.authorities(), mode: ClientAuthMode::Require };
    let strict = ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls12, Some(auth)).unwrap();
    for driver in DRIVERS {
        let strict = strict.config(&TicketKeys::generate().unwrap()).unwrap();
        between(
            driver,
            |socket| async move {
                let error = accept(socket, strict, None).await.unwrap_err();
                assert!(
                    matches!(error, HandshakeError::Tls(rustls::Error::NoCertificatesPresented)),
                    "{error}"
                );
            },
            |mut socket| {
                let mut peer = ask(&root, socket.try_clone().unwrap(), 0).conn;
                peer.set_buffer_limit(None);
                while peer.is_handshaking() {
                    while peer.wants_write() && peer.is_handshaking() {
                        peer.write_tls(&mut socket).unwrap();
                    }
                    peer.read_tls(&mut socket).unwrap();
                    peer.process_new_packets().unwrap();
                }
                // In one piece with the end of the handshake, and more than is received at once.
                peer.writer().write_all(&[b'x'; 60_000]).unwrap();
                let mut wire = Vec::new();
                while peer.wants_write() {
                    peer.write_tls(&mut wire).unwrap();
                }
                socket.write_all(&wire).unwrap();
                let refusal = loop {
                    peer.read_tls(&mut socket).unwrap();
                    if let Err(error) = peer.process_new_packets() {
                        break error;
                    }
                };
                assert_eq!(refusal, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
            },
        );
    }
}

#[test]
fn a_connection_that_waits_holds_no_buffer() {
    let root = &Mint::root("root");
    for suite in [0, 3] {
        let ours = our_server(root);
        let (waits, may_ask) = mpsc::channel();
        between(
            DriverChoice::IoUring,
            |socket| async move {
                let mut stream = accept(socket, ours, None).await.unwrap();
                for _ in 0..20 {
                    assert!(stream.rx.arm_lazily());
                    yielded().await;
                    // Those that the kernel has are counted too.
                    assert_eq!(figures().units_in_use, net::buffers_provided());
                    waits.send(()).unwrap();
                    let request = receive(&mut stream).await.unwrap();
                    assert_eq!(request.filled(), b"a request");
                    drop(request);
                    send(&mut stream, filled(Size::Small, 5, 0)).await.unwrap();
                }
            },
            move |socket| {
                let mut peer = ask(root, socket, suite);
                peer.conn.complete_io(&mut peer.sock).unwrap();
                for _ in 0..20 {
                    may_ask.recv().unwrap();
                    peer.write_all(b"a request").unwrap();
                    peer.read_exact(&mut [0; 5]).unwrap();
                }
                assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            },
        );
    }
}

#[test]
fn a_core_without_buffers_loses_nothing_and_pretends_nothing() {
    let root = Mint::root("root");
    let ours = our_server(&root);
    between(
        // Where whoever waits has a buffer.
        DriverChoice::Epoll,
        |socket| async move {
            let mut stream = accept(socket, ours, None).await.unwrap();
            let (small, large) = (Buf::take(Size::Small).unwrap(), filled(Size::Large, LARGE_BYTES, 0));
            set_budget(0);
            assert!(!stream.rx.arm_lazily() && !stream.rx.is_armed());
            stream.rx.arm(small);
            let (result, _) = poll_fn(|cx| stream.rx.poll_recv(cx)).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
            assert!(!stream.rx.is_armed());
            set_budget(usize::MAX);
            assert_eq!(receive(&mut stream).await.unwrap().filled(), b"hello");
            // What does not become records where it lies needs another buffer.
            set_budget(0);
            let error = send(&mut stream, large).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            set_budget(usize::MAX);
        },
        |socket| {
            let mut peer = ask(&root, socket, 0);
            peer.write_all(b"hello").unwrap();
            assert_eq!(alert_of(told(peer)), AlertDescription::InternalError);
        },
    );
}

#[test]
fn endpoints_are_greeted() {
    let root = Mint::root("root");
    for driver in DRIVERS {
        for suite in [0, 3] {
            let ours = our_client(&root);
            between(
                driver,
                |socket| async move {
                    let mut stream = connect(socket, ours, name("a.test")).await.unwrap();
                    assert!(!stream.tx.is_sending());
                    let session = stream.session().unwrap();
                    assert_eq!(session.version, if suite == 0 { "TLSv1.3" } else { "TLSv1.2" });
                    assert!(session.peer.is_none() && !session.is_resumed);
                    // Armed while it waits to be used: tickets that come meanwhile are no reason to give it up.
                    assert!(stream.rx.arm_lazily());
                    yielded().await;
                    assert!(poll_fn(|cx| Poll::Ready(stream.rx.poll_recv(cx).is_pending())).await);
                    for length in [5, LARGE_BYTES] {
                        send(&mut stream, filled(Size::Large, length, 0)).await.unwrap();
                        assert_eq!(receive(&mut stream).await.unwrap().filled(), b"thanks");
                    }
                },
                |socket| {
                    let (suite, version) = suites()[suite];
                    let server = ServerConnection::new(server(&root, suite, version)).unwrap();
                    let mut peer = StreamOwned::new(server, socket);
                    for length in [5, LARGE_BYTES] {
                        peer.read_exact(&mut vec![0; length]).unwrap();
                        peer.write_all(b"thanks").unwrap();
                    }
                    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
                },
            );
        }
    }
}
