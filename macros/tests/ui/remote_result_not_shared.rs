struct Mine;
struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit(&self) -> Mine {
        Mine
    }
}
fn main() {}
