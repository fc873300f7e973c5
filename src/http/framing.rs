//! How long a body is and what becomes of the connection, from the fields that say so (RFC 9112 §6 and §9). This is
//! where request smuggling begins or ends: one framing, stated once, in one way, or the message is refused.

use super::{
    extent::Extent,
    field::{FieldName, Fields, is_folded, list},
    head::{Noted, Seen, is_token, values},
    version::Version,
};

/// How a message's body is framed, by its fields.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither field: a request without a body.
    #[default]
    None,
    /// `Content-Length`, in bytes. `Exact(0)` was sent as such, and is worth sending on: a POST without a length is
    /// often refused (RFC 9110 §8.6).
    Exact(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl BodyLength {
    /// Whether no body byte follows the head.
    #[inline]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Exact(0))
    }
}

/// A framing that is wrong or could be read in two ways.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum FramingError {
    ContentLengthInvalid,
    ContentLengthRepeated,
    ContentLengthWithTransferEncoding,
    TransferEncodingInvalid,
    TransferEncodingUnknown,
    TransferEncodingInHttp10,
}

/// The framing that the fields state. RFC 9112 §6.3 lets a recipient repair some contradictions; this one does not.
#[inline]
pub(super) fn body_length(bytes: &[u8], noted: &Noted, version: Version) -> Result<BodyLength, FramingError> {
    match (noted.transfer_encoding.times, noted.content_length.times) {
        (0, 0) => Ok(BodyLength::None),
        (0, 1) => content_length(noted.content_length.first.bytes(bytes)).map(BodyLength::Exact),
        (0, _) => Err(FramingError::ContentLengthRepeated),
        // RFC 9112 §6.1: "MUST treat the message as if the framing is faulty".
        _ if version == Version::Http10 => Err(FramingError::TransferEncodingInHttp10),
        (1, 0) => transfer_encoding(noted.transfer_encoding.first.bytes(bytes)).map(|()| BodyLength::Chunked),
        (_, 0) => Err(FramingError::TransferEncodingInvalid),
        _ => Err(FramingError::ContentLengthWithTransferEncoding),
    }
}

/// `1*DIGIT` that fits 64 bits. A list is refused even when its elements are equal.
#[inline]
fn content_length(value: &[u8]) -> Result<u64, FramingError> {
    if value.is_empty() {
        return Err(FramingError::ContentLengthInvalid);
    }
    let mut length = 0_u64;
    for byte in value {
        let next = match byte {
            b'0'..=b'9' => length.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0'))),
            b',' => return Err(FramingError::ContentLengthRepeated),
            _ => None,
        };
        length = next.ok_or(FramingError::ContentLengthInvalid)?;
    }
    Ok(length)
}

/// Exactly `chunked`. Otherwise: an unknown coding when it is well formed and one could take it for the cause (501),
/// invalid when chunked itself is misused (400).
#[inline]
fn transfer_encoding(value: &[u8]) -> Result<(), FramingError> {
    if is_folded(value, b"chunked") { Ok(()) } else { Err(refused_coding(value)) }
}

#[cold]
fn refused_coding(value: &[u8]) -> FramingError {
    let mut unknown = false;
    let mut behind_chunked = false;
    for element in list(value) {
        let name = element.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
        let has_space = name.len() < element.len() && element[name.len()] != b';';
        if !is_token(name) || has_space || behind_chunked {
            return FramingError::TransferEncodingInvalid;
        }
        behind_chunked = is_folded(name, b"chunked");
        unknown |= !behind_chunked;
    }
    if unknown { FramingError::TransferEncodingUnknown } else { FramingError::TransferEncodingInvalid }
}

/// Options that one message's `Connection` fields may list: each is compared with every field of the head.
const CONNECTION_OPTIONS_MAX: usize = 64;

/// What `Connection` says.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl ConnectionOptions {
    /// Whether the connection outlives the exchange as far as this message is concerned (RFC 9112 §9.3).
    #[inline]
    pub(super) fn persist(self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The value of `Upgrade`, if it counts: named by `Connection` and not in HTTP/1.0 (RFC 9110 §7.8). An upgrade
    /// to `h2c` never counts: it would open a tunnel through which requests pass unseen, and RFC 9113 §3.1 has
    /// withdrawn it. Of several fields the first is taken; the sender only offered more.
    #[inline]
    pub(super) fn upgrade(self, bytes: &[u8], upgrade: &Seen, version: Version) -> Option<Extent> {
        let counts = self.upgrade && upgrade.times > 0 && version == Version::Http11;
        let at = upgrade.first;
        (counts && !at.is_empty() && !list(at.bytes(bytes)).any(|name| is_folded(name, b"h2c"))).then_some(at)
    }
}

/// Whether the connection outlives an exchange whose message says nothing of it.
#[inline]
pub(super) fn persists_unsaid(version: Version) -> bool {
    ConnectionOptions::default().persist(version)
}

/// A `Connection` field that is no list of tokens, or too long a one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionInvalid;

/// Reads `Connection` and marks as hop-by-hop the fields that it names and may name (RFC 9110 §7.6.1).
#[inline]
pub(super) fn connection(
    bytes: &[u8],
    noted: &Noted,
    fields: &mut Fields,
) -> Result<ConnectionOptions, ConnectionInvalid> {
    let mut options = ConnectionOptions::default();
    if noted.connection.times == 0 {
        return Ok(options);
    }
    if noted.connection.times == 1 {
        let value = noted.connection.first.bytes(bytes);
        options.keep_alive = is_folded(value, b"keep-alive");
        options.close = is_folded(value, b"close");
        if options.keep_alive || options.close {
            return Ok(options);
        }
    }
    read_connection(bytes, fields)
}

fn read_connection(bytes: &[u8], fields: &mut Fields) -> Result<ConnectionOptions, ConnectionInvalid> {
    let mut options = ConnectionOptions::default();
    let mut count = 0;
    for at in 0..fields.len() {
        let field = fields.as_slice()[at];
        if field.name != FieldName::Connection {
            continue;
        }
        for option in list(field.value_at.bytes(bytes)) {
            count += 1;
            if count > CONNECTION_OPTIONS_MAX || !(option.is_empty() || is_token(option)) {
                return Err(ConnectionInvalid);
            }
            options.close |= is_folded(option, b"close");
            options.keep_alive |= is_folded(option, b"keep-alive");
            options.upgrade |= is_folded(option, b"upgrade");
            if FieldName::recognise(option).may_be_nominated() {
                fields.end_here(|field| field.name_at.bytes(bytes).eq_ignore_ascii_case(option));
            }
        }
    }
    Ok(options)
}

/// Whether a `TE` field accepts trailers (RFC 9110 §10.1.4), in HTTP/1.1.
#[inline]
pub(super) fn accepts_trailers(bytes: &[u8], noted: &Noted, fields: &Fields, version: Version) -> bool {
    noted.te.times > 0
        && version == Version::Http11
        && values(bytes, fields, FieldName::Te).flat_map(list).any(|element| is_folded(element, b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lengths() {
        for (value, length) in [("0", 0), ("5", 5), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(content_length(value.as_bytes()), Ok(length));
        }
        for value in [
            "",
            "+5",
            "-1",
            "5 5",
            "0x5",
            "5.0",
            "18446744073709551616",
            "99999999999999999999999",
            "\u{665}",
        ] {
            assert_eq!(content_length(value.as_bytes()), Err(FramingError::ContentLengthInvalid), "{value}");
        }
        for value in ["5, 5", "5,5", "5,"] {
            assert_eq!(content_length(value.as_bytes()), Err(FramingError::ContentLengthRepeated), "{value}");
        }
    }

    #[test]
    fn transfer_encodings() {
        assert_eq!(transfer_encoding(b"chunked"), Ok(()));
        assert_eq!(transfer_encoding(b"Chunked"), Ok(()));
        for value in ["gzip", "gzip, chunked", "identity", "x-chunked", "gzip;q=1", "chunkedfoo"] {
            assert_eq!(
                transfer_encoding(value.as_bytes()),
                Err(FramingError::TransferEncodingUnknown),
                "{value}"
            );
        }
        for value in [
            "",
            ",",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "chunked, gzip",
            "chunked;a=b",
            "chun ked",
            "\"chunked\"",
            "chunked x",
        ] {
            assert_eq!(
                transfer_encoding(value.as_bytes()),
                Err(FramingError::TransferEncodingInvalid),
                "{value}"
            );
        }
    }
}
