//! hotspare
fn main() {}
