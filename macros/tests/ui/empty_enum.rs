#[derive(commonhold::Shared)]
enum Never {}

fn main() {}
