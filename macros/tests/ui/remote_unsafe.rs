struct Tally;
#[commonhold::remote]
impl Tally {
    pub unsafe fn hit(&self) {}
}
fn main() {}
