//! Upstream: who may serve a request and who does. This room owns the choice of an endpoint within a cluster
//! (`balance`), of a cluster within a route's split (`balance::Split`), and what this core has learnt about the
//! endpoints' health (`health`). It does not know what a request is, how a key to hash was made, or who sends to the
//! endpoint that it names. Everything here belongs to one core and one generation and is never shared.

pub mod balance;
pub mod health;
