//! The meaning of a file whose form is right: names that lead somewhere, numbers that go together, addresses and fields
//! that can be used. Everything wrong is reported, each at its place. Path patterns, regexes, variables and shadowed
//! routes are judged where they are compiled, and certificates where they are read; what the machine has (CPUs, free
//! ports) is known at start only.

mod address;
mod clusters;
mod consumers;
mod fields;
mod legs;
mod listeners;
mod policies;
mod process;
mod routes;
mod tls;

use std::collections::HashMap;

use super::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{Config, Consumer},
    values::Span,
};

/// Bytes of a listener's, cluster's, consumer's, policy's or route's name.
const NAME_BYTES_MAX: usize = 255;

/// Reports everything that is wrong with what `config` means.
pub(super) fn validate(config: &Config, report: &mut Report) {
    let listeners = Names::gather("listener", config.listener.iter().map(|one| one.name.as_str()), report);
    let clusters = Names::gather("cluster", config.cluster.iter().map(|one| one.name.as_str()), report);
    Names::gather("route", config.route.iter().map(|one| one.name.as_str()), report);
    process::validate(config, &listeners, report);
    listeners::validate(config, report);
    clusters::validate(config, report);
    let policies = Names::gather("policy", config.policy.iter().map(|one| one.name.as_str()), report);
    let consumers = Names::gather("consumer", config.consumer.iter().map(|one| one.name.as_str()), report);
    policies::validate(config, &policies, &consumers, report);
    consumers::validate(config, report);
    routes::validate(config, &listeners, &clusters, report);
}

/// Reports what is wrong with the consumers of a file beside the configuration.
pub(super) fn consumers_of_file(list: &[Consumer], config: &Config, report: &mut Report) {
    Names::gather("consumer", list.iter().map(|one| one.name.as_str()), report);
    consumers::validate_file(list, config, report);
}

/// The names of all listeners, clusters, consumers, policies or routes.
struct Names<'c> {
    table: &'static str,
    list: Vec<&'c str>,
    /// The first that has a name.
    first: HashMap<&'c str, usize>,
    /// Some could not be read, so one that is missing may be there.
    is_partial: bool,
}

impl<'c> Names<'c> {
    /// Gathers the names in `table`, and reports those that are given twice or are none.
    fn gather(table: &'static str, names: impl Iterator<Item = &'c str>, report: &mut Report) -> Self {
        let list: Vec<_> = names.collect();
        let mut first = HashMap::with_capacity(list.len());
        let mut is_partial = report.is_replaced(&key_path![table]);
        for (index, name) in list.iter().copied().enumerate() {
            let path = key_path![table, index, "name"];
            if report.is_replaced(&path) {
                is_partial = true;
                continue;
            }
            if name.is_empty() {
                report.push_at(&path, Diagnostic::error(format!("a {table} needs a name that is not empty")));
            } else if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                let error = Diagnostic::error(format!("the name of a {table} is one short line"));
                report.push_at(
                    &path,
                    error.hint(format!("at most {NAME_BYTES_MAX} bytes, no control characters")),
                );
            }
            let earlier = *first.entry(name).or_insert(index);
            if earlier != index {
                let shown = report.shown(&path, name);
                let place = report.diagnostics.source().locate(&key_path![table, earlier, "name"]);
                let error = Diagnostic::error(format!("duplicate {table} name {shown}"));
                report.push_at(&path, error.label("used again").also(place, "first used here"));
            }
        }
        Self { table, list, first, is_partial }
    }

    /// The one called `name`. Reports at `path` when there is none.
    fn find(&self, path: &[Key<'_>], name: &str, report: &mut Report) -> Option<usize> {
        let found = self.first.get(name).copied();
        if found.is_none() && !report.is_replaced(path) {
            let shown = report.shown(path, name);
            let table = self.table;
            let similar = report.similar(name, self.list.iter().copied());
            let similar = similar.filter(|name| {
                let index = self.first.get(name).copied().unwrap_or(0);
                !report.diagnostics.source().is_interpolated(&key_path![table, index, "name"])
            });
            let error = match similar {
                Some(similar) => {
                    Diagnostic::error(format!("unknown {table} {shown}, did you mean `{similar}`?"))
                }
                None if self.is_partial => return None,
                None => Diagnostic::error(format!("unknown {table} {shown}"))
                    .hint(format!("no `[[{table}]]` has this name")),
            };
            report.push_at(path, error.label(format!("there is no such {table}")));
        }
        found
    }
}

/// Reports a duration of zero where that has no meaning.
fn not_zero(path: &[Key<'_>], span: Span, report: &mut Report) {
    if span == Span::default() {
        let name = path.iter().rev().find_map(|key| match key {
            Key::Name(name) => Some(*name),
            Key::Index(_) => None,
        });
        let error = Diagnostic::error(format!("`{}` must not be zero", name.unwrap_or_default()));
        report.push_at(
            path,
            error.hint("everything would run into it at once; a long time such as \"1h\" is allowed"),
        );
    }
}
