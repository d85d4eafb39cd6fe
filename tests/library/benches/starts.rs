//! A bench that has processes and a pool, as `cargo bench` runs it, and `cargo test` beside the tests.
//!
//! Most harnesses of benches bring a `main` of their own, so that what is started begins before it, as in tests.

use commonhold::{Pool, Process};
use std::time::Instant;
use tests_library::{Picture, inverted, squares};

commonhold::init_in_tests!();

fn cube(n: u64) -> u64 {
    n * n * n
}

/// Says how long each of so many rounds takes.
fn bench(what: &str, rounds: u32, mut round: impl FnMut(u64)) {
    let begin = Instant::now();
    (0..u64::from(rounds)).for_each(&mut round);
    println!("{what}: {:?}", begin.elapsed() / rounds);
}

fn main() {
    // Runners that have each test in a process of its own ask for names first: there are none.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    bench("a function of the bench in a process of its own", 10, |n| {
        assert_eq!(Process::spawn(cube, n).unwrap().join().unwrap(), n.pow(3));
    });
    bench("a function of the library", 10, |n| {
        let picture = Picture { name: "moon".into(), pixels: vec![n as u8; 1000] };
        assert_eq!(Process::spawn(inverted, picture).unwrap().join().unwrap().pixels, [255 - n as u8; 1000]);
    });
    let pool = Pool::new(2).unwrap();
    bench("a task", 100, |n| assert_eq!(pool.apply(cube, n).unwrap(), n.pow(3)));
    bench("a pool of the library, and its end", 2, |n| assert_eq!(squares(vec![n, 2]).unwrap(), [n * n, 4]));
}
