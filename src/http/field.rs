//! Header fields: the names the gateway treats specially, recognised once while a head is parsed so that nothing
//! later compares text, and the reusable list of fields of a head. What a field's value means is not known here.

use super::extent::Extent;

/// Fields one head may have, whatever the configuration says.
pub const FIELDS_MAX: usize = 256;

macro_rules! field_names {
    ($($variant:ident = $text:literal,)*) => {
        /// A field name the gateway treats specially, or [`FieldName::Other`].
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FieldName {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other name; its text is where the field says.
            Other,
        }

        impl FieldName {
            /// Every name but [`FieldName::Other`], in the order of the enum.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];
        }

        const KNOWN: &[FieldName] = FieldName::KNOWN;
        /// The names' texts in lower case, in the order of the enum; `Other` has none.
        const TEXTS: &[&str] = &[$($text,)* ""];
    };
}

field_names! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    Allow = "allow",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentDisposition = "content-disposition",
    ContentEncoding = "content-encoding",
    ContentLanguage = "content-language",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    ContentRange = "content-range",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    MaxForwards = "max-forwards",
    Origin = "origin",
    Pragma = "pragma",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    Range = "range",
    Referer = "referer",
    RetryAfter = "retry-after",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    TrueClientIp = "true-client-ip",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    Warning = "warning",
    WwwAuthenticate = "www-authenticate",
    XClientIp = "x-client-ip",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedMethod = "x-forwarded-method",
    XForwardedPort = "x-forwarded-port",
    XForwardedPrefix = "x-forwarded-prefix",
    XForwardedProto = "x-forwarded-proto",
    XForwardedScheme = "x-forwarded-scheme",
    XForwardedServer = "x-forwarded-server",
    XForwardedSsl = "x-forwarded-ssl",
    XForwardedUri = "x-forwarded-uri",
    XOriginalHost = "x-original-host",
    XOriginalUrl = "x-original-url",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    XRewriteUrl = "x-rewrite-url",
}

impl FieldName {
    /// Which of the known names `name` is, whatever its case. Most others are told by one look at a table; else it
    /// costs one hash of three bytes and one comparison.
    #[inline(always)]
    pub fn recognise(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        if name.len() >= 64 || LENGTHS[usize::from(first & 0x1f)] >> name.len() & 1 == 0 {
            return Self::Other;
        }
        Self::look_up(name)
    }

    fn look_up(name: &[u8]) -> Self {
        let Some(slot) = slot(name, SEED) else { return Self::Other };
        let candidate = SLOTS[slot];
        if is_folded(name, candidate.as_str().as_bytes()) { candidate } else { Self::Other }
    }

    /// The name in lower case, as HTTP/2 wants it and HTTP/1 allows it; empty for [`FieldName::Other`].
    #[inline]
    pub const fn as_str(self) -> &'static str {
        TEXTS[self as usize]
    }

    /// Whether the field is for this connection only, whether `Connection` names it or not (RFC 9110 §7.6.1, RFC
    /// 7540 §3.2.1). Proxy-Authenticate and Proxy-Authorization are not: they belong to the proxy that asked for
    /// credentials (RFC 9110 §11.7), which a gateway does not do, so they pass unless `Connection` names them.
    #[inline]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Whether `Connection` may make the field hop-by-hop by naming it. The known names may not be: framing,
    /// routing, policies or the upstream depend on each of them, and no client may strip those from its request
    /// (or an upstream from its response) by naming them.
    #[inline]
    pub(super) const fn may_be_nominated(self) -> bool {
        matches!(self, Self::Other | Self::ProxyAuthenticate | Self::ProxyAuthorization)
    }

    /// Whether the field must not come in a trailer section (RFC 9110 §6.5.1): what is read before the content,
    /// that is framing, routing, authentication, request modifiers, response control and content format. Merging
    /// such a field late would change a decision already made.
    pub const fn is_forbidden_in_trailers(self) -> bool {
        !matches!(self, Self::Other | Self::Etag | Self::LastModified | Self::ProxyStatus | Self::Server)
    }
}

const FORWARDING: &[u8] = b"x-forwarded-";

/// Whether it is an `X-Forwarded-` field: what only a proxy may say.
pub fn is_forwarding(name: &[u8]) -> bool {
    name.get(..FORWARDING.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORWARDING))
}

/// Whether a name that begins so may be one ([`is_forwarding`]): its length, or a word of it, tells of most that they are not.
#[inline]
pub(super) fn may_be_forwarding(name: &[u8]) -> bool {
    const START: u32 = u32::from_ne_bytes(*b"x-fo");
    name.len() >= FORWARDING.len()
        && name.first_chunk().is_some_and(|start| u32::from_ne_bytes(*start) | 0x2020_2020 == START)
}

/// A bit for the length of each known name, by the lower five bits of its first letter, which its case does not change.
static LENGTHS: [u64; 32] = {
    let mut lengths = [0; 32];
    let mut i = 0;
    while i < KNOWN.len() {
        let text = TEXTS[i].as_bytes();
        assert!(text.len() < 64, "a known name is too long for the table");
        lengths[(text[0] & 0x1f) as usize] |= 1 << text.len();
        i += 1;
    }
    lengths
};

/// A set of names; all that are not known are one of it, [`FieldName::Other`].
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct NameSet(u128);

const _: () = assert!(KNOWN.len() < u128::BITS as usize, "a name, and Other, is a bit of a word");

impl NameSet {
    /// No name.
    pub const NONE: Self = Self(0);

    /// These names.
    pub const fn of(names: &[FieldName]) -> Self {
        let mut set = Self::NONE;
        let mut i = 0;
        while i < names.len() {
            set = set.and(names[i]);
            i += 1;
        }
        set
    }

    /// These names and `name`.
    #[inline]
    pub const fn and(self, name: FieldName) -> Self {
        Self(self.0 | 1 << name as u8)
    }

    /// The names of both.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `name` is one of them.
    #[inline]
    pub const fn has(self, name: FieldName) -> bool {
        self.0 >> name as u8 & 1 != 0
    }

    /// Whether some name is in both.
    #[inline]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Slots of the recognition table: enough for a seed without collisions to be found in few tries.
const SLOT_BITS: u32 = 9;
const SEED: u32 = find_seed();
const SLOTS: [FieldName; 1 << SLOT_BITS] = fill_slots(SEED);

/// The slot of a name: its length, its first and last byte and the one at three quarters, in lower case,
/// multiplied. No two known names agree in all four. `None` when empty.
#[inline]
const fn slot(name: &[u8], seed: u32) -> Option<usize> {
    let len = name.len();
    if len == 0 {
        return None;
    }
    let (first, inner, last) = (name[0] as u32, name[len * 3 / 4] as u32, name[len - 1] as u32);
    let key = ((first | inner << 8 | last << 16) | 0x20_20_20) ^ (len as u32) << 24;
    Some((key.wrapping_mul(seed) >> (u32::BITS - SLOT_BITS)) as usize)
}

/// Finds, while compiling, a seed that gives every known name a slot of its own.
const fn find_seed() -> u32 {
    let mut seed = 0x9e37_79b1_u32;
    loop {
        let mut taken = [false; 1 << SLOT_BITS];
        let mut i = 0;
        while i < KNOWN.len() {
            let Some(slot) = slot(TEXTS[i].as_bytes(), seed) else { panic!("a known name is empty") };
            if taken[slot] {
                break;
            }
            taken[slot] = true;
            i += 1;
        }
        if i == KNOWN.len() {
            return seed;
        }
        seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f) | 1;
    }
}

const fn fill_slots(seed: u32) -> [FieldName; 1 << SLOT_BITS] {
    let mut slots = [FieldName::Other; 1 << SLOT_BITS];
    let mut i = 0;
    while i < KNOWN.len() {
        if let Some(slot) = slot(TEXTS[i].as_bytes(), seed) {
            slots[slot] = KNOWN[i];
        }
        i += 1;
    }
    slots
}

/// One field line of a head.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which name it is.
    pub name: FieldName,
    /// Whether it ends at this hop and is not forwarded: see [`FieldName::is_hop_by_hop`], and the names that
    /// `Connection` lists.
    pub hop: bool,
    /// The name as sent.
    pub name_at: Extent,
    /// The value without the whitespace around it.
    pub value_at: Extent,
}

/// The fields of a head, in order. Reuse it: cleared, it keeps its memory.
///
/// What is asked of every head is noted while it is parsed, so that nobody walks the fields for it: which names there
/// are, and which lines cannot go on as they came.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Fields {
    list: Vec<Field>,
    names: NameSet,
    marked: Places,
    has_odd_names: bool,
}

/// A bit for each field of a head, by its place.
pub(super) type Places = [u64; FIELDS_MAX / u64::BITS as usize];
const _: () = assert!(FIELDS_MAX.is_multiple_of(u64::BITS as usize));

/// Adds a place. One beyond the most that a head may have is a defect, and a panic rather than a field that leaks.
#[inline]
pub(super) const fn mark(places: &mut Places, at: usize) {
    places[at / u64::BITS as usize] |= 1 << (at % u64::BITS as usize);
}

impl Fields {
    /// Room for `fields` fields before anything is allocated.
    pub fn with_capacity(fields: usize) -> Self {
        Self { list: Vec::with_capacity(fields), ..Self::default() }
    }

    /// Forgets all fields and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.names = NameSet::NONE;
        self.marked = Places::default();
        self.has_odd_names = false;
    }

    /// Appends one, at most [`FIELDS_MAX`] of them. `is_canonical`: its line is `name: value` and CRLF, with nothing
    /// between it and the next.
    #[inline]
    pub(super) fn push(&mut self, field: Field, is_canonical: bool) {
        self.names = self.names.and(field.name);
        if field.hop || !is_canonical {
            mark(&mut self.marked, self.list.len());
        }
        self.list.push(field);
    }

    /// Notes that a name is to be looked at before it goes on: it has other bytes than letters, digits and `-`, or is one of those that
    /// forwarding proxies write and no one here knows by itself ([`is_forwarding`]).
    pub(super) fn note_odd(&mut self) {
        self.has_odd_names = true;
    }

    /// Whether there is a name with `_` or `.` or the like in it, or an `X-Forwarded-` that is not known. Upstreams that show fields as variables (RFC 3875 §4.1.18, and what
    /// came after it) take such a name for the one with `-`.
    #[inline]
    pub fn has_odd_names(&self) -> bool {
        self.has_odd_names
    }

    /// Makes those that `ends` says end at this hop.
    pub(super) fn end_here(&mut self, ends: impl Fn(&Field) -> bool) {
        for (at, field) in self.list.iter_mut().enumerate() {
            if ends(field) {
                field.hop = true;
                mark(&mut self.marked, at);
            }
        }
    }

    /// The places of those that do not go on as they came: they end at this hop, or their line is not in shape.
    #[inline]
    pub(super) const fn marked(&self) -> &Places {
        &self.marked
    }

    /// Where the first field's line begins in the whole `head`; the blank line when there is none.
    #[inline]
    pub fn start(&self, head: &[u8]) -> usize {
        self.line_start(head, 0)
    }

    /// Where the line of the field at `at` ends in the whole `head`, its CRLF included.
    #[inline]
    pub(super) fn line_end(&self, head: &[u8], at: usize) -> usize {
        self.line_start(head, at + 1)
    }

    /// Lines follow each other without a gap, and the blank line follows the last.
    #[inline]
    fn line_start(&self, head: &[u8], at: usize) -> usize {
        self.list.get(at).map_or(head.len() - 2, |field| field.name_at.start as usize)
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All, in the order they came.
    #[inline]
    pub fn as_slice(&self) -> &[Field] {
        &self.list
    }

    /// All, in the order they came.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The names there are.
    #[inline]
    pub fn names(&self) -> NameSet {
        self.names
    }

    /// Whether there is a field of this name.
    #[inline]
    pub fn has(&self, name: FieldName) -> bool {
        self.names.has(name)
    }

    /// Every field of this name. Costs nothing when there is none.
    #[inline]
    pub fn named(&self, name: FieldName) -> impl DoubleEndedIterator<Item = &Field> {
        let list = if self.has(name) { self.as_slice() } else { &[] };
        list.iter().filter(move |field| field.name == name)
    }

    /// The first field of this name. [`FieldName::Other`] finds the first unknown one, which is rarely meant.
    #[inline]
    pub fn find(&self, name: FieldName) -> Option<&Field> {
        self.named(name).next()
    }

    /// The first field called `name`, whatever its case; `head` is what the fields were parsed from.
    pub fn find_by_name<'f>(&'f self, head: &'f [u8], name: &'f [u8]) -> Option<&'f Field> {
        self.called(head, name).next()
    }

    /// Every field called `name`, whatever its case; `head` is what the fields were parsed from.
    pub fn called<'f>(&'f self, head: &'f [u8], name: &'f [u8]) -> impl Iterator<Item = &'f Field> {
        self.named(FieldName::recognise(name))
            .filter(move |field| field.name_at.bytes(head).eq_ignore_ascii_case(name))
    }
}

impl<'f> IntoIterator for &'f Fields {
    type Item = &'f Field;
    type IntoIter = std::slice::Iter<'f, Field>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// Whether `text` is `lower` in any case. `lower` has lower-case letters, digits and `-` only. By words, the last of which
/// overlaps the one before: field names are short and there are many of them, and this is less than half of what
/// `eq_ignore_ascii_case` costs.
#[inline]
pub(super) fn is_folded(text: &[u8], lower: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    let len = lower.len();
    if text.len() != len {
        return false;
    }
    if len < WORD {
        return match (ends(text), ends(lower)) {
            (Some(word), Some(low)) => is_folded_word(word, low),
            _ => text.iter().zip(lower).all(|(byte, low)| byte | low >> 1 & 0x20 == *low),
        };
    }
    let mut at = 0;
    loop {
        let (Some(word), Some(low)) = (word_at(text, at), word_at(lower, at)) else { return false };
        if !is_folded_word(word, low) {
            return false;
        }
        if at + WORD >= len {
            return true;
        }
        at = (at + WORD).min(len - WORD);
    }
}

/// In `low` only letters have the bit 0x40; upper case lacks 0x20.
#[inline]
const fn is_folded_word(word: u64, low: u64) -> bool {
    word | (low >> 1 & 0x2020_2020_2020_2020) == low
}

/// The first and the last four bytes of four to eight.
#[inline]
fn ends(text: &[u8]) -> Option<u64> {
    let (first, last) = (text.first_chunk()?, text.last_chunk()?);
    Some(u64::from(u32::from_ne_bytes(*first)) | u64::from(u32::from_ne_bytes(*last)) << 32)
}

#[inline]
fn word_at(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1) without the whitespace around them; empty elements, which
/// a recipient ignores, are given as empty.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// Without optional whitespace (RFC 9110 §5.6.3) at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;
