use commonhold::Pool;

fn main() {
    commonhold::init();
    let offset = 5u64;
    let pool = Pool::new(2).unwrap();
    let _ = pool.map(move |x: u64| x + offset, 0..10u64);
}
