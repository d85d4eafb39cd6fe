//! Raw shared memory: processes fill their parts of one array, count into bins of another, and keep a record whole under a lock. One process
//! ends while it has that lock, and whoever comes next is told.
//!
//! `cargo run --example shared_array`

use commonhold::{Array, Manager, Plain, Process, Shared, StripedCounter};

/// What was seen last. Larger than a word: so it is written under the array's lock.
#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Best {
    at: u64,
    height: f64,
    by: u32,
}

const SAMPLES: usize = 100_000;
const WORKERS: u32 = 4;

fn height(at: usize) -> f64 {
    (at as f64 / 7000.0).sin() * 50.0 + 50.0
}

/// Measures a part of the samples.
fn measure(me: u32, samples: Array<f64>, bins: Array<u64>, best: Array<Best>, done: StripedCounter) -> commonhold::Result<()> {
    let part = SAMPLES / WORKERS as usize;
    let start = part * me as usize;
    let heights: Vec<f64> = (start..start + part).map(height).collect();
    samples.write_from(start, &heights)?; // copied in: nobody waits
    for (at, height) in (start..).zip(&heights) {
        bins.fetch_add(*height as usize / 10, 1)?; // atomic: no count is lost
        done.add(1)?; // the same at memory speed, where one sum is enough
        if *height > best.get(0)?.height {
            best.with_lock(|_| {
                // two words or more together: under the lock
                if *height > best.get(0)?.height {
                    best.set(0, Best { at: at as u64, height: *height, by: me })?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Takes the lock and does not live to give it back.
fn die_under_the_lock(best: Array<Best>) -> commonhold::Result<()> {
    let _held = best.lock()?.into_guard();
    std::process::exit(1)
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let samples = manager.array::<f64>(SAMPLES)?; // zeros, 800 kB of shared memory
    let bins = manager.array::<u64>(11)?;
    let best = manager.array([Best { at: 0, height: 0.0, by: 0 }])?;
    let done = manager.striped_counter(0)?;

    let start = |me| Process::spawn(measure, (me, samples.clone(), bins.clone(), best.clone(), done.clone()));
    let workers = (0..WORKERS).map(start).collect::<commonhold::Result<Vec<_>>>()?;
    for worker in workers {
        worker.join()??;
    }
    println!("{} samples, {} counted in bins, {} done", samples.len()?, bins.iter()?.sum::<commonhold::Result<u64>>()?, done.get()?);
    let found = best.get(0)?;
    println!("the best is {:.3} at {}", found.height, found.at);
    assert_eq!(samples.get(found.at as usize)?, found.height);

    assert!(Process::spawn(die_under_the_lock, best.clone())?.join().is_err());
    println!("its holder died: {}, and what it says is {:.3}", best.lock()?.owner_died(), best.get(0)?.height);
    println!("told twice: {}", best.lock()?.owner_died());
    Ok(())
}
