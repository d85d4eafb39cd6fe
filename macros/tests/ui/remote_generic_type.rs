struct Tally<T>(T);
#[commonhold::remote]
impl<T> Tally<T> {
    pub fn hit(&self) {}
}
fn main() {}
