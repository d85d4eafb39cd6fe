struct Tally;
#[commonhold::remote(threads = 4)]
impl Tally {
    pub fn hit(&self) {}
}
fn main() {}
