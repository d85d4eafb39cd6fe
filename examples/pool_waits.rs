//! The textbook's work log: four works with their waiting times, two workers. Each takes the next one when it is done with its own.

use commonhold::{Pool, current_process, parent_process};
use std::time::Duration;

fn work_log(name: String, tenths: u64) -> String {
    println!(" Process {name} waiting {tenths} tenths of a second");
    // For so long, or until there is nobody left to work for.
    let _ = parent_process().expect("a worker has an owner").wait(Duration::from_millis(100 * tenths));
    println!(" Process {name} Finished.");
    current_process().name().to_owned()
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let work = [("A", 5), ("B", 2), ("C", 1), ("D", 3)];
    let pool = Pool::builder().workers(2).name("worker").build()?;
    let by_whom = pool.map(work_log, work.map(|(name, tenths)| (name.to_string(), tenths)))?;
    pool.close()?;
    pool.join()?;
    println!("{} works by {} workers", by_whom.len(), by_whom.iter().collect::<std::collections::BTreeSet<_>>().len());
    Ok(())
}
