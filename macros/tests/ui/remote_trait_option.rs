#[commonhold::remote(sync)]
trait Count {
    fn hit(&self);
}
fn main() {}
