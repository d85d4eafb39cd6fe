//! A progress bar over the work of a pool: primes below a bound, counted in pieces. The bar shows on a terminal only.
//!
//! `cargo run --release --example pool_progress -- 20000000`

use commonhold::{Pool, cpu_count};
use indicatif::{ProgressBar, ProgressStyle};

/// How many primes there are from `from` to below `to`.
fn primes(from: u64, to: u64) -> u64 {
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (from..to).filter(is_prime).count() as u64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    commonhold::init();
    let below: u64 = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let step = below.div_ceil(200).max(1);
    let pieces = (0..below).step_by(step as usize).map(|from| (from, below.min(from + step)));

    let pool = Pool::builder().workers(cpu_count()).chunk_size(1).build()?;
    let counts = pool.map_async(primes, pieces)?;
    let bar = ProgressBar::new(counts.progress().total);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} (still {eta})")?);
    for progress in counts.watch() {
        bar.set_position(progress.done);
    }
    bar.finish_and_clear();
    println!("{} primes below {below}", counts.get()?.into_iter().sum::<u64>());
    Ok(())
}
