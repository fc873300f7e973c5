//! Answers of issuers, and who waits for them.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn access() -> Introspect {
    Introspect {
        route: 0,
        target: "/".into(),
        place: Place::Header("authorization".into()),
        forward: true,
        authorization: basic("gate way", "s:ecret"),
        demands: Demands {
            issuer: None,
            audience: Box::default(),
            require: Box::default(),
            scopes: Box::default(),
            leeway_s: 0,
            needs_end: false,
        },
        cache_ms: 1000,
        timeout_ms: 1000,
    }
}

#[test]
fn credentials_are_encoded_and_not_shown() {
    let access = access();
    // RFC 6749 §2.3.1: each half is encoded by itself, so that a colon is no separator.
    assert_eq!(&*access.authorization, format!("Basic {}", STANDARD.encode("gate+way:s%3Aecret")));
    assert!(!format!("{access:?}").contains("Basic"));
}

#[test]
fn what_issuers_say() {
    let access = access();
    let said = access.understand(200, br#"{"active":true,"sub":"ada","exp":100}"#).unwrap();
    assert_eq!(access.admits(&said, 99).unwrap().subject(), Some("ada"));
    assert_eq!(access.admits(&said, 100), Err(TokenFault::Expired));
    let said = access.understand(200, br#"{"active":true}"#).unwrap();
    assert!(access.admits(&said, u64::MAX - 1).is_ok(), "an issuer may leave `exp` out");
    let said = access.understand(200, br#"{"active":false,"sub":"ada"}"#).unwrap();
    assert_eq!(access.admits(&said, 1), Err(TokenFault::Invalid));
    for (status, body) in [
        (200, &b"{}"[..]),
        (200, br#"{"active":"true"}"#),
        (200, br#"{"active":1}"#),
        (200, b"[true]"),
        (200, b"active"),
        (200, b""),
        (401, br#"{"active":true}"#),
        (500, b""),
    ] {
        assert_eq!(access.understand(status, body), Err(NoAnswer), "{status} {body:?}");
    }
}

struct Count(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn one_asks_for_all_who_wait() {
    let all = RefCell::<Introspected>::default();
    let Standing::ToAsk(known) = all.borrow_mut().look(0, b"a", 0) else { panic!("no one has asked") };
    let duty = Duty::of(&all, known);
    let Standing::Asked(question) = all.borrow_mut().look(0, b"a", 0) else { panic!("someone asks") };
    assert!(
        matches!(all.borrow_mut().look(1, b"a", 0), Standing::ToAsk(_)),
        "another policy is another issuer"
    );
    let count = Arc::new(Count(0.into()));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    assert!(question.poll(&mut cx).is_pending());
    duty.answer(Ok(None), 1000, 0);
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(question.poll(&mut cx), Poll::Ready(Some(Ok(None))));
    assert!(matches!(all.borrow_mut().look(0, b"a", 999), Standing::Said(None)));
    assert!(
        matches!(all.borrow_mut().look(0, b"a", 1000), Standing::ToAsk(_)),
        "it is not remembered for longer"
    );
}

#[test]
fn who_goes_without_an_answer_leaves_the_question_to_others() {
    let all = RefCell::<Introspected>::default();
    let Standing::ToAsk(known) = all.borrow_mut().look(0, b"a", 0) else { panic!("no one has asked") };
    let duty = Duty::of(&all, known);
    let Standing::Asked(question) = all.borrow_mut().look(0, b"a", 0) else { panic!("someone asks") };
    drop(duty);
    assert_eq!(question.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    assert!(matches!(all.borrow_mut().look(0, b"a", 0), Standing::ToAsk(_)));
}

#[test]
fn what_fails_is_not_remembered_and_what_is_refused_only_for_a_while() {
    let all = RefCell::<Introspected>::default();
    let ask = |answer, cache_ms| {
        let Standing::ToAsk(known) = all.borrow_mut().look(0, b"a", 0) else {
            panic!("it is not remembered")
        };
        Duty::of(&all, known).answer(answer, cache_ms, 0);
    };
    ask(Err(NoAnswer), 1000);
    ask(Ok(None), 0);
    ask(Ok(None), 10 * REFUSAL_MS);
    assert!(matches!(all.borrow_mut().look(0, b"a", REFUSAL_MS), Standing::ToAsk(_)));
}

#[test]
fn memory_is_bounded() {
    let all = RefCell::<Introspected>::default();
    for number in 0..4 * REMEMBERED_MAX {
        let token = number.to_string();
        let Standing::ToAsk(known) = all.borrow_mut().look(0, token.as_bytes(), 0) else {
            panic!("it is new")
        };
        Duty::of(&all, known).answer(Ok(None), 1000, 0);
    }
    let all = all.borrow();
    assert!(all.young.len() + all.old.len() <= 2 * REMEMBERED_MAX && all.asked.is_empty());
}

proptest! {
    #[test]
    fn any_token_is_one_value_of_a_form(token in proptest::collection::vec(any::<u8>(), 0..64)) {
        let body = question(&token);
        let (value, hint) = body.strip_prefix("token=").unwrap().split_once('&').unwrap();
        prop_assert_eq!(hint, "token_type_hint=access_token");
        prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=' && byte != b'&'));
        let mut decoded = Vec::new();
        let mut rest = value.bytes();
        while let Some(byte) = rest.next() {
            decoded.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                plain => plain,
            });
        }
        prop_assert_eq!(decoded, token);
    }

    #[test]
    fn no_answer_makes_it_stumble(status in 0_u16..600, body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = access().understand(status, &body);
    }
}
