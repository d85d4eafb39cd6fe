struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn label(&self, prefix: Option<&str>) {}
}
fn main() {}
