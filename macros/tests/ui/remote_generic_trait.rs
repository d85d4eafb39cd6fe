#[commonhold::remote]
trait Count<T> {
    fn hit(&self, what: T);
}
fn main() {}
