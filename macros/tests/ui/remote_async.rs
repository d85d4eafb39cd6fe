struct Tally;
#[commonhold::remote]
impl Tally {
    pub async fn hit(&self) {}
}
fn main() {}
