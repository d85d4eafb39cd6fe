struct Tally(u64);
#[commonhold::remote]
impl Tally {
    pub fn hit(&self) {}
}
fn main() {
    let manager = commonhold::Manager::start().unwrap();
    let start = 5u64;
    let _ = manager.create(move || Tally(start), ());
}
