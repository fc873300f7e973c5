//! gRPC-Web made into gRPC and back (the gRPC project's `PROTOCOL-WEB.md`): what browsers can say, for endpoints that speak gRPC
//! only. Messages are framed alike; what differs is the content type, the trailers, which come as a last frame of the body, and that
//! all of it may be in base64.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::message::trailer_lines;

const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"application/grpc-web-text";

/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// How a caller speaks gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GrpcWeb {
    /// Whether its messages come in base64.
    asks_in_text: bool,
    /// Whether it would have the answer so.
    reads_text: bool,
}

/// What of a content type is behind its name: a format (`+proto`), parameters, or nothing. `None`: it is another.
fn behind<'t>(content_type: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = content_type.split_at_checked(name.len())?;
    let is_name = start.eq_ignore_ascii_case(name) && matches!(rest.first(), None | Some(b'+' | b';' | b' '));
    is_name.then_some(rest)
}

/// Whether a `Content-Type` is gRPC-Web's, in either form.
pub fn is_grpc_web(content_type: &[u8]) -> bool {
    behind(content_type, WEB).or_else(|| behind(content_type, TEXT)).is_some()
}

impl GrpcWeb {
    /// Makes a request one of gRPC; `None`: it is none of gRPC-Web, and stays as it is.
    pub(super) fn translate_request(fields: &mut HeaderMap) -> Option<Self> {
        let content_type = fields.get(header::CONTENT_TYPE)?.as_bytes();
        let text = behind(content_type, TEXT);
        let format = text.or_else(|| behind(content_type, WEB))?;
        let translated = HeaderValue::from_bytes(&[GRPC, format].concat()).ok()?;
        let accept = fields.get(header::ACCEPT).map_or(&b""[..], HeaderValue::as_bytes).to_ascii_lowercase();
        let has = |name| memchr::memmem::find(&accept, name).is_some();
        let asks_in_text = text.is_some();
        let reads_text = has(TEXT) || (asks_in_text && !has(WEB));
        fields.insert(header::CONTENT_TYPE, translated);
        if asks_in_text {
            fields.remove(header::CONTENT_LENGTH);
        }
        fields.remove("x-grpc-web");
        fields.remove(header::ACCEPT);
        Some(Self { asks_in_text, reads_text })
    }

    /// What makes a request's body one of gRPC, if something must.
    pub(super) fn decoder(self) -> Option<Decoder> {
        self.asks_in_text.then(Decoder::default)
    }

    /// Makes a response's head one of gRPC-Web; `false`: it is none of gRPC, and stays as it is.
    pub(super) fn translate_response(self, fields: &mut HeaderMap) -> bool {
        let Some(content_type) = fields.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else {
            return false;
        };
        let Some(format) = behind(content_type, GRPC) else { return false };
        let name = if self.reads_text { TEXT } else { WEB };
        let Ok(translated) = HeaderValue::from_bytes(&[name, format].concat()) else { return false };
        fields.insert(header::CONTENT_TYPE, translated);
        // Its trailers come behind.
        fields.remove(header::CONTENT_LENGTH);
        fields.remove(header::TRAILER);
        true
    }

    /// A piece of a response's body in base64, if the caller wants it so. Each piece is whole, so that none waits for the next.
    pub(super) fn encode(self, piece: &[u8]) -> Option<Bytes> {
        self.reads_text.then(|| encode(piece).into())
    }

    /// The frame that a response ends with.
    pub(super) fn last_frame(self, trailers: &HeaderMap) -> Bytes {
        let lines = trailer_lines(trailers);
        let mut frame = vec![TRAILERS];
        frame.extend_from_slice(&(lines.len() as u32).to_be_bytes());
        frame.extend_from_slice(&lines);
        self.encode(&frame).unwrap_or_else(|| frame.into())
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes in base64, padded.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let all = group.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(all >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { digit } else { b'=' });
        }
    }
    text
}

/// Base64 as it comes: in any pieces, and padded wherever a piece of the sender's has ended.
#[derive(Debug, Default)]
pub struct Decoder {
    bits: u32,
    /// Digits, and then padding, of the group that is not complete.
    digits: u8,
    padding: u8,
}

/// It is no base64.
#[derive(Debug, PartialEq, Eq)]
pub struct NotBase64;

impl Decoder {
    /// Appends what more of the text stands for.
    ///
    /// # Errors
    /// It stands for nothing.
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        out.reserve(text.len() / 4 * 3 + 3);
        for byte in text {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if self.digits >= 2 => {
                    self.padding += 1;
                    self.bits <<= 6;
                    self.group(out)?;
                    continue;
                }
                _ => return Err(NotBase64),
            };
            if self.padding > 0 {
                return Err(NotBase64);
            }
            self.bits = self.bits << 6 | u32::from(value);
            self.digits += 1;
            self.group(out)?;
        }
        Ok(())
    }

    /// Appends a group that is complete.
    fn group(&mut self, out: &mut Vec<u8>) -> Result<(), NotBase64> {
        if self.digits + self.padding < 4 {
            return Ok(());
        }
        let bytes = self.bits.to_be_bytes();
        let (whole, rest) = bytes[1..].split_at(usize::from(3 - self.padding));
        // What is left over must say nothing, so that each message has one form.
        if rest.iter().any(|byte| *byte != 0) {
            return Err(NotBase64);
        }
        out.extend_from_slice(whole);
        *self = Self::default();
        Ok(())
    }

    /// Whether the text may end here.
    pub fn is_whole(&self) -> bool {
        self.digits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        pieces.iter().try_for_each(|piece| decoder.decode(piece, &mut out)).ok()?;
        decoder.is_whole().then_some(out)
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn content_types_go_there_and_back() {
        for (asked, accept, upstream, answered) in [
            ("application/grpc-web", "", "application/grpc", "application/grpc-web"),
            ("application/grpc-web+proto", "*/*", "application/grpc+proto", "application/grpc-web+proto"),
            (
                "Application/gRPC-Web-Text+proto",
                "",
                "application/grpc+proto",
                "application/grpc-web-text+proto",
            ),
            (
                "application/grpc-web+proto",
                "application/grpc-web-text",
                "application/grpc+proto",
                "application/grpc-web-text+proto",
            ),
            ("application/grpc-web-text", "application/grpc-web", "application/grpc", "application/grpc-web"),
        ] {
            let mut request =
                fields(&[("content-type", asked), ("content-length", "8"), ("x-grpc-web", "1")]);
            if !accept.is_empty() {
                request.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            let web = GrpcWeb::translate_request(&mut request).unwrap();
            assert_eq!(request[header::CONTENT_TYPE], upstream);
            assert_eq!(request.contains_key(header::CONTENT_LENGTH), !web.asks_in_text);
            let mut response = fields(&[("content-length", "8")]);
            response.insert(header::CONTENT_TYPE, request[header::CONTENT_TYPE].clone());
            assert!(web.translate_response(&mut response));
            assert_eq!(response[header::CONTENT_TYPE], answered);
            assert!(!response.contains_key(header::CONTENT_LENGTH));
        }
        for other in ["application/grpc", "application/grpc-webx", "application/grpc-web-texts", "text/plain"]
        {
            assert_eq!(GrpcWeb::translate_request(&mut fields(&[("content-type", other)])), None, "{other}");
            assert!(!is_grpc_web(other.as_bytes()));
        }
        let web = GrpcWeb { asks_in_text: false, reads_text: false };
        assert!(
            !web.translate_response(&mut fields(&[("content-type", "text/html"), ("content-length", "8")]))
        );
        assert!(!web.translate_response(&mut fields(&[])));
    }

    #[test]
    fn trailers_are_a_frame() {
        let trailers = fields(&[("grpc-status", "0"), ("x-bin", "AA==")]);
        let web = GrpcWeb { asks_in_text: false, reads_text: false };
        assert_eq!(web.last_frame(&trailers), &b"\x80\0\0\0\x1dgrpc-status: 0\r\nx-bin: AA==\r\n"[..]);
        let text = GrpcWeb { reads_text: true, ..web };
        assert_eq!(decoded(&[&text.last_frame(&trailers)]).unwrap(), web.last_frame(&trailers));
    }

    #[test]
    fn base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encode(bytes.as_bytes()), text.as_bytes());
            assert_eq!(decoded(&[text.as_bytes()]).unwrap(), bytes.as_bytes());
        }
        // Padded where a piece has ended.
        assert_eq!(decoded(&[b"Zg==Zm8=Zm9v"]).unwrap(), b"ffofoo");
        for wrong in
            ["Z", "Zg", "Zg=", "=", "Z===", "Zg=a", "Zg==Z", "Zm9v\n", "Zm-v", "Zh==", "Zm9=", "Zg==="]
        {
            assert_eq!(decoded(&[wrong.as_bytes()]), None, "{wrong}");
        }
    }

    proptest! {
        /// In any pieces on both sides.
        #[test]
        fn what_is_encoded_is_decoded(bytes: Vec<u8>, at: prop::sample::Index, cut: prop::sample::Index) {
            let at = at.index(bytes.len() + 1);
            let text = [encode(&bytes[..at]), encode(&bytes[at..])].concat();
            let cut = cut.index(text.len() + 1);
            prop_assert_eq!(decoded(&[&text[..cut], &text[cut..]]), Some(bytes));
        }

        /// Whatever comes, no more comes out than three quarters, and alike in any pieces.
        #[test]
        fn hostile_text(text in "[A-Za-z0-9+/=!]{0,40}", cut: prop::sample::Index) {
            let text = text.as_bytes();
            let whole = decoded(&[text]);
            let cut = cut.index(text.len() + 1);
            prop_assert_eq!(&decoded(&[&text[..cut], &text[cut..]]), &whole);
            prop_assert!(whole.is_none_or(|bytes| bytes.len() <= text.len() / 4 * 3));
        }
    }
}
