//! Clients and servers of HTTP/2 by the `h2` crate. One thread drives the connections of all of them, so that a test
//! waits for what happens on them as it does for the scripted peers, and its deadline is the same.

use std::{
    future::{Future, poll_fn},
    io::{self, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    task::{Context, Poll, ready},
    thread,
};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, request, response};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use crate::support::{
    PATIENCE,
    mint::{Files, Mint, Pair},
    secure::{self, BOTH_VERSIONS},
};

/// What drives the connections.
static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        sender.send(runtime.handle().clone()).unwrap();
        runtime.block_on(std::future::pending::<()>());
    });
    receiver.recv().unwrap()
});

/// Waits for something; a test has failed when it does not come.
pub fn wait<T>(what: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, what).await }).expect("it comes in time")
}

/// A request without a body, or before it.
pub fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// A GET of this path.
pub fn get(path: &str) -> Request<()> {
    request("GET", &format!("http://a{path}"), &[])
}

/// A POST to this path.
pub fn post(path: &str) -> Request<()> {
    request("POST", &format!("http://a{path}"), &[])
}

pub fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
        .collect()
}

/// A client's connection.
pub struct Client {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A whole message.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// 200 with this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }
}

impl Client {
    pub fn connect(to: SocketAddr) -> Self {
        Self::with(&client::Builder::new(), to)
    }

    pub fn with(builder: &client::Builder, to: SocketAddr) -> Self {
        wait(async { Self::over(builder, TcpStream::connect(to).await.unwrap()).await })
    }

    /// By TLS; the connection is of HTTP/2 if that was agreed upon.
    pub fn secured(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self, Option<Vec<u8>>> {
        wait(async {
            let io = Tls::client(to, config).await;
            match io.protocol() {
                Some(protocol) if protocol == b"h2" => Ok(Self::over(&client::Builder::new(), io).await),
                other => Err(other),
            }
        })
    }

    async fn over(
        builder: &client::Builder,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (send, connection) = builder.handshake(io).await.unwrap();
        Self { send, driver: tokio::spawn(connection) }
    }

    /// Sends a request's head.
    pub fn begin(&self, request: Request<()>, ends: bool) -> Exchange {
        self.try_begin(request, ends).unwrap()
    }

    pub fn try_begin(&self, request: Request<()>, ends: bool) -> Result<Exchange, h2::Error> {
        let mut ready = wait(self.send.clone().ready())?;
        let (response, send) = ready.send_request(request, ends)?;
        Ok(Exchange { response, send })
    }

    /// A request, whole, and its answer.
    pub fn ask(&self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        self.try_ask(request, body).unwrap()
    }

    pub fn try_ask(&self, request: Request<()>, body: impl Into<Bytes>) -> Result<Answer, h2::Error> {
        wait(exchange(self.send.clone(), request, body.into()))
    }

    /// The same for many at once.
    pub fn ask_all(
        &self,
        requests: impl IntoIterator<Item = (Request<()>, Bytes)>,
    ) -> Vec<Result<Answer, h2::Error>> {
        let requests = requests.into_iter().map(|(request, body)| exchange(self.send.clone(), request, body));
        wait(join_all(requests))
    }

    /// Asks for a path that is answered with 200, and gives the answer's text.
    pub fn says(&self, path: &str) -> String {
        let answer = self.ask(get(path), "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// Waits until the server lets streams be other protocols (RFC 8441 §3).
    pub fn may_connect(&self) {
        crate::support::within("extended CONNECT", || {
            self.send.is_extended_connect_protocol_enabled().then_some(())
        });
    }

    /// Waits for the connection's end.
    pub fn ended(self) -> Result<(), h2::Error> {
        let Self { send, driver } = self;
        let result = wait(driver).unwrap();
        drop(send);
        result
    }
}

async fn exchange(send: SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Result<Answer, h2::Error> {
    let ends = body.is_empty();
    let (response, mut send) = send.ready().await?.send_request(request, ends)?;
    let sending = async {
        // An answer may come before all is sent; then the rest is not wanted.
        if !ends {
            let _ = send_all(&mut send, body, true).await;
        }
    };
    let answering = async { whole(response.await?).await };
    tokio::join!(sending, answering).1
}

/// A response to its end.
async fn whole(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, body) = response.into_parts();
    let (body, trailers) = read_all(body).await?;
    Ok(Answer { status: parts.status.as_u16(), fields: parts.headers, body, trailers })
}

async fn read_all(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, body.trailers().await?.unwrap_or_default()))
}

/// Sends as the peer allows it.
pub async fn send_all(send: &mut SendStream<Bytes>, mut bytes: Bytes, ends: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| send.poll_capacity(cx)).await.ok_or(Reason::STREAM_CLOSED)??;
        let now = bytes.split_to(room.min(bytes.len()));
        send.send_data(now, ends && bytes.is_empty())?;
    }
    Ok(())
}

/// A request whose head is sent.
pub struct Exchange {
    pub response: ResponseFuture,
    pub send: SendStream<Bytes>,
}

impl Exchange {
    /// Sends a piece of the body.
    pub fn send(&mut self, bytes: impl Into<Bytes>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl Into<Bytes>) -> Result<(), h2::Error> {
        wait(send_all(&mut self.send, bytes.into(), false))
    }

    /// Sends the last piece.
    pub fn last(&mut self, bytes: impl Into<Bytes>) {
        self.send.send_data(bytes.into(), true).unwrap();
    }

    /// The next interim response.
    pub fn interim(&mut self) -> Response<()> {
        wait(poll_fn(|cx| self.response.poll_informational(cx))).expect("an interim response").unwrap()
    }

    /// The response's head.
    pub fn head(&mut self) -> Result<Incoming, h2::Error> {
        let (head, body) = wait(&mut self.response)?.into_parts();
        Ok(Incoming { head, body })
    }

    /// The response, whole.
    pub fn answer(&mut self) -> Result<Answer, h2::Error> {
        wait(async { whole((&mut self.response).await?).await })
    }

    /// Gives the stream up.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Waits until the other side resets the stream, and says why.
    pub fn is_reset(&mut self) -> Reason {
        wait(poll_fn(|cx| self.send.poll_reset(cx))).unwrap()
    }
}

/// A response whose head came.
pub struct Incoming {
    pub head: response::Parts,
    pub body: RecvStream,
}

impl Incoming {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// At least so many bytes more, or what there is to the body's end.
    pub fn some(&mut self, count: usize) -> Result<Vec<u8>, h2::Error> {
        wait(async {
            let mut bytes = Vec::new();
            while bytes.len() < count {
                let Some(piece) = self.body.data().await else { break };
                let piece = piece?;
                self.body.flow_control().release_capacity(piece.len())?;
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        })
    }

    /// What is left of the body, and the trailers.
    pub fn rest(self) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
        wait(read_all(self.body))
    }
}

/// A server.
pub struct Server {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

/// What a [`Server::asking`] is asked.
pub struct Asked {
    events: Receiver<Event>,
    /// Connections that ended.
    ended: Vec<usize>,
    questions: Vec<Question>,
}

enum Event {
    Asked(Box<Question>),
    Ended(usize),
}

/// A request that waits for its answer. Dropped, its stream is reset.
pub struct Question {
    /// The connection's number.
    pub connection: usize,
    pub head: request::Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    commands: UnboundedSender<Command>,
}

enum Command {
    /// Takes no further streams.
    ShutDown,
    /// Closes the connection.
    Cut,
}

impl Server {
    /// Asks the test for every answer.
    pub fn asking(builder: server::Builder, tls: Option<Arc<ServerConfig>>) -> (Self, Asked) {
        let (sender, events) = channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        RUNTIME.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (builder, tls, sender) = (builder.clone(), tls.clone(), sender.clone());
                tokio::spawn(async move {
                    let (commands, orders) = unbounded_channel();
                    let on_request = {
                        let sender = sender.clone();
                        move |(request, respond): (Request<RecvStream>, SendResponse<Bytes>)| {
                            let (head, body) = request.into_parts();
                            let commands = commands.clone();
                            let question = Question { connection, head, body, respond, commands };
                            let _ = sender.send(Event::Asked(Box::new(question)));
                        }
                    };
                    match tls {
                        None => serve(builder, socket, on_request, orders).await,
                        Some(config) => {
                            let io = Tls::server(socket, &config).await;
                            if io.protocol().is_some_and(|protocol| protocol == b"h2") {
                                serve(builder, io, on_request, orders).await;
                            } else {
                                serve_http1(io).await;
                            }
                        }
                    }
                    let _ = sender.send(Event::Ended(connection));
                });
            }
        });
        (Self { address, accepted }, Asked { events, ended: Vec::new(), questions: Vec::new() })
    }

    /// Answers every request with what `answer` makes of it and its body.
    pub fn answering(answer: impl Fn(&request::Parts, Vec<u8>) -> Answer + Send + Sync + 'static) -> Self {
        Self::answering_with(server::Builder::new(), None, answer)
    }

    pub fn answering_with(
        builder: server::Builder,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&request::Parts, Vec<u8>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (server, asked) = Self::asking(builder, tls);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            while let Ok(event) = asked.events.recv() {
                let Event::Asked(question) = event else { continue };
                let answer = Arc::clone(&answer);
                RUNTIME.spawn(async move {
                    let Question { head, body, respond, .. } = *question;
                    let Ok((body, _)) = read_all(body).await else { return };
                    let _ = respond_with(respond, answer(&head, body)).await;
                });
            }
        });
        server
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn serve(
    builder: server::Builder,
    io: impl AsyncRead + AsyncWrite + Unpin,
    on_request: impl Fn((Request<RecvStream>, SendResponse<Bytes>)),
    mut orders: UnboundedReceiver<Command>,
) {
    let Ok(mut connection) = builder.handshake(io).await else { return };
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok(request)) => on_request(request),
                Some(Err(_)) | None => return,
            },
            Some(order) = orders.recv() => match order {
                Command::ShutDown => connection.graceful_shutdown(),
                Command::Cut => return,
            },
        }
    }
}

/// Answers `http/1.1` to whoever chose that.
async fn serve_http1(mut io: Tls) {
    let mut head = Vec::new();
    while let Ok(byte) = io.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhttp/1.1";
            if io.write_all(answer.as_bytes()).await.is_err() || io.flush().await.is_err() {
                return;
            }
        }
    }
}

async fn respond_with(mut respond: SendResponse<Bytes>, answer: Answer) -> Result<(), h2::Error> {
    let Answer { status, fields, body, trailers } = answer;
    let mut head = Response::new(());
    *head.status_mut() = status.try_into().unwrap();
    *head.headers_mut() = fields;
    let mut send = respond.send_response(head, body.is_empty() && trailers.is_empty())?;
    if !body.is_empty() {
        send_all(&mut send, body.into(), trailers.is_empty()).await?;
    }
    if !trailers.is_empty() {
        send.send_trailers(trailers)?;
    }
    Ok(())
}

impl Asked {
    /// The next request.
    pub fn question(&mut self) -> Question {
        while self.questions.is_empty() {
            self.event();
        }
        self.questions.remove(0)
    }

    /// So many requests, in the order in which they came.
    pub fn questions(&mut self, count: usize) -> Vec<Question> {
        (0..count).map(|_| self.question()).collect()
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
        let event = self.events.recv_timeout(PATIENCE).expect("something happens at the server");
        self.note(event);
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Asked(question) => self.questions.push(*question),
            Event::Ended(connection) => self.ended.push(connection),
        }
    }
}

impl Question {
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Answers, whole.
    pub fn answer(self, answer: Answer) {
        wait(respond_with(self.respond, answer)).unwrap();
    }

    /// Answers 200 with this body.
    pub fn ok(self, body: &str) {
        self.answer(Answer::ok(body));
    }

    /// Begins a 200; what follows is the caller's to send.
    pub fn begin(&mut self, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        let mut head = Response::new(());
        *head.headers_mut() = self::fields(fields);
        self.respond.send_response(head, false).unwrap()
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// The request's body, and its trailers.
    pub fn read(&mut self) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
        wait(async {
            let mut bytes = Vec::new();
            while let Some(piece) = self.body.data().await {
                let piece = piece?;
                self.body.flow_control().release_capacity(piece.len())?;
                bytes.extend_from_slice(&piece);
            }
            Ok((bytes, self.body.trailers().await?.unwrap_or_default()))
        })
    }

    /// Waits until the client resets the stream, and says why.
    pub fn is_reset(&mut self) -> Reason {
        wait(poll_fn(|cx| self.respond.poll_reset(cx))).unwrap()
    }

    /// Has the connection take no further streams.
    pub fn shut_down(&self) {
        let _ = self.commands.send(Command::ShutDown);
    }

    /// Closes the connection.
    pub fn cut(&self) {
        let _ = self.commands.send(Command::Cut);
    }
}

/// An authority, what it has certified for `localhost` and 127.0.0.1, and files of both.
pub struct Trust {
    root: Mint,
    pair: Pair,
    files: Files,
}

impl Trust {
    pub fn new() -> Self {
        let root = Mint::new("root");
        let pair = root.pair(&["localhost", "127.0.0.1"]);
        Self { root, pair, files: Files::new() }
    }

    /// The path of a file with the authority's certificate.
    pub fn root(&self) -> String {
        self.files.write("root", &self.root.cert)
    }

    /// The paths of files with the certificate and its key.
    pub fn pair(&self) -> [String; 2] {
        [self.files.write("cert", &self.pair.cert), self.files.write("key", &self.pair.key)]
    }

    /// The path of another, empty file.
    pub fn file(&self, name: &str) -> String {
        self.files.write(name, "")
    }

    /// A listener's key `tls`, with more in it.
    pub fn listener(&self, more: &str) -> String {
        format!("tls = {{ certificates = [{}]{more} }}", self.files.pair("pair", &self.pair))
    }

    /// A cluster's key `tls`.
    pub fn cluster(&self) -> String {
        format!("tls = {{ ca = \"{}\" }}", self.root())
    }

    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = secure::Client::of(&self.root).plain_config();
        config.alpn_protocols = names(protocols);
        Arc::new(config)
    }

    pub fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let mut config = Arc::unwrap_or_clone(secure::server(&self.pair, BOTH_VERSIONS, None));
        config.alpn_protocols = names(protocols);
        Arc::new(config)
    }
}

fn names(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// A connection by TLS, for tokio.
pub struct Tls {
    socket: TcpStream,
    session: rustls::Connection,
    /// What came from the socket, and rustls had no room for yet.
    inbox: Vec<u8>,
    /// What goes to the socket.
    out: Vec<u8>,
}

impl Tls {
    async fn client(to: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self::shaken(socket, ClientConnection::new(Arc::clone(config), name).unwrap().into()).await
    }

    async fn server(socket: TcpStream, config: &Arc<ServerConfig>) -> Self {
        Self::shaken(socket, ServerConnection::new(Arc::clone(config)).unwrap().into()).await
    }

    async fn shaken(socket: TcpStream, session: rustls::Connection) -> Self {
        let mut io = Self { socket, session, inbox: Vec::new(), out: Vec::new() };
        while io.session.is_handshaking() {
            poll_fn(|cx| io.poll_out(cx)).await.unwrap();
            if io.session.is_handshaking() && io.session.wants_read() {
                poll_fn(|cx| io.poll_in(cx)).await.unwrap();
            }
        }
        io
    }

    fn protocol(&self) -> Option<Vec<u8>> {
        self.session.alpn_protocol().map(Into::into)
    }

    /// Takes something from the socket, when rustls has nothing to read.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inbox.is_empty() {
            let mut chunk = [0; 4096];
            let mut into = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut into))?;
            self.inbox.extend_from_slice(into.filled());
        }
        let count = self.session.read_tls(&mut self.inbox.as_slice())?;
        self.inbox.drain(..count);
        self.session.process_new_packets().map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
    /// Gives to the socket what there is to send.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.out)?;
        }
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.out))?;
            self.out.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let _ = self.poll_out(cx)?;
            match self.session.reader().read(into.initialize_unfilled()) {
                Ok(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_in(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let count = self.session.writer().write(bytes)?;
        let _ = self.poll_out(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
