//! Guards and long campaigns.
fn main() {}
