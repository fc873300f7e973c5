//! A file of consumers beside the configuration: `[[consumer]]` tables and nothing else, with the same words and checks. It is read with the
//! configuration, and again whenever it changes.

use std::{path::Path, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    interpolate::{Environment, ProcessEnvironment},
    load::{self, document},
    report::Report,
    schema,
    source::{Source, key_path},
    types::{Config, Consumer},
    validate,
};

/// What such a file says.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ConsumersFile {
    consumer: Vec<Consumer>,
}

/// Reads the file at `path` anew, to go with the consumers of a configuration.
///
/// # Errors
/// What is wrong with it, each with its place.
pub fn read_consumers(path: &Path, config: &Config) -> Result<Vec<Consumer>, Vec<String>> {
    let name = path.display().to_string();
    let text = load::read(path).map_err(|message| vec![format!("{name}: {message}")])?;
    let (consumers, diagnostics) = parse(&name, &text, config, &ProcessEnvironment);
    if diagnostics.has_errors() { Err(diagnostics.lines()) } else { Ok(consumers) }
}

/// The consumers of the file that a configuration names. What is wrong with it is reported with the rest.
pub(super) fn of(config: &Config, environment: &dyn Environment, report: &mut Report) -> Vec<Consumer> {
    let at = key_path!["consumers"];
    let Some(path) = config.consumers.as_ref().filter(|_| !report.is_replaced(&at)) else {
        return Vec::new();
    };
    if !path.starts_with('/') {
        let error =
            Diagnostic::error(format!("{} is not the absolute path of a file", report.shown(&at, path)));
        report.push_at(&at, error.hint("\"/etc/ringgate/consumers.toml\""));
        return Vec::new();
    }
    match environment.consumers(Path::new(path)) {
        Ok(None) => Vec::new(),
        Ok(Some(text)) => {
            let (consumers, diagnostics) = parse(path, &text, config, environment);
            report.diagnostics.attach(diagnostics);
            consumers
        }
        Err(message) => {
            report.push_at(&at, Diagnostic::error(format!("{}: {message}", report.shown(&at, path))));
            Vec::new()
        }
    }
}

/// What a file of consumers says, and what is to say about it.
fn parse(
    name: &str,
    text: &str,
    config: &Config,
    environment: &dyn Environment,
) -> (Vec<Consumer>, Diagnostics) {
    if text.len() > load::FILE_BYTES_MAX {
        let mut diagnostics = Diagnostics::new(Arc::new(Source::new(name, "")));
        diagnostics
            .push(Diagnostic::error(format!("the file has more than {} MiB", load::FILE_BYTES_MAX >> 20)));
        return (Vec::new(), diagnostics);
    }
    let source = Arc::new(Source::new(name, text));
    let schema = schema::of::<ConsumersFile>();
    let (file, mut report) = document::<ConsumersFile>(&source, &schema, environment);
    let consumers = file.unwrap_or_default().consumer;
    validate::consumers_of_file(&consumers, config, &mut report);
    (consumers, report.diagnostics)
}
