//! A reading of HTTP/1.1 that forgives nothing, written from RFC 9110 and RFC 9112 for the tests and independent of the
//! parsers under test: what a byte sequence means if everybody is to agree on it.

/// What was found at the beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// A whole message, and how many bytes it has.
    Whole(T, usize),
    /// The beginning of one, which nothing contradicts yet.
    Part,
    /// No message.
    Bad(&'static str),
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A header or trailer section: names in lower case, and values.
pub type Fields = Vec<(String, Vec<u8>)>;

/// A request with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl Request {
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(at, _)| at == name).map(|(_, value)| value.as_slice())
    }
}

/// Why reading stopped.
enum Stop {
    Part,
    Bad(&'static str),
}

/// A step of reading: the value, and what is left.
type Step<'b, T> = Result<(T, &'b [u8]), Stop>;

/// The request at the beginning of `bytes`. `leading_crlf` allows one empty line before it (RFC 9112 §2.2).
pub fn request(bytes: &[u8], leading_crlf: bool) -> Found<Request> {
    match read_request(bytes, leading_crlf) {
        Ok((request, rest)) => Found::Whole(request, bytes.len() - rest.len()),
        Err(Stop::Part) => Found::Part,
        Err(Stop::Bad(why)) => Found::Bad(why),
    }
}

fn read_request(bytes: &[u8], leading_crlf: bool) -> Step<'_, Request> {
    let bytes = if leading_crlf { bytes.strip_prefix(b"\r\n").unwrap_or(bytes) } else { bytes };
    let (first, rest) = line(bytes)?;
    let mut parts = first.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return bad("request line");
    };
    if !is_token(method) || !is_target(target) || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return bad("request line");
    }
    let (fields, rest) = section(rest)?;
    let values = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(at, _)| at == name).map(|(_, value)| value.as_slice()).collect()
    };
    match values("host")[..] {
        [host] if !host.is_empty() && host.iter().all(|byte| is_host_byte(*byte)) => {}
        [] if version == b"HTTP/1.0" => {}
        _ => return bad("host"),
    }
    let framing = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Framing::None,
        ([length], []) => Framing::Length(number(length)?),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1" => {
            Framing::Chunked
        }
        _ => return bad("framing"),
    };
    let (body, trailers, rest) = match framing {
        Framing::None => (Vec::new(), Fields::new(), rest),
        Framing::Length(length) => {
            match usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at)) {
                Some((body, rest)) => (body.to_vec(), Fields::new(), rest),
                None => return Err(Stop::Part),
            }
        }
        Framing::Chunked => chunked(rest)?,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, target, version) = (text(method), text(target), text(version));
    Ok((Request { method, target, version, fields, framing, body, trailers }, rest))
}

/// A chunked body (RFC 9112 §7.1).
fn chunked(mut bytes: &[u8]) -> Result<(Vec<u8>, Fields, &[u8]), Stop> {
    let mut body = Vec::new();
    loop {
        let (head, rest) = line(bytes)?;
        let digits = head.iter().position(|byte| *byte == b';').unwrap_or(head.len());
        let (digits, extension) = head.split_at(digits);
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Stop::Bad("chunk size"));
        }
        if !extension.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            return Err(Stop::Bad("chunk extension"));
        }
        let size = digits.iter().fold(0_u64, |size, digit| {
            size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default())
        });
        if size == 0 {
            let (trailers, rest) = section(rest)?;
            return Ok((body, trailers, rest));
        }
        let Some((chunk, rest)) = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size))
        else {
            return Err(Stop::Part);
        };
        body.extend_from_slice(chunk);
        bytes = match rest {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Err(Stop::Part),
            _ => return Err(Stop::Bad("chunk end")),
        };
    }
}

/// Field lines up to the empty one.
fn section(mut bytes: &[u8]) -> Step<'_, Fields> {
    let mut fields = Fields::new();
    loop {
        let (text, rest) = line(bytes)?;
        bytes = rest;
        if text.is_empty() {
            return Ok((fields, bytes));
        }
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { return bad("field") };
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        if !is_token(name) || !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
            return bad("field");
        }
        let is_space = |byte: &&u8| matches!(**byte, b' ' | b'\t');
        let lead = value.iter().take_while(is_space).count();
        let trail = value[lead..].iter().rev().take_while(is_space).count();
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.push((name, value[lead..value.len() - trail].to_vec()));
    }
}

/// A line that CRLF ends, and that has neither in it.
fn line(bytes: &[u8]) -> Step<'_, &[u8]> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Err(Stop::Part);
    };
    match &bytes[end..] {
        [b'\r', b'\n', rest @ ..] => Ok((&bytes[..end], rest)),
        [b'\r'] => Err(Stop::Part),
        _ => bad("line ending"),
    }
}

fn number(text: &[u8]) -> Result<u64, Stop> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parsed = is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten();
    parsed.ok_or(Stop::Bad("length"))
}

fn bad<T>(why: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad(why))
}

fn is_token(text: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

fn is_target(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>'))
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}
