//! A configuration: any text is either refused with its reasons or becomes a table; nothing panics on the way, and what
//! is said about it can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::{
    config::{self, Severity, interpolate::NoEnvironment},
    table,
};

fuzz_target!(|text: &str| {
    match config::parse("fuzz", text, &NoEnvironment) {
        Ok(loaded) => {
            let mut errors = 0;
            let table = table::compile(&loaded.config, &mut |_, diagnostic| {
                errors += usize::from(diagnostic.severity == Severity::Error);
            });
            assert!(table.is_some() || errors > 0, "refused without a reason");
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            assert!(!diagnostics.render(false).is_empty());
        }
    }
});
