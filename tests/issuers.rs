//! Tokens whose issuers publish their keys: fetched, refreshed, kept while an issuer is down, and never believed for a key that is gone.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use support::{
    Gateway, Upstream,
    mint::{Files, Mint},
    ok,
    secure::{EACH_VERSION, server},
    within,
};

/// A key of an issuer.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        Self { id, pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap() }
    }

    /// As it is published.
    fn published(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!(
            r#"{{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"{}","x":"{x}","y":"{y}"}}"#,
            self.id
        )
    }

    fn token(&self) -> String {
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.id);
        let signed = [header.as_str(), r#"{"sub":"anna","exp":4102444800}"#]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let mark = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark.as_ref()))
    }
}

fn set(signers: &[&Signer]) -> String {
    let keys: Vec<String> = signers.iter().map(|signer| signer.published()).collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A gateway that asks for tokens, with these keys of its policy.
fn gateway(jwt: &str) -> Gateway {
    Gateway::start(&support::config(&format!(
        "[[policy]]\nname = \"login\"\ndefault = true\njwt = {{ algorithms = [\"ES256\"], {jwt} }}\n\
         [[route]]\nname = \"here\"\nrespond = {{ body = \"yes\" }}\n"
    )))
}

/// How a request with this token is answered.
fn status(gateway: &Gateway, token: &str) -> u16 {
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    client.response().status
}

fn becomes(gateway: &Gateway, token: &str, expected: u16) {
    within("the token's fate", || (status(gateway, token) == expected).then_some(()));
}

#[test]
fn keys_are_fetched_and_changed_for_those_that_a_token_names() {
    let (issuer, mut asked) = Upstream::asking();
    let (old, new, never) = (Signer::new("old"), Signer::new("new"), Signer::new("never"));
    let gateway = gateway(&format!("jwks = \"http://{}/keys\", refresh = \"1h\"", issuer.address));
    let question = asked.question();
    assert_eq!(question.path(), "/keys");
    // Until there are keys, no one knows who is who.
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", old.token()));
    let response = client.response();
    assert_eq!(response.status, 503);
    assert!(response.text().contains("token-keys-missing"), "{}", response.text());
    assert_eq!(status(&gateway, "a.b.c"), 401);
    question.ok(&set(&[&old]));
    becomes(&gateway, &old.token(), 200);
    assert_eq!(status(&gateway, &never.token()), 401);
    // That one has asked: the issuer publishes others by now. Whoever was believed is not any longer.
    asked.question().ok(&set(&[&new]));
    becomes(&gateway, &new.token(), 200);
    assert_eq!(status(&gateway, &old.token()), 401);
    assert_eq!(status(&gateway, &never.token()), 401);
    // Again at once no one is asked, however many tokens name what is not there.
    assert!(!asked.has_question());
}

#[test]
fn an_issuer_that_is_down_or_talks_nonsense_changes_nothing() {
    let signer = Signer::new("one");
    let answers = Arc::new(Mutex::new((0, ok(set(&[&signer]).as_bytes()))));
    let shared = Arc::clone(&answers);
    let issuer = Upstream::answering(move |_, _| {
        let mut answers = shared.lock().unwrap();
        answers.0 += 1;
        answers.1.clone()
    });
    let gateway = gateway(&format!("jwks = \"http://{}/\", refresh = \"1ms\"", issuer.address));
    becomes(&gateway, &signer.token(), 200);
    for nonsense in [
        ok(b"{\"keys\":[]}"),
        ok(b"<html>"),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ok(&vec![b' '; 300 * 1024]),
        Vec::new(),
    ] {
        let asked = {
            let mut answers = answers.lock().unwrap();
            answers.1 = nonsense;
            answers.0
        };
        within("the issuer is asked again", || (answers.lock().unwrap().0 > asked).then_some(()));
        gateway.message("those before stay in force");
        assert_eq!(status(&gateway, &signer.token()), 200);
    }
}

/// An issuer's metadata, and its keys beside them.
fn issuer(named: impl Fn(SocketAddr) -> String, keys: String) -> Upstream {
    let own = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&own);
    let upstream = Upstream::answering(move |head, _| {
        let own = shared.lock().unwrap().clone();
        if head.starts_with("GET /tenant/.well-known/openid-configuration ") {
            let keys = own.split("/tenant").next().unwrap_or_default();
            return ok(format!(r#"{{"issuer":"{own}","jwks_uri":"{keys}/published"}}"#).as_bytes());
        }
        if head.starts_with("GET /published ") { ok(keys.as_bytes()) } else { Vec::new() }
    });
    *own.lock().unwrap() = named(upstream.address);
    upstream
}

#[test]
fn an_issuer_tells_where_its_keys_are() {
    let signer = Signer::new("one");
    let token = {
        // Of this issuer, so that `iss` is what it should be.
        let upstream = issuer(|address| format!("http://{address}/tenant"), set(&[&signer]));
        let name = format!("http://{}/tenant", upstream.address);
        let gateway = gateway(&format!("issuer = \"{name}\", discovery = true"));
        let claims = format!(r#"{{"iss":"{name}","exp":4102444800}}"#);
        let signed =
            [r#"{"alg":"ES256","kid":"one"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let mark = signer.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark.as_ref()));
        becomes(&gateway, &token, 200);
        // `iss` is asked for as ever.
        assert_eq!(status(&gateway, &signer.token()), 401);
        token
    };
    // Metadata of someone else are not believed.
    let upstream = issuer(|_| "http://someone.else/tenant".into(), set(&[&signer]));
    let name = format!("http://{}/tenant", upstream.address);
    let gateway = gateway(&format!("issuer = \"{name}\", discovery = true"));
    gateway.message("is another issuer's");
    assert_eq!(status(&gateway, &token), 503);
}

#[test]
fn keys_in_a_file_are_taken_when_they_change() {
    let files = Files::new();
    let (first, second) = (Signer::new("1"), Signer::new("2"));
    let file = files.write("keys.json", &set(&[&first]));
    let gateway = gateway(&format!("jwks = \"{file}\""));
    becomes(&gateway, &first.token(), 200);
    files.write("keys.json", "{}");
    gateway.message("has no list `keys`; the keys of tokens before stay in force");
    assert_eq!(status(&gateway, &first.token()), 200);
    files.write("keys.json", &set(&[&second]));
    becomes(&gateway, &second.token(), 200);
    assert_eq!(status(&gateway, &first.token()), 401);
}

#[test]
fn an_issuer_is_who_it_should_be() {
    let signer = Signer::new("one");
    let (root, others) = (Mint::new("root"), Mint::new("others"));
    let files = Files::new();
    let ca = files.write("root.pem", &root.cert);
    for (pair, is_believed) in [
        (root.pair(&["127.0.0.1"]), true),
        (root.pair(&["other.test"]), false),
        (others.pair(&["127.0.0.1"]), false),
    ] {
        let config = server(&pair, EACH_VERSION[1], None);
        let keys = set(&[&signer]);
        let issuer = Upstream::scripted(move |peer, _| {
            let Ok(mut peer) = peer.serving(&config) else { return };
            if peer.try_head().is_some() {
                peer.try_send(ok(keys.as_bytes()));
            }
        });
        let gateway = gateway(&format!("jwks = \"https://{}/\", jwks_ca = \"{ca}\"", issuer.address));
        if is_believed {
            becomes(&gateway, &signer.token(), 200);
        } else {
            let told = gateway.message("keys of tokens: https://");
            assert!(told.contains("certificate"), "{told}");
            assert_eq!(status(&gateway, &signer.token()), 503);
        }
    }
}
