struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn token(&self) -> u64 {
        0
    }
}
fn main() {}
