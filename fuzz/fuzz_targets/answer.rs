//! An answer that a leg of an aggregate gets, and JSON pointers into it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::aggregate::{Aggregate, Leg, Merge, Outcome, Pointer, as_segment};
use ringgate::policy::template::{Place, Template};

fuzz_target!(|input: (&str, &str, &[u8], bool)| {
    let (select, remove, body, is_deep) = input;
    let (Some(select), Ok(path)) = (Pointer::parse(select), Template::compile("/", &[], Place::Target))
    else {
        return;
    };
    let merge = if is_deep { Merge::Deep } else { Merge::Name };
    let leg = Leg {
        name: "leg".into(),
        route: 0,
        chain: 0,
        path,
        captures: 0,
        values: Box::default(),
        headers: Box::default(),
        is_required: false,
        when: None,
        select,
        remove: Pointer::parse(remove).into_iter().collect(),
        pass: Box::default(),
        body_bytes: 1 << 20,
    };
    let outcome = match leg.understand(200, b"application/json", body, merge) {
        Ok(value) => {
            if let Some(segment) = as_segment(Some(&value)) {
                assert!(!segment.contains(['/', '?', '#', ' ', '\r', '\n']));
            }
            Outcome::Answered(value)
        }
        Err(fault) => Outcome::Failed(fault),
    };
    let all = Aggregate { merge, legs: [leg].into(), problems: "problems".into() };
    assert!(all.document(vec![outcome]).is_object());
});
