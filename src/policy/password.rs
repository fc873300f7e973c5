//! Hashes of passwords, and whose they are: argon2id and bcrypt, which are slow to try. To try one takes a processor for a tenth of a second or
//! more, so no core does it.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use zeroize::Zeroizing;

/// Bytes of a user's name, at most.
pub const NAME_BYTES_MAX: usize = 255;

/// Users of one policy, at most.
pub const USERS_MAX: usize = 100_000;

/// Bytes of a file of users, at most.
pub const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a password that bcrypt looks at. A longer one is not the same as its beginning, so it is no one's.
const BCRYPT_BYTES_MAX: usize = 71;

/// What one try may cost.
const BCRYPT_COST_MAX: u32 = 16;
const ARGON2_KIB_MAX: u32 = 256 * 1024;
const ARGON2_PASSES_MAX: u32 = 16;
const ARGON2_LANES_MAX: u32 = 16;

/// What faults of hashes are told with.
pub const HINT: &str = "`htpasswd -nB NAME` makes one of bcrypt (`$2y$…`), `argon2` with `-id -e` one of argon2id (`$argon2id$…`)";

/// The base64 of bcrypt. Some make the last letter of a salt with bits that mean nothing.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2id { params: Params, salt: Box<[u8]>, hash: Box<[u8]> },
    Bcrypt { cost: u32, salt: [u8; 16], hash: [u8; 23] },
}

impl PasswordHash {
    /// A hash as it is written.
    ///
    /// # Errors
    /// What it is instead: words that go on after "the password".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let refused = [
            ("$apr1$", "is hashed by MD5 (apr1), which is tried too fast"),
            ("{SHA}", "is hashed by SHA-1, which is tried too fast"),
            ("{SSHA}", "is hashed by SHA-1, which is tried too fast"),
            ("$2x$", "is hashed by a bcrypt that had a fault (`$2x$`)"),
            ("$argon2i$", "is hashed by argon2i; argon2id is asked for"),
            ("$argon2d$", "is hashed by argon2d; argon2id is asked for"),
            ("$1$", "is hashed by MD5 (crypt), which is tried too fast"),
            ("$5$", "is hashed by SHA-256 (crypt); bcrypt or argon2id is asked for"),
            ("$6$", "is hashed by SHA-512 (crypt); bcrypt or argon2id is asked for"),
            ("$y$", "is hashed by yescrypt; bcrypt or argon2id is asked for"),
            ("$7$", "is hashed by scrypt; bcrypt or argon2id is asked for"),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(prefix, _)| text.starts_with(prefix)) {
            return Err(why);
        }
        if let Some(rest) = text.strip_prefix("$argon2id$") {
            return argon2id(rest);
        }
        let bcrypt = ["$2a$", "$2b$", "$2y$"].into_iter().find_map(|prefix| text.strip_prefix(prefix));
        match bcrypt {
            Some(rest) => self::bcrypt(rest),
            None => Err("is no hash by bcrypt or argon2id"),
        }
    }

    /// Whether it is this password's. Takes long.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Argon2id { params, salt, hash } => {
                let mut own = Zeroizing::new(vec![0; hash.len()]);
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                argon2.hash_password_into(password, salt, &mut own).is_ok()
                    && verify_slices_are_equal(&own, hash).is_ok()
            }
            Kind::Bcrypt { cost, salt, hash } => {
                // One that is too long takes as long as any.
                let looked_at = &password[..password.len().min(BCRYPT_BYTES_MAX)];
                let ended = Zeroizing::new([looked_at, b"\0"].concat());
                let own = Zeroizing::new(::bcrypt::bcrypt(*cost, *salt, &ended));
                let is_same = verify_slices_are_equal(&own[..hash.len()], hash).is_ok();
                is_same && looked_at.len() == password.len()
            }
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// The PHC string format, behind the algorithm's name: `v=19$m=19456,t=2,p=1$salt$hash`.
fn argon2id(text: &str) -> Result<PasswordHash, &'static str> {
    const MALFORMED: &str = "has a malformed hash by argon2id";
    let mut parts = text.split('$');
    let mut part = || parts.next().ok_or(MALFORMED);
    let (version, costs, salt, hash) = (part()?, part()?, part()?, part()?);
    if parts.next().is_some() {
        return Err(MALFORMED);
    }
    if version != "v=19" {
        return Err("is hashed by an old argon2id; `v=19` is asked for");
    }
    let mut costs = costs.split(',');
    let mut cost = |name: &str| -> Result<u32, &'static str> {
        let digits = costs.next().and_then(|cost| cost.strip_prefix(name)).ok_or(MALFORMED)?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number).ok_or(MALFORMED)
    };
    let (kib, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    if costs.next().is_some() {
        return Err(MALFORMED);
    }
    if kib > ARGON2_KIB_MAX || passes > ARGON2_PASSES_MAX || lanes > ARGON2_LANES_MAX {
        return Err("is too costly to verify: at most m=262144, t=16 and p=16");
    }
    let decoded = |text: &str, from: usize| {
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| MALFORMED)?;
        if (from..=64).contains(&bytes.len()) { Ok(Box::from(bytes)) } else { Err(MALFORMED) }
    };
    let (salt, hash): (Box<[u8]>, Box<[u8]>) = (decoded(salt, 8)?, decoded(hash, 16)?);
    let params = Params::new(kib, passes, lanes, Some(hash.len())).map_err(|_| MALFORMED)?;
    Ok(PasswordHash(Kind::Argon2id { params, salt, hash }))
}

/// The modular crypt format, behind the version: `12$` and 22 letters of salt, 31 of the hash.
fn bcrypt(text: &str) -> Result<PasswordHash, &'static str> {
    const MALFORMED: &str = "has a malformed hash by bcrypt";
    let (cost, rest) = text.split_once('$').ok_or(MALFORMED)?;
    if cost.len() != 2
        || rest.len() != 53
        || !rest.is_ascii()
        || !cost.bytes().all(|digit| digit.is_ascii_digit())
    {
        return Err(MALFORMED);
    }
    let cost: u32 = cost.parse().map_err(|_| MALFORMED)?;
    if cost < 4 {
        return Err(MALFORMED);
    }
    if cost > BCRYPT_COST_MAX {
        return Err("is too costly to verify: at most a cost of 16");
    }
    let (salt, hash) = rest.split_at(22);
    let decoded = |text: &str| BCRYPT.decode(text).map_err(|_| MALFORMED);
    let salt = decoded(salt)?.try_into().map_err(|_| MALFORMED)?;
    let hash = decoded(hash)?.try_into().map_err(|_| MALFORMED)?;
    Ok(PasswordHash(Kind::Bcrypt { cost, salt, hash }))
}

/// Whether someone can be called so: a short text without a colon, which ends a name (RFC 7617 §2), and without control characters.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(':') && !name.contains(char::is_control)
}

/// A user's name, and the hash of the password.
pub type User = (String, PasswordHash);

/// A file of users, as `htpasswd` writes them: `name:hash` in each line; empty ones, and those that begin with `#`, say nothing.
///
/// # Errors
/// What is wrong: lines by their numbers, without what stands there.
pub fn parse_file(bytes: &[u8]) -> Result<Vec<User>, Vec<(usize, String)>> {
    let (mut users, mut faults) = (Vec::new(), Vec::new());
    let mut lines = HashMap::new();
    for (bytes, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        if faults.len() >= FAULTS_MAX {
            break;
        }
        let Ok(line) = str::from_utf8(bytes) else {
            faults.push((number, "is not UTF-8".into()));
            continue;
        };
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, hash)) = line.split_once(':').filter(|(name, _)| is_name(name)) else {
            faults.push((number, "is not `name:hash`".into()));
            continue;
        };
        if users.len() >= USERS_MAX {
            faults.push((number, format!("is beyond {USERS_MAX} users")));
            break;
        }
        let earlier = *lines.entry(name).or_insert(number);
        if earlier != number {
            faults.push((number, format!("is of the same user as line {earlier}")));
            continue;
        }
        match PasswordHash::parse(hash) {
            Ok(hash) => users.push((name.to_owned(), hash)),
            Err(why) => faults.push((number, format!("has a password that {why}"))),
        }
    }
    if faults.is_empty() { Ok(users) } else { Err(faults) }
}

/// Faults of one file that are told.
const FAULTS_MAX: usize = 20;

/// Users by their names. They never change: where there are others, that is another set.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Arc<PasswordHash>>,
    all: Box<[Arc<PasswordHash>]>,
    names: RandomState,
}

impl Users {
    /// These users.
    pub fn new(users: Vec<User>) -> Self {
        let by_name: HashMap<Box<str>, _> =
            users.into_iter().map(|(name, hash)| (name.into(), Arc::new(hash))).collect();
        let all = by_name.values().cloned().collect();
        Self { by_name, all, names: RandomState::new() }
    }

    /// The hash that a user's password is tried with, and whether there is such a user. For one that there is not it is someone else's, always
    /// the same for the same name, so that trying takes as long, and whatever comes of it is wrong. `None`: there are no users at all.
    pub fn hash_of(&self, name: &str) -> Option<(&Arc<PasswordHash>, bool)> {
        let place = (self.names.hash_one(name) as usize).checked_rem(self.all.len())?;
        Some(self.by_name.get(name).map_or((&self.all[place], false), |hash| (hash, true)))
    }
}

#[cfg(test)]
mod tests;
