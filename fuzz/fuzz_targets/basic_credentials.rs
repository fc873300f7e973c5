//! What is shown as a name and a password: whatever it is, what is read of it is one of each, and is the same when it is shown again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::{basic::Credentials, password::is_name};

fuzz_target!(|input: &[u8]| {
    let Ok(read) = Credentials::read([input].iter()) else { return };
    assert!(is_name(read.name()) && !read.password().contains(char::is_control));
    assert!(Credentials::read([input, input].iter()).is_err());
});
