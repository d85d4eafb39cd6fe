#[derive(commonhold::Shared)]
struct Page {
    number: usize,
}

fn main() {}
