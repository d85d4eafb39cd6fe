struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit(&self, what: impl Iterator<Item = u64>) {}
}
fn main() {}
