//! What can be said of an expression before any request comes: that every name in it is there, that types go together, and what it
//! can cost at most. On the way, patterns and networks are read, and their places in the tree are given names of their own.

use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators,
    },
};

use super::{
    Constant, Fault, Kind, Network, Pattern, Scope,
    scene::{self, Part},
    time::{self, Moment, Span, Zone},
};
use crate::regex::PartRegex;

/// What stands for calls whose last argument was read at load.
pub(super) const MATCHES: &str = "@matches";
pub(super) const CONTAINS: &str = "@contains";
pub(super) const NAMES: &str = "@names";
/// What names of constants begin with. No source can name them.
pub(super) const CONSTANT: &str = "@constant";

/// Steps that an evaluation may take at most, one of them some 100 ns.
const STEPS_MAX: u64 = 100_000;

/// Bytes that a value may have at most, if each part of it were as large as all that it comes from.
const VALUE_BYTES_MAX: u64 = 32 << 20;

/// Bytes that a step goes through: what is longer takes more of them.
const STEP_BYTES: u64 = 8 * 1024;

/// The most that a request brings of one text, and of names: its head fits into one buffer and has so many fields.
const TEXT_BYTES: u64 = crate::buf::LARGE_BYTES as u64;
const NAMES_MAX: u64 = 256;

/// The most that a token brings: 8 KiB in base64.
const CLAIMS_BYTES: u64 = 6 * 1024;

/// Expressions within expressions, at most.
const DEPTH_MAX: usize = 64;

/// A type, as far as it is known at load.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
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
    fn name(&self) -> String {
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

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(one), Self::List(other)) | (Self::Map(one), Self::Map(other)) => one.is(other),
            (one, other) => one == other,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Any)
    }

    /// What both are.
    fn common(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }
}

/// What is known of a value.
#[derive(Debug, Clone)]
struct Known {
    of: Type,
    /// Bytes that it has at most, of all that is in it.
    bytes: u64,
    /// Elements that it has at most.
    len: u64,
}

impl Known {
    fn new(of: Type, bytes: u64) -> Self {
        Self { of, bytes, len: 0 }
    }

    fn of_part(part: Part) -> Self {
        match part {
            Part::Text(_) => Self::new(Type::Text, TEXT_BYTES),
            Part::Number(_) => Self::new(Type::Int, 8),
            Part::Map(_) => Self { of: Type::Texts, bytes: TEXT_BYTES, len: NAMES_MAX },
            Part::Record(parts) => Self::new(Type::Record(parts), 0),
            Part::Claims => {
                Self { of: Type::Map(Box::new(Type::Any)), bytes: CLAIMS_BYTES, len: CLAIMS_BYTES / 2 }
            }
            Part::Now => Self::new(Type::Timestamp, 16),
        }
    }

    /// Something within it, of which nothing more is known.
    fn any(&self) -> Self {
        Self { of: Type::Any, bytes: self.bytes, len: self.bytes / 2 }
    }
}

/// A checked expression.
pub(super) struct Checked {
    pub(super) root: IdedExpr,
    pub(super) constants: Vec<Constant>,
}

/// Checks an expression that is to come to a `kind`.
pub(super) fn check(mut root: IdedExpr, kind: Kind, scope: Scope) -> Result<Checked, Fault> {
    let mut checker = Checker {
        parts: match scope {
            Scope::Request => scene::OF_REQUESTS,
            Scope::Identity => scene::OF_IDENTITIES,
        },
        locals: Vec::new(),
        constants: Vec::new(),
        depth: 0,
    };
    let (known, steps) = checker.expr(&mut root)?;
    let wanted = match kind {
        Kind::Bool => Type::Bool,
        Kind::Int => Type::Int,
        Kind::Text => Type::Text,
    };
    if !known.of.is(&wanted) {
        return Err(Fault::new(format!(
            "it comes to a {}, and a {} is wanted",
            known.of.name(),
            wanted.name()
        )));
    }
    if steps > STEPS_MAX {
        return Err(Fault::new(format!("it may take {steps} steps, at most {STEPS_MAX} are allowed"))
            .hint("loops within loops, and over long lists, cost the most"));
    }
    Ok(Checked { root, constants: checker.constants })
}

struct Checker {
    parts: &'static [(&'static str, Part)],
    /// Variables of loops, the innermost last.
    locals: Vec<(String, Known)>,
    constants: Vec<Constant>,
    depth: usize,
}

/// What an expression comes to, and the steps that it takes at most.
type Outcome = Result<(Known, u64), Fault>;

impl Checker {
    fn expr(&mut self, expr: &mut IdedExpr) -> Outcome {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::new("it is nested too deeply"));
        }
        let (known, steps) = match &mut expr.expr {
            Expr::Literal(literal) => (of_literal(literal), 0),
            Expr::Ident(name) => (self.name(name)?, 0),
            Expr::Select(select) => self.select(select)?,
            Expr::List(list) => self.list(list)?,
            Expr::Map(map) => self.map(map)?,
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
            Expr::Call(_) => self.call(expr)?,
            Expr::Struct(_) => return Err(Fault::new("it makes a message, of which there are none here")),
            Expr::Unspecified => return Err(Fault::new("it is empty")),
        };
        self.depth -= 1;
        if known.bytes > VALUE_BYTES_MAX {
            return Err(Fault::new(format!("a value may become larger than {VALUE_BYTES_MAX} bytes")));
        }
        Ok((known, steps.saturating_add(1)))
    }

    fn name(&self, name: &str) -> Result<Known, Fault> {
        if name.starts_with(CONSTANT) {
            return Ok(Known::new(Type::Any, 8));
        }
        if let Some((_, known)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(known.clone());
        }
        if let Some(part) = scene::part_of(self.parts, name) {
            return Ok(Known::of_part(part));
        }
        const TYPES: [&str; 13] = [
            "bool",
            "bytes",
            "double",
            "duration",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "timestamp",
            "type",
            "uint",
            "google.protobuf.Timestamp",
        ];
        if TYPES.contains(&name) {
            return Ok(Known::new(Type::Name, 16));
        }
        if scene::part_of(scene::OF_IDENTITIES, name).is_some() {
            return Err(Fault::new(format!("`{name}` is not known where routes are chosen"))
                .hint("who asks is found out behind the route: `allow` of a policy may speak of it"));
        }
        let names: Vec<&str> = self.parts.iter().map(|(name, _)| *name).collect();
        Err(Fault::new(format!("there is no `{name}`")).hint(format!("there are {}", names.join(", "))))
    }

    /// `operand.field`, and `has(operand.field)`.
    fn select(&mut self, select: &mut SelectExpr) -> Outcome {
        let (operand, steps) = self.expr(&mut select.operand)?;
        let field = &select.field;
        let known = match &operand.of {
            Type::Record(parts) => {
                let names = || parts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                let part = scene::part_of(parts, field).ok_or_else(|| {
                    Fault::new(format!("there is no field `{field}`")).hint(format!("there are {}", names()))
                })?;
                if select.test {
                    return Err(Fault::new(format!("`{field}` is always there, so `has` says nothing"))
                        .hint("where there is none it is empty"));
                }
                Known::of_part(part)
            }
            Type::Texts => Known::new(Type::Text, operand.bytes),
            Type::Map(of) if **of != Type::Any => Known { of: (**of).clone(), ..operand.any() },
            Type::Map(_) | Type::Any => operand.any(),
            of => return Err(Fault::new(format!("a {} has no field `{field}`", of.name()))),
        };
        if select.test {
            return Ok((Known::new(Type::Bool, 1), steps));
        }
        Ok((known, steps))
    }

    fn list(&mut self, list: &mut ListExpr) -> Outcome {
        let mut known = Known { of: Type::Any, bytes: 0, len: list.elements.len() as u64 };
        let mut of = None;
        let mut steps = 0_u64;
        for element in &mut list.elements {
            let (element, more) = self.expr(element)?;
            known.bytes += element.bytes + 16;
            steps = steps.saturating_add(more);
            of = Some(match of {
                None => element.of,
                Some(of) => element.of.common(of),
            });
        }
        known.of = Type::List(Box::new(of.unwrap_or(Type::Any)));
        Ok((known, steps))
    }

    fn map(&mut self, map: &mut MapExpr) -> Outcome {
        let mut known = Known { of: Type::Map(Box::new(Type::Any)), bytes: 0, len: map.entries.len() as u64 };
        let mut steps = 0_u64;
        for entry in &mut map.entries {
            let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                return Err(Fault::new("it makes a message, of which there are none here"));
            };
            let (key, key_steps) = self.expr(&mut entry.key)?;
            let (value, value_steps) = self.expr(&mut entry.value)?;
            known.bytes += key.bytes + value.bytes + 32;
            steps = steps.saturating_add(key_steps).saturating_add(value_steps);
        }
        Ok((known, steps))
    }

    /// What `all`, `exists`, `exists_one`, `map` and `filter` are made into.
    fn comprehension(&mut self, loops: &mut ComprehensionExpr) -> Outcome {
        let (range, mut steps) = self.expr(&mut loops.iter_range)?;
        let element = match &range.of {
            Type::List(of) => Known { of: (**of).clone(), ..range.any() },
            Type::Texts => Known::new(Type::Text, scene::NAME_BYTES_MAX as u64),
            Type::Map(_) => Known::new(Type::Any, range.bytes),
            Type::Any => range.any(),
            of => return Err(Fault::new(format!("there is nothing to go through in a {}", of.name()))),
        };
        if range.of == Type::Texts {
            wrap(&mut loops.iter_range);
        }
        if loops.iter_var2.is_some() {
            return Err(Fault::new("loops have one variable here"));
        }
        let (result, more) = self.expr(&mut loops.accu_init)?;
        steps = steps.saturating_add(more);
        let depth = self.locals.len();
        self.locals.push((loops.iter_var.clone(), element));
        self.locals.push((loops.accu_var.clone(), Known { of: loosened(&result.of), ..result.clone() }));
        let (_, condition) = self.expr(&mut loops.loop_cond)?;
        let (step, body) = self.expr(&mut loops.loop_step)?;
        // What a turn adds is the same each time: no source can name the result while it grows.
        let grown = Known {
            of: step.of.clone(),
            bytes: result
                .bytes
                .saturating_add(range.len.saturating_mul(step.bytes.saturating_sub(result.bytes))),
            len: result.len.saturating_add(range.len.saturating_mul(step.len.saturating_sub(result.len))),
        };
        let turns = range.len.saturating_mul(condition.saturating_add(body));
        self.locals.truncate(depth + 1);
        self.locals.push((loops.accu_var.clone(), grown));
        let (known, end) = self.expr(&mut loops.result)?;
        self.locals.truncate(depth);
        Ok((known, steps.saturating_add(turns).saturating_add(end)))
    }

    fn call(&mut self, expr: &mut IdedExpr) -> Outcome {
        let Expr::Call(call) = &mut expr.expr else { return Err(Fault::new("it is no call")) };
        match (call.func_name.as_str(), call.target.is_some(), call.args.len()) {
            ("matches", true, 1) | ("matches", false, 2) => return self.matches(call),
            ("containsIP", true, 1) => return self.contains_ip(call),
            ("timestamp" | "duration", false, 1) => {
                if let Some(read) = self.read_time(expr)? {
                    return Ok((read, 0));
                }
                let Expr::Call(call) = &mut expr.expr else { return Err(Fault::new("it is no call")) };
                return self.ordinary(call);
            }
            (part, true, 1) if time::PARTS.iter().any(|(name, _)| *name == part) => self.zone(call)?,
            ("cidr", false, _) => {
                return Err(Fault::new("a network is only good for `.containsIP(…)`"));
            }
            _ => {}
        }
        self.ordinary(call)
    }

    /// A call of a function that takes values.
    fn ordinary(&mut self, call: &mut CallExpr) -> Outcome {
        let mut steps = 0_u64;
        let mut known = Vec::new();
        let is_member = call.target.is_some();
        for argument in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            let (argument, more) = self.expr(argument)?;
            steps = steps.saturating_add(more).saturating_add(argument.bytes / STEP_BYTES);
            known.push(argument);
        }
        let comes_to = comes_to(&call.func_name, is_member, &known)?;
        if call.func_name == "size" && known[0].of == Type::Texts {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(wrap);
        }
        Ok((comes_to, steps))
    }

    fn constant(&mut self, constant: Constant) -> String {
        self.constants.push(constant);
        format!("{CONSTANT}{}", self.constants.len() - 1)
    }

    /// `timestamp('…')` and `duration('…')`: read once. `None`: it is a time in seconds.
    fn read_time(&mut self, expr: &mut IdedExpr) -> Result<Option<Known>, Fault> {
        let Expr::Call(call) = &expr.expr else { return Ok(None) };
        let is_moment = call.func_name == "timestamp";
        let Expr::Literal(LiteralValue::String(text)) = &call.args[0].expr else {
            return if is_moment {
                Ok(None)
            } else {
                Err(Fault::new("a duration has to stand in the expression itself").hint("duration('1h30m')"))
            };
        };
        let (constant, of) = if is_moment {
            (Moment::parse(text.inner()).map(Constant::Moment), Type::Timestamp)
        } else {
            (Span::parse(text.inner()).map(Constant::Span), Type::Duration)
        };
        let constant = constant.ok_or_else(|| {
            let (what, hint) = if is_moment {
                ("time", "timestamp('2026-01-01T00:00:00Z')")
            } else {
                ("duration", "duration('1h30m')")
            };
            Fault::new(format!("`{}` is not a {what}", text.inner().escape_debug())).hint(hint)
        })?;
        expr.expr = Expr::Ident(self.constant(constant));
        Ok(Some(Known::new(of, 8)))
    }

    /// The zone of `time.getHours('Europe/Berlin')`: read once.
    fn zone(&mut self, call: &mut CallExpr) -> Result<(), Fault> {
        let Expr::Literal(LiteralValue::String(name)) = &call.args[0].expr else {
            return Err(Fault::new("a time zone has to stand in the expression itself")
                .hint("getHours('Europe/Berlin')"));
        };
        let name = name.inner();
        let zone = Zone::find(name).ok_or_else(|| {
            Fault::new(format!("there is no time zone `{}` on this system", name.escape_debug()))
                .hint("a name such as Europe/Berlin, or a distance from UTC such as +02:00")
        })?;
        call.args[0].expr = Expr::Ident(self.constant(Constant::Zone(zone)));
        Ok(())
    }

    /// `text.matches('pattern')`: the pattern is part of the expression, so that it is read once.
    fn matches(&mut self, call: &mut CallExpr) -> Outcome {
        let pattern = call.args.pop().map(|pattern| pattern.expr);
        let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern else {
            return Err(Fault::new("the pattern of `matches` has to stand in the expression itself"));
        };
        let regex = PartRegex::compile(pattern.inner())
            .map_err(|error| Fault { message: error.message, hint: error.hint })?;
        let mut text = call.target.take().or_else(|| call.args.pop().map(Box::new)).unwrap_or_default();
        let (known, steps) = self.expr(&mut text)?;
        expect("matches", &known.of, &Type::Text)?;
        let name = self.constant(Constant::Pattern(Pattern(regex)));
        *call = replaced(MATCHES, *text, name);
        Ok((Known::new(Type::Bool, 1), steps.saturating_add(known.bytes / 64)))
    }

    /// `cidr('10.0.0.0/8').containsIP(address)`.
    fn contains_ip(&mut self, call: &mut CallExpr) -> Outcome {
        let wrong = || {
            Fault::new("`containsIP` is asked of a network")
                .hint("cidr('10.0.0.0/8').containsIP(request.client.ip)")
        };
        let Some(Expr::Call(network)) = call.target.take().map(|target| target.expr) else {
            return Err(wrong());
        };
        let [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }] = &network.args[..] else {
            return Err(wrong());
        };
        if network.func_name != "cidr" {
            return Err(wrong());
        }
        let text = text.inner();
        let network =
            text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
        let network =
            network.map_err(|_| Fault::new(format!("`{}` is not a network", text.escape_debug())))?;
        if let ipnet::IpNet::V6(six) = &network
            && six.addr().to_ipv4_mapped().is_some()
        {
            return Err(Fault::new(
                "addresses of IPv4 are never written as IPv6 here, so it would match none",
            ));
        }
        let mut address = call.args.pop().unwrap_or_default();
        let (known, steps) = self.expr(&mut address)?;
        expect("containsIP", &known.of, &Type::Text)?;
        let name = self.constant(Constant::Network(Network(network)));
        *call = replaced(CONTAINS, address, name);
        Ok((Known::new(Type::Bool, 1), steps))
    }
}

/// A call of a function here, whose second argument was read.
fn replaced(function: &str, text: IdedExpr, name: String) -> CallExpr {
    let name = IdedExpr { id: text.id, expr: Expr::Ident(name) };
    CallExpr { func_name: function.into(), target: None, args: vec![text, name] }
}

/// Makes texts by name into the list of their names.
fn wrap(texts: &mut IdedExpr) {
    let id = texts.id;
    let call = CallExpr { func_name: NAMES.into(), target: None, args: vec![std::mem::take(texts)] };
    *texts = IdedExpr { id, expr: Expr::Call(call) };
}

/// What a list that is still empty may become.
fn loosened(of: &Type) -> Type {
    match of {
        Type::List(_) => Type::List(Box::new(Type::Any)),
        of => of.clone(),
    }
}

fn of_literal(literal: &LiteralValue) -> Known {
    match literal {
        LiteralValue::Boolean(_) => Known::new(Type::Bool, 1),
        LiteralValue::Bytes(bytes) => Known::new(Type::Bytes, bytes.inner().len() as u64),
        LiteralValue::Double(_) => Known::new(Type::Double, 8),
        LiteralValue::Int(_) => Known::new(Type::Int, 8),
        LiteralValue::Null => Known::new(Type::Null, 1),
        LiteralValue::String(text) => Known::new(Type::Text, text.inner().len() as u64),
        LiteralValue::UInt(_) => Known::new(Type::Uint, 8),
    }
}

fn expect(function: &str, of: &Type, wanted: &Type) -> Result<(), Fault> {
    if of.is(wanted) {
        return Ok(());
    }
    Err(Fault::new(format!("`{function}` takes a {}, not a {}", wanted.name(), of.name())))
}

/// What a function or an operator comes to; of a member, the first argument is what it is asked of.
fn comes_to(function: &str, is_member: bool, known: &[Known]) -> Result<Known, Fault> {
    use Type::{Any, Bool, Double, Duration, Int, List, Map, Record, Text, Texts, Timestamp, Uint};
    let small = |of: Type| Ok(Known::new(of, 16));
    let types: Vec<&Type> = known.iter().map(|known| &known.of).collect();
    let unfit = |operator: &str| {
        let names: Vec<String> = types.iter().map(|of| of.name()).collect();
        Fault::new(format!("`{operator}` does not take a {}", names.join(" and a ")))
    };
    if let Some(Record(_)) = types.iter().find(|of| matches!(of, Record(_))) {
        return Err(Fault::new("a group of fields is no value: name one of them"));
    }
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
            Ok(Known { of: List(Box::new(Text)), bytes: bytes.saturating_mul(2), len: known[0].bytes + 1 })
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
