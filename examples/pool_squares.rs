//! Squares by a pool of workers: the textbook's first.

use commonhold::Pool;

fn square(x: i64) -> i64 {
    x * x
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let pool = Pool::new(5)?;
    println!("{:?}", pool.map(square, [1, 2, 3])?);
    Ok(())
}
