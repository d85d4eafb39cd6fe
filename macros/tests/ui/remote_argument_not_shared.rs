struct Mine;
struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit(&self, what: Mine) {}
}
fn main() {}
