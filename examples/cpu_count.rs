//! How many processes can really run at the same time.
//!
//! `cargo run --example cpu_count`
//!
//! Counted are the processors that this process may use: its affinity mask and the quota of its control groups limit them.

fn main() {
    println!("Number of processors: {}", commonhold::cpu_count());
}
