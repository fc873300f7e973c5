//! `docs/configuration.md`, made from the schema: what the doc comments of [`super::types`] say, in tables, around the
//! prose that concerns no single key. It describes; what is right or wrong is decided elsewhere.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    schema,
    shape::{Member, Shape, listed},
};

const INTRODUCTION: &str = r#"# Configuration reference

ringgate reads one TOML file. This page lists every key. It is generated from `src/config/types.rs`; to renew it,
run `RINGGATE_BLESS=1 cargo test --lib config::reference`. `config/reference.toml` is the same as a file to copy from.

- `ringgate check FILE` reports everything that is wrong with a file, each with its line and what to do about it.
- `ringgate explain FILE METHOD URL` shows which route a request would take, and why the others would not.
- `ringgate schema` prints the JSON Schema of the file, for editors that complete and check as you type.

A smallest useful file:

```toml
[[listener]]
name = "public"
address = "0.0.0.0:8080"

[[cluster]]
name = "users"
endpoints = [{ address = "10.0.0.1:9000" }]

[[route]]
name = "users"
match = { path = "/users/*" }
cluster = "users"
```

## Notation

**Unknown keys are errors.** A misspelt key is never passed over.

**Tables** can be written as sections or in one line: `[cluster.sticky]` with keys below it, or
`sticky = { cookie = "c" }` in its `[[cluster]]`. `[[listener]]`, `[[cluster]]`, `[[policy]]`, `[[route]]` and `[[core]]` may
be repeated; each begins a new one.

**Durations** are a number and a unit in a string: `"250ms"`, `"5s"`, `"2m"`, `"1h"`, `"1d"`. The longest is a year.
Zero is `"0s"`; it is allowed where the description says what it means.

**Sizes** are a number and a unit in a string. `"64KiB"`, `"10MiB"` and `"1GiB"` count in steps of 1024; `"64KB"`,
`"10MB"` and `"1GB"` in steps of 1000; `"512B"` is bytes.

**Addresses** are `ip:port`, with IPv6 in brackets: `"10.0.0.1:9000"`, `"[::1]:9000"`. Names are not resolved. `[::]` is
every IPv6 address and no IPv4 one; for both, write two listeners.

**File names** that do not begin with `/` begin in the directory that ringgate was started in. Files of certificates and keys
are PEM, at most 1 MiB each; `ringgate check` reads them too.

**Interpolation.** Any string value may refer to the environment or to a file:

| written | becomes |
|---|---|
| `${NAME}` | the environment variable `NAME` |
| `${file:/run/secrets/key}` | the text of this file (at most 64 KiB, UTF-8, absolute path), without one newline at its end |
| `$${` | `${` itself |

A variable that is not set, or a file that cannot be read, is an error. Messages show such a value as it is written in the
file, never what it stands for. Only values are interpolated, not keys, and what a reference yields is not looked at again.

**Limits.** A configuration file has at most 64 MiB. All references together may yield as much.
"#;

const EXPRESSIONS: &str = r#"## Expressions

`match.when`, `allow` of a policy, `access_log.when` and the other keys that say so hold expressions of [CEL](https://github.com/google/cel-spec), the Common Expression Language:

```toml
[[route]]
name = "beta"
match = { path = "/shop/*", when = "request.headers['x-beta'] == '1' && request.client.ip != '192.0.2.1'" }
cluster = "beta"

[[policy]]
name = "tenants"
allow = "claims.tenant == request.params.tenant || 'operator' in claims.roles"
```

| name | type | what it is |
|---|---|---|
| `request.method` | string | as sent |
| `request.scheme` | string | `http` or `https`, by the connection |
| `request.host` | string | in lower case, without its port |
| `request.path` | string | the canonical path |
| `request.params` | map | what the route's captures took: `request.params.id` |
| `request.query` | map | parameters of the query, decoded |
| `request.headers` | map | fields, by their names in any case; of one that comes more than once, the values with `, ` between. What strangers claim and does not go on is not there |
| `request.cookies` | map | cookies |
| `request.size` | int | bytes of the body by `Content-Length`; 0 without a body, -1 where its length is not known beforehand |
| `request.id` | string | what goes on as `X-Request-Id` |
| `request.client.ip`, `request.client.port` | string, int | whose request it is, as in the log |
| `request.tls.version`, `request.tls.server_name` | string | what the connection speaks, and the name that was asked for; empty without TLS |
| `request.tls.client_subject`, `request.tls.client_fingerprint` | string | of the client's certificate, as in the log; empty without one |
| `request.tls.client_names` | map | the names and addresses that the client's certificate is for: `'pc.example' in request.tls.client_names` |
| `auth` | map | who asks: `auth.subject`, `sub` of the token that the request shows or the user whose password it shows, and `auth.consumer`, whose key it shows. What is not known is not there, so that what compares it fails. Not in `match.when` |
| `claims` | map | what its token says: `claims.org.id`, `'admin' in claims.roles`. Not in `match.when` |
| `response.status` | int | what the client got; only in `access_log.when` |
| `response.end` | string | why the exchange ended, as in the log; only in `access_log.when` |
| `response.milliseconds` | int | how long it took; only in `access_log.when` |
| `now` | timestamp | when the request came: `now.getHours('Europe/Berlin') < 18` |

Operators are those of CEL: `==`, `!=`, `<`, `<=`, `>`, `>=`, `&&`, `||`, `!`, `+`, `-`, `*`, `/`, `%`, `in`, `? :`, `[]`. Functions: `has(a.b)`,
`size`, `contains`, `startsWith`, `endsWith`, `matches`, `lowerAscii`, `upperAscii`, `trim`, `substring`, `indexOf`, `lastIndexOf`, `split`;
`all`, `exists`, `exists_one`, `map` and `filter` over lists and over the names of maps; `string`, `int`, `uint`, `double`, `timestamp`, `duration`, `type`,
`dyn`; of times (and the last four of durations) `getFullYear`, `getMonth`, `getDayOfYear`, `getDayOfMonth`, `getDate`, `getDayOfWeek`, `getHours`, `getMinutes`, `getSeconds`, `getMilliseconds`,
each in UTC or in a time zone that the system knows; and `cidr('10.0.0.0/8').containsIP(request.client.ip)`. The pattern of `matches`, the network of
`cidr`, time zones, durations and times that are written out (`timestamp('2026-01-01T00:00:00Z')`) stand in the expression itself. Patterns match anywhere in a text unless `^` and `$` say otherwise.

Names and types are checked at load, and what an expression may cost at most is bounded there: one that could take too many steps is refused. What is
not known before a request comes can still **fail**: a field, parameter, cookie or claim that is not there (ask with `has` or `in`), a parameter or cookie that
comes more than once, a value of another type or that is no UTF-8, a number that is too large. An expression that fails does not match, and allows nothing; the figure `expressions_failed`
counts it. Of `a || b`, one that holds is enough even where the other fails, as CEL has it.
"#;

const POLICIES: &str = r#"## Policies

A `[[policy]]` does nothing until it is attached: with `default = true` to every route, by a listener's `use` to every route on
it, by a route's `use` to that one. A route's `skip` leaves out what it would have by default or from its listener. Requests
that no route takes have the default policies and their listener's.

They are asked in this order, whatever the order in the file is, and `ringgate explain` shows them in it:

| kind | which of those attached | a request that does not pass gets |
|---|---|---|
| `cors` | one: its route's before its listener's, and that before a default one | 403 (`cors-origin-refused`), preflights only |
| `ip` | all of them | 403 (`ip-refused`) |
| `client_cert` | one, as of `cors` | 403 (`certificate-missing`, `certificate-refused`) |
| `key` | one, as of `cors` | 401 (`key-missing`, `key-unknown`) or 403 (`key-not-allowed`) |
| `basic` | one, as of `cors` | 401 (`password-missing`, `password-malformed`, `password-wrong`) or, when too many wait to be verified, 503 (`passwords-busy`) |
| `jwt` | one, as of `cors` | 401 (`token-missing`, `token-invalid`, `token-expired`), 403 (`token-scope`) or, while published keys have never been had, 503 (`token-keys-missing`) |
| `allow` | all of them | 403 (`not-allowed`) |
| `rate_limit` | all of them; one that refuses takes back what the others counted | 429 (`quota-exceeded`), with `Retry-After` |
| `concurrency` | all of them; what rate limits have counted stays counted | 503 (`concurrency-exceeded`), with `Retry-After` |

How many requests passed each policy, and how many did not, is among the figures.

**CORS.** A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered by the gateway, for the route that
the request to come would take: with its method, and with every field that `Access-Control-Request-Headers` names taken for the
one that a route asks for. An origin that may not ask is answered 403 (`cors-origin-refused`); what else a page may not send, the
browser finds out from the lists in the answer. Without a `cors` policy there, a preflight is a request like any other. Every
response gets its fields from the policy, the gateway's errors too, and never from the upstream; `Vary` says that it depends on
the origin. Other requests are served whatever their origin is: who may read a response is for the browser to enforce.

```toml
[[policy]]
name = "browsers"

[policy.cors]
origins = ["https://shop.example", "https://*.shop.example"]
methods = ["GET", "POST", "PUT", "DELETE"]
headers = ["authorization", "content-type"]
credentials = true
max_age = "2h"

[[route]]
name = "orders"
match = { path = "/orders/*" }
cluster = "orders"
use = ["browsers"]
```

**IP.** Lets requests pass by the address of their client, which is the connection's, or behind `listener.trusted_proxies` or
`listener.proxy_protocol` the one that a proxy names and no client can. A preflight is answered before.

```toml
[[policy]]
name = "inside"
ip = { allow = ["10.0.0.0/8", "fd00::/8"], deny = ["10.66.0.0/16"] }

[[route]]
name = "admin"
match = { path = "/admin/*" }
cluster = "admin"
use = ["inside"]
```

**Client certificates.** A listener with `client_auth` finds out whether a certificate is good; a policy says which of those may ask. With
`mode = "optional"` only the routes that have one ask for it.

```toml
[[listener]]
name = "secure"
address = "0.0.0.0:443"

[listener.tls]
certificates = [{ cert = "/etc/ringgate/tls/a.pem", key = "/etc/ringgate/tls/a.key" }]
client_auth = { ca = "/etc/ringgate/tls/partners.pem", mode = "optional" }

[[policy]]
name = "machines"
client_cert = { names = ["*.partner.example"] }

[[route]]
name = "stock"
match = { path = "/stock/*" }
cluster = "stock"
use = ["machines"]
```

**Keys.** A request shows the API key of a `[[consumer]]` in a field, in a parameter of the query (`key = { query = "api_key" }`) or in a cookie. The gateway knows the SHA-256 of each key alone, which is enough for
long random words and for nothing that a person would make up. The key does not go on to the upstream, unless `forward = true`;
who it was may, as `{consumer.name}`, and stands in the log's line, also of a request that was refused because this consumer may not ask.
Consumers that come and go are better kept in a file of their own (`consumers = "/etc/ringgate/consumers.toml"`, before all tables), which is watched: a
change of it is taken within seconds. A request under way stays its consumer's. A file that cannot be used changes nothing, and the log says why.
A consumer may have a limit of its own (`limit = { limit = 500, per = "1s" }`), which goes before the numbers of every rate limit that counts by `"consumer"`; one that changes begins anew.

```toml
[[consumer]]
name = "acme"
keys = ["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]
tags = ["partner"]

[[policy]]
name = "partners"
key = { header = "x-api-key", tags = ["partner"] }

[[route]]
name = "catalogue"
match = { path = "/catalogue/*" }
cluster = "catalogue"
use = ["partners"]
request_headers.set = { x-consumer = "{consumer.name}" }
```

**Passwords.** A `basic` policy asks for the name and password of a user; see [its page](policies/basic.md).

```toml
[[policy]]
name = "people"
basic = { realm = "reports", file = "/etc/ringgate/htpasswd" }

[[route]]
name = "reports"
match = { path = "/reports/*" }
cluster = "reports"
use = ["people"]
request_headers.set = { x-user = "{auth.subject}" }
```

**Tokens.** A request shows a JSON Web Token that one of the policy's keys has signed, by an algorithm that the policy names: what a token says
of either chooses among these and adds none. A key of one family is never used for another, `none` is no algorithm, and a token with `crit` is refused.
Tokens of up to 8 KiB are read; those that were verified are remembered by each core, 2,048 of them, for no longer than they are valid. The `sub` of one that is believed stands in
the log's line (`subject`). What a token says is
`{claims.NAME}` in texts: a text, a number, `true` or `false`, or the elements of a list with spaces between. A field that is `set` so replaces one that the
client sends. A route may ask for a key and a token: both must be there.

```toml
[[policy]]
name = "login"

[policy.jwt]
algorithms = ["HS256"]
issuer = "https://login.example"
audience = ["orders"]
keys = [{ secret = "${TOKEN_SECRET}" }]
scopes = ["orders:read"]

[[route]]
name = "mine"
match = { path = "/mine/*" }
cluster = "orders"
use = ["login"]
request_headers.set = { x-user = "{claims.sub}", x-scope = "{claims.scope}" }
```

Set such a field on every route to an upstream that believes it: what a client says in it goes on where no route sets it.

Keys need not be in the configuration: `jwks` names where the issuer publishes them, or with `discovery = true` its metadata do. Keys for encryption, secrets, and
keys of kinds or sizes that are not known are passed over. When keys have changed, no token is believed for what was verified with those before.

```toml
[[policy]]
name = "staff-login"
jwt = { algorithms = ["RS256", "ES256"], issuer = "https://login.example", discovery = true, audience = ["shop"] }

[[policy]]
name = "staff"
allow = "'admin' in claims.roles && request.method in ['GET', 'HEAD', 'POST']"

[[route]]
name = "back-office"
match = { path = "/back-office/*" }
cluster = "orders"
use = ["staff-login", "staff"]
```
"#;

const ROUTING: &str = r#"## Paths, precedence and variables

### Path patterns

`match.path` and `match.path_regex` are compared with the canonical path: dot segments resolved, needless
percent-encoding removed, and `%2F`, `\` and `//` treated as the listener's `path` table says. Routes, logs and
upstreams all see this one path.

| pattern | matches | does not match |
|---|---|---|
| `/a` | `/a` | `/a/`, `/a/b` |
| `/a/{id}` | `/a/1`: one segment that is not empty | `/a/`, `/a/1/2` |
| `/a/{id:int}` | `/a/1`: one segment of a type | `/a/x` |
| `/a/{*rest}` | `/a/1`, `/a/1/2`: the rest, which is not empty | `/a`, `/a/` |
| `/a/*` | `/a`, `/a/`, `/a/1/2`: this element and everything below it | `/ab` |

The types of a segment are `uuid`, `int` (digits), `hex`, `alpha`, `alnum` and `slug` (letters, digits, `-` and `_`). A
segment that is not of the type makes the route lose to the next one.

`path_regex` must match the whole path. Its named groups, `(?<id>[0-9]+)`, are captures like `{id}`. Look-around and
back-references do not exist, so that matching takes linear time.

`match.host` is compared without its port and without regard to case. `*.example.com` takes every name below
`example.com`, at any depth, but not `example.com`.

### Precedence

Of several routes that match, the first of these that differs decides:

1. the host: an exact one, then wildcards, the longest first, then none;
2. the path: an exact one, then the longest literal prefix, then a regex, by its place in the file, then none. At equal
   literal prefixes segments are compared from the left: a literal, a typed capture, an untyped one, `{*rest}`, `*`;
3. a route with `method` before one without;
4. more `header` conditions;
5. more `query` conditions;
6. a route with `when` before one without;
7. the order in the file.

A route whose host and path match but whose other conditions do not is passed over, and the next one is tried.
`ringgate check` refuses routes that can never be reached, as far as it can tell: routes of one host and one path.

### Variables

`rewrite`, `redirect.to`, `respond.body` and the values of `set` and `add` may hold variables:

| variable | stands for |
|---|---|
| `{client.ip}` | the client's address; behind `trusted_proxies`, the one they report |
| `{client.port}` | the port at the other end of the connection |
| `{host}` | the request's host, with its port if it names one |
| `{method}` | its method |
| `{scheme}` | `http` or `https` |
| `{path}` | its canonical path |
| `{path.NAME}`, `{NAME}` | the capture `NAME` of the route's pattern |
| `{query}` | the whole query, without its `?` |
| `{query.NAME}` | the query parameter `NAME` |
| `{header.NAME}` | the request's field `NAME` |
| `{request.id}` | the request's id, as in `X-Request-Id` and the access log |
| `{route}` | the route's name |
| `{auth.subject}` | the user whose password a `basic` policy asked for, or `sub` of the token |
| `{claims.NAME}` | the claim `NAME` of the token that a `jwt` policy asked for |
| `{tls.version}`, `{tls.cipher}` | `TLSv1.2` or `TLSv1.3`, and the cipher suite |
| `{tls.server_name}` | the name that the client asked for by SNI |
| `{tls.client_subject}` | the subject of the client's certificate, which `tls.client_auth` asks for |
| `{tls.client_names}` | the names and addresses that it is for, with commas between |
| `{tls.client_fingerprint}` | its SHA-256, in hexadecimal digits |

A brace that is not a variable's is written twice: `{{"ok": true}}` is the text `{"ok": true}`.

A variable that does not exist, or a capture that the route's pattern does not have, is an error when the file is read. A
query parameter or field that a request does not have stands for nothing.
"#;

/// The whole reference, as Markdown.
pub fn markdown() -> String {
    let root = schema::json_schema();
    let mut out = String::from(INTRODUCTION);
    out.push_str("\n## Sections\n\n");
    let sections = sections(&root);
    for section in &sections {
        let indent = "  ".repeat(section.path.matches('.').count());
        let _ = writeln!(out, "{indent}- [`{}`](#{})", section.title(), section.anchor());
    }
    let single = properties(&root).filter(|(_, property)| property["type"] == "string");
    out.push_str("\n## Before all tables\n\n| key | type | meaning |\n|---|---|---|\n");
    for (name, property) in single {
        let (words, meaning) = (kind(&Shape::compile(property, &root)), property["description"].as_str());
        let _ = writeln!(out, "| `{name}` | {} | {} |", cell(&words), cell(meaning.unwrap_or("")));
    }
    for section in &sections {
        section.write(&root, &mut out);
    }
    out.push('\n');
    out.push_str(ROUTING);
    out.push('\n');
    out.push_str(EXPRESSIONS);
    out.push('\n');
    out.push_str(POLICIES);
    out
}

/// A table of the file.
struct Section<'s> {
    /// `cluster.endpoints`.
    path: String,
    /// Whether there may be several.
    is_repeated: bool,
    /// What its key says of it, else its type.
    description: &'s str,
    schema: &'s Value,
}

/// All tables, in the order of the types, each followed by those in it.
fn sections(root: &Value) -> Vec<Section<'_>> {
    fn visit<'s>(schema: &'s Value, root: &'s Value, path: &str, sections: &mut Vec<Section<'s>>) {
        for (name, property) in properties(schema) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let own = resolve(property, root);
            let (schema, is_repeated) = match own["items"].is_object() {
                true => (resolve(&own["items"], root), true),
                false => (own, false),
            };
            if schema["properties"].is_object() {
                // The key says what it is for, the type what it is; the longer one says more.
                let texts = [&property["description"], &schema["description"]]
                    .map(|text| text.as_str().unwrap_or(""));
                let description = if texts[1].len() > texts[0].len() { texts[1] } else { texts[0] };
                sections.push(Section { path: path.clone(), is_repeated, description, schema });
                visit(schema, root, &path, sections);
            }
        }
    }
    let mut sections = Vec::new();
    visit(root, root, "", &mut sections);
    sections
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flat_map(Map::iter)
}

fn resolve<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let target = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    target.unwrap_or(schema)
}

impl Section<'_> {
    fn title(&self) -> String {
        if self.is_repeated { format!("[[{}]]", self.path) } else { format!("[{}]", self.path) }
    }

    /// The anchor that Markdown viewers give to its heading.
    fn anchor(&self) -> String {
        self.path.chars().filter(|letter| *letter != '.').collect()
    }

    fn write(&self, root: &Value, out: &mut String) {
        let level = if self.path.contains('.') { "###" } else { "##" };
        let _ = writeln!(out, "\n{level} `{}`\n\n{}\n", self.title(), self.description);
        out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        for (name, property) in properties(self.schema) {
            let kind = self.kind(name, property, root);
            let default = self.default(name, property, root);
            let meaning = property["description"].as_str().unwrap_or("");
            let _ = writeln!(out, "| `{name}` | {} | {} | {} |", cell(&kind), cell(&default), cell(meaning));
        }
        for (name, property) in properties(self.schema) {
            write_words(name, property, root, out);
        }
    }

    fn kind(&self, name: &str, property: &Value, root: &Value) -> String {
        let shape = Shape::compile(property, root);
        let words = kind(&shape);
        let is_section = match &shape {
            Shape::Table(table) => !table.keys.is_empty(),
            Shape::List(item) => matches!(item.as_ref(), Shape::Table(_)),
            _ => false,
        };
        if is_section { format!("[{words}](#{}{name})", self.anchor()) } else { words }
    }

    fn default(&self, name: &str, property: &Value, root: &Value) -> String {
        let required = self.schema["required"].as_array();
        if required.is_some_and(|required| required.iter().any(|key| key == name)) {
            return "required".into();
        }
        let is_table = matches!(Shape::compile(property, root), Shape::Table(_));
        match property.get("default").filter(|_| !is_table) {
            Some(default) => format!("`{default}`"),
            None => String::new(),
        }
    }
}

/// What each word of an enumeration means, unless the key's own description says so.
fn write_words(name: &str, property: &Value, root: &Value, out: &mut String) {
    let own = resolve(property, root);
    let own = if own["items"].is_object() { resolve(&own["items"], root) } else { own };
    let choices = own["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words: Vec<_> = choices
        .iter()
        .filter_map(|choice| Some((choice["const"].as_str()?, choice["description"].as_str()?)))
        .collect();
    let description = property["description"].as_str().unwrap_or("");
    let is_said = words.iter().all(|(word, _)| description.contains(&format!("\"{word}\"")));
    if is_said || words.len() < choices.len() {
        return;
    }
    let _ = writeln!(out, "\n`{name}` is one of:\n");
    for (word, meaning) in words {
        let _ = writeln!(out, "- `\"{word}\"`: {meaning}");
    }
}

/// The type of a value, briefly.
fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Text => "string".into(),
        Shape::Duration => "duration".into(),
        Shape::Size => "size".into(),
        Shape::Boolean => "`true` or `false`".into(),
        Shape::Words(words) => listed(words.iter().map(|word| format!("`\"{word}\"`")), "or"),
        Shape::Integer { min, max } if *max < u32::MAX.into() => format!("integer, {min} to {max}"),
        Shape::Integer { min: min @ 1.., .. } => format!("integer, at least {min}"),
        Shape::Integer { .. } => "integer".into(),
        Shape::List(item) => match item.as_ref() {
            Shape::Text => "list of strings".into(),
            Shape::Table(_) => "list of tables".into(),
            item => format!("list of {}", kind(item)),
        },
        Shape::Table(table) => match (&table.rest, table.keys.as_slice()) {
            (Some(rest), []) => format!("table of names to {}", kind(rest)),
            _ => "table".into(),
        },
        Shape::OneOf(shapes) => listed(shapes.iter().flat_map(kinds_of_choice), "or"),
        Shape::Any => "value".into(),
    }
}

fn kinds_of_choice(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::Words(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect(),
        Shape::Table(table) => {
            let key = |(name, member): &(String, Member)| format!("{name} = {}", plain(&member.shape));
            vec![format!("`{{ {} }}`", table.keys.iter().map(key).collect::<Vec<_>>().join(", "))]
        }
        shape => vec![kind(shape)],
    }
}

/// An example of a value, for within code.
fn plain(shape: &Shape) -> &'static str {
    match shape {
        Shape::Boolean => "true",
        Shape::Integer { .. } => "1",
        _ => "\"…\"",
    }
}

/// Text for a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

    #[test]
    fn the_file_is_current() {
        let generated = markdown();
        if std::env::var_os("RINGGATE_BLESS").is_some() {
            std::fs::write(FILE, &generated).unwrap();
        }
        let written = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            written == generated,
            "docs/configuration.md is not current; run this test with RINGGATE_BLESS=1"
        );
    }

    #[test]
    fn every_link_has_its_heading() {
        let text = markdown();
        let headings: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("##"))
            .map(|line| {
                let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
            })
            .collect();
        let links: Vec<_> = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(links.len() > 20);
        for link in links {
            assert!(headings.iter().any(|heading| heading == link), "#{link}");
        }
    }

    #[test]
    fn keys_have_types_defaults_and_meanings() {
        let text = markdown();
        for row in [
            "| `head_bytes` | size | `\"16KiB\"` |",
            "| `headers` | integer, 1 to 256 | `100` |",
            "| `address` | string | required |",
            "| `trusted_proxies` | list of strings | `[]` |",
            "| `sticky` | [table](#clustersticky) |  |",
            "| `status` | integer, 300 to 399 | `308` |",
            "| `workers` | `\"auto\"` or integer, 1 to 1024 | `\"auto\"` |",
            "| `header` | table of names to string, `{ regex = \"…\" }` or `{ present = true }` | ",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        assert!(text.contains("- `\"p2c\"`: The better of two"), "{text}");
    }

    /// The example of the introduction is a file that works.
    #[test]
    fn the_example_works() {
        let example = INTRODUCTION.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let loaded =
            crate::config::parse("example", example, &crate::config::interpolate::NoEnvironment).unwrap();
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics);
    }
}
