//! What can be said of an expression before any request comes: that every name in it is there, that types go together, and what it
//! can cost at most. On the way, patterns and networks are read, and their places in the tree are given names of their own.

use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr,
    },
};

use super::{
    Constant, Fault, Kind, Network, Pattern, Scope,
    scene::{self, Part, TextMap},
    time::{self, Moment, Span, Zone},
    types::{self, Known, Type, comes_to, expect, not_a_record},
};
use crate::regex::PartRegex;

/// What stands for calls whose last argument was read at load.
pub(super) const MATCHES: &str = "@matches";
pub(super) const CONTAINS: &str = "@contains";
pub(super) const NAMES: &str = "@names";
/// What names of constants begin with. No source can name them.
pub(super) const CONSTANT: &str = "@constant";

/// Steps that an evaluation may take at most, one of them some 100 ns.
pub(super) const STEPS_MAX: u64 = 100_000;

/// Bytes that a value may have at most, if each part of it were as large as all that it comes from.
const VALUE_BYTES_MAX: u64 = 32 << 20;

/// Bytes that a step goes through: what is longer takes more of them.
const STEP_BYTES: u64 = 8 * 1024;

/// Elements of a list that a step compares or copies.
const STEP_ELEMENTS: u64 = 8;

/// Steps that looking for a name among those that a request brings may take: all of its head may be gone through.
pub(super) const LOOK_UP_STEPS: u64 = 512;

/// Expressions within expressions, at most.
const DEPTH_MAX: usize = 64;

/// A checked expression.
pub(super) struct Checked {
    pub(super) root: IdedExpr,
    pub(super) constants: Vec<Constant>,
    /// Whether it speaks of claims.
    pub(super) has_claims: bool,
}

/// Checks an expression that is to come to a `kind`.
pub(super) fn check(mut root: IdedExpr, kind: Kind, scope: Scope) -> Result<Checked, Fault> {
    let mut checker = Checker {
        parts: match scope {
            Scope::Request => scene::OF_REQUESTS,
            Scope::Identity => scene::OF_IDENTITIES,
            Scope::Exchange => scene::OF_EXCHANGES,
        },
        scope,
        locals: Vec::new(),
        constants: Vec::new(),
        has_claims: false,
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
    Ok(Checked { root, constants: checker.constants, has_claims: checker.has_claims })
}

struct Checker {
    scope: Scope,
    parts: &'static [(&'static str, Part)],
    /// Variables of loops, the innermost last.
    locals: Vec<(String, Known)>,
    constants: Vec<Constant>,
    has_claims: bool,
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

    fn name(&mut self, name: &str) -> Result<Known, Fault> {
        if name.starts_with(CONSTANT) {
            return Ok(Known::new(Type::Any, 8));
        }
        if let Some((_, known)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(known.clone());
        }
        if let Some(part) = scene::part_of(self.parts, name) {
            self.has_claims |= part == Part::Claims;
            return Ok(Known::of_part(part));
        }
        const TYPES: [&str; 12] = [
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
        ];
        if TYPES.contains(&name) {
            return Ok(Known::new(Type::Name, 16));
        }
        if name == "response" {
            return Err(Fault::new("`response` is known only where lines of the log are written"));
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
                if part == Part::Map(TextMap::Params) && self.scope == Scope::Exchange {
                    return Err(Fault::new("`params` are not known where lines of the log are written"));
                }
                if select.test {
                    return Err(Fault::new(format!("`{field}` is always there, so `has` says nothing"))
                        .hint("where there is none it is empty"));
                }
                Known::of_part(part)
            }
            Type::Texts => {
                let is_auth = matches!(&select.operand.expr, Expr::Ident(name) if name == "auth");
                let is_local = self.locals.iter().any(|(local, _)| local == "auth");
                if is_auth && !is_local && !scene::AUTH.contains(&field.as_str()) {
                    let hint = format!("there are {}", scene::AUTH.join(", "));
                    return Err(Fault::new(format!("there is no field `{field}`")).hint(hint));
                }
                Known::new(Type::Text, operand.bytes)
            }
            Type::Map(of) if **of != Type::Any => Known { of: (**of).clone(), ..operand.any() },
            Type::Map(_) | Type::Any => operand.any(),
            of => return Err(Fault::new(format!("a {} has no field `{field}`", of.name()))),
        };
        let steps = if operand.of == Type::Texts { steps.saturating_add(LOOK_UP_STEPS) } else { steps };
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
            not_a_record(&element)?;
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
            not_a_record(&value)?;
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
            steps = steps.saturating_add(LOOK_UP_STEPS);
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
        if known.iter().any(|argument| argument.of == Type::Texts) {
            steps = steps.saturating_add(LOOK_UP_STEPS);
        }
        steps = steps.saturating_add(types::elements(&call.func_name, &known) / STEP_ELEMENTS);
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
        if network.func_name != "cidr" || network.target.is_some() {
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
