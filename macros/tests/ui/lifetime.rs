#[derive(commonhold::Shared)]
struct Borrowed<'a> {
    name: &'a str,
}

fn main() {}
