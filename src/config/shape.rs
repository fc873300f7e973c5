//! What a value must look like: the JSON Schema turned into a tree that is quick to walk and can say in words what it
//! expects. It covers what [`super::types`] needs of JSON Schema, which a test checks, and nothing more.

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// The shape of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Any string.
    Text,
    /// A [`super::values::Span`].
    Duration,
    /// A [`super::values::ByteSize`].
    Size,
    /// One of these strings.
    Words(Vec<String>),
    /// An integer from `min` to `max`.
    Integer { min: i64, max: i64 },
    /// `true` or `false`.
    Boolean,
    /// An array.
    List(Box<Self>),
    /// A table.
    Table(TableShape),
    /// Exactly one of these.
    OneOf(Vec<Self>),
    /// Whatever serde accepts. No key of the configuration has it.
    Any,
}

/// The shape of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TableShape {
    /// The keys it may have, in the order of the types.
    pub(super) keys: Vec<(String, Member)>,
    /// The shape of every other key's value. `None`: it has no other keys.
    pub(super) rest: Option<Box<Shape>>,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

impl TableShape {
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.keys.iter().find_map(|(key, member)| (key == name).then_some(member))
    }
}

impl Shape {
    /// The shape that `schema`, with its `$defs`, describes.
    pub(super) fn of(schema: &Value) -> Self {
        Self::compile(schema, schema)
    }

    /// The shape that a part of the schema `root` describes.
    pub(super) fn compile(schema: &Value, root: &Value) -> Self {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return target.map_or(Self::Any, |target| Self::compile(target, root));
        }
        if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            return Self::one_of(choices.iter().map(|choice| Self::compile(choice, root)));
        }
        if let Some(word) = schema["const"].as_str() {
            return Self::Words(vec![word.into()]);
        }
        if let Some(words) = schema["enum"].as_array() {
            return Self::Words(words.iter().filter_map(Value::as_str).map(Into::into).collect());
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("ringgate-duration")) => Self::Duration,
            (Some("string"), Some("ringgate-size")) => Self::Size,
            (Some("string"), None) if schema["pattern"].is_null() => Self::Text,
            (Some("integer"), format) => Self::integer(schema, format),
            (Some("boolean"), _) => Self::Boolean,
            (Some("array"), _) => Self::List(Box::new(Self::compile(&schema["items"], root))),
            (Some("object"), _) => Self::table(schema, root),
            _ => Self::Any,
        }
    }

    fn one_of(choices: impl Iterator<Item = Self>) -> Self {
        let mut words = Vec::new();
        let mut shapes = Vec::new();
        for choice in choices {
            match choice {
                Self::Words(more) => words.extend(more),
                other => shapes.push(other),
            }
        }
        match (words.is_empty(), shapes.is_empty()) {
            (_, true) => Self::Words(words),
            (true, false) => Self::OneOf(shapes),
            (false, false) => {
                shapes.insert(0, Self::Words(words));
                Self::OneOf(shapes)
            }
        }
    }

    fn integer(schema: &Value, format: Option<&str>) -> Self {
        let (lowest, highest) = match format {
            Some("uint16") => (0, u16::MAX.into()),
            Some("uint32") => (0, u32::MAX.into()),
            Some("uint64" | "uint") => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        // Written in the schema as a whole number, or as one with `.0`.
        let bound =
            |key: &str| schema[key].as_i64().or_else(|| schema[key].as_f64().map(|bound| bound as i64));
        Self::Integer {
            min: bound("minimum").map_or(lowest, |min| min.max(lowest)),
            max: bound("maximum").map_or(highest, |max| max.min(highest)),
        }
    }

    fn table(schema: &Value, root: &Value) -> Self {
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let keys = properties.map(|(name, property)| {
            let is_required = required.iter().any(|key| key == name);
            (name.clone(), Member { shape: Self::compile(property, root), is_required })
        });
        let rest = match &schema["additionalProperties"] {
            Value::Object(_) => Some(Box::new(Self::compile(&schema["additionalProperties"], root))),
            Value::Bool(false) => None,
            _ => Some(Box::new(Self::Any)),
        };
        Self::Table(TableShape { keys: keys.collect(), rest })
    }

    /// What it expects, in words: "a string, or a table with `regex` or `present`".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text => "a string".into(),
            Self::Duration => "a duration such as \"5s\"".into(),
            Self::Size => "a size such as \"64KiB\"".into(),
            Self::Words(words) => listed(words.iter().map(|word| format!("\"{word}\"")), "or"),
            Self::Integer { min, max: i64::MAX } if *min > 0 => format!("an integer of at least {min}"),
            Self::Integer { min: 0, max: i64::MAX } => "an integer, not negative".into(),
            Self::Integer { min: i64::MIN, max: i64::MAX } => "an integer".into(),
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Boolean => "true or false".into(),
            Self::List(item) => match item.as_ref() {
                Self::Text => "a list of strings".into(),
                Self::Table(_) => "a list of tables".into(),
                item => format!("a list, each item {}", item.describe()),
            },
            Self::Table(table) => {
                let required = table.keys.iter().filter(|(_, member)| member.is_required);
                match listed(required.map(|(name, _)| format!("`{name}`")), "and") {
                    names if names.is_empty() => "a table".into(),
                    names => format!("a table with {names}"),
                }
            }
            Self::Any => "a value".into(),
            Self::OneOf(shapes) => describe_choice(shapes),
        }
    }

    /// Something of this shape for the rest of a check to go on with after the real value was refused.
    pub(super) fn placeholder<'i>(&self) -> DeValue<'i> {
        match self {
            Self::Text | Self::Any => DeValue::String("".into()),
            Self::Duration => DeValue::String("1s".into()),
            Self::Size => DeValue::String("1KiB".into()),
            Self::Words(words) => DeValue::String(words.first().cloned().unwrap_or_default().into()),
            Self::Integer { .. } => DeValue::Integer(toml::de::DeInteger::default()),
            Self::Boolean => DeValue::Boolean(false),
            Self::List(_) => DeValue::Array(DeArray::new()),
            Self::Table(shape) => {
                let mut table = DeTable::new();
                for (name, member) in shape.keys.iter().filter(|(_, member)| member.is_required) {
                    table.insert(
                        Spanned::new(0..0, name.clone().into()),
                        Spanned::new(0..0, member.shape.placeholder()),
                    );
                }
                DeValue::Table(table)
            }
            Self::OneOf(shapes) => shapes.first().unwrap_or(&Self::Any).placeholder(),
        }
    }
}

/// "a, b or c", with `or` or another word before the last.
pub(super) fn listed(words: impl IntoIterator<Item = String>, word: &str) -> String {
    let mut words: Vec<_> = words.into_iter().collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} {word} {last}", words.join(", ")),
        None => String::new(),
    }
}

fn describe_choice(shapes: &[Shape]) -> String {
    let keys: Vec<_> = shapes
        .iter()
        .filter_map(|shape| match shape {
            Shape::Table(table) => Some(&table.keys),
            _ => None,
        })
        .flatten()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    let others = shapes.iter().filter(|shape| !matches!(shape, Shape::Table(_)));
    let others: Vec<_> = others
        .flat_map(|shape| match shape {
            Shape::Words(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
            shape => vec![shape.describe()],
        })
        .collect();
    if keys.is_empty() {
        return listed(others, "or");
    }
    format!("{}, or a table with {}", others.join(", "), listed(keys, "or"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::json_schema;

    fn at<'s>(shape: &'s Shape, path: &[&str]) -> &'s Shape {
        path.iter().fold(shape, |shape, key| match shape {
            Shape::Table(table) => match table.member(key) {
                Some(member) => &member.shape,
                None => table.rest.as_ref().unwrap(),
            },
            Shape::List(item) => match item.as_ref() {
                Shape::Table(table) => &table.member(key).unwrap().shape,
                _ => panic!("{key}"),
            },
            _ => panic!("{key}"),
        })
    }

    #[test]
    fn every_key_has_a_shape_of_its_own() {
        fn visit(shape: &Shape, at: &str) {
            match shape {
                Shape::Any => panic!("{at}"),
                Shape::List(item) => visit(item, at),
                Shape::OneOf(shapes) => shapes.iter().for_each(|shape| visit(shape, at)),
                Shape::Table(table) => {
                    table.keys.iter().for_each(|(key, member)| visit(&member.shape, &format!("{at}.{key}")));
                    table.rest.iter().for_each(|shape| visit(shape, at));
                }
                _ => {}
            }
        }
        visit(&Shape::of(&json_schema()), "");
    }

    #[test]
    fn shapes_say_what_they_expect() {
        let shape = Shape::of(&json_schema());
        for (path, expected) in [
            (&["runtime", "workers"][..], "\"auto\" or an integer from 1 to 1024"),
            (&["runtime", "driver"], "\"auto\", \"io_uring\" or \"epoll\""),
            (&["runtime", "max_connections"], "an integer of at least 1"),
            (&["limits", "headers"], "an integer from 1 to 256"),
            (&["limits", "head_bytes"], "a size such as \"64KiB\""),
            (&["listener", "timeouts", "head"], "a duration such as \"5s\""),
            (&["listener", "trusted_proxies"], "a list of strings"),
            (&["listener", "allow_methods"], "a list, each item \"TRACE\" or \"CONNECT\""),
            (
                &["cluster", "hash_on"],
                "\"client_ip\", \"path\", or a table with `header`, `cookie` or `query`",
            ),
            (&["route", "match", "header", "x"], "a string, or a table with `regex` or `present`"),
            (&["route", "match", "host"], "a string or a list of strings"),
            (&["route", "clusters"], "a list of tables"),
            (&["route", "redirect"], "a table with `to`"),
            (&["route", "match"], "a table"),
            (&["forwarding", "forwarded"], "true or false"),
        ] {
            assert_eq!(at(&shape, path).describe(), expected, "{path:?}");
        }
    }
}
