struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn fill(&self, into: &mut Vec<u8>) {}
}
fn main() {}
