struct Tally;
#[commonhold::remote]
impl Tally {
    pub fn hit(&self, what: std::borrow::Cow<'static, str>) {}
}
fn main() {}
