struct Tally(String);
#[commonhold::remote]
impl Tally {
    pub fn name(&self) -> &str {
        &self.0
    }
}
fn main() {}
