//! Who asks with a name and a password (RFC 7617): what a request shows, and what is remembered of those that were right. Whether a password
//! is a user's, others find out ([`super::password`]), as it takes long.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    credential::Place,
    password::{NAME_BYTES_MAX, Users, is_name},
};

/// Bytes of a password, at most.
const PASSWORD_BYTES_MAX: usize = 512;

/// Bytes of what stands behind `Basic`, at most.
const ENCODED_BYTES_MAX: usize = (NAME_BYTES_MAX + 1 + PASSWORD_BYTES_MAX).div_ceil(3) * 4;

/// The scheme of `Authorization`.
const SCHEME: &[u8] = b"basic";

/// Who may ask.
#[derive(Debug, Clone)]
pub struct UserAccess {
    /// `Authorization`.
    pub place: Place,
    /// Whether it goes on to the upstream.
    pub forward: bool,
    /// The line that asks for it.
    challenge: Box<[u8]>,
    /// The users, as they were when the table was compiled.
    pub users: Arc<Users>,
    /// How long a password that was right is remembered, in ms.
    pub remembered_ms: u64,
}

impl UserAccess {
    /// `realm`: visible ASCII and spaces.
    pub fn new(realm: &str, users: Arc<Users>, forward: bool, remembered_ms: u64) -> Self {
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = format!("WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n");
        let place = Place::Header("authorization".into());
        Self { place, forward, challenge: challenge.into_bytes().into(), users, remembered_ms }
    }

    /// The line that asks for a name and a password.
    pub fn challenge(&self) -> &[u8] {
        &self.challenge
    }
}

/// A name and a password as they are shown. Wiped when they are dropped.
pub struct Credentials {
    text: Zeroizing<String>,
    colon: usize,
}

/// Why there are no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFault {
    /// Nothing of the kind is shown.
    Missing,
    /// What is shown is no name and password.
    Malformed,
}

impl Credentials {
    /// Those in the values of `Authorization`. Said twice, they are no one's.
    ///
    /// # Errors
    /// There are none.
    pub fn read<V: AsRef<[u8]>>(mut values: impl Iterator<Item = V>) -> Result<Self, CredentialFault> {
        let value = values.next().ok_or(CredentialFault::Missing)?;
        let value = value.as_ref();
        let at = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, encoded) = value.split_at(at);
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(CredentialFault::Missing);
        }
        let encoded = encoded.trim_ascii();
        if values.next().is_some() || encoded.len() > ENCODED_BYTES_MAX {
            return Err(CredentialFault::Malformed);
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| CredentialFault::Malformed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            CredentialFault::Malformed
        })?;
        let text = Zeroizing::new(text);
        // §2: the first colon ends the name.
        let colon = text.find(':').ok_or(CredentialFault::Malformed)?;
        let (name, password) = (&text[..colon], &text[colon + 1..]);
        if !is_name(name) || password.len() > PASSWORD_BYTES_MAX || password.contains(char::is_control) {
            return Err(CredentialFault::Malformed);
        }
        Ok(Self { text, colon })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Stands for a policy's users of one time, a name and a password: their hash under a secret that no one else has.
pub type Mark = [u8; 32];

/// Users whose passwords were right not long ago, so that a client that shows them again costs no try. Nothing here tells a password. Bounded: who did not
/// come while as many others did is forgotten.
pub struct Remembered {
    secret: hmac::Key,
    /// Counts the sets of users.
    epoch: u64,
    young: HashMap<Mark, User>,
    old: HashMap<Mark, User>,
}

/// A user, and until when the password is remembered.
#[derive(Clone)]
struct User {
    name: Rc<str>,
    until_ms: u64,
}

/// Users in each half of [`Remembered`].
const REMEMBERED_MAX: usize = 1024;

impl Remembered {
    /// No one yet. `None`: there is no randomness.
    pub fn new() -> Option<Self> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok()?;
        Some(Self { secret, epoch: 0, young: HashMap::new(), old: HashMap::new() })
    }

    /// What stands for these credentials, by the policy of this number.
    pub fn mark(&self, policy: usize, credentials: &Credentials) -> Mark {
        let mut signing = hmac::Context::with_key(&self.secret);
        for number in [policy as u64, self.epoch, credentials.colon as u64] {
            signing.update(&number.to_be_bytes());
        }
        // The place of the colon is in it: no other name and password make the same.
        signing.update(credentials.text.as_bytes());
        let mut mark = [0; 32];
        mark.copy_from_slice(signing.sign().as_ref());
        mark
    }

    /// The user whose password was right not long ago.
    pub fn user(&mut self, mark: &Mark, now_ms: u64) -> Option<Rc<str>> {
        if let Some(user) = self.young.get(mark) {
            return (now_ms < user.until_ms).then(|| Rc::clone(&user.name));
        }
        let user = self.old.remove(mark).filter(|user| now_ms < user.until_ms)?;
        let name = Rc::clone(&user.name);
        self.insert(*mark, user);
        Some(name)
    }

    /// Remembers a user whose password was right.
    pub fn remember(&mut self, mark: Mark, name: Rc<str>, until_ms: u64) {
        self.insert(mark, User { name, until_ms });
    }

    fn insert(&mut self, mark: Mark, user: User) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark, user);
    }

    /// There are other users: no one is known any more, nor will be by a mark of before.
    pub fn forget(&mut self) {
        self.epoch += 1;
        self.young = HashMap::new();
        self.old = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Result<(String, String), CredentialFault> {
        let read = Credentials::read(values.iter())?;
        Ok((read.name().to_owned(), read.password().to_owned()))
    }

    fn basic(text: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn names_and_passwords_are_read() {
        let of = |name: &str, password: &str| Ok((name.to_owned(), password.to_owned()));
        // RFC 7617 §2 and §2.1.
        assert_eq!(read(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), of("Aladdin", "open sesame"));
        assert_eq!(read(&["bASIC   dGVzdDoxMjPCow=="]), of("test", "123£"));
        assert_eq!(read(&[&basic(b"a::b:")]), of("a", ":b:"));
        assert_eq!(read(&[&basic(b"a:")]), of("a", ""));
        let longest = [&[b'n'; NAME_BYTES_MAX][..], b":", &[b'p'; PASSWORD_BYTES_MAX]].concat();
        assert!(read(&[&basic(&longest)]).is_ok());
        for missing in [&[][..], &[""], &["Bearer x"], &["Basically x"], &["QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]] {
            assert_eq!(read(missing), Err(CredentialFault::Missing), "{missing:?}");
        }
        let twice = basic(b"a:b");
        for malformed in [
            &["Basic"][..],
            &["Basic "],
            &["Basic *"],
            &["Basic YTpi YTpi"],
            &["Basic YTpiYg"],
            &["Basic YTpiYh=="],
            &[&basic(b"a")],
            &[&basic(b":b")],
            &[&basic(b"a:b\n")],
            &[&basic(b"a\x7f:b")],
            &[&basic("a:\u{85}".as_bytes())],
            &[&basic(b"a\0:b")],
            &[&basic(b"\xff:b")],
            &[&basic(&[&longest[..], b"p"].concat())],
            &[&basic(&[b"n", &longest[..longest.len() - 1]].concat())],
            &[&twice, &twice],
        ] {
            assert_eq!(read(malformed), Err(CredentialFault::Malformed), "{malformed:?}");
        }
        assert_eq!(format!("{:?}", Credentials::read([twice].iter()).unwrap()), "Credentials(..)");
    }

    #[test]
    fn a_realm_is_a_quoted_text() {
        let access = UserAccess::new("the \"inner\" \\ room", Arc::default(), false, 0);
        let line = str::from_utf8(access.challenge()).unwrap();
        assert_eq!(
            line,
            "WWW-Authenticate: Basic realm=\"the \\\"inner\\\" \\\\ room\", charset=\"UTF-8\"\r\n"
        );
    }

    #[test]
    fn who_was_right_is_remembered_for_a_while() {
        let mut remembered = Remembered::new().unwrap();
        let of = |text: &[u8]| Credentials::read([basic(text)].iter()).unwrap();
        let mark = remembered.mark(0, &of(b"ada:x"));
        assert_eq!(remembered.user(&mark, 5), None);
        remembered.remember(mark, "ada".into(), 10);
        assert_eq!(remembered.user(&mark, 9).as_deref(), Some("ada"));
        assert_eq!(remembered.user(&mark, 10), None);
        for (policy, other) in [(1, &b"ada:x"[..]), (0, b"ada:y"), (0, b"adb:x"), (0, b"ad:a:x")] {
            let other = remembered.mark(policy, &of(other));
            assert_eq!(remembered.user(&other, 5), None);
        }
        // Whoever comes now and then stays; who does not makes room.
        remembered.remember(mark, "ada".into(), 10);
        for place in 0..3 * REMEMBERED_MAX {
            let mut other = [0; 32];
            other[..8].copy_from_slice(&place.to_be_bytes());
            remembered.remember(other, "other".into(), 10);
            if place % 100 == 0 {
                assert!(remembered.user(&mark, 5).is_some(), "{place}");
            }
        }
        assert!(remembered.young.len() + remembered.old.len() <= 2 * REMEMBERED_MAX);
        assert_eq!(remembered.user(&[0; 32], 5), None);
        remembered.forget();
        assert_eq!(remembered.user(&mark, 5), None);
        assert_ne!(remembered.mark(0, &of(b"ada:x")), mark);
        assert_ne!(Remembered::new().unwrap().mark(0, &of(b"ada:x")), mark);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(name in "[^:\\pC]{1,20}", password in "[^\\pC]{0,40}") {
            let shown = basic(format!("{name}:{password}").as_bytes());
            prop_assert_eq!(read(&[&shown]), Ok((name, password)));
        }

        #[test]
        fn any_bytes_are_credentials_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Credentials::read([&bytes].iter());
            if let Ok(read) = Credentials::read([basic(&bytes)].iter()) {
                let again = format!("{}:{}", read.name(), read.password());
                prop_assert_eq!(again.as_bytes(), &bytes[..]);
                prop_assert!(is_name(read.name()));
            }
        }
    }
}
