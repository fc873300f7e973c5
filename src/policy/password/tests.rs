//! Hashes of passwords: by whom they are made, and what is no hash.

use proptest::prelude::*;

use super::*;

/// By the bcrypt and argon2-cffi of Python.
const BCRYPT_HASH: &str = "$2b$04$vD3bmPSQMMQ.e4TsdZ86ve7cCUn73a6aH6x9W4xW1VdvOQhgQ1vhm";
const BCRYPT_LONG: &str = "$2b$04$nrvz81aumPlzDHaDorgMQeC1dPY.eUPZt/qaWG1VToCd2Hof1EgVO";
const BCRYPT_UTF8: &str = "$2b$04$mbrFR0iql6U6Fg5/LOtyaO3KG8R869G1LcBFZ9GVP/fgTvXE3WkHS";
const ARGON2_HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQxNmJ5dGVzIQ$8RQhbwLdAK6SPE9P6gAYRg";
const PASSWORD: &[u8] = b"correct horse";

fn is_of(hash: &str, password: &[u8]) -> bool {
    PasswordHash::parse(hash).unwrap().is_of(password)
}

#[test]
fn passwords_are_known_by_their_hashes() {
    for hash in
        [BCRYPT_HASH, &BCRYPT_HASH.replace("$2b$", "$2y$"), &BCRYPT_HASH.replace("$2b$", "$2a$"), ARGON2_HASH]
    {
        assert!(is_of(hash, PASSWORD), "{hash}");
        for other in [&b""[..], b"correct hors", b"correct horse ", b"Correct horse", b"correct horse\0"] {
            assert!(!is_of(hash, other), "{hash} {other:?}");
        }
    }
    assert!(is_of(BCRYPT_UTF8, "pässwörd:x".as_bytes()));
    // No longer password is the same as its beginning.
    assert!(is_of(BCRYPT_LONG, &[b'x'; 71]));
    assert!(!is_of(BCRYPT_LONG, &[b'x'; 72]) && !is_of(BCRYPT_LONG, &[b'x'; 70]));
    let hash = PasswordHash::parse(ARGON2_HASH).unwrap();
    assert_eq!(format!("{hash:?}"), "PasswordHash(..)");
}

#[test]
fn what_is_no_hash_is_told() {
    let argon2 = |from: &str, to: &str| ARGON2_HASH.replacen(from, to, 1);
    for (text, why) in [
        ("secret", "no hash"),
        ("", "no hash"),
        ("$apr1$abc$def", "MD5 (apr1)"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1"),
        ("$1$abc$def", "MD5 (crypt)"),
        ("$6$abc$def", "SHA-512"),
        ("$y$j9T$abc$def", "yescrypt"),
        ("$argon2i$v=19$m=64,t=1,p=1$c29t$8RQ", "argon2i;"),
        (&BCRYPT_HASH.replace("$2b$", "$2x$"), "had a fault"),
        (&BCRYPT_HASH[..59], "malformed"),
        (&format!("{BCRYPT_HASH}:"), "malformed"),
        (&BCRYPT_HASH.replace("$04$", "$03$"), "malformed"),
        (&BCRYPT_HASH.replace("$04$", "$+4$"), "malformed"),
        (&BCRYPT_HASH.replace("$04$", "$17$"), "too costly"),
        (&BCRYPT_HASH.replace("vhm", "vh="), "malformed"),
        (&argon2("v=19", "v=16"), "old argon2id"),
        (&argon2("m=64", "m=262145"), "too costly"),
        (&argon2("m=64", "m=7"), "malformed"),
        (&argon2("t=1", "t=0"), "malformed"),
        (&argon2("t=1", "t=+1"), "malformed"),
        (&argon2("t=1,", ""), "malformed"),
        (&argon2("p=1", "p=1,data=x"), "malformed"),
        (&argon2("p=1", "p=17"), "too costly"),
        (&format!("{ARGON2_HASH}$"), "malformed"),
        (&format!("{ARGON2_HASH}="), "malformed"),
        ("$argon2id$v=19$m=64,t=1,p=1$c29t$8RQhbwLdAK6SPE9P6gAYRg", "malformed"),
    ] {
        let said = PasswordHash::parse(text).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn files_of_users_are_read() {
    let text = format!("# people\n\nada:{BCRYPT_HASH}\r\n  \nböb:{ARGON2_HASH}");
    let users = parse_file(text.as_bytes()).unwrap();
    assert_eq!(users.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ada", "böb"]);
    assert!(parse_file(b"").unwrap().is_empty());
    let wrong = format!("ada:{BCRYPT_HASH}\nada:{BCRYPT_HASH}\nbob\n:x\neve:secret\n\u{1}:x\n");
    let faults = parse_file(&[wrong.as_bytes(), b"\xff:x"].concat()).unwrap_err();
    let lines: Vec<usize> = faults.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7], "{faults:?}");
    assert_eq!(faults[0].1, "is of the same user as line 1");
    assert!(faults.iter().all(|(_, fault)| !fault.contains("secret")), "{faults:?}");
    assert_eq!(parse_file("x\n".repeat(1000).as_bytes()).unwrap_err().len(), FAULTS_MAX);
}

#[test]
fn who_is_no_user_is_tried_with_the_same_hash_each_time() {
    let (one, other) = (PasswordHash::parse(BCRYPT_HASH).unwrap(), PasswordHash::parse(ARGON2_HASH).unwrap());
    let users = Users::new(vec![("ada".into(), one.clone()), ("bob".into(), other.clone())]);
    assert_eq!(users.hash_of("ada"), Some((&Arc::new(one), true)));
    assert_eq!(users.hash_of("bob"), Some((&Arc::new(other), true)));
    for name in ["eve", "Ada", ""] {
        let (hash, is_user) = users.hash_of(name).unwrap();
        assert!(!is_user);
        assert!(Arc::ptr_eq(hash, users.hash_of(name).unwrap().0));
    }
    assert_eq!(Users::default().hash_of("ada"), None);
}

proptest! {
    #[test]
    fn any_text_is_a_hash_or_none(text in "(\\$(argon2id|2b|2y)\\$)?[$=,.0-9a-zA-Z/+]{0,90}") {
        let _ = PasswordHash::parse(&text);
    }

    /// What a file says of users is what a line-by-line reading of it says.
    #[test]
    fn any_file_is_read_or_refused(lines in prop::collection::vec(("[a-z:#\u{e9}\\r ]{0,5}", any::<bool>()), 0..8)) {
        let text: Vec<String> =
            lines.iter().map(|(name, is_good)| format!("{name}:{}", if *is_good { BCRYPT_HASH } else { "x" })).collect();
        if let Ok(users) = parse_file(text.join("\n").as_bytes()) {
            let said = lines.iter().filter(|(name, _)| !name.starts_with('#'));
            prop_assert_eq!(users.len(), said.clone().count());
            for ((name, _), (said, is_good)) in users.iter().zip(said) {
                prop_assert!(is_name(name) && *is_good && name == said);
            }
        }
    }
}
