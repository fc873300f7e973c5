//! How many exchanges may be under way at once: a count of the host's, exact for however many cores serve it. Who enters takes a
//! [`Permit`], which comes home when it is dropped, whatever ends its exchange.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// A limit.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: u32,
    /// The host's, whichever core asks.
    under_way: Arc<AtomicU32>,
}

impl Concurrency {
    /// A limit behind which nothing is under way.
    pub fn new(limit: u32) -> Self {
        Self { limit, under_way: Arc::default() }
    }

    /// Enters, if fewer are under way than may be.
    pub fn enter(&self) -> Option<Permit> {
        // The count guards nothing but itself.
        let more = |count| (count < self.limit).then_some(count + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Permit(Arc::clone(&self.under_way)))
    }
}

/// One that is under way.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU32>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests run no data plane")]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::SeqCst},
        thread,
    };

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a list of those who are in.
        #[test]
        fn never_more_than_the_limit(limit in 1_u32..6, steps in prop::collection::vec(any::<Option<u8>>(), 1..80)) {
            let (concurrency, mut inside) = (Concurrency::new(limit), Vec::new());
            for step in steps {
                match step {
                    None => {
                        let permit = concurrency.clone().enter();
                        prop_assert_eq!(permit.is_some(), inside.len() < limit as usize);
                        inside.extend(permit);
                    }
                    Some(at) if !inside.is_empty() => {
                        inside.swap_remove(usize::from(at) % inside.len());
                    }
                    Some(_) => {}
                }
            }
            drop(inside);
            prop_assert_eq!(concurrency.under_way.load(Relaxed), 0);
        }
    }

    #[test]
    fn threads_share_it_exactly() {
        let (concurrency, inside) = (Concurrency::new(3), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(_permit) = concurrency.enter() {
                            assert!(inside.fetch_add(1, SeqCst) < 3);
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(concurrency.under_way.load(Relaxed), 0);
    }
}
