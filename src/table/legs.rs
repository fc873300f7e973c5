//! Routes that answer with what several services say: from names to the legs that are asked.

use super::{Action, Route, compile::Compiler, policies::Chains};
use crate::{
    config::{
        Key,
        types::{self, Config},
    },
    expression::{Kind, Scope},
    policy::{
        aggregate::{Aggregate, Leg, Merge, Needed, Pointer},
        template::{Place, Template},
    },
};

/// How a value of another leg begins in a text.
const LEGS: &str = "{legs.";

/// Values of other legs in one path, at most.
const VALUES_MAX: usize = 16;

impl Compiler<'_, '_> {
    pub(super) fn aggregate(
        &mut self,
        at: usize,
        aggregate: &types::Aggregate,
        captures: &[String],
    ) -> Option<Aggregate> {
        let mut legs = Vec::with_capacity(aggregate.legs.len());
        for (place, leg) in aggregate.legs.iter().enumerate() {
            legs.extend(self.leg(at, (aggregate, place, leg), captures));
        }
        let merge = match aggregate.merge {
            types::Merge::Name => Merge::Name,
            types::Merge::Deep => Merge::Deep,
        };
        let is_whole = legs.len() == aggregate.legs.len();
        is_whole.then(|| Aggregate { merge, legs: legs.into(), problems: aggregate.problems.as_str().into() })
    }

    fn leg(
        &mut self,
        at: usize,
        (aggregate, place, leg): (&types::Aggregate, usize, &types::Leg),
        captures: &[String],
    ) -> Option<Leg> {
        let below = |key: &'static str| -> [Key<'static>; 6] {
            ["route".into(), at.into(), "aggregate".into(), "legs".into(), place.into(), key.into()]
        };
        let name = format!("{}/{}", self.config.route[at].name, leg.name);
        let route = self.inner_route(&name, (&leg.cluster, &below("cluster")), leg.timeout.as_millis());
        let (mut names, mut values) = (captures.to_vec(), Vec::new());
        for named in others(&leg.path) {
            match needed(&aggregate.legs[..place], named) {
                Ok(needed) => {
                    names.push(format!("legs.{named}"));
                    values.push(needed);
                }
                Err((message, hint)) => {
                    self.error(&below("path"), message, Some(hint));
                    return None;
                }
            }
        }
        if values.len() > VALUES_MAX {
            self.error(&below("path"), format!("a path has at most {VALUES_MAX} values of other legs"), None);
            return None;
        }
        let path = match Template::compile(&leg.path, &names, Place::Target) {
            Ok(path) => path,
            Err(error) => {
                self.error(&below("path"), error.message, error.hint);
                return None;
            }
        };
        let when = match &leg.when {
            None => None,
            Some(source) => Some(self.expression(&below("when"), source, Kind::Bool, Scope::Identity)?),
        };
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        Some(Leg {
            name: leg.name.as_str().into(),
            route: route?,
            chain: 0,
            path,
            captures: captures.len(),
            values: values.into(),
            headers: lower(&leg.headers),
            is_required: leg.required,
            when,
            // Validation has refused what is none.
            select: Pointer::parse(&leg.select)?,
            remove: leg.remove.iter().filter_map(|text| Pointer::parse(text)).collect(),
            pass: lower(&leg.pass),
            body_bytes: usize::try_from(leg.body_bytes.0).unwrap_or(usize::MAX / 2),
        })
    }
}

/// What a text names of other legs' answers: `user/id` of `{legs.user/id}`.
fn others(text: &str) -> impl Iterator<Item = &str> {
    // A brace that is written twice is one that is meant as such.
    let is_variable = |at: usize| {
        let before = &text[..at];
        (before.len() - before.trim_end_matches('{').len()).is_multiple_of(2)
    };
    text.match_indices(LEGS)
        .filter(move |(at, _)| is_variable(*at))
        .filter_map(|(at, _)| text[at + LEGS.len()..].split_once('}'))
        .map(|(named, _)| named)
}

/// The value that is meant, and else what is wrong and what to do about it.
fn needed(earlier: &[types::Leg], named: &str) -> Result<Needed, (String, String)> {
    let (name, pointer) = match named.find('/') {
        Some(at) => named.split_at(at),
        None => (named, ""),
    };
    let leg = earlier.iter().position(|leg| leg.name == name).ok_or_else(|| {
        let message = format!("there is no leg `{name}` before this one");
        (
            message,
            "a leg may use what those before it in the list have said: `{legs.user/address/city}`".into(),
        )
    })?;
    let pointer = Pointer::parse(pointer).ok_or_else(|| {
        (
            format!("`{pointer}` is no JSON pointer"),
            "in it, `~` is written `~0` and `/` is written `~1`".into(),
        )
    })?;
    Ok(Needed { leg, pointer })
}

/// Gives legs their policies' chains, once there are any.
pub(super) fn attach(config: &Config, routes: &mut [Route], chains: &mut Chains) {
    for (route, configured) in routes.iter_mut().zip(&config.route) {
        let (Action::Aggregate(all), Some(aggregate)) = (&mut route.action, &configured.aggregate) else {
            continue;
        };
        for (leg, configured) in all.legs.iter_mut().zip(&aggregate.legs) {
            leg.chain = chains.named(config, configured.uses.iter());
        }
    }
}
