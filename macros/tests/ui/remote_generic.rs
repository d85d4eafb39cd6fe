struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit<T>(&self, what: T) {}
}
fn main() {}
