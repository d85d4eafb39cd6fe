fn add<N: commonhold::Number>(_: N) {}

fn main() {
    add(5usize);
    add(5i64);
}
