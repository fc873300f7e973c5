//! The tour: what a newcomer can try, as data that prints itself as curl lines. It knows the routes of
//! `config/demo.toml` by name only; tests hold the two against each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One thing to try.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    /// The route of the demo's configuration that takes it; `None` when none does.
    pub route: Option<&'static str>,
    /// What is to be seen.
    pub shows: &'static str,
    /// curl's options other than the request's own.
    pub options: &'static str,
    /// The request's method.
    pub method: &'static str,
    /// Its path, with the query if it has one.
    pub target: &'static str,
    /// Its fields besides those that curl sends by itself.
    pub headers: &'static [(&'static str, &'static str)],
    /// Its body, plain text; none when empty.
    pub body: &'static str,
    /// How often the line sends it, on one connection, with the query `try=1` and so on when it is more than once.
    pub times: u32,
    /// What follows on the shell line, such as a pipe.
    pub after: &'static str,
    /// The statuses it may be answered with.
    pub statuses: &'static [u16],
}

impl Try {
    /// The shell line that tries it at `listen`.
    pub fn curl(&self, listen: SocketAddr) -> String {
        let mut words = vec!["curl".to_owned()];
        if !self.options.is_empty() {
            words.push(self.options.into());
        }
        // Without -X curl sends GET, or POST when there is a body.
        if self.method != if self.body.is_empty() { "GET" } else { "POST" } {
            words.push(format!("-X {}", self.method));
        }
        words.extend(self.headers.iter().map(|(name, value)| format!("-H '{name}: {value}'")));
        if !self.body.is_empty() {
            words.push(format!("-d '{}'", self.body));
        }
        let url = format!("http://{}{}", reachable(listen), self.target);
        words.push(match self.times {
            1 if self.target.contains('?') => format!("'{url}'"),
            1 => url,
            times => format!("'{url}?try=[1-{times}]'"),
        });
        if !self.after.is_empty() {
            words.push(self.after.into());
        }
        words.join(" ")
    }
}

/// What most of the list has in common: one GET, answered with 200, shown with its head.
const GET: Try = Try {
    route: None,
    shows: "",
    options: "-i",
    method: "GET",
    target: "/",
    headers: &[],
    body: "",
    times: 1,
    after: "",
    statuses: &[200],
};

/// What many of the rest have: only the upstreams' names.
const NAMES: Try = Try { options: "-s", after: "| grep upstream", ..GET };

/// What is to be tried, in the order of the configuration's routes.
pub fn routes() -> &'static [Try] {
    &ROUTES
}

static ROUTES: [Try; 32] = [
    Try {
        route: Some("welcome"),
        shows: "the gateway answers by itself, with variables",
        options: "",
        ..GET
    },
    Try { route: Some("health"), shows: "a static health page", target: "/healthz", ..GET },
    Try {
        route: Some("moved"),
        shows: "a redirect with a capture",
        target: "/old/7",
        statuses: &[308],
        ..GET
    },
    Try {
        route: Some("report"),
        shows: "a regex path with named captures",
        options: "",
        target: "/reports/2031-07",
        ..GET
    },
    Try {
        route: Some("user"),
        shows: "weights 5,1,1 in smooth turns; path rewritten",
        target: "/users/7",
        times: 7,
        ..NAMES
    },
    Try { route: Some("me"), shows: "an exact path wins over a capture", target: "/users/me", ..GET },
    Try {
        route: Some("files"),
        shows: "a prefix; fewest requests under way",
        target: "/files/a/b.txt",
        ..GET
    },
    Try {
        route: Some("api"),
        shows: "a prefix that the upstream never sees",
        target: "/api/v1/books?sort=title",
        ..GET
    },
    Try {
        route: Some("tenant"),
        shows: "a wildcard host, handed on as a field",
        target: "/any/path",
        headers: &[("host", "acme.demo.test")],
        ..GET
    },
    Try {
        route: Some("order-new"),
        shows: "POST goes to an upstream",
        target: "/orders",
        method: "POST",
        body: "tea=1",
        ..GET
    },
    Try { route: Some("order-list"), shows: "GET of the same path does not", target: "/orders", ..GET },
    Try {
        route: Some("search-beta"),
        shows: "a header chooses the canary",
        target: "/search",
        headers: &[("x-beta", "1")],
        ..NAMES
    },
    Try {
        route: Some("search-page"),
        shows: "a query parameter, matched and made a path",
        target: "/search?page=3",
        ..GET
    },
    Try { route: Some("search"), shows: "with neither it falls through to this", target: "/search", ..GET },
    Try {
        route: Some("shop"),
        shows: "a canary: 80 % to one cluster, 20 % to another",
        target: "/shop",
        times: 20,
        after: "| grep upstream | sort | uniq -c",
        ..NAMES
    },
    Try {
        route: Some("cart"),
        shows: "a sticky cookie: always the same endpoint",
        options: "-s -b ''",
        target: "/cart",
        times: 5,
        ..NAMES
    },
    Try {
        route: Some("session"),
        shows: "hash by a header: one user, one endpoint",
        target: "/session",
        headers: &[("x-user", "ada")],
        times: 5,
        ..NAMES
    },
    Try {
        route: Some("headers"),
        shows: "fields removed, set and added, with variables",
        target: "/headers?q=tea",
        ..GET
    },
    Try { route: Some("slow"), shows: "a slow answer, in time", target: "/slow?ms=800", ..GET },
    Try {
        route: Some("hurry"),
        shows: "the route's timeout for the whole exchange",
        target: "/hurry",
        statuses: &[504],
        ..GET
    },
    Try {
        route: Some("late"),
        shows: "the cluster's timeout for the first byte",
        target: "/late",
        statuses: &[504],
        ..GET
    },
    Try {
        route: Some("flaky"),
        shows: "an upstream's own failures come through",
        options: "-s -o /dev/null -w '%{http_code} '",
        target: "/flaky",
        times: 6,
        after: "; echo",
        statuses: &[200, 503],
        ..GET
    },
    Try {
        route: Some("broken"),
        shows: "a response cut short is never made to look whole",
        target: "/broken",
        ..GET
    },
    Try {
        route: Some("ejected"),
        shows: "three failures and an endpoint is left alone",
        options: "-s -o /dev/null -w '%{http_code} '",
        target: "/ejected",
        times: 12,
        after: "; echo",
        statuses: &[200, 503],
        ..GET
    },
    Try {
        route: Some("refused"),
        shows: "a refused connection: the next endpoint",
        options: "-s -o /dev/null -w '%{http_code} '",
        target: "/refused",
        times: 12,
        after: "; echo",
        ..GET
    },
    Try {
        route: Some("nobody"),
        shows: "nobody there: a problem+json of the gateway",
        target: "/nobody",
        statuses: &[502],
        ..GET
    },
    Try {
        route: Some("echo"),
        shows: "a body there and back",
        target: "/echo",
        method: "POST",
        headers: &[("content-type", "text/plain")],
        body: "hello",
        ..GET
    },
    Try {
        route: Some("echo-small"),
        shows: "a body over the route's limit",
        target: "/echo/small",
        method: "POST",
        body: "more than sixteen bytes",
        statuses: &[413],
        ..GET
    },
    Try {
        route: Some("websocket"),
        shows: "a WebSocket opens (Ctrl-C); websocat can talk",
        options: "-i -N",
        target: "/ws",
        headers: &[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "SGVsbG8sIHdvcmxkIQ=="),
        ],
        statuses: &[101],
        ..GET
    },
    Try {
        route: Some("events"),
        shows: "server-sent events as they happen",
        options: "-N",
        target: "/events",
        ..GET
    },
    Try {
        route: Some("bytes"),
        shows: "a large body in flat memory",
        options: "-o /dev/null",
        target: "/bytes?n=1000000000",
        ..GET
    },
    Try { route: None, shows: "no route", target: "/nowhere", statuses: &[404], ..GET },
];

/// What the demo prints when it listens: every route and a line to try it.
pub fn banner(listen: SocketAddr) -> String {
    let name = |tried: &Try| tried.route.unwrap_or("(none)");
    let name_width = ROUTES.iter().map(|tried| name(tried).len()).max().unwrap_or(0);
    let shows_width = ROUTES.iter().map(|tried| tried.shows.len()).max().unwrap_or(0);
    let line = |tried: &Try| {
        format!("  {:name_width$}  {:shows_width$}  {}\n", name(tried), tried.shows, tried.curl(listen))
    };
    format!(
        "ringgate listens on http://{}. Try, in another terminal:\n\n{}\n\
         config/demo.toml says how each route is made. Every request shows here; Ctrl-C ends the demo.\n",
        reachable(listen),
        ROUTES.iter().map(line).collect::<String>(),
    )
}

/// Where a client on this machine reaches `listen`: an address that stands for all becomes loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
