//! How a path is brought to its canonical form, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a path is brought to its one canonical form. Dot segments are always resolved, percent-encoded unreserved
/// characters always decoded, `%00` and control characters always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathRules {
    /// `%2F`: `"keep"` leaves it encoded, never a separator; `"reject"` answers 400; `"decode"` makes it a
    /// separator.
    pub encoded_slash: EncodedSlash,
    /// `\` and `%5C`: `"reject"` answers 400; `"slash"` makes it a separator; `"keep"` leaves it, encoded.
    pub backslash: Backslash,
    /// `//`: `"merge"` makes it one; `"reject"` answers 400; `"keep"` leaves it.
    pub empty_segment: EmptySegment,
}

/// What becomes of `%2F`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// Stays encoded and is never a separator.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// Becomes a separator.
    Decode,
}

/// What becomes of `\` and `%5C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backslash {
    /// 400.
    #[default]
    Reject,
    /// Becomes a separator.
    Slash,
    /// Stays, as `%5C`, and is never a separator.
    Keep,
}

/// What becomes of `//`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmptySegment {
    /// Becomes `/`.
    #[default]
    Merge,
    /// 400.
    Reject,
    /// Stays.
    Keep,
}
