struct Tally;
trait Hit {
    fn hit(&self);
}
#[commonhold::remote]
impl Hit for Tally {
    fn hit(&self) {}
}
fn main() {}
