//! A request seen without being served, for `explain`: the same facts, router and texts that an exchange uses.

use std::net::SocketAddr;

use super::{
    attempt::upstream_target,
    error::Error,
    exchange::{admit, canonical_path},
    facts::Facts,
    policies::Preflight,
};
use crate::{
    clock::Clock,
    http::{
        path::{Canonical, PathError},
        request::RequestHead,
    },
    policy::template::{RenderError, Template},
    route::{Candidate, Captures, Router},
    table::{Listener, Route, Table},
};

/// A request seen without being served.
pub struct Preview<'p> {
    facts: Facts<'p>,
}

/// Looks at a parsed request as the listener would. `path` is where the canonical path goes.
pub fn preview<'p>(
    head: &'p RequestHead,
    bytes: &'p [u8],
    listener: &Listener,
    peer: SocketAddr,
    path: &'p mut Vec<u8>,
) -> Result<Preview<'p>, PathError> {
    let as_sent = head.path.bytes(bytes);
    let canonical = canonical_path(head, as_sent, &listener.path, path)?;
    let path: &[u8] = match canonical {
        Canonical::Written => path,
        Canonical::AsIs if as_sent.is_empty() => b"/",
        Canonical::AsIs => as_sent,
    };
    let id = b"00000000-0000-7000-8000-000000000000";
    let is_secured = listener.tls.is_some();
    let is_stream = false;
    let facts = Facts {
        is_stream,
        is_secured,
        session: None,
        bytes,
        head,
        path,
        peer,
        client: peer.ip(),
        is_trusted: false,
        id,
        known: None,
        claims: None,
        hidden: [None; 4],
        granted: None,
        hides: false,
        unix_us: Clock::new().unix_us(0),
        failed: None,
    };
    Ok(Preview { facts })
}

impl<'p> Preview<'p> {
    /// Whether the listener takes such a request at all.
    pub fn admit(&self, listener: &Listener) -> Result<(), Error> {
        admit(&self.facts, listener)
    }

    /// The host it is for.
    pub fn host(&self) -> &'p [u8] {
        self.facts.host()
    }

    /// The host with its port.
    pub fn authority(&self) -> &'p [u8] {
        self.facts.authority()
    }

    /// Its canonical path.
    pub fn path(&self) -> &'p [u8] {
        self.facts.path
    }

    /// Every candidate, in order of precedence.
    pub fn explain(&self, router: &Router) -> Vec<Candidate> {
        router.explain(&self.facts)
    }

    /// The route that wins.
    pub fn find(&self, router: &Router, captures: &mut Captures) -> Option<u32> {
        router.find(&self.facts, captures)
    }

    /// The policy that would answer it, if it is a preflight, the route whose policy that is, and whether it lets the origin's
    /// pages ask.
    pub fn preflight(&self, table: &Table, listener: &Listener) -> Option<(Option<usize>, usize, bool)> {
        let asked = Preflight::of(&self.facts)?;
        let (found, policy, rule) = asked.rule(table, listener, &mut Captures::default())?;
        let route = found.map(|found| listener.routes[found as usize].route as usize);
        Some((route, policy, rule.allows(asked.origin())))
    }

    /// A route's text with this request's values.
    pub fn render(
        &self,
        template: &Template,
        route: &Route,
        captures: &Captures,
    ) -> Result<Vec<u8>, RenderError> {
        let mut out = Vec::new();
        template.render(&self.facts.variables(route, captures), &mut out).map(|()| out)
    }

    /// The path and query that would go upstream.
    pub fn upstream_target(
        &self,
        route: &Route,
        listener: &Listener,
        captures: &Captures,
    ) -> Result<Vec<u8>, Error> {
        let (mut rendered, mut target) = (Vec::new(), Vec::new());
        let variables = self.facts.variables(route, captures);
        if !upstream_target(route, listener, &variables, &mut rendered, &mut target)? {
            target.extend_from_slice(self.facts.path);
        }
        if let Some(query) =
            self.facts.query().filter(|_| !route.rewrite.as_ref().is_some_and(Template::has_query))
        {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        Ok(target)
    }
}
