//! A server's handshake: with arbitrary bytes it does not come about, and with a client whose bytes are changed on their
//! way it comes about or fails, on both sides, without standing still.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringgate::{
    config::types::TlsVersion,
    tls::{Certificate, ClientTls, ServerTls, TicketKeys, Trust, rehearsal::Shaking},
};
use rustls_pki_types::ServerName;

/// For no one: it was made for this.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS6gAwIBAgIUaQni8DGlN5UuGra2Jh3gNhEq6SwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEZnV6ejAgFw0yNjExMjYwMjM3MjBaGA8yMTI2MTEwMjAyMzcy
MFowDzENMAsGA1UEAwwEZnV6ejBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKOA
7cLk9Oos18Xs6r9VD8bNIuYsWTuGlcqz72CSy/kq6YcYeBelMKoNd0drZR2uIRoj
kesufgV1mEbzo+6EMxKjZjBkMB0GA1UdDgQWBBQ4eem5v5DBlpoLVZV/Jveyerjx
7zAfBgNVHSMEGDAWgBQ4eem5v5DBlpoLVZV/Jveyerjx7zAPBgNVHRMBAf8EBTAD
AQH/MBEGA1UdEQQKMAiCBmEudGVzdDAKBggqhkjOPQQDAgNHADBEAiBDo7K3D4+g
4cdvc9FNQcS2ZyBG2JogIDUxKzAjKagEmAIgXLkvDck+vz3vS7ky6Sly1SETWwOL
VVTiVRoyuG9rbNQ=
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgrqqEy4y3aKX84efJ
faYOmkg8btXZxVJwpEHnA5deJnyhRANCAASjgO3C5PTqLNfF7Oq/VQ/GzSLmLFk7
hpXKs+9gksv5KumHGHgXpTCqDXdHa2UdriEaI5HrLn4FdZhG86PuhDMS
-----END PRIVATE KEY-----
";

static SERVER: LazyLock<(ServerTls, TicketKeys)> = LazyLock::new(|| {
    let certificate = Certificate::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a certificate");
    let server = ServerTls::new(vec![certificate], TlsVersion::Tls12, None).expect("a server");
    (server, TicketKeys::generate().expect("random bytes"))
});

static CLIENT: LazyLock<ClientTls> = LazyLock::new(|| {
    let name = ServerName::try_from("a.test").expect("a name");
    ClientTls::new(Trust::Anyone, None, Some(name), &[]).expect("a client")
});

fn server() -> Shaking {
    let (server, tickets) = &*SERVER;
    Shaking::server(server.config(tickets).expect("a configuration")).expect("a server's handshake")
}

/// Feeds it with pieces of these lengths, and then the rest; whether it is done. `None`: it has failed.
fn feed(shaking: &mut Shaking, mut wire: &[u8], cuts: &[u16]) -> Option<bool> {
    for cut in cuts.iter().copied().map(usize::from).chain([usize::MAX]) {
        let (piece, later) = wire.split_at(cut.min(wire.len()));
        wire = later;
        if shaking.hear(piece).ok()? {
            return Some(true);
        }
    }
    Some(false)
}

/// A client and a server until both are done or one has failed. Each flight but the changed byte comes as it was sent.
fn converse(changes: Vec<(u16, u8)>, cuts: &[u16]) -> Option<()> {
    let name = ServerName::try_from("a.test").expect("a name");
    let config = CLIENT.config().expect("a configuration");
    let mut client = Shaking::client(config, name).expect("a client's handshake");
    let mut server = server();
    let mut changes = changes.into_iter();
    let mut flight_of = |shaking: &mut Shaking| {
        let mut flight = shaking.take_flight();
        if let Some((at, change)) = changes.next()
            && let Some(byte) = flight.get_mut(usize::from(at))
        {
            *byte ^= change;
        }
        flight
    };
    let mut is_done = [feed(&mut client, &[], &[])?, false];
    while is_done != [true, true] {
        let flight = flight_of(&mut client);
        if !is_done[1] {
            is_done[1] = feed(&mut server, &flight, cuts)?;
        }
        let answer = flight_of(&mut server);
        if !is_done[0] {
            is_done[0] = feed(&mut client, &answer, cuts)?;
        }
        if flight.is_empty() && answer.is_empty() {
            // Each waits for what was to come of a record that seems longer than it is.
            return None;
        }
    }
    client.finish().expect("it is done");
    server.finish().expect("it is done");
    Some(())
}

fuzz_target!(|input: (Vec<(u16, u8)>, Vec<u16>, &[u8])| {
    let (changes, cuts, arbitrary) = input;
    assert_ne!(feed(&mut server(), arbitrary, &cuts), Some(true));
    let is_changed = !changes.is_empty();
    assert!(converse(changes, &cuts).is_some() || is_changed);
});
