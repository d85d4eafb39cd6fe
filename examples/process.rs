//! A function in a process of its own: the textbook's first program.
//!
//! `cargo run --example process`
//!
//! The child is this program, started again: it comes as far as `init` and calls the function there.

use commonhold::Process;

fn print_hello() {
    println!("Hello from another process");
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let process = Process::spawn(print_hello, ())?;
    process.join()?;
    println!("The process has finished with exit code {}", process.exit_code().unwrap_or(-1));
    Ok(())
}
