//! Passwords on their way to those who try them, and back. Trying one takes a processor for a tenth of a second or more, so ordinary threads
//! do it, and the core only asks. What may wait is bounded, for the core and for each client; what is asked by several at once is tried once.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread::Thread,
};

use crossbeam_queue::ArrayQueue;
use zeroize::Zeroizing;

use super::error::Error;
use crate::policy::{
    basic::{Credentials, Mark},
    password::{PasswordHash, Users},
};

/// Passwords of one core that wait to be tried, at most.
pub const WAITING_MAX: usize = 64;

/// Those of one client's address (an IPv6 network of 64 bits) among them: whoever guesses leaves room for others.
const CLIENT_WAITING_MAX: usize = 8;

/// Exchanges that wait for one password, at most.
const FOLLOWERS_MAX: usize = 256;

/// How long an exchange waits for its answer.
pub(super) const WAIT_MAX_MS: u64 = 10_000;

/// A password to be tried.
pub struct Trial {
    /// Its number, with which the answer comes back.
    pub number: u64,
    hash: Arc<PasswordHash>,
    password: Zeroizing<String>,
}

impl Trial {
    /// Whether it is the right one. Takes long: no core asks.
    pub fn is_right(&self) -> bool {
        self.hash.is_of(self.password.as_bytes())
    }
}

/// The way from one core to those who try passwords.
pub struct TrialLane {
    queue: Arc<ArrayQueue<Trial>>,
    threads: Vec<Thread>,
}

impl TrialLane {
    /// To these threads, which look into the queue when they are woken.
    pub fn new(queue: Arc<ArrayQueue<Trial>>, threads: Vec<Thread>) -> Self {
        Self { queue, threads }
    }

    fn send(&self, trial: Trial) -> bool {
        let is_sent = self.queue.push(trial).is_ok();
        self.threads.iter().for_each(Thread::unpark);
        is_sent
    }
}

/// What a core has asked.
pub(super) struct Passwords {
    lane: Option<TrialLane>,
    next: Cell<u64>,
    asked: RefCell<HashMap<u64, Asked>>,
    waiting: RefCell<HashMap<Mark, Rc<Waiting>>>,
    /// How many of each client wait.
    clients: RefCell<HashMap<IpAddr, usize>>,
}

struct Asked {
    mark: Mark,
    client: IpAddr,
    is_user: bool,
}

/// An answer that exchanges wait for.
#[derive(Default)]
pub(super) struct Waiting {
    is_right: Cell<Option<bool>>,
    wakers: RefCell<Vec<Waker>>,
    followers: Cell<usize>,
}

impl Waiting {
    /// Whether the password was right.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<bool> {
        if let Some(is_right) = self.is_right.get() {
            return Poll::Ready(is_right);
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Passwords {
    pub(super) fn new(lane: Option<TrialLane>) -> Self {
        Self {
            lane,
            next: Cell::default(),
            asked: RefCell::default(),
            waiting: RefCell::default(),
            clients: RefCell::default(),
        }
    }

    /// Asks whether a password is its user's; `mark` stands for both.
    ///
    /// # Errors
    /// There are no users at all, or too many passwords wait already, of this client or of all.
    pub(super) fn ask(
        &self,
        mark: Mark,
        credentials: &Credentials,
        users: &Users,
        client: IpAddr,
    ) -> Result<Rc<Waiting>, Error> {
        if let Some(waiting) = self.waiting.borrow().get(&mark) {
            if waiting.followers.get() >= FOLLOWERS_MAX {
                return Err(Error::PasswordsBusy);
            }
            waiting.followers.set(waiting.followers.get() + 1);
            return Ok(Rc::clone(waiting));
        }
        let (hash, is_user) = users.hash_of(credentials.name()).ok_or(Error::PasswordWrong)?;
        let client = whose(client);
        let mut asked = self.asked.borrow_mut();
        let mut clients = self.clients.borrow_mut();
        if asked.len() >= WAITING_MAX
            || clients.get(&client).is_some_and(|waiting| *waiting >= CLIENT_WAITING_MAX)
        {
            return Err(Error::PasswordsBusy);
        }
        let number = self.next.replace(self.next.get() + 1);
        let password = Zeroizing::new(credentials.password().to_owned());
        let trial = Trial { number, hash: Arc::clone(hash), password };
        if !self.lane.as_ref().is_some_and(|lane| lane.send(trial)) {
            return Err(Error::PasswordsBusy);
        }
        asked.insert(number, Asked { mark, client, is_user });
        *clients.entry(client).or_default() += 1;
        let waiting = Rc::<Waiting>::default();
        self.waiting.borrow_mut().insert(mark, Rc::clone(&waiting));
        Ok(waiting)
    }

    /// Takes an answer, and wakes those who wait for it. A name that is no user's has no right password, whatever came of the trial.
    pub(super) fn answer(&self, number: u64, is_right: bool) {
        let Some(Asked { mark, client, is_user }) = self.asked.borrow_mut().remove(&number) else { return };
        let mut clients = self.clients.borrow_mut();
        if let Some(waiting) = clients.get_mut(&client) {
            *waiting -= 1;
            if *waiting == 0 {
                clients.remove(&client);
            }
        }
        if let Some(waiting) = self.waiting.borrow_mut().remove(&mark) {
            waiting.is_right.set(Some(is_right && is_user));
            waiting.wakers.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Whom a client is told from others by: a network of IPv6 is easily one's.
fn whose(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        client => client,
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    const HASH: &str = "$2b$04$vD3bmPSQMMQ.e4TsdZ86ve7cCUn73a6aH6x9W4xW1VdvOQhgQ1vhm";

    struct Desk {
        passwords: Passwords,
        queue: Arc<ArrayQueue<Trial>>,
        users: Users,
    }

    impl Desk {
        fn new() -> Self {
            let queue = Arc::new(ArrayQueue::new(WAITING_MAX));
            let lane = TrialLane::new(Arc::clone(&queue), Vec::new());
            let users = Users::new(vec![("ada".into(), PasswordHash::parse(HASH).unwrap())]);
            Self { passwords: Passwords::new(Some(lane)), queue, users }
        }

        fn ask(&self, mark: u8, text: &str, client: &str) -> Result<Rc<Waiting>, Error> {
            let value = format!("Basic {}", STANDARD.encode(text));
            let credentials = Credentials::read([value].iter()).unwrap();
            self.passwords.ask([mark; 32], &credentials, &self.users, client.parse().unwrap())
        }

        fn answer(&self) {
            let trial = self.queue.pop().unwrap();
            self.passwords.answer(trial.number, trial.is_right());
        }
    }

    fn poll(waiting: &Waiting) -> Poll<bool> {
        waiting.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_same_is_tried_once() {
        let desk = Desk::new();
        let both = [(); 2].map(|()| desk.ask(1, "ada:correct horse", "192.0.2.1").unwrap());
        let wrong = desk.ask(2, "ada:wrong", "192.0.2.1").unwrap();
        // The password is right, and there is no such user.
        let no_one = desk.ask(3, "eve:correct horse", "192.0.2.1").unwrap();
        assert_eq!(desk.queue.len(), 3);
        desk.answer();
        assert_eq!(
            [poll(&both[0]), poll(&both[1]), poll(&wrong)],
            [Poll::Ready(true), Poll::Ready(true), Poll::Pending]
        );
        desk.answer();
        desk.answer();
        assert_eq!([poll(&wrong), poll(&no_one)], [Poll::Ready(false); 2]);
        assert!(desk.passwords.asked.borrow().is_empty() && desk.passwords.waiting.borrow().is_empty());
        assert!(desk.passwords.clients.borrow().is_empty());
        desk.passwords.answer(77, true);
    }

    #[test]
    fn no_client_fills_the_queue_and_the_queue_is_bounded() {
        let desk = Desk::new();
        let count = |client: &str, marks: std::ops::Range<u8>| {
            marks.filter(|mark| desk.ask(*mark, "ada:x", client).is_ok()).count()
        };
        assert_eq!(count("2001:db8::1", 0..6), 6);
        assert_eq!(count("2001:db8::2:1", 6..20), 2, "it is the same network");
        assert_eq!(count("192.0.2.1", 20..40), CLIENT_WAITING_MAX);
        assert_eq!(count("::ffff:192.0.2.1", 40..41), 0, "it is the same address");
        // Whoever asks the same as someone else waits with them.
        assert!(desk.ask(0, "ada:x", "192.0.2.1").is_ok());
        let others =
            (41..250).filter(|mark| desk.ask(*mark, "ada:x", &format!("10.0.0.{mark}")).is_ok()).count();
        assert_eq!(others, WAITING_MAX - 2 * CLIENT_WAITING_MAX);
        desk.answer();
        assert_eq!(count("10.1.0.1", 250..255), 1);
    }

    #[test]
    fn without_users_no_one_is_tried() {
        let mut desk = Desk::new();
        desk.users = Users::default();
        assert!(matches!(desk.ask(1, "ada:x", "192.0.2.1"), Err(Error::PasswordWrong)));
        assert!(desk.queue.is_empty());
    }
}
