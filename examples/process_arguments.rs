//! Processes with arguments: two functions at work at the same time.
//!
//! `cargo run --example process_arguments`
//!
//! Arguments are values of shared types, here one number. Both run at the same time, so which of them prints first is open.

use commonhold::Process;

fn cube(n: i64) {
    println!("The Cube is: {}", n * n * n);
}

fn square(n: i64) {
    println!("The Square is: {}", n * n);
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let first = Process::spawn(cube, 5)?;
    let second = Process::spawn(square, 5)?;
    first.join()?;
    second.join()?;
    println!("Both processes are finished");
    Ok(())
}
