//! A file of users, and a hash: read or refused, and never more of them than lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::password::{PasswordHash, Users, is_name, parse_file};

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = str::from_utf8(input) {
        let _ = PasswordHash::parse(text);
    }
    let Ok(users) = parse_file(input) else { return };
    assert!(users.len() <= input.split(|byte| *byte == b'\n').count());
    assert!(users.iter().all(|(name, _)| is_name(name)));
    let names: Vec<String> = users.iter().map(|(name, _)| name.clone()).collect();
    let users = Users::new(users);
    assert!(names.iter().all(|name| users.hash_of(name).is_some_and(|(_, is_user)| is_user)));
});
