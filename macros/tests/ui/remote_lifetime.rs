struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit<'a>(&self, what: &'a str) {}
}
fn main() {}
