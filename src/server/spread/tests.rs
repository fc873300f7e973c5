//! The rule over whole sequences of connections, and the promises with several threads at it.

use std::{sync::Barrier, thread};

use proptest::prelude::*;

use super::*;

/// Cores that serve what they are given, at once.
struct Cores {
    spreads: Vec<Spread>,
    held: Vec<usize>,
    handed_over: usize,
}

impl Cores {
    fn new(count: usize) -> Self {
        let spreads = Spread::new(count);
        spreads.iter().for_each(|spread| std::mem::forget(spread.open()));
        Self { spreads, held: vec![0; count], handed_over: 0 }
    }

    fn hold(&mut self, core: usize, count: usize) {
        self.held[core] = count;
        self.spreads[core].hold(count);
    }

    /// The core that serves a connection accepted by `core`.
    fn accept(&mut self, core: usize) -> usize {
        let others = others(core, self.held.len(), usize::MAX);
        let taker = match self.spreads[core].promise(others.iter().copied()) {
            Some(place) => {
                self.handed_over += 1;
                others[place].core
            }
            None => core,
        };
        self.hold(taker, self.held[taker] + 1);
        if taker != core {
            self.spreads[taker].keep_promise();
        }
        taker
    }

    fn end(&mut self, core: usize) {
        self.hold(core, self.held[core].saturating_sub(1));
    }

    fn tick(&self) {
        self.spreads.iter().for_each(Spread::tick);
    }

    fn most_and_least(&self) -> (usize, usize) {
        (*self.held.iter().max().unwrap(), *self.held.iter().min().unwrap())
    }
}

fn others(own: usize, count: usize, max_connections: usize) -> Vec<Candidate> {
    (own + 1..count).chain(0..own).map(|core| Candidate { core, max_connections }).collect()
}

fn candidate(core: usize) -> [Candidate; 1] {
    [Candidate { core, max_connections: usize::MAX }]
}

proptest! {
    #[test]
    fn few_are_spread_evenly(count in 1usize..=8, landings in prop::collection::vec(any::<usize>(), 0..120)) {
        let mut cores = Cores::new(count);
        for landing in landings.into_iter().take((SLACK_SHARE - 1) * count) {
            cores.accept(landing % count);
            cores.tick();
            let (most, least) = cores.most_and_least();
            prop_assert!(most <= least + 1, "{:?}", cores.held);
        }
    }

    #[test]
    fn many_are_within_a_sixteenth(
        count in 2usize..=8,
        landings in prop::collection::vec(any::<usize>(), 0..2000),
        all_on_one in any::<bool>(),
    ) {
        let mut cores = Cores::new(count);
        for landing in landings {
            cores.accept(if all_on_one { 0 } else { landing % count });
            cores.tick();
        }
        let (most, least) = cores.most_and_least();
        prop_assert!(most <= least + most / SLACK_SHARE + 1, "{most} and {least}");
    }
}

#[test]
fn what_chance_spreads_well_is_left_alone() {
    let mut rng = fastrand::Rng::with_seed(7);
    for count in [2, 4, 16] {
        let mut cores = Cores::new(count);
        for _ in 0..5000 * count {
            cores.accept(rng.usize(..count));
            cores.tick();
        }
        let share = cores.handed_over * 100 / (5000 * count);
        assert!(share < 1, "{share} % of {count} cores' connections, {}", cores.handed_over);
    }
}

#[test]
fn where_connections_come_and_go_few_are_handed_over() {
    const CONNECTIONS: usize = 50_000;
    const PER_TICK: usize = 400;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut cores = Cores::new(2);
    let mut open = std::collections::VecDeque::new();
    for number in 0..CONNECTIONS {
        open.push_back(cores.accept(rng.usize(..2)));
        if open.len() > 16 {
            let ended = open.pop_front().unwrap();
            cores.end(ended);
        }
        if number.is_multiple_of(PER_TICK) {
            cores.tick();
        }
    }
    let max = 2 * (BUDGET_MAX as usize + CONNECTIONS / PER_TICK + 1);
    assert!((1..=max).contains(&cores.handed_over), "{}", cores.handed_over);
}

#[test]
fn two_go_to_two_cores() {
    let mut cores = Cores::new(2);
    assert_eq!([cores.accept(0), cores.accept(0)], [0, 1]);
    assert_eq!([cores.accept(1), cores.accept(1)], [1, 0]);
}

#[test]
fn who_takes_nothing_is_promised_nothing() {
    let [giver, taker] = <[_; 2]>::try_from(Spread::new(2)).unwrap();
    giver.hold(5);
    assert_eq!(giver.promise(candidate(1).into_iter()), None, "not yet open");
    let opened = taker.open();
    assert_eq!(giver.promise(candidate(1).into_iter()), Some(0));
    let full = [Candidate { core: 1, max_connections: 1 }];
    assert_eq!(giver.promise(full.into_iter()), None, "the promised one has the only place");
    taker.close();
    assert_eq!(giver.promise(candidate(1).into_iter()), None, "it drains");
    assert!(taker.is_promised_any());
    taker.keep_promise();
    assert!(!taker.is_promised_any());
    let again = taker.open();
    assert_eq!(giver.promise(candidate(1).into_iter()), Some(0));
    giver.break_promise(1);
    assert!(!taker.is_promised_any());
    drop((again, opened));
    assert_eq!(giver.promise(candidate(1).into_iter()), None, "it has ended");
    assert_eq!(giver.promise([].into_iter()), None);
}

#[test]
fn a_core_that_takes_none_out_of_its_mailbox_gets_so_many() {
    let [giver, taker] = <[_; 2]>::try_from(Spread::new(2)).unwrap();
    let _opened = taker.open();
    giver.hold(1000);
    let promised = (0..1000).filter(|_| giver.promise(candidate(1).into_iter()).is_some()).count();
    assert_eq!(promised, PROMISED_MAX);
}

#[test]
fn many_givers_at_once_do_not_overshoot() {
    const GIVERS: usize = 4;
    const HELD: usize = 10;
    for _ in 0..50 {
        let mut givers = Spread::new(GIVERS + 1);
        let taker = givers.pop().unwrap();
        let _opened = taker.open();
        let barrier = Barrier::new(GIVERS);
        let given: usize = thread::scope(|scope| {
            let threads: Vec<_> = givers
                .into_iter()
                .map(|giver| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        giver.hold(HELD);
                        barrier.wait();
                        (0..HELD).filter(|_| giver.promise(candidate(GIVERS).into_iter()).is_some()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(given, taker.own().promised.load(Relaxed));
        assert!(given <= HELD, "{given}");
    }
}
