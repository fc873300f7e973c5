//! What an issuer says of a token: claims, that it is none, or nothing that could be understood.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::{
    credential::Place,
    introspect::{Introspect, basic, question},
    token::Demands,
};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (token, body) = input;
    assert!(question(token).bytes().all(|byte| byte.is_ascii_graphic()));
    let access = Introspect {
        route: 0,
        target: "/".into(),
        place: Place::Header("authorization".into()),
        forward: true,
        authorization: basic("a", "b"),
        demands: Demands {
            issuer: Some("https://issuer.example".into()),
            audience: ["us".into()].into(),
            require: ["sub".into()].into(),
            scopes: Box::default(),
            leeway_s: 30,
            needs_end: false,
        },
        cache_ms: 0,
        timeout_ms: 0,
    };
    if let Ok(said) = access.understand(200, body) {
        let _ = access.admits(&said, 1);
    }
});
