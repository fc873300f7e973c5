//! Templates: the notation, what each place lets in, and hostile values.

use proptest::{prelude::*, sample};

use super::*;

/// One exchange's values.
#[derive(Default)]
struct Values<'a> {
    path: &'a [u8],
    captures: &'a [&'a [u8]],
    query: &'a [u8],
    parameter: &'a [u8],
    host: &'a [u8],
    header: &'a [u8],
}

impl Variables for Values<'_> {
    fn write(&self, variable: &Variable, value: &mut Value<'_>) {
        match variable {
            Variable::ClientIp => value.put(b"2001:db8::1"),
            Variable::ClientPort => value.put(b"4711"),
            Variable::Host => value.put(self.host),
            Variable::Path => value.put(self.path),
            Variable::Capture(index) => value.put(self.captures[*index]),
            Variable::Query => value.put(self.query),
            Variable::QueryParameter(_) => value.put(self.parameter),
            Variable::Header(_) => value.put(self.header),
            Variable::RequestId => value.put(b"0-1"),
            Variable::Method => value.put(b"GET"),
            Variable::Scheme => value.put(b"https"),
            Variable::Tls(_) => value.put(b"a tls, value"),
            Variable::Route => value.put(b"a route"),
            Variable::Consumer => value.put(b"a consumer"),
            Variable::Subject => value.put(b"a subject"),
            Variable::Claim(name) => value.put(name.as_bytes()),
        }
    }

    fn evaluate(&self, _: &Expression, _: &[String]) -> Option<String> {
        None
    }
}

fn captures() -> Vec<String> {
    ["id", "rest", "host"].map(String::from).to_vec()
}

fn compile(text: &str, place: Place) -> Template {
    Template::compile(text, &captures(), place).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn render(text: &str, place: Place, values: &Values<'_>) -> Result<String, RenderError> {
    let mut out = b"before".to_vec();
    let result = compile(text, place).render(values, &mut out);
    let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    assert!(result.is_ok() || text.is_empty());
    result.map(|()| text)
}

#[test]
fn every_variable() {
    let values = Values {
        path: b"/a/b",
        captures: &[b"7", b"x/y", b"h"],
        query: b"q=1&r",
        parameter: b"1",
        host: b"a.example:80",
        header: b"v",
    };
    for (text, expected) in [
        ("{client.ip} {client.port}", "2001:db8::1 4711"),
        ("{host}{path}?{query}", "a.example:80/a/b?q=1&r"),
        ("{path.id},{path.rest},{id},{path.host}", "7,x/y,7,h"),
        ("{query.q}{header.X-A}", "1v"),
        ("{request.id}|{method}|{scheme}|{route}", "0-1|GET|https|a route"),
        ("{{{host}}}{{}}", "{a.example:80}{}"),
        ("", ""),
    ] {
        assert_eq!(render(text, Place::Body, &values).as_deref(), Ok(expected), "{text}");
        assert_eq!(render(text, Place::Header, &values).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn names_are_resolved_when_compiled() {
    let template = compile("{header.X-Id}{query.Q}{rest}", Place::Body);
    let expected =
        [Variable::Header("x-id".into()), Variable::QueryParameter("Q".into()), Variable::Capture(1)];
    assert!(template.variables().eq(&expected));
}

#[test]
fn a_text_without_variables_is_static() {
    for (text, expected) in [("", ""), ("plain", "plain"), ("{{a}}", "{a}")] {
        assert_eq!(compile(text, Place::Body).as_static(), Some(expected.as_bytes()));
    }
    assert_eq!(compile("a{host}", Place::Body).as_static(), None);
}

#[test]
fn errors_point_and_hint() {
    for (text, place, at, message, hint) in [
        ("a{hots}", Place::Body, 1, "unknown variable `{hots}`", "did you mean `{host}`?"),
        ("{client_ip}", Place::Body, 0, "unknown variable `{client_ip}`", "did you mean `{client.ip}`?"),
        ("é{path.idd}", Place::Body, 2, "the route's path captures no `idd`", "did you mean `{path.id}`?"),
        (
            "{path.zzzz}",
            Place::Body,
            0,
            "the route's path captures no `zzzz`",
            "it captures `id`, `rest`, `host`",
        ),
        ("{headers.x}", Place::Body, 0, "unknown variable `{headers.x}`", "did you mean `{header.x}`?"),
        ("/{*rest}", Place::Target, 1, "unknown variable `{*rest}`", "the capture is written `{rest}` here"),
        ("{}", Place::Body, 0, "unknown variable `{}`", "there are auth.subject, claims.NAME, client.ip"),
        ("{header.a b}", Place::Body, 0, "`a b` is not the name of a field", ""),
        ("{query.}", Place::Body, 0, "a query parameter needs a name", ""),
        (
            "ab{host",
            Place::Body,
            2,
            "this `{` is not closed",
            "a brace that is meant as such is written `{{`",
        ),
        ("{host{path}", Place::Body, 0, "this `{` is not closed", "a brace"),
        ("a}b", Place::Body, 1, "this `}` closes nothing", "a brace that is meant as such is written `}}`"),
        ("a\r\nb", Place::Header, 1, "a field's value has no control characters or line breaks", ""),
        ("v2/{id}", Place::Target, 0, "a rewritten path begins with `/`", "write `/v2/{id}`"),
        ("{id}/", Place::Target, 0, "a rewritten path begins with `/`", "write `/{id}/`"),
        ("/a b", Place::Target, 2, "' ' cannot be in a URL as it is", "write it percent-encoded: `%20`"),
        ("/é", Place::Target, 1, "'é' cannot be in a URL as it is", "write it percent-encoded: `%C3%A9`"),
        ("/50%", Place::Target, 3, "'%' cannot be in a URL as it is", "write it percent-encoded: `%25`"),
        ("/{{a", Place::Target, 1, "'{' cannot be in a URL as it is", "write it percent-encoded: `%7B`"),
        ("/a#b", Place::Target, 2, "a fragment is never sent to a server", ""),
        ("/a/../{id}", Place::Target, 3, "a rewritten path has no `.` or `..` segment", "write the path"),
        ("", Place::Location, 0, "a redirect needs a target", ""),
        (
            "https://a/\"",
            Place::Location,
            10,
            "'\"' cannot be in a URL as it is",
            "write it percent-encoded: `%22`",
        ),
    ] {
        let error = Template::compile(text, &captures(), place).unwrap_err();
        assert_eq!((error.at, error.message.as_str()), (at, message), "{text}");
        assert!(error.hint.unwrap_or_default().starts_with(hint), "{text}");
    }
    let long = "/".repeat(TEMPLATE_OUTPUT_MAX + 1);
    assert!(Template::compile(&long, &[], Place::Target).is_err());
    assert!(Template::compile(&format!("{long}{{host}}"), &[], Place::Body).is_err());
    assert_eq!(compile(&long, Place::Body).as_static().map(<[u8]>::len), Some(long.len()));
}

#[test]
fn a_value_cannot_end_a_field() {
    let rendered =
        |header| render("<{header.x}>", Place::Header, &Values { header, ..Values::default() }).unwrap();
    assert_eq!(rendered(b"a: \"\t\xc3\xa9"), "<a: \"\té>");
    // What is left of a name without them could be another's.
    for value in [&b"a\r\nset-cookie: x"[..], b"ad\0min", b"\x1b", b"admin\x7f"] {
        assert_eq!(rendered(value), "<>");
    }
}

#[test]
fn rewrites_keep_what_is_canonical_and_encode_the_rest() {
    let values = Values {
        path: b"/a%2Fb/c;v=1",
        captures: &[b"7%2F8&9", b"x/y+z", b""],
        query: b"q=a%20b&r=/?",
        parameter: b"J%C3%B6rg/x?#&+%zz",
        host: b"a.example:80",
        header: b"/a b%2e?",
    };
    for (text, expected) in [
        ("{path}", "/a%2Fb/c;v=1"),
        ("/v2/{id}/{rest}", "/v2/7%2F8&9/x/y+z"),
        ("/v2{path}?{query}", "/v2/a%2Fb/c;v=1?q=a%20b&r=/?"),
        ("/u/{query.name}", "/u/J%C3%B6rg%2Fx%3F%23%26%2B%25zz"),
        ("/u?id={id}&p={path.rest}&n={query.name}", "/u?id=7%2F8%269&p=x/y%2Bz&n=J%C3%B6rg/x?%23%26+%25zz"),
        ("/{header.x}", "/%2Fa%20b%252e%3F"),
        ("/{client.ip}/{host}/{route}", "/2001%3Adb8%3A%3A1/a.example%3A80/a%20route"),
        ("/a?{header.x}", "/a?%2Fa%20b%252e%3F"),
    ] {
        assert_eq!(render(text, Place::Target, &values).as_deref(), Ok(expected), "{text}");
    }
    assert!(compile("/a?b={id}", Place::Target).has_query() && !compile("/a", Place::Target).has_query());
    assert!(!compile("/a?b", Place::Body).has_query());
}

#[test]
fn a_value_makes_no_dot_segment() {
    for (text, parameter) in [
        ("/a/{query.x}/b", ".."),
        ("/a/{query.x}", "%2e%2E"),
        ("/a/.{query.x}", "."),
        ("/a/{query.x}.", ""),
        // `encoded_slash = "decode"` would make a segment of it.
        ("/a/{query.x}", "..%2f..%2fadmin"),
        ("/a/{query.x}", "b/../../admin"),
        ("/a/{query.x}?b", "x%5c.."),
    ] {
        let values = Values { parameter: parameter.as_bytes(), ..Values::default() };
        assert_eq!(render(text, Place::Target, &values), Err(RenderError::DotSegment), "{text} {parameter}");
    }
    let values = Values { parameter: b"..", ..Values::default() };
    assert_eq!(render("/a?b=/{query.x}/", Place::Target, &values).as_deref(), Ok("/a?b=/../"));
}

#[test]
fn redirects_lead_where_they_say() {
    let values = Values {
        path: b"//evil.example/x",
        captures: &[b"evil.example/a", b"/evil.example", b""],
        query: b"q=1#f",
        parameter: b"https://evil.example/",
        host: b"a.example:80",
        header: b"javascript:alert(1)",
    };
    for (text, expected) in [
        ("https://{host}{path}", "https://a.example:80//evil.example/x"),
        ("{scheme}://{host}/new?{query}", "https://a.example:80/new?q=1%23f"),
        ("{path}", "/evil.example/x"),
        ("/{rest}", "/evil.example"),
        ("https://{id}.example.com/", "https://evil.example%2Fa.example.com/"),
        ("//{id}.example.com/{id}", "//evil.example%2Fa.example.com/evil.example/a"),
        ("{query.next}", "https%3A%2F%2Fevil.example%2F"),
        ("{header.x}", "javascript%3Aalert%281%29"),
        ("https:{path}", "https:%2F%2Fevil.example%2Fx"),
        ("https://[::1]:8443{path}#top", "https://[::1]:8443//evil.example/x#top"),
        ("/login?next={query.next}", "/login?next=https://evil.example/"),
    ] {
        assert_eq!(render(text, Place::Location, &values).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_redirect_without_a_host_leads_nowhere() {
    for (text, header) in [
        ("https://{host}{path}", ""),
        ("//{host}", ""),
        ("//{host}:8443/", ""),
        ("{scheme}://{host}?a", ""),
        ("{header.x}://{host}/a//b", "//"),
    ] {
        let values = Values { path: b"/evil.example/", header: header.as_bytes(), ..Values::default() };
        assert_eq!(render(text, Place::Location, &values), Err(RenderError::NoHost), "{text}");
    }
    // No authority was meant here.
    let values = Values { query: b"///", ..Values::default() };
    assert_eq!(render("a?{query}", Place::Location, &values).as_deref(), Ok("a?///"));
}

#[test]
fn too_long_is_refused_at_the_byte() {
    let value = vec![b'a'; TEMPLATE_OUTPUT_MAX];
    let values = Values { header: &value, parameter: b" ", ..Values::default() };
    assert_eq!(render("{header.x}", Place::Body, &values).map(|text| text.len()), Ok(TEMPLATE_OUTPUT_MAX));
    for text in ["{header.x}a", "a{header.x}", "{header.x}{header.x}"] {
        assert_eq!(render(text, Place::Body, &values), Err(RenderError::TooLong), "{text}");
    }
    let values = Values { header: &[b' '; 6000], ..Values::default() };
    assert_eq!(render("/{header.x}", Place::Target, &values), Err(RenderError::TooLong));
}

/// Values as hostile clients send them; the path and its captures are canonical, as they always are.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![sample::select(b"/.%2eEfF?#&;= \r\n\x00\\\"@:".to_vec()), any::<u8>()];
    prop::collection::vec(byte, 0..12)
}

/// Text with variables for a URL.
fn url_text() -> impl Strategy<Value = String> {
    let piece = sample::select(vec![
        "/",
        "a",
        "?",
        "&b=",
        ".",
        "{path}",
        "{id}",
        "{rest}",
        "{query}",
        "{query.x}",
        "{header.x}",
        "{host}",
        "{client.ip}",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn any_text_compiles_or_points_into_itself(text in "[ -~\\n]{0,30}|\\PC{0,10}|[{}a-z.]{0,20}") {
        for place in [Place::Header, Place::Target, Place::Location, Place::Body] {
            match Template::compile(&text, &captures(), place) {
                Ok(template) => {
                    let mut out = Vec::new();
                    let values = Values { captures: &[b"", b"", b""], ..Values::default() };
                    let _ = template.render(&values, &mut out);
                }
                Err(error) => prop_assert!(text.is_char_boundary(error.at)),
            }
        }
    }

    #[test]
    fn doubled_braces_stand_for_themselves(text in "[ -~]{0,30}") {
        let doubled = text.replace('{', "{{").replace('}', "}}");
        let template = compile(&doubled, Place::Body);
        prop_assert_eq!(template.as_static(), Some(text.as_bytes()));
    }

    #[test]
    fn a_field_stays_one_field(header in hostile(), query in hostile(), host in hostile()) {
        let values = Values { header: &header, query: &query, host: &host, ..Values::default() };
        let mut out = Vec::new();
        compile("{header.x}{query}{host}", Place::Header).render(&values, &mut out).unwrap();
        prop_assert!(!out.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'));
    }

    /// A rewritten target has the operator's `?`, no `#`, no byte that is no URL's, and in its path only slashes that
    /// the text or the canonical path had.
    #[test]
    fn a_target_stays_in_its_bounds(
        text in url_text(),
        (parameter, query, header, host) in (hostile(), hostile(), hostile(), hostile()),
        path in "(/[a-z.%]{0,4}){1,3}",
        id in "[a-z]{1,3}",
    ) {
        let values = Values {
            path: path.as_bytes(),
            captures: &[id.as_bytes(), &path.as_bytes()[1..], b""],
            query: &query,
            parameter: &parameter,
            host: &host,
            header: &header,
        };
        let Ok(template) = Template::compile(&text, &captures(), Place::Target) else { return Ok(()) };
        let mut out = Vec::new();
        if template.render(&values, &mut out).is_err() {
            prop_assert!(out.is_empty());
            return Ok(());
        }
        let rendered = String::from_utf8(out).unwrap();
        let is_fit = |byte: u8| byte.is_ascii_graphic() && !b"#\\\"<>{}^`|".contains(&byte);
        prop_assert!(rendered.bytes().all(is_fit), "{}", rendered);
        let path_of = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
        let (text_path, out_path) = (path_of(&text), path_of(&rendered));
        prop_assert_eq!(rendered.contains('?'), text.contains('?'));
        prop_assert_eq!(template.has_query(), text.contains('?'));
        let of_path = text_path.matches("{path}").count() * path.matches('/').count()
            + text_path.matches("{rest}").count() * path[1..].matches('/').count();
        prop_assert_eq!(out_path.matches('/').count(), text_path.matches('/').count() + of_path);
        prop_assert!(out_path.split('/').all(|segment| !matches!(segment, "." | "..")));
    }

    /// A redirect within the site stays there.
    #[test]
    fn a_rooted_redirect_names_no_host(text in url_text(), header in hostile(), path in "/{1,3}[a-z./]{0,6}") {
        let text = format!("/{}", text.trim_start_matches('/'));
        let values = Values {
            path: path.as_bytes(),
            captures: &[b"", &path.as_bytes()[1..], b""],
            query: &header,
            parameter: &header,
            host: &header,
            header: &header,
        };
        let mut out = Vec::new();
        compile(&text, Place::Location).render(&values, &mut out).unwrap();
        prop_assert!(out.starts_with(b"/") && !out.starts_with(b"//") && !out.starts_with(b"/\\"));
    }
}
