#[derive(commonhold::Key)]
struct Plain(u8);

fn main() {}
