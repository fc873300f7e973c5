//! Where a request shows who asks: what authentication reads and the upstream need not see.

/// What a credential comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A field, its name in lower case.
    Header(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}
