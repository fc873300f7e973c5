//! The quick way takes nothing that the careful one refuses, and finds the same in what both take.

use proptest::prelude::*;

use super::super::{
    field::NameSet,
    head::{HeadLimits, Parsed},
    request::{self, RequestHead},
    response::{self, ResponseHead},
    write::{HeadWriter, LeftOut},
};
use super::*;
use crate::buf::{Buf, Size};

fn requests_agree(bytes: &[u8], limits: &HeadLimits) {
    let (mut quick, mut careful) = (RequestHead::default(), RequestHead::default());
    let carefully = request::careful_head(bytes, 0, &mut 0, limits, &mut careful);
    match request::fast_head(bytes, 0, limits, &mut quick) {
        Ok(None) => {}
        Ok(Some(head_len)) => {
            assert_eq!(carefully, Ok(Parsed::Complete { head_len }), "{:?}", String::from_utf8_lossy(bytes));
            assert_same_fields(bytes, &quick.fields, &careful.fields);
            (quick.fields, careful.fields) = Default::default();
            assert_eq!(quick, careful);
        }
        // Of several faults each way may name another.
        Err(error) => assert!(carefully.is_err(), "{error} only in {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn responses_agree(bytes: &[u8], limits: &HeadLimits) {
    let (mut quick, mut careful) = (ResponseHead::default(), ResponseHead::default());
    let carefully = response::careful_head(bytes, &mut 0, limits, &mut careful);
    match response::fast_head(bytes, limits, &mut quick) {
        Ok(None) => {}
        Ok(Some(head_len)) => {
            assert_eq!(carefully, Ok(Parsed::Complete { head_len }), "{:?}", String::from_utf8_lossy(bytes));
            assert_same_fields(bytes, &quick.fields, &careful.fields);
            (quick.fields, careful.fields) = Default::default();
            assert_eq!(quick, careful);
        }
        // Of several faults each way may name another.
        Err(error) => assert!(carefully.is_err(), "{error} only in {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// The same names, values and marks; where an empty value lies is nobody's business.
fn assert_same_fields(bytes: &[u8], quick: &Fields, careful: &Fields) {
    let seen = |fields: &Fields| {
        let parts = fields
            .iter()
            .map(|field| (field.name, field.hop, field.name_at, field.value_at.bytes(bytes).to_vec()));
        parts.collect::<Vec<_>>()
    };
    assert_eq!(seen(quick), seen(careful));
    assert_eq!(quick.names(), careful.names());
    assert_eq!(copied(bytes, quick), copied(bytes, careful));
}

/// What goes on of a head, without its first line.
fn copied(bytes: &[u8], fields: &Fields) -> Vec<u8> {
    let mut out = Buf::take(Size::Large).unwrap();
    let mut to = HeadWriter::new(&mut out);
    let head_len = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    to.fields(&bytes[..head_len], fields, &LeftOut::names(NameSet::NONE));
    to.finish().unwrap();
    out.filled().to_vec()
}

const HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a/b?c=d HTTP/1.1\r\nHost: example.com:80\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    "GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Y\r\nX-Y:\r\nX-Z:  \t tabs\tand spaces \t\r\n\r\n",
    "PUT /x HTTP/1.1\r\nhost:a\r\ntransfer-encoding:chunked\r\nexpect: 100-continue\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTE: trailers\r\n\r\n",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.0 200 Fine by me\r\nConnection: close\r\nX-Empty:\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b; c\r\n\r\n",
];

#[test]
fn plain_heads_are_taken_the_quick_way() {
    for head in HEADS {
        let mut into = RequestHead::default();
        let quick = request::fast_head(head.as_bytes(), 0, &HeadLimits::default(), &mut into);
        assert!(matches!(quick, Ok(Some(_))), "{head:?}: {quick:?}");
        requests_agree(head.as_bytes(), &HeadLimits::default());
    }
    for head in RESPONSES {
        let mut into = ResponseHead::default();
        let quick = response::fast_head(head.as_bytes(), &HeadLimits::default(), &mut into);
        assert!(matches!(quick, Ok(Some(_))), "{head:?}: {quick:?}");
        responses_agree(head.as_bytes(), &HeadLimits::default());
    }
}

#[test]
fn a_cut_head_is_not_taken() {
    for head in HEADS {
        let end = head.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..end {
            let quick = request::fast_head(
                &head.as_bytes()[..cut],
                0,
                &HeadLimits::default(),
                &mut RequestHead::default(),
            );
            assert_eq!(quick, Ok(None), "{head:?} cut at {cut}");
        }
    }
}

#[test]
fn every_byte_in_every_place() {
    let few = HeadLimits { headers: 3, target_bytes: 12, ..HeadLimits::default() };
    for byte in 0..=255 {
        for head in HEADS {
            for at in 0..head.len() {
                let mut bytes = head.as_bytes().to_vec();
                bytes[at] = byte;
                requests_agree(&bytes, &HeadLimits::default());
                requests_agree(&bytes, &few);
                bytes.insert(at, byte);
                requests_agree(&bytes, &HeadLimits::default());
            }
        }
        for head in RESPONSES {
            for at in 0..head.len() {
                let mut bytes = head.as_bytes().to_vec();
                bytes[at] = byte;
                responses_agree(&bytes, &HeadLimits::default());
                bytes.insert(at, byte);
                responses_agree(&bytes, &few);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_agree_on_any_bytes(
        which in 0..HEADS.len(),
        lines in proptest::collection::vec("[ -~\t]{0,30}", 0..4),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4),
    ) {
        for (heads, is_request) in [(HEADS, true), (RESPONSES, false)] {
            let head = heads[which % heads.len()];
            let end = head.find("\r\n\r\n").unwrap() + 2;
            let mut bytes = [&head[..end], &lines.join("\r\n"), "\r\n\r\n"].concat().into_bytes();
            for (at, byte, what) in &edits {
                let at = at.index(bytes.len());
                match what {
                    0 => bytes[at] = *byte,
                    1 => bytes.insert(at, *byte),
                    _ => { bytes.remove(at); }
                }
            }
            if is_request {
                requests_agree(&bytes, &HeadLimits::default());
            } else {
                responses_agree(&bytes, &HeadLimits::default());
            }
        }
    }
}
