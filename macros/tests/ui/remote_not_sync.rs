struct Tally(std::cell::Cell<u64>);
#[commonhold::remote(sync)]
impl Tally {
    pub fn hit(&self) {}
}
fn main() {}
