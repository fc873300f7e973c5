//! The control plane: one ordinary thread that starts the cores, hears signals, and sees them end. Everything slow
//! happens here, and no request waits for it.

mod issuers;
mod keyring;
mod verifiers;

use std::{io, io::Write, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use self::{keyring::Keyring, verifiers::Verifiers};
use super::{
    messages,
    plan::{PlanError, plan},
    worker::{self, Message, Served, Ties, Worker},
};
use crate::{
    config::{Config, types::LogFormat},
    net::{self, BoundListener, Driver},
    proxy::{CoreOptions, REASONS, Renewal},
    table::{Rule, Table},
    telemetry::{
        figures::{Figures, Timeout},
        log_queue::LogBatcher,
        log_writer::{Destination, LogWriter},
    },
    tls::TicketKeys,
};

/// Takes the listeners' names and addresses.
pub type OnReady = Box<dyn FnOnce(&[(String, SocketAddr)])>;

/// What is to run.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The same, compiled.
    pub table: Table,
    /// Where access-log lines go instead of where the configuration says.
    pub log_sink: Option<Box<dyn Write + Send>>,
    /// Told once, when every listener is open: its name and address.
    pub on_ready: OnReady,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not fit this machine.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A listener's address cannot be had.
    #[error("listener `{name}`: cannot listen on {address}: {error}{}", taken(.error))]
    Listen {
        /// The listener.
        name: String,
        /// Its address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The access log cannot be opened.
    #[error("access log {path}: {error}")]
    AccessLog {
        /// The file, or stdout.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The cores cannot be reached.
    #[error("mailbox of a core: {0}")]
    Mailbox(io::Error),
    /// The threads that try passwords cannot be started.
    #[error("threads for passwords: {0}")]
    Verifiers(io::Error),
    /// There is no randomness for the keys of session tickets.
    #[error("keys of session tickets: {0}")]
    Tls(rustls::Error),
    /// A core cannot start.
    #[error("core on CPU {cpu}: {error}")]
    Core {
        /// Its CPU.
        cpu: usize,
        /// Why.
        error: io::Error,
    },
    /// A core ended though no one had asked it to.
    #[error("a core ended by itself; the others have drained")]
    CoreEnded,
    /// Signals cannot be heard.
    #[error("signals: {0}")]
    Signals(io::Error),
}

fn taken(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there (`ss -ltnp` shows which)",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// How long a core may take to say how it started, or to give its figures.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Runs the gateway until it has drained. Must be called on a current-thread tokio runtime.
pub async fn run(options: Options) -> Result<(), StartError> {
    let Options { config, table, log_sink, on_ready } = options;
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let plan = plan(&config)?;
    let count = plan.workers.len();

    let (mut sockets, addresses) = listen(&config, &plan.workers)?;
    let (log, batchers) = open_log(&config, count, log_sink)?;
    let mut batchers = batchers.into_iter();
    let mut workers = Vec::with_capacity(count);
    let tickets = TicketKeys::generate().map_err(StartError::Tls)?;
    let ties = worker::tie(&plan.workers).map_err(StartError::Mailbox)?;
    let asks_for_passwords = table.policies.iter().any(|policy| matches!(policy.rule, Rule::Basic(_)));
    let mailboxes = ties.iter().map(Ties::mailbox).collect();
    let verifiers = asks_for_passwords.then(|| Verifiers::start(mailboxes)).transpose();
    let verifiers = verifiers.map_err(StartError::Verifiers)?;
    for ((number, worker_plan), ties) in plan.workers.iter().enumerate().zip(ties) {
        let served = std::mem::take(&mut sockets[number]);
        let core = CoreOptions {
            worker: number,
            workers: count,
            seed: fastrand::u64(..),
            log: batchers.next().map(|batcher| (batcher, config.access_log.format)),
            table: table.for_core(),
            tickets: tickets.clone(),
            max_handshakes: worker_plan.max_handshakes,
            passwords: verifiers.as_ref().map(|verifiers| verifiers.lane(number)),
        };
        let failed = |error| StartError::Core { cpu: worker_plan.cpu, error };
        workers.push(worker::start(worker_plan.clone(), served, core, ties).map_err(failed)?);
    }
    for (worker, worker_plan) in workers.iter_mut().zip(&plan.workers) {
        let names: Vec<&str> =
            worker_plan.listeners.iter().map(|place| config.listener[*place].name.as_str()).collect();
        let driver =
            started(worker).await.map_err(|error| StartError::Core { cpu: worker_plan.cpu, error })?;
        tracing::info!(cpu = worker_plan.cpu, %driver, listeners = names.join(","), "core started");
    }
    on_ready(&addresses);

    let drain_ms = config.runtime.drain_timeout.as_millis();
    let keyring = Keyring::new(&config, &table, tickets);
    let policies = config.policy.iter().map(|policy| policy.name.clone()).collect();
    let crew = Crew { workers, policies };
    let ended = crew.attend(&mut signals, keyring, log.as_ref(), drain_ms).await;
    if let Some(log) = log {
        finish_log(log).await;
    }
    ended
}

async fn started(worker: &mut Worker) -> io::Result<Driver> {
    match timeout(ANSWER_MAX, &mut worker.started).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(io::Error::other("its thread ended while starting")),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// The listeners' sockets by worker, and where they listen.
type Sockets = (Vec<Vec<Served>>, Vec<(String, SocketAddr)>);

/// Binds every listener once for each worker that serves it.
fn listen(config: &Config, workers: &[super::plan::WorkerPlan]) -> Result<Sockets, StartError> {
    let mut sockets: Vec<Vec<Served>> = workers.iter().map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (place, listener) in config.listener.iter().enumerate() {
        let failed = |error| StartError::Listen {
            name: listener.name.clone(),
            address: listener.address.clone(),
            error,
        };
        let address: SocketAddr =
            listener.address.parse().map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        let serving: Vec<usize> =
            (0..workers.len()).filter(|number| workers[*number].listeners.contains(&place)).collect();
        let bound: Vec<BoundListener> =
            net::bind(address, listener.backlog, listener.defer_accept, serving.len()).map_err(failed)?;
        for (number, socket) in serving.into_iter().zip(bound) {
            if addresses.len() == place {
                addresses.push((listener.name.clone(), socket.address));
            }
            sockets[number].push((place, socket));
        }
    }
    Ok((sockets, addresses))
}

fn open_log(
    config: &Config,
    cores: usize,
    sink: Option<Box<dyn Write + Send>>,
) -> Result<(Option<LogWriter>, Vec<LogBatcher>), StartError> {
    if config.access_log.format == LogFormat::Off {
        return Ok((None, Vec::new()));
    }
    let path = &config.access_log.path;
    let opened = match sink {
        Some(sink) => LogWriter::start_with(cores, sink),
        None if path == "stdout" => LogWriter::start(cores, Destination::Stdout),
        None => LogWriter::start(cores, Destination::File(PathBuf::from(path))),
    };
    let (writer, batchers) = opened.map_err(|error| StartError::AccessLog { path: path.clone(), error })?;
    Ok((Some(writer), batchers))
}

/// How long the last lines may take to be written.
const LOG_END_MAX: Duration = Duration::from_secs(2);

async fn finish_log(log: LogWriter) {
    log.stop();
    let written = async {
        while !log.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(LOG_END_MAX, written).await.is_err() {
        tracing::warn!("the access log's last lines could not be written in time");
    }
    if log.lost() > 0 {
        tracing::warn!(lines = log.lost(), "access-log lines could not be written");
    }
}

/// Renewals that wait for mailboxes that are full, at most. A core that hears nothing at all has other troubles.
const UNHEARD_MAX: usize = 1024;

/// The cores at work.
struct Crew {
    workers: Vec<Worker>,
    /// Their policies' names, in the order of their figures.
    policies: Arc<[String]>,
}

impl Crew {
    /// Hears signals until all cores have ended.
    async fn attend(
        self,
        signals: &mut Signals,
        mut keyring: Keyring,
        log: Option<&LogWriter>,
        drain_ms: u64,
    ) -> Result<(), StartError> {
        let mailboxes: Vec<_> = self.workers.iter().map(|worker| worker.mailbox.clone()).collect();
        let drain = |timeout_ms| {
            for mailbox in &mailboxes {
                if mailbox.send(Message::Drain { timeout_ms }).is_err() {
                    tracing::error!("a core's mailbox is full; it does not hear");
                }
            }
        };
        // What a core's mailbox had no room for.
        let mut unheard: Vec<(usize, Renewal)> = Vec::new();
        let mut is_draining = false;
        let mut has_failed = false;
        let mut cores: FuturesUnordered<_> = self.workers.into_iter().map(ended).collect();
        loop {
            let heard = tokio::select! {
                core = cores.next() => match core {
                    None if has_failed => return Err(StartError::CoreEnded),
                    None => return Ok(()),
                    Some(()) if is_draining => continue,
                    Some(()) => {
                        // Its sockets go on taking connections that no one serves: better none at all.
                        tracing::error!("a core ended by itself; draining the others");
                        has_failed = true;
                        Heard::Stop
                    }
                },
                heard = signals.next() => heard,
                renewals = keyring.next() => {
                    unheard.extend(renewals.into_iter().flat_map(|renewal| {
                        (0..mailboxes.len()).map(move |core| (core, renewal.clone()))
                    }));
                    unheard.retain(|(core, renewal)| {
                        mailboxes[*core].send(Message::Renew(renewal.clone())).is_err()
                    });
                    unheard.truncate(UNHEARD_MAX);
                    continue;
                }
            };
            match heard {
                Heard::Stop if is_draining => {
                    tracing::warn!("asked again to stop: stopping at once");
                    drain(0);
                    // A core that does not hear is left behind.
                    let _ = timeout(ANSWER_MAX, async { while cores.next().await.is_some() {} }).await;
                    return if has_failed { Err(StartError::CoreEnded) } else { Ok(()) };
                }
                Heard::Stop => {
                    is_draining = true;
                    tracing::info!(timeout_ms = drain_ms, "draining; ask again to stop at once");
                    drain(drain_ms);
                }
                Heard::ReopenLog => {
                    if let Some(log) = log {
                        log.reopen();
                    }
                }
                Heard::Reload => tracing::warn!(
                    "SIGHUP changes nothing: certificates are taken by themselves, a configuration by a restart"
                ),
                // A stalled core must not keep the next signal waiting.
                Heard::TellFigures => {
                    let mailboxes = mailboxes.clone();
                    let (keys, policies) = (keyring.figures(), Arc::clone(&self.policies));
                    drop(tokio::spawn(async move { tell_figures(&mailboxes, keys, &policies).await }));
                }
            }
        }
    }
}

/// Waits for a core's thread to end.
async fn ended(worker: Worker) {
    if worker.ended.await.is_err() {
        tracing::error!("a core's thread panicked");
    }
    // It has said its last word, so this does not wait.
    let _ = worker.thread.join();
}

/// Asks every core for its figures; a core that does not answer in time is missing.
async fn figures(mailboxes: &[net::MailboxSender<Message>]) -> Vec<Option<Box<Figures>>> {
    let asked = mailboxes.iter().map(|mailbox| async {
        let (answer, answered) = oneshot::channel();
        mailbox.send(Message::Figures(answer)).ok()?;
        timeout(ANSWER_MAX, answered).await.ok()?.ok()
    });
    join_all(asked).await
}

/// Writes the figures to the log.
async fn tell_figures(
    mailboxes: &[net::MailboxSender<Message>],
    keys: [(&'static str, u64); 2],
    policies: &[String],
) {
    let dropped = ("messages_dropped", messages::dropped());
    for (figure, value) in keys.into_iter().chain([dropped]).filter(|(_, value)| *value > 0) {
        tracing::info!(figure, value);
    }
    let answers = figures(mailboxes).await;
    let mut all: Option<Figures> = None;
    for (core, answer) in answers.into_iter().enumerate() {
        match (answer, &mut all) {
            (None, _) => tracing::error!(core, "worker stalled: no figures in time"),
            (Some(figures), None) => all = Some(*figures),
            (Some(figures), Some(all)) => all.merge(&figures),
        }
    }
    let Some(all) = all else { return };
    for figure in all.counters.each().filter(|figure| figure.value > 0) {
        tracing::info!(figure = figure.name, value = figure.value);
    }
    for figure in all.ring.each().filter(|figure| figure.value > 0) {
        tracing::info!(ring = figure.name, value = figure.value);
    }
    for timeout in Timeout::ALL.into_iter().filter(|timeout| all.timeouts[*timeout as usize] > 0) {
        tracing::info!(timeout = timeout.name(), value = all.timeouts[timeout as usize]);
    }
    for reason in REASONS.iter().filter(|reason| all.refusals[**reason as usize] > 0) {
        tracing::info!(ended = reason.kind(), value = all.refusals[*reason as usize]);
    }
    for (policy, figures) in policies.iter().zip(&all.policies) {
        tracing::info!(%policy, passed = figures.passed, refused = figures.refused);
    }
    tracing::info!(
        responses = ?all.responses,
        p50_us = all.exchange_us.quantile(0.5),
        p99_us = all.exchange_us.quantile(0.99),
        "exchanges"
    );
}

/// What was heard.
enum Heard {
    Stop,
    ReopenLog,
    TellFigures,
    Reload,
}

/// The signals that are heard.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.user1.recv() => Heard::ReopenLog,
            _ = self.quit.recv() => Heard::TellFigures,
            _ = self.hangup.recv() => Heard::Reload,
        }
    }
}
