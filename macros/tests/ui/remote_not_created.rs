struct Tally;
fn main() {
    let manager = commonhold::Manager::start().unwrap();
    let _ = manager.create(|| Tally, ());
}
