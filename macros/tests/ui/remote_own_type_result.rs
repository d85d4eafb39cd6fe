struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn split(&self) -> Option<Self> {
        None
    }
}
fn main() {}
