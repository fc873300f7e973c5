//! The types that expressions have, how large their values can be, and what functions and operators come to.

use cel::common::ast::operators;

use super::{
    Fault,
    scene::{self, Part},
};

/// The most that a request brings of one text: its head fits into one buffer.
const TEXT_BYTES: u64 = crate::buf::LARGE_BYTES as u64;

/// The most that a token brings: 8 KiB in base64.
const CLAIMS_BYTES: u64 = 6 * 1024;

/// Pieces that a text is split into.
const PIECES: u64 = super::strings::PIECES_MAX as u64;

/// A type, as far as it is known at load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Null,
    Timestamp,
    Duration,
    /// What a name such as `int` stands for, and `type` comes to.
    Name,
    List(Box<Self>),
    /// From texts.
    Map(Box<Self>),
    /// Texts by name, as requests have them.
    Texts,
    Record(&'static [(&'static str, Part)]),
    /// Known when it is evaluated.
    Any,
}

impl Type {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int => "int".into(),
            Self::Uint => "uint".into(),
            Self::Double => "double".into(),
            Self::Text => "string".into(),
            Self::Bytes => "bytes".into(),
            Self::Null => "null".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Duration => "duration".into(),
            Self::Name => "type".into(),
            Self::List(of) => format!("list of {}", of.name()),
            Self::Map(of) => format!("map to {}", of.name()),
            Self::Texts => "map to string".into(),
            Self::Record(_) => "group of fields".into(),
            Self::Any => "value".into(),
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(one), Self::List(other)) | (Self::Map(one), Self::Map(other)) => one.is(other),
            (one, other) => one == other,
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Any)
    }

    /// What both are.
    pub(super) fn common(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) of: Type,
    /// Bytes that it has at most, of all that is in it.
    pub(super) bytes: u64,
    /// Elements that it has at most.
    pub(super) len: u64,
}

impl Known {
    pub(super) fn new(of: Type, bytes: u64) -> Self {
        Self { of, bytes, len: 0 }
    }

    pub(super) fn of_part(part: Part) -> Self {
        match part {
            Part::Text(_) => Self::new(Type::Text, TEXT_BYTES),
            Part::Number(_) => Self::new(Type::Int, 8),
            Part::Map(_) => Self { of: Type::Texts, bytes: TEXT_BYTES, len: scene::NAMES_MAX as u64 },
            Part::Record(parts) => Self::new(Type::Record(parts), 0),
            Part::Claims => {
                Self { of: Type::Map(Box::new(Type::Any)), bytes: CLAIMS_BYTES, len: CLAIMS_BYTES / 2 }
            }
            Part::Now => Self::new(Type::Timestamp, 16),
        }
    }

    /// Something within it, of which nothing more is known.
    pub(super) fn any(&self) -> Self {
        Self { of: Type::Any, bytes: self.bytes, len: self.bytes / 2 }
    }
}

pub(super) fn expect(function: &str, of: &Type, wanted: &Type) -> Result<(), Fault> {
    if of.is(wanted) {
        return Ok(());
    }
    Err(Fault::new(format!("`{function}` takes a {}, not a {}", wanted.name(), of.name())))
}

/// Fields are looked up one by one; together they are no value.
pub(super) fn not_a_record(known: &Known) -> Result<(), Fault> {
    match known.of {
        Type::Record(_) => Err(Fault::new("a group of fields is no value: name one of them")),
        _ => Ok(()),
    }
}

/// Elements that an operator goes through at most.
pub(super) fn elements(function: &str, known: &[Known]) -> u64 {
    let may_be_list = |known: &Known| matches!(known.of, Type::List(_) | Type::Any);
    match (function, known) {
        (operators::IN, [_, list]) => list.len,
        (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => one.len.min(other.len),
        (operators::ADD, [one, other]) if may_be_list(one) && may_be_list(other) => {
            one.len.saturating_add(other.len)
        }
        _ => 0,
    }
}

/// What a function or an operator comes to; of a member, the first argument is what it is asked of.
pub(super) fn comes_to(function: &str, is_member: bool, known: &[Known]) -> Result<Known, Fault> {
    use Type::{Any, Bool, Double, Duration, Int, List, Map, Text, Texts, Timestamp, Uint};
    let small = |of: Type| Ok(Known::new(of, 16));
    let types: Vec<&Type> = known.iter().map(|known| &known.of).collect();
    let unfit = |operator: &str| {
        let names: Vec<String> = types.iter().map(|of| of.name()).collect();
        Fault::new(format!("`{operator}` does not take a {}", names.join(" and a ")))
    };
    known.iter().try_for_each(not_a_record)?;
    let bytes: u64 = known.iter().map(|known| known.bytes).sum();
    match (function, is_member, &types[..]) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR, false, [one, other]) => {
            let operator = if function == operators::LOGICAL_AND { "&&" } else { "||" };
            if one.is(&Bool) && other.is(&Bool) { small(Bool) } else { Err(unfit(operator)) }
        }
        (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, false, [one]) => {
            if one.is(&Bool) {
                small(Bool)
            } else {
                Err(unfit("!"))
            }
        }
        (operators::CONDITIONAL, false, [condition, one, other]) => {
            if !condition.is(&Bool) {
                return Err(Fault::new(format!("`?` asks a bool, not a {}", condition.name())));
            }
            Ok(Known {
                of: (*one).clone().common((*other).clone()),
                bytes: known[1].bytes.max(known[2].bytes),
                len: known[1].len.max(known[2].len),
            })
        }
        (operators::EQUALS | operators::NOT_EQUALS, false, [one, other]) => {
            let is_nothing = matches!(one, Type::Null) || matches!(other, Type::Null);
            let fits = one.is(other) || (one.is_number() && other.is_number()) || is_nothing;
            if !fits || matches!(one, Texts) || matches!(other, Texts) {
                return Err(unfit(if function == operators::EQUALS { "==" } else { "!=" }));
            }
            small(Bool)
        }
        (
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
            false,
            [one, other],
        ) => {
            let has_order =
                |of: &Type| of.is_number() || matches!(of, Text | Type::Bytes | Bool | Timestamp | Duration);
            let fits = has_order(one) && has_order(other);
            let goes_together = one.is(other) || (one.is_number() && other.is_number());
            if fits && goes_together { small(Bool) } else { Err(unfit(function.trim_matches('_'))) }
        }
        (operators::IN, false, [one, list]) => match list {
            List(of) if one.is(of) || (one.is_number() && of.is_number()) => small(Bool),
            Map(_) | Any => small(Bool),
            Texts if one.is(&Text) => small(Bool),
            _ => Err(unfit("in")),
        },
        (operators::INDEX, false, [of, index]) => match of {
            List(of) if index.is_number() => Ok(Known { of: (**of).clone(), ..known[0].any() }),
            Texts if index.is(&Text) => Ok(Known::new(Text, known[0].bytes)),
            Map(of) if **of != Any => Ok(Known { of: (**of).clone(), ..known[0].any() }),
            Map(_) | Any => Ok(known[0].any()),
            _ => Err(unfit("[]")),
        },
        (operators::ADD, false, [one, other]) => {
            let of = match (one, other) {
                (Text, Text) => Text,
                (Int, Int) => Int,
                (Uint, Uint) => Uint,
                (Double, Double) => Double,
                (Type::Bytes, Type::Bytes) => Type::Bytes,
                (List(one), List(other)) => List(Box::new((**one).clone().common((**other).clone()))),
                (Timestamp, Duration) | (Duration, Timestamp) => Timestamp,
                (Duration, Duration) => Duration,
                (Any, other) | (other, Any) => match other {
                    Bool | Type::Null | Map(_) | Texts | Type::Name => return Err(unfit("+")),
                    _ => Any,
                },
                _ => return Err(unfit("+")),
            };
            Ok(Known { of, bytes, len: known[0].len + known[1].len })
        }
        (operators::SUBSTRACT, false, [one, other]) => match (one, other) {
            (Timestamp, Duration) => small(Timestamp),
            (Timestamp, Timestamp) | (Duration, Duration) => small(Duration),
            (one, other) if one.is_number() && other.is_number() && one.is(other) => {
                small((*one).clone().common((*other).clone()))
            }
            (Any, Timestamp | Duration) | (Timestamp | Duration, Any) => small(Any),
            _ => Err(unfit("-")),
        },
        (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, false, [one, other]) => {
            let has_rest =
                function != operators::MODULO || (!matches!(one, Double) && !matches!(other, Double));
            if one.is_number() && other.is_number() && one.is(other) && has_rest {
                small((*one).clone().common((*other).clone()))
            } else {
                Err(unfit(function.trim_matches('_')))
            }
        }
        (operators::NEGATE, false, [one]) => {
            if matches!(one, Int | Double | Any) {
                small((*one).clone())
            } else {
                Err(unfit("-"))
            }
        }
        ("size", _, [of]) => {
            let fits = matches!(of, Text | Type::Bytes | List(_) | Map(_) | Texts | Any);
            if fits { small(Int) } else { Err(unfit("size")) }
        }
        ("contains" | "startsWith" | "endsWith", true, [one, other]) => {
            if one.is(&Text) && other.is(&Text) {
                small(Bool)
            } else {
                Err(unfit(function))
            }
        }
        ("lowerAscii" | "upperAscii" | "trim", true, [one]) => {
            if one.is(&Text) {
                Ok(Known::new(Text, bytes))
            } else {
                Err(unfit(function))
            }
        }
        ("substring", true, [one, from]) if one.is(&Text) && from.is(&Int) => Ok(Known::new(Text, bytes)),
        ("substring", true, [one, from, to]) if one.is(&Text) && from.is(&Int) && to.is(&Int) => {
            Ok(Known::new(Text, bytes))
        }
        ("indexOf" | "lastIndexOf", true, [one, other]) => {
            if one.is(&Text) && other.is(&Text) {
                small(Int)
            } else {
                Err(unfit(function))
            }
        }
        ("split", true, [one, other]) => {
            if !one.is(&Text) || !other.is(&Text) {
                return Err(unfit("split"));
            }
            Ok(Known { of: List(Box::new(Text)), bytes: bytes + 16 * PIECES, len: PIECES })
        }
        ("string", false, [of]) => {
            let fits = matches!(of, Text | Int | Uint | Double | Bool | Type::Bytes | Any);
            if fits { Ok(Known::new(Text, bytes.max(32))) } else { Err(unfit("string")) }
        }
        ("int", false, [Text | Int | Uint | Double | Timestamp | Any]) => small(Int),
        ("uint", false, [Text | Int | Uint | Double | Any]) => small(Uint),
        ("double", false, [Text | Int | Uint | Double | Any]) => small(Double),
        ("timestamp", false, [Int | Any]) => small(Timestamp),
        ("type", false, [_]) => small(Type::Name),
        ("dyn", false, [_]) => Ok(known[0].any()),
        (
            "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek",
            true,
            [Timestamp | Any],
        )
        | (
            "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds",
            true,
            [Timestamp | Duration | Any],
        ) => small(Int),
        (
            "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek"
            | "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds",
            true,
            [Timestamp | Any, zone],
        ) if zone.is(&Text) => small(Int),
        _ => Err(unknown(function, is_member)),
    }
}

/// The functions, for who looks for one.
pub(super) const FUNCTIONS: &str = "has, all, exists, exists_one, map, filter, size, contains, startsWith, endsWith, matches, lowerAscii, \
                         upperAscii, trim, substring, indexOf, lastIndexOf, split, string, int, uint, double, timestamp, \
                         duration, type, dyn, cidr(…).containsIP, getHours and the like";

fn unknown(function: &str, is_member: bool) -> Fault {
    let form = if is_member { "value." } else { "" };
    Fault::new(format!("there is no `{form}{function}(…)` for such arguments"))
        .hint(format!("there are {FUNCTIONS}"))
}
