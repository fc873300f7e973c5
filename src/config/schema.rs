//! The JSON Schema of the configuration file, made from the types. It is what `ringgate schema` prints, what the
//! reference is generated from and what a file is checked against, so the three cannot disagree.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::Config;

/// The schema of a configuration file, JSON Schema draft 2020-12. TOML has no null, so neither has the schema: a key
/// without a default is simply left out.
pub fn json_schema() -> Value {
    let mut schema = of::<Config>();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "ringgate configuration".into());
        if let Some(Value::Object(definitions)) = root.get_mut("$defs") {
            for (name, definition) in definitions.iter_mut() {
                if let Some(definition) = definition.as_object_mut() {
                    definition.insert("title".into(), title(name).into());
                }
            }
        }
    }
    schema
}

/// The schema of a file of another form, without titles.
pub(super) fn of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    tidy(&mut schema);
    schema
}

/// `UpstreamTimeouts` as "Upstream timeouts".
fn title(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, letter) in name.char_indices() {
        match letter.is_ascii_uppercase() && at > 0 {
            true => out.extend([' ', letter.to_ascii_lowercase()]),
            false => out.push(letter),
        }
    }
    out
}

/// Takes out null in all its forms, and joins the lines that doc comments were broken into.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => tidy_object(object),
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_object(object: &mut Map<String, Value>) {
    object.retain(|key, value| !(key == "default" && value.is_null()));
    if let Some(default) = object.get_mut("default") {
        without_nulls(default);
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace("\n\n", "\0").replace('\n', " ").replace('\0', "\n\n");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    object.values_mut().for_each(tidy);
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, value| !value.is_null());
        object.values_mut().for_each(without_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_draft_2020_12_schema_with_titles_and_defaults() {
        let schema = json_schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "ringgate configuration");
        assert_eq!(schema["$defs"]["UpstreamTimeouts"]["title"], "Upstream timeouts");
        let limits = &schema["$defs"]["Limits"]["properties"];
        assert_eq!(limits["head_bytes"]["default"], "16KiB");
        assert_eq!(limits["headers"]["default"], 100);
        assert_eq!(limits["headers"]["maximum"], 256);
        assert_eq!(schema["$defs"]["Listener"]["properties"]["backlog"]["default"], 4096);
        assert_eq!(schema["$defs"]["Listener"]["properties"]["limits"]["default"], serde_json::json!({}));
        assert_eq!(schema["$defs"]["Redirect"]["properties"]["status"]["default"], 308);
    }

    #[test]
    fn it_knows_no_null() {
        fn visit(value: &Value, at: &str) {
            assert!(!value.is_null() && value != "null", "null at {at}");
            match value {
                Value::Object(object) => {
                    object.iter().for_each(|(key, value)| visit(value, &format!("{at}/{key}")))
                }
                Value::Array(items) => items.iter().for_each(|item| visit(item, at)),
                _ => {}
            }
        }
        visit(&json_schema(), "");
    }

    #[test]
    fn everything_but_single_words_is_described() {
        let schema = json_schema();
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            assert!(definition["description"].is_string(), "{name}");
            for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                let description = property["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty() && !description.contains('\n'), "{name}.{key}");
            }
        }
    }
}
