use commonhold::{Plain, Shared};

#[derive(Shared, Plain, Clone, Copy)]
struct Place {
    row: u32,
    column: Option<u32>,
}

fn main() {}
