//! From a file to a [`Config`] that means something: syntax, then form, then meaning. Each step reports everything it
//! finds; form and meaning are judged together, but a file that is not TOML goes no further.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::de::{DeTable, Deserializer};

use super::{
    check, consumers,
    diagnostic::{Diagnostic, Diagnostics},
    interpolate::{Environment, Interpolation, ProcessEnvironment},
    report::Report,
    schema,
    shape::Shape,
    source::Source,
    types::Config,
    validate,
};

/// Bytes of a configuration file.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A file that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, with every `${…}` resolved: it may hold secrets.
    pub config: Config,
    /// Its text.
    pub source: Arc<Source>,
    /// Warnings about it; further diagnostics can be added with the places that `source` gives.
    pub diagnostics: Diagnostics,
}

/// What became of a file, good or bad.
#[derive(Debug)]
pub struct Inspected {
    /// What it says, as far as that can be told: where a value was refused stands a default or a placeholder, so with
    /// errors this is for finding more of them and not for use. [`Diagnostics::push_at`] passes over such places.
    /// `None`: not even that.
    pub config: Option<Config>,
    /// Its text.
    pub source: Arc<Source>,
    /// What is to say about it.
    pub diagnostics: Diagnostics,
}

impl Inspected {
    /// # Errors
    /// The diagnostics, when there is an error among them.
    pub fn into_loaded(self) -> Result<Loaded, Diagnostics> {
        let Self { config, source, diagnostics } = self;
        match config {
            Some(config) if !diagnostics.has_errors() => Ok(Loaded { config, source, diagnostics }),
            _ => Err(diagnostics),
        }
    }

    /// A file of which there is no text to show.
    fn refused(name: &str, message: String) -> Self {
        let source = Arc::new(Source::new(name, ""));
        let mut diagnostics = Diagnostics::new(Arc::clone(&source));
        diagnostics.push(Diagnostic::error(message));
        Self { config: None, source, diagnostics }
    }
}

/// Reads and checks the file at `path`, with `${…}` from this process's environment and the file system.
///
/// # Errors
/// Everything that is wrong with it, or why it could not be read.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    inspect_file(path).into_loaded()
}

/// Checks `text`, with `${…}` from `environment`. `name` stands for the file in messages. It touches nothing but
/// `environment`, so with [`NoEnvironment`](super::interpolate::NoEnvironment) it is a function of the text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str, environment: &dyn Environment) -> Result<Loaded, Diagnostics> {
    inspect(name, text, environment).into_loaded()
}

/// Like [`load`], for a caller that has more to check and wants to report it together with what was found here.
pub fn inspect_file(path: &Path) -> Inspected {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => inspect(&name, &text, &ProcessEnvironment),
        Err(message) => Inspected::refused(&name, message),
    }
}

/// Like [`parse`], for a caller that has more to check and wants to report it together with what was found here.
pub fn inspect(name: &str, text: &str, environment: &dyn Environment) -> Inspected {
    if text.len() > FILE_BYTES_MAX {
        let limit = FILE_BYTES_MAX >> 20;
        return Inspected::refused(name, format!("the file has more than {limit} MiB"));
    }
    let source = Arc::new(Source::new(name, text));
    let (config, mut report) = document::<Config>(&source, &schema::json_schema(), environment);
    let config = config.map(|mut config| {
        config.consumers_of_file = consumers::of(&config, environment, &mut report);
        validate::validate(&config, &mut report);
        config
    });
    Inspected { config, source, diagnostics: report.diagnostics }
}

/// What a file of this form says, with what is to say about its form. `None`: nothing that can be judged further.
pub(super) fn document<T: DeserializeOwned>(
    source: &Arc<Source>,
    schema: &Value,
    environment: &dyn Environment,
) -> (Option<T>, Report) {
    let mut report = Report::new(Diagnostics::new(Arc::clone(source)));
    let (mut root, faults) = DeTable::parse_recoverable(source.text());
    for fault in &faults {
        report.push(syntax(fault));
    }
    if faults.iter().any(|fault| !is_duplicate(fault)) {
        return (None, report);
    }
    let interpolation = Interpolation::new(environment);
    check::check(&mut root, &Shape::of(schema), &interpolation, &mut report);
    match T::deserialize(Deserializer::from(root)) {
        Ok(document) => (Some(document), report),
        Err(error) => {
            // Either the check has reported why, or it and the types disagree.
            if !report.diagnostics.has_errors() {
                // Serde's message may repeat a value, and that may have come from `${…}`.
                let message =
                    if interpolation.is_used() { "this value cannot be used" } else { error.message() };
                report.push(Diagnostic::error(message).at(error.span()));
            }
            (None, report)
        }
    }
}

/// The text of a configuration file, or of one beside it.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("the file cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        format!("the file is not UTF-8: line {line} has other bytes")
    })
}

/// Whether the fault leaves the tree in order: of a key that is given twice, the first value stays.
fn is_duplicate(fault: &toml::de::Error) -> bool {
    fault.message().starts_with("duplicate key")
}

fn syntax(fault: &toml::de::Error) -> Diagnostic {
    let error = Diagnostic::error(fault.message()).at(fault.span());
    match is_duplicate(fault) {
        true => error.hint("each key and each `[table]` is given once; a list of tables is `[[table]]`"),
        false => error.hint("the rest of the file is checked once it is valid TOML"),
    }
}
