//! Handles for child processes: an argument like any other.
//!
//! `cargo run --example children`
//!
//! Three processes each get a line of text and a handle on the same dict, and add their words to it. A handle that is given to a process
//! keeps its object alive until the process has it; there it works as here, over a connection of its own.
//!
//! A program that is no child of this one gets a handle's token, which is a line of text: see `Handle::token`.

use commonhold::{Dict, Manager, Process};
use std::collections::BTreeMap;

const LINES: [&str; 3] = ["the cat and the dog", "the dog sleeps", "the end"];

fn count_words(line: String, totals: Dict<String, u64>) -> commonhold::Result<u64> {
    let mut seen = 0;
    for word in line.split(' ') {
        // Atomic: no word is lost, whoever adds at the same time.
        totals.add(word, 1)?;
        seen += 1;
    }
    Ok(seen)
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let totals = manager.dict::<String, u64>([])?;
    let start = |line: &str| Process::spawn(count_words, (line.to_string(), totals.clone()));
    let children = LINES.into_iter().map(start).collect::<commonhold::Result<Vec<_>>>()?;
    let mut words = 0;
    for child in children {
        // The first `?` is the process's: it has ended as it should. The second is its function's.
        words += child.join()??;
    }
    // In the order of the alphabet: the order of insertion is that of who was quicker.
    let sorted: BTreeMap<String, u64> = totals.to_owned()?.into_iter().collect();
    println!("{sorted:?}");
    println!("{words} words of {} lines", LINES.len());
    Ok(())
}
