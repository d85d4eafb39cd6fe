use commonhold::{Key, Shared};

#[derive(Shared, Key)]
struct Point {
    x: f64,
}

fn main() {}
