//! Expressions of CEL (the Common Expression Language, cel-spec) over a request: compiled and checked when a configuration is
//! loaded, asked while requests come. The one room that knows the `cel` crate. It does not know where a request's parts lie
//! (see [`Scene`]), nor what becomes of an answer.
//!
//! What the crate leaves to run time is settled at load as far as it can be: every name and type is checked, patterns and
//! networks are read once, and what an expression may cost at most is bounded by the most that a request can bring.

/// Makes a value of what only the functions here look into.
macro_rules! opaque {
    ($type:ty) => {
        impl cel::common::value::Val for $type {
            fn get_type(&self) -> &cel::common::types::Type {
                &cel::common::types::DYN_TYPE
            }

            fn cel_type() -> &'static cel::common::types::Type {
                &cel::common::types::DYN_TYPE
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn cel::common::value::Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }
        }

        impl cel::common::value::StaticVal for $type {}
    };
}

mod check;
mod scene;
mod strings;
mod time;
mod types;

use std::{cell::OnceCell, fmt, net::IpAddr, sync::Arc};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::{
        types::{CelBool, CelInt, CelList, CelString, DYN_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
};

pub use self::scene::{Number, Scene, Text, TextMap};
use self::{
    scene::{Bound, Names},
    time::{Moment, Span, Zone},
};
use crate::regex::PartRegex;
pub(in crate::expression) use opaque;

/// Bytes of an expression as written.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// What an expression comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A text.
    Text,
}

/// What an expression may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The request.
    Request,
    /// Who asks, too, as far as it is known.
    Identity,
    /// What came of it, too; but not what the route's captures took.
    Exchange,
}

/// An expression, ready to be asked. Each core has its own copy, with caches of its own.
#[derive(Clone)]
pub struct Expression {
    source: Box<str>,
    root: IdedExpr,
    /// What was read at load: patterns and the like, each of which has a name in the tree.
    constants: Box<[Constant]>,
    has_claims: bool,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, as a clause that starts in lower case.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Why an expression has no value for a request: something that it speaks of is not there, or is not as it takes it to be. For people who
/// explain a request of their own: it may name what was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed(Box<str>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl Expression {
    /// Reads an expression that comes to a `kind`, and may speak of what is in `scope`.
    ///
    /// # Errors
    /// It is none, names what is not there, takes one type for another, or could cost too much.
    pub fn compile(source: &str, kind: Kind, scope: Scope) -> Result<Self, Fault> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(Fault::new(format!("an expression has at most {EXPRESSION_BYTES_MAX} bytes")));
        }
        let program = parse(source)?;
        let checked = check::check(program.expression().clone(), kind, scope)?;
        Ok(Self {
            source: source.into(),
            root: checked.root,
            constants: checked.constants.into(),
            has_claims: checked.has_claims,
        })
    }

    /// As it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// It has no value.
    pub fn holds(&self, scene: &dyn Scene) -> Result<bool, Failed> {
        self.evaluate(scene, |value| value.downcast_ref::<CelBool>().map(|value| *value.inner()))
    }

    /// The number that it comes to.
    ///
    /// # Errors
    /// It has no value.
    pub fn number(&self, scene: &dyn Scene) -> Result<i64, Failed> {
        self.evaluate(scene, |value| value.downcast_ref::<CelInt>().map(|value| *value.inner()))
    }

    /// The text that it comes to.
    ///
    /// # Errors
    /// It has no value.
    pub fn text(&self, scene: &dyn Scene) -> Result<String, Failed> {
        self.evaluate(scene, |value| {
            value.downcast_ref::<CelString<'_>>().map(|value| value.inner().to_owned())
        })
    }

    fn evaluate<T>(&self, scene: &dyn Scene, read: impl FnOnce(&dyn Val) -> Option<T>) -> Result<T, Failed> {
        let bound = Bound::new(scene, &self.constants, self.has_claims);
        let mut context = Context::with_env(environment());
        context.set_variable_resolver(&bound);
        match Value::resolve_val(&self.root, &context) {
            Ok(value) => read(&*value).ok_or_else(|| Failed("a value is of another type".into())),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// What the crate says of a text that it cannot parse.
fn parse(source: &str) -> Result<cel::Program, Fault> {
    let unreadable = |errors: cel::ParseErrors| {
        let error = errors.errors.first();
        let at = error.map_or(1, |error| error.pos.1.max(1));
        let message = error.map_or("", |error| error.msg.lines().next().unwrap_or_default());
        Fault::new(format!("not an expression, at character {at}: {message}"))
    };
    environment().compile(source).map_err(unreadable)
}

/// In words that quote no value, and of names only the one that is not there.
fn failed(error: &ExecutionError) -> Failed {
    Failed(match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{}`", key.escape_debug()).into(),
        ExecutionError::FunctionError { function, message } if function == scene::SCENE => {
            message.as_str().into()
        }
        ExecutionError::FunctionError { function, .. } => format!("`{function}` failed").into(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero".into(),
        ExecutionError::Overflow(..) => "a number is too large".into(),
        ExecutionError::IndexOutOfBounds(_) => "a list is shorter than that".into(),
        _ => "a value is of another type".into(),
    })
}

/// The functions. Counted up and down with every evaluation, so each core has its own.
fn environment() -> Arc<Env> {
    thread_local! {
        static ENVIRONMENT: OnceCell<Arc<Env>> = const { OnceCell::new() };
    }
    ENVIRONMENT.with(|environment| Arc::clone(environment.get_or_init(|| Arc::new(functions()))))
}

fn functions() -> Env {
    let mut env = Env::stdlib().with_optional_support(false);
    // They are declared once and under names that are no one else's.
    let declared = strings::declare(&mut env)
        .and_then(|()| env.add_overload(check::MATCHES, check::MATCHES, vec![STRING_TYPE, DYN_TYPE], matches))
        .and_then(|()| {
            env.add_overload(check::CONTAINS, check::CONTAINS, vec![STRING_TYPE, DYN_TYPE], contains)
        })
        .and_then(|()| time::declare(&mut env))
        .and_then(|()| env.add_overload(check::NAMES, check::NAMES, vec![DYN_TYPE], names));
    debug_assert_eq!(declared, Ok(()));
    env
}

/// What an expression holds that was read at load.
#[derive(Debug, Clone)]
enum Constant {
    Pattern(Pattern),
    Network(Network),
    Moment(Moment),
    Span(Span),
    Zone(Zone),
}

impl Constant {
    fn value(&self) -> &dyn Val {
        match self {
            Self::Pattern(pattern) => pattern,
            Self::Network(network) => network,
            Self::Moment(moment) => moment,
            Self::Span(span) => span,
            Self::Zone(zone) => zone,
        }
    }
}

/// A pattern of `matches`.
#[derive(Debug, Clone)]
struct Pattern(PartRegex);

/// A network of `cidr`.
#[derive(Debug, Clone)]
struct Network(ipnet::IpNet);

opaque!(Pattern);
opaque!(Network);

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = &arguments[..] else { return Err(ExecutionError::missing_argument_or_target()) };
    let text = text.downcast_ref::<CelString<'_>>().map(|text| text.inner());
    let is_match =
        text.zip(pattern.downcast_ref::<Pattern>()).map(|(text, Pattern(regex))| regex.is_match(text));
    is_match.map(|is| CowVal::owned(CelBool::from(is))).ok_or_else(ExecutionError::missing_argument_or_target)
}

fn contains<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [address, network] = &arguments[..] else { return Err(ExecutionError::missing_argument_or_target()) };
    let address = address.downcast_ref::<CelString<'_>>().and_then(|address| address.inner().parse().ok());
    let address: IpAddr =
        address.ok_or_else(|| ExecutionError::function_error("containsIP", "no address"))?;
    let Some(Network(network)) = network.downcast_ref::<Network>() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    Ok(CowVal::owned(CelBool::from(network.contains(&address.to_canonical()))))
}

/// The names that there are, for loops over them.
fn names<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [map] = &arguments[..] else { return Err(ExecutionError::missing_argument_or_target()) };
    let Some(indexer) = map.as_indexer() else { return Err(ExecutionError::missing_argument_or_target()) };
    // The one key that no request can bring.
    let names = indexer.get(&Names)?.into_owned();
    debug_assert!(names.downcast_ref::<CelList<'_>>().is_some());
    Ok(CowVal::Owned(names))
}

#[cfg(test)]
mod tests;
