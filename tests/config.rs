//! The configuration room from outside: the files in `config/` are good and complete, and no text, however wrong,
//! makes it panic.

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};
use ringgate::config::{interpolate::NoEnvironment, parse, schema::json_schema};
use serde_json::Value;

const REFERENCE: &str = include_str!("../config/reference.toml");
const PER_CORE: &str = include_str!("../config/per-core.toml");

#[test]
fn the_files_load_without_a_warning() {
    for (name, text) in [("reference.toml", REFERENCE), ("per-core.toml", PER_CORE)] {
        let loaded = parse(name, text, &NoEnvironment).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics);
    }
}

/// Calls `visit` with every key that a schema has: its path without places in arrays, and its default.
fn keys(schema: &Value, root: &Value, path: &str, visit: &mut dyn FnMut(&str, Option<&Value>)) {
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| root.pointer(&reference[1..])) {
        keys(target, root, path, visit);
    }
    for choice in schema["oneOf"].as_array().into_iter().chain(schema["anyOf"].as_array()).flatten() {
        keys(choice, root, path, visit);
    }
    if schema["items"].is_object() {
        keys(&schema["items"], root, path, visit);
    }
    if schema["additionalProperties"].is_object() {
        keys(&schema["additionalProperties"], root, &format!("{path}.*"), visit);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        visit(&path, property.get("default"));
        keys(property, root, &path, visit);
    }
}

/// All values of a document by such a path, in the order in which they stand.
fn values(value: &toml::Value, path: &str, maps: &HashSet<String>, found: &mut Vec<(String, toml::Value)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if maps.contains(&format!("{path}.*")) { "*" } else { name };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                found.push((path.clone(), value.clone()));
                values(value, &path, maps, found);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| values(item, path, maps, found)),
        _ => {}
    }
}

#[test]
fn the_reference_has_every_key_at_its_default() {
    let schema = json_schema();
    let mut expected = Vec::new();
    keys(&schema, &schema, "", &mut |path, default| expected.push((path.to_owned(), default.cloned())));
    assert!(expected.len() > 100, "{}", expected.len());
    let maps = expected.iter().filter_map(|(path, _)| path.rfind(".*").map(|at| path[..at + 2].to_owned()));
    let maps = maps.collect();
    let mut found = Vec::new();
    values(&REFERENCE.parse::<toml::Table>().unwrap().into(), "", &maps, &mut found);
    for (path, default) in expected {
        let first = found.iter().find(|(found, _)| *found == path);
        let (_, value) = first.unwrap_or_else(|| panic!("`{path}` is missing"));
        // Tables have the defaults of their keys; lists of tables are there to be filled.
        let is_table = value.is_table()
            || matches!(value, toml::Value::Array(items) if items.iter().any(toml::Value::is_table));
        if let Some(default) = default.filter(|_| !is_table) {
            assert_eq!(serde_json::to_value(value).unwrap(), default, "`{path}` is not at its default");
        }
    }
}

#[test]
fn a_large_file_loads_and_its_faults_are_found() {
    use std::fmt::Write;
    let mut text = String::from("[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n");
    for at in 0..1000 {
        let _ =
            write!(text, "[[cluster]]\nname = \"c{at}\"\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n");
    }
    for at in 0..20_000 {
        let cluster = at % 1000;
        let _ =
            write!(text, "[[route]]\nname = \"r{at}\"\nmatch.path = \"/r/{at}\"\ncluster = \"c{cluster}\"\n");
    }
    let loaded = parse("large", &text, &NoEnvironment).unwrap();
    assert_eq!(loaded.config.route.len(), 20_000);
    let diagnostics = parse("large", &text.replace("\"r19999\"", "\"r0\""), &NoEnvironment).unwrap_err();
    assert_eq!(diagnostics.errors(), 1);
    assert!(diagnostics.render(false).contains("duplicate route name `r0`"), "{diagnostics}");
}

/// What a mutation puts in: bytes that mean something in TOML, and words that mean something here.
const PIECES: [&str; 24] = [
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "#",
    "0",
    "-1",
    "1e9",
    "true",
    "\u{e4}",
    "\0",
    "${A}",
    "${",
    "\"auto\"",
    "name = 1\n",
    "[[route]]\n",
];

fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<Index>(), 0..40usize, prop::option::of(prop::sample::select(&PIECES[..])));
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        for (at, removed, put) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, put.unwrap_or_default().chars());
        }
        text.into_iter().collect()
    })
}

/// Parses and renders; whatever is refused is refused with a reason.
fn survives(text: &str) -> Result<(), TestCaseError> {
    if let Err(diagnostics) = parse("fuzz", text, &NoEnvironment) {
        prop_assert!(diagnostics.has_errors());
        prop_assert!(diagnostics.render(false).contains("error"));
        prop_assert!(diagnostics.render(true).contains("error"));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn any_toml_like_text_is_survived(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        survives(&pieces.concat())?;
    }

    #[test]
    fn any_change_of_the_reference_is_survived(text in mutated()) {
        survives(&text)?;
    }

    #[test]
    fn places_are_inside_the_text(text in mutated()) {
        if let Err(diagnostics) = parse("fuzz", &text, &NoEnvironment) {
            for diagnostic in diagnostics.sorted() {
                if let Some(span) = &diagnostic.span {
                    prop_assert!(span.start <= span.end && span.end <= text.len(), "{:?}", diagnostic);
                }
            }
        }
    }
}
