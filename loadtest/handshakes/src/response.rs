//! Whether bytes are one whole response. It reads no more of HTTP than a load test needs.

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Whether these bytes are a response of status 200 with exactly as many bytes of body as it says.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
        return false;
    };
    let (head, rest) = bytes.split_at(end);
    let body = rest.len() - END_OF_HEAD.len();
    head.starts_with(b"HTTP/1.1 200 ") && content_length(head) == Some(body)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let mut fields = str::from_utf8(head).ok()?.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_with_its_last_byte_only() {
        let wire = b"HTTP/1.1 200 OK\r\nvia: a\r\nContent-Length: 4\r\n\r\nbody";
        for end in 0..wire.len() {
            assert!(!is_whole(&wire[..end]), "cut at {end}");
        }
        assert!(is_whole(wire));
        assert!(!is_whole(&[wire.as_slice(), b"!"].concat()));
    }

    #[test]
    fn other_statuses_are_refused() {
        assert!(!is_whole(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\n"));
    }
}
