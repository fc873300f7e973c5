//! A token that no key of ours has signed: never believed, whatever it is. The key is not among what a fuzzer can know.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::{
    credential::Place,
    jose::{Algorithm, Key, Material},
    jwt::TokenAccess,
    token::{self, Demands},
};

fuzz_target!(|input: &[u8]| {
    let Some(material) = Material::secret(b"only this target has it, and signs nothing") else { return };
    let access = TokenAccess {
        place: Place::Header("authorization".into()),
        forward: false,
        algorithms: Algorithm::ALL.map(|(_, algorithm)| algorithm).into(),
        published: None,
        keys: [Key { id: None, algorithm: None, material }].into(),
        demands: Demands {
            issuer: None,
            audience: Box::default(),
            require: Box::default(),
            scopes: Box::default(),
            leeway_s: 0,
            needs_end: true,
        },
    };
    assert!(access.verify(input, None, 1).is_err());
    if let Ok(token) = token::shown(&access.place, [input].iter()) {
        assert!(access.verify(&token, None, 1).is_err());
    }
    if let Ok(pem) = str::from_utf8(input) {
        let _ = Material::public(pem);
    }
});
