#[derive(commonhold::Shared)]
struct Event {
    name: String,
    at: std::time::Instant,
}

fn main() {}
