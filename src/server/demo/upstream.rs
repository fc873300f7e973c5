//! What each kind of upstream answers. An upstream knows its own name and the request before it, and nothing of the
//! gateway; all but the failing one answer alike on every path, so that a route may rewrite as it likes.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Request,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::{task::yield_now, time::sleep};

/// The longest that the slow upstream can be asked to take.
const DELAY_MILLIS_MAX: u64 = 60_000;
/// The most events of one stream.
const EVENTS_MAX: u64 = 1000;
/// The longest time between two of them.
const EVENT_MILLIS_MAX: u64 = 10_000;
/// The most bytes of one answer.
const BYTES_MAX: u64 = 1 << 40;
/// The longest WebSocket message, which is held whole.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a large answer is made of: lines of 64 bytes, so that one can see where it was cut.
static LINES: [u8; 64 * 1024] = lines();

/// What an upstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Says in JSON who it is and what it was asked.
    Plain,
    /// The same, after `?ms=` milliseconds; a second unless told.
    Slow,
    /// 200 and 503 by turns; on `/down` always 503; on `/broken` the beginning of an answer.
    Failing,
    /// Refuses connections.
    Refusing,
    /// Sends the request's body back as it comes, under its type.
    Echo,
    /// Sends WebSocket messages back, text as text and binary as binary.
    WebSocket,
    /// `?n=` server-sent events (5), one every `?every=` milliseconds (200).
    Events,
    /// `?n=` bytes (1024).
    Bytes,
}

impl Kind {
    /// What serves it; nothing serves an upstream that refuses.
    pub(super) fn router(self, name: &'static str) -> Option<Router> {
        Some(match self {
            Self::Plain => Router::new().fallback(move |request| plain(name, request)),
            Self::Slow => Router::new().fallback(move |request| slow(name, request)),
            Self::Failing => failing(name),
            Self::Refusing => return None,
            Self::Echo => Router::new().fallback(echo),
            Self::WebSocket => Router::new().fallback(websocket),
            Self::Events => Router::new().fallback(events),
            Self::Bytes => Router::new().fallback(bytes),
        })
    }
}

/// What a plain upstream says of a request.
#[derive(Serialize)]
struct Report<'a> {
    upstream: &'static str,
    method: &'a str,
    /// With the query, as received.
    path: String,
    /// By name; fields of one name in their order.
    headers: BTreeMap<&'a str, OneOrMore>,
    body_bytes: usize,
}

/// A field's value, or the values of several fields of one name.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

async fn plain(name: &'static str, request: Request) -> Response {
    report(name, StatusCode::OK, request).await
}

/// Reads the request to its end and tells what it was.
async fn report(name: &'static str, status: StatusCode, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let mut body_bytes = 0;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => body_bytes += piece.len(),
            // The request broke off, so whoever sent it no longer waits for much of an answer.
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    let report = Report {
        upstream: name,
        method: head.method.as_str(),
        path: head.uri.to_string(),
        headers: fields(&head.headers),
        body_bytes,
    };
    match serde_json::to_string_pretty(&report) {
        Ok(json) => {
            let fields = [(header::CONTENT_TYPE, "application/json"), (header::SERVER, name)];
            (status, fields, json + "\n").into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn fields(headers: &HeaderMap) -> BTreeMap<&str, OneOrMore> {
    let values = |name| {
        let mut values: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect();
        if values.len() == 1 { OneOrMore::One(values.swap_remove(0)) } else { OneOrMore::More(values) }
    };
    headers.keys().map(|name| (name.as_str(), values(name))).collect()
}

async fn slow(name: &'static str, request: Request) -> Result<Response, BadQuery> {
    let delay_ms = number(request.uri(), "ms", 1000, DELAY_MILLIS_MAX)?;
    sleep(Duration::from_millis(delay_ms)).await;
    Ok(plain(name, request).await)
}

fn failing(name: &'static str) -> Router {
    let asked = Arc::new(AtomicU64::new(0));
    let by_turns = move |request| {
        let is_well = asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        report(name, if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, request)
    };
    let down = move |request| report(name, StatusCode::SERVICE_UNAVAILABLE, request);
    Router::new().route("/down", any(down)).route("/broken", any(broken)).fallback(by_turns)
}

/// A response that promises a thousand bytes, sends one line and closes.
async fn broken() -> Response {
    let body = stream::unfold(0, |step| async move {
        match step {
            0 => Some((Ok(Bytes::from_static(b"This is where it br")), 1)),
            1 => {
                // While the body has nothing more to give, the server sends what it has.
                yield_now().await;
                Some((Err(io::Error::other("broken on purpose")), 2))
            }
            _ => None,
        }
    });
    ([(header::CONTENT_LENGTH, "1000")], Body::from_stream(body)).into_response()
}

async fn echo(request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let mut response = Response::new(body);
    if let Some(content_type) = head.headers.remove(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX).on_upgrade(echo_messages)
}

async fn echo_messages(mut socket: WebSocket) {
    // Pings and the close handshake are answered within.
    while let Some(Ok(message)) = socket.recv().await {
        let is_echoed = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_echoed && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn events(uri: Uri) -> Result<Response, BadQuery> {
    let count = number(&uri, "n", 5, EVENTS_MAX)?;
    let every = Duration::from_millis(number(&uri, "every", 200, EVENT_MILLIS_MAX)?);
    let body = stream::unfold(1, move |event| async move {
        if event > count {
            return None;
        }
        if event > 1 {
            sleep(every).await;
        }
        Some((Ok::<_, io::Error>(format!("id: {event}\ndata: event {event} of {count}\n\n")), event + 1))
    });
    let fields = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((fields, Body::from_stream(body)).into_response())
}

async fn bytes(uri: Uri) -> Result<Response, BadQuery> {
    let count = number(&uri, "n", 1024, BYTES_MAX)?;
    let body = stream::unfold(count, |left| async move {
        let piece = LINES.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        (piece > 0).then(|| (Ok::<_, io::Error>(Bytes::from_static(&LINES[..piece])), left - piece as u64))
    });
    let fields =
        [(header::CONTENT_TYPE, "text/plain".to_owned()), (header::CONTENT_LENGTH, count.to_string())];
    Ok((fields, Body::from_stream(body)).into_response())
}

const fn lines() -> [u8; 64 * 1024] {
    let mut bytes = [0; 64 * 1024];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = if at % 64 == 63 { b'\n' } else { b'0' + (at % 64 % 10) as u8 };
        at += 1;
    }
    bytes
}

/// A query parameter that is no number, or too large a one.
struct BadQuery {
    name: &'static str,
    max: u64,
}

impl IntoResponse for BadQuery {
    fn into_response(self) -> Response {
        let Self { name, max } = self;
        (StatusCode::BAD_REQUEST, format!("`{name}` is a number up to {max}\n")).into_response()
    }
}

/// The query parameter `name`, `default` without it.
fn number(uri: &Uri, name: &'static str, default: u64, max: u64) -> Result<u64, BadQuery> {
    let mut pairs =
        uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.find(|(key, _)| *key == name) else { return Ok(default) };
    value.parse().ok().filter(|number| *number <= max).ok_or(BadQuery { name, max })
}
