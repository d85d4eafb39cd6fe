#[commonhold::remote]
struct Tally;
fn main() {}
