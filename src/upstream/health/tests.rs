//! The states, the growth and shrinking of the back-off, and the half that must stay.

use super::*;
use proptest::prelude::*;

const POLICY: EjectPolicy = EjectPolicy { failures: 3, backoff_ms: 100, max_backoff_ms: 1_000 };

fn health(endpoints: usize) -> Health {
    Health::new(&vec![1; endpoints], POLICY)
}

/// Fails endpoint `i` at `now_ms` until it is ejected and answers for how long; `None` when it is not.
fn eject(health: &mut Health, i: usize, now_ms: u64) -> Option<u64> {
    (0..POLICY.failures).find_map(|_| health.on_failure(i, now_ms)).map(|ejected| ejected.for_ms)
}

#[test]
fn so_many_failures_in_a_row_eject() {
    let mut health = health(4);
    assert_eq!(health.on_failure(0, 0), None);
    assert_eq!(health.on_failure(0, 0), None);
    health.on_success(0, 0);
    assert_eq!(health.on_failure(0, 0), None, "a success in between begins the count again");
    assert_eq!(health.on_failure(1, 0), None, "another endpoint's failure does not count");
    assert_eq!(health.on_failure(0, 0), None);
    assert_eq!(health.on_failure(0, 50), Some(Ejected { for_ms: 100 }));
    assert!(!health.is_usable(0, 50));
    assert!(!health.is_usable(0, 149));
    assert!(health.is_usable(0, 150));
    assert!(health.is_usable(1, 50));
}

#[test]
fn no_failures_means_never() {
    let mut health = Health::new(&[1, 1, 1], EjectPolicy { failures: 0, ..POLICY });
    assert!((0..1_000).all(|now_ms| health.on_failure(0, now_ms).is_none()));
    assert!(health.is_usable(0, 1_000));
}

#[test]
fn outcomes_of_an_ejected_endpoint_change_nothing() {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    assert_eq!(health.on_failure(0, 50), None);
    health.on_success(0, 60);
    assert!(!health.is_usable(0, 99));
    assert!(health.is_usable(0, 100));
    assert_eq!(health.on_failure(0, 100).unwrap().for_ms, 200, "and it is still on trial");
}

#[test]
fn the_first_failure_after_return_ejects_for_twice_as_long() {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    let mut now_ms = 100;
    for for_ms in [200, 400, 800, 1_000, 1_000] {
        assert!(health.is_usable(0, now_ms));
        assert_eq!(health.on_failure(0, now_ms), Some(Ejected { for_ms }));
        now_ms += for_ms;
    }
}

#[test]
fn a_success_after_return_asks_for_so_many_failures_again() {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    health.on_success(0, 100);
    assert_eq!(health.on_failure(0, 100), None);
    assert_eq!(health.on_failure(0, 100), None);
    assert_eq!(health.on_failure(0, 100).unwrap().for_ms, 200, "the back-off is not forgotten so soon");
}

/// An endpoint that was ejected at 0 for 100, at 100 for 200 and at 300 for 400, and has served since 1000.
fn ejected_three_times() -> Health {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    assert_eq!(health.on_failure(0, 100).unwrap().for_ms, 200);
    assert_eq!(health.on_failure(0, 300).unwrap().for_ms, 400);
    health.on_success(0, 1_000);
    health
}

#[test]
fn serving_as_long_as_the_ejection_lasted_loses_one_doubling() {
    for (calm_ms, for_ms) in
        [(0, 800), (399, 800), (400, 400), (599, 400), (600, 200), (699, 200), (700, 100), (9_999, 100)]
    {
        let mut health = ejected_three_times();
        assert_eq!(eject(&mut health, 0, 1_000 + calm_ms), Some(for_ms), "after {calm_ms} ms");
    }
}

#[test]
fn calm_begins_with_the_first_success_not_with_the_return() {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    // It returned at 100, but no request came until it failed one.
    assert_eq!(health.on_failure(0, 10_000).unwrap().for_ms, 200);
}

#[test]
fn the_longest_ejection_asks_for_as_long_a_calm() {
    for (calm_ms, for_ms) in [(999, 1_000), (1_000, 1_000), (1_799, 1_000), (1_800, 800), (2_200, 400)] {
        let mut health = health(4);
        eject(&mut health, 0, 0);
        for now_ms in [100, 300, 700, 1_500, 2_500, 3_500, 4_500] {
            assert!(health.on_failure(0, now_ms).is_some());
        }
        health.on_success(0, 10_000);
        assert_eq!(eject(&mut health, 0, 10_000 + calm_ms), Some(for_ms), "after {calm_ms} ms");
    }
}

#[test]
fn never_more_than_half() {
    for (endpoints, at_most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let mut health = health(endpoints);
        let ejected = (0..endpoints).filter(|&i| eject(&mut health, i, 0).is_some()).count();
        assert_eq!(ejected, at_most, "of {endpoints}");
        assert_eq!(health.mode(0), Mode::Normal);
    }
}

#[test]
fn a_refused_endpoint_goes_at_its_next_failure_once_there_is_room() {
    let mut health = health(2);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    assert_eq!(eject(&mut health, 1, 99), None);
    assert!(health.is_usable(1, 99));
    assert_eq!(health.on_failure(1, 100), Some(Ejected { for_ms: 100 }));
    assert_eq!(health.on_failure(0, 100), None, "now the other one has to stay");
    assert!(health.is_usable(0, 100));
}

#[test]
fn time_spent_failing_without_room_shrinks_nothing() {
    let mut health = health(2);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    health.on_success(0, 100);
    assert_eq!(eject(&mut health, 1, 100), Some(100));
    // Due for ejection since 190, and refused; 100 would have been calm enough.
    assert_eq!(eject(&mut health, 0, 190), None);
    assert_eq!(health.on_failure(0, 200).unwrap().for_ms, 200);
}

#[test]
fn endpoints_without_weight_do_not_count() {
    let mut health = Health::new(&[1, 0, 0, 0, 1], POLICY);
    assert_eq!(eject(&mut health, 1, 0), None);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    assert_eq!(eject(&mut health, 4, 0), None, "half of two is one");
    health.set_down(1, true);
    health.set_down(4, true);
    assert_eq!(health.mode(0), Mode::Panic, "no one is left who has a weight");
}

#[test]
fn down_until_said_otherwise() {
    let mut health = health(3);
    health.set_down(0, true);
    health.set_down(0, true);
    assert!(!health.is_usable(0, u64::MAX));
    health.set_down(0, false);
    assert!(health.is_usable(0, 0));
    health.set_down(0, false);
    health.set_down(1, true);
    assert!(health.is_usable(0, 0) && !health.is_usable(1, 0) && health.is_usable(2, 0));
}

#[test]
fn down_endpoints_count_in_the_half_and_are_not_ejected() {
    let mut health = health(4);
    health.set_down(0, true);
    assert_eq!(eject(&mut health, 0, 0), None);
    assert_eq!(eject(&mut health, 1, 0), Some(100));
    assert_eq!(eject(&mut health, 2, 0), None);
    health.set_down(0, false);
    assert!(health.is_usable(0, 0));
    assert_eq!(health.on_failure(0, 0), None, "its failures from before are forgotten");
    assert_eq!(health.on_failure(2, 0), Some(Ejected { for_ms: 100 }), "and there is room again");
}

#[test]
fn down_and_ejected_are_taken_back_apart() {
    let mut health = health(4);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    health.set_down(0, true);
    assert!(!health.is_usable(0, 100));
    health.set_down(0, false);
    assert!(!health.is_usable(0, 99));
    assert!(health.is_usable(0, 100));
    health.on_success(0, 100);
    assert_eq!(health.out, 0);
}

#[test]
fn panic_when_all_are_out_and_only_then() {
    let mut health = health(3);
    assert_eq!(eject(&mut health, 0, 0), Some(100));
    health.set_down(1, true);
    assert_eq!(health.mode(0), Mode::Normal);
    health.set_down(2, true);
    assert_eq!(health.mode(99), Mode::Panic);
    assert_eq!(health.mode(100), Mode::Normal, "one has returned");
    health.set_down(0, true);
    assert_eq!(health.mode(100), Mode::Panic);
    health.set_down(2, false);
    assert_eq!(health.mode(100), Mode::Normal);
}

#[test]
fn times_and_lengths_at_their_limits_do_not_overflow() {
    let policy = EjectPolicy { failures: 1, backoff_ms: u64::MAX / 2, max_backoff_ms: u64::MAX };
    let mut health = Health::new(&[1, 1], policy);
    assert!(health.on_failure(0, u64::MAX - 1).is_some());
    assert!(health.on_failure(0, u64::MAX).is_some());
    let mut health =
        Health::new(&[1, 1], EjectPolicy { failures: 1, backoff_ms: 0, max_backoff_ms: u64::MAX });
    let mut now_ms = 0;
    for doublings in 0..40 {
        let for_ms = health.on_failure(0, now_ms).unwrap().for_ms;
        assert_eq!(for_ms, 1 << doublings);
        now_ms += for_ms;
    }
    let mut health = Health::new(&[1, 1], EjectPolicy { failures: 1, backoff_ms: 5, max_backoff_ms: 0 });
    assert_eq!(health.on_failure(0, 0), Some(Ejected { for_ms: 0 }));
    assert!(health.is_usable(0, 0));
}

#[derive(Debug, Clone)]
enum Event {
    Success(usize),
    Failure(usize),
    Down(usize, bool),
    Passes(u64),
}

fn event(endpoints: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..endpoints).prop_map(Event::Success),
        8 => (0..endpoints).prop_map(Event::Failure),
        1 => (0..endpoints, any::<bool>()).prop_map(|(i, down)| Event::Down(i, down)),
        2 => (0..300u64).prop_map(Event::Passes),
    ]
}

proptest! {
    /// Whatever happens in whatever order: an ejection never leaves more than half out, it lasts at least the first
    /// length and at most the longest, it holds exactly that long, and the mode says what the endpoints say.
    #[test]
    fn invariants_hold(
        weights in prop::collection::vec(0..3u32, 6),
        events in prop::collection::vec(event(6), 0..300),
    ) {
        let mut health = Health::new(&weights, POLICY);
        let with_weight: Vec<usize> = (0..6).filter(|&i| weights[i] > 0).collect();
        let mut down = [false; 6];
        let mut ejected_until_ms = [0; 6];
        let mut now_ms = 0;
        for event in events {
            match event {
                Event::Success(i) => health.on_success(i, now_ms),
                Event::Failure(i) => {
                    if let Some(Ejected { for_ms }) = health.on_failure(i, now_ms) {
                        prop_assert!((POLICY.backoff_ms..=POLICY.max_backoff_ms).contains(&for_ms));
                        prop_assert!(weights[i] > 0 && !down[i] && ejected_until_ms[i] <= now_ms);
                        ejected_until_ms[i] = now_ms + for_ms;
                        let out = with_weight.iter().filter(|&&i| down[i] || now_ms < ejected_until_ms[i]);
                        prop_assert!(out.count() <= with_weight.len() / 2);
                    }
                }
                Event::Down(i, is_down) => {
                    health.set_down(i, is_down);
                    down[i] = is_down;
                }
                Event::Passes(ms) => now_ms += ms,
            }
            let usable = |i: usize| !down[i] && ejected_until_ms[i] <= now_ms;
            for &i in &with_weight {
                prop_assert_eq!(health.is_usable(i, now_ms), usable(i));
            }
            let any = with_weight.iter().any(|&i| usable(i));
            prop_assert_eq!(health.mode(now_ms), if any { Mode::Normal } else { Mode::Panic });
        }
    }
}
