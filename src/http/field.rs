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

        /// Every name but `Other`, in the order of the enum.
        const KNOWN: &[FieldName] = &[$(FieldName::$variant,)*];
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
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    Warning = "warning",
    WwwAuthenticate = "www-authenticate",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
}

impl FieldName {
    /// Which of the known names `name` is, whatever its case. Costs one hash of three bytes and one comparison.
    #[inline]
    pub fn recognise(name: &[u8]) -> Self {
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
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Room for `fields` fields before anything is allocated.
    pub fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    /// Forgets all fields and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends one.
    #[inline]
    pub fn push(&mut self, field: Field) {
        self.0.push(field);
    }

    /// Forgets all fields and takes these, looking for memory once.
    #[inline]
    pub(super) fn refill(&mut self, fields: impl ExactSizeIterator<Item = Field>) {
        self.0.clear();
        self.0.extend(fields);
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in the order they came.
    #[inline]
    pub fn as_slice(&self) -> &[Field] {
        &self.0
    }

    /// All, in the order they came.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.0.iter()
    }

    /// All, to be marked.
    #[inline]
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Field> {
        self.0.iter_mut()
    }

    /// The first field of this name. [`FieldName::Other`] finds the first unknown one, which is rarely meant.
    #[inline]
    pub fn find(&self, name: FieldName) -> Option<&Field> {
        self.0.iter().find(|field| field.name == name)
    }

    /// The first field called `name`, whatever its case; `head` is what the fields were parsed from.
    pub fn find_by_name(&self, head: &[u8], name: &[u8]) -> Option<&Field> {
        self.0.iter().find(|field| {
            field.name_at.len as usize == name.len() && field.name_at.bytes(head).eq_ignore_ascii_case(name)
        })
    }
}

impl<'f> IntoIterator for &'f Fields {
    type Item = &'f Field;
    type IntoIter = std::slice::Iter<'f, Field>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Whether `text` is `lower` in any case. `lower` has lower-case letters, digits and `-` only. Eight bytes at a time:
/// field names are short and there are many of them, and this is less than half of what `eq_ignore_ascii_case` costs.
#[inline]
pub(super) fn is_folded(text: &[u8], lower: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    let len = lower.len();
    if text.len() != len {
        return false;
    }
    if len < WORD {
        return text
            .iter()
            .zip(lower)
            .fold(0, |difference, (byte, low)| difference | difference_of(*byte, *low))
            == 0;
    }
    // The last word overlaps the one before.
    let mut at = 0;
    loop {
        let (Some(word), Some(low)) = (word_at(text, at), word_at(lower, at)) else { return false };
        // In `low` only letters have the bit 0x40; upper case lacks 0x20.
        if word | (low >> 1 & 0x2020_2020_2020_2020) != low {
            return false;
        }
        if at + WORD >= len {
            return true;
        }
        at = (at + WORD).min(len - WORD);
    }
}

#[inline]
fn difference_of(byte: u8, low: u8) -> u8 {
    (byte | low >> 1 & 0x20) ^ low
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
