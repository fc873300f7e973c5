//! Who asks, once it is known.

use std::{cell::OnceCell, fmt, rc::Rc, sync::Arc};

use crate::policy::{key::Consumers, rate_limit::OwnLimit};

/// A set of consumers on one core. All cores have the set in common, so that exchanges count themselves here and not there.
pub(super) struct Roll(pub(super) Arc<Consumers>);

/// Whose key a request shows. It holds the set in which the consumer was found: sets change while requests last, and in another one the
/// number would be someone else's.
#[derive(Clone)]
pub(super) struct Whose {
    set: Rc<Roll>,
    number: u32,
}

impl Whose {
    pub(super) fn new(set: Rc<Roll>, number: u32) -> Self {
        Self { set, number }
    }

    /// How often the consumer may come, if that is its own.
    pub(super) fn limit(&self) -> Option<&OwnLimit> {
        self.set.0.limit(self.number)
    }

    /// The consumer's name.
    pub(super) fn name(&self) -> &str {
        self.set.0.name(self.number)
    }
}

impl fmt::Debug for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Whose").field(&self.name()).finish()
    }
}

/// Who asks, as far as policies have found out.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whose key it shows.
    pub(super) consumer: OnceCell<Whose>,
    /// The user whose password it shows.
    pub(super) user: OnceCell<Rc<str>>,
}
