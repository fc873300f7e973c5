//! Arguments → configuration → server.
fn main() {}
