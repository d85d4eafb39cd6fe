//! A list that lives in a manager process, printed, shown, indexed and sliced like one's own.
//!
//! `cargo run --example proxy_objects`

use commonhold::Manager;

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let squares = manager.list((0..10).map(|i| i * i))?;
    println!("{squares}");
    println!("{squares:?}");
    println!("{}", squares.get(4)?.expect("a list of ten has a fifth element"));
    println!("{:?}", squares.slice(2..5)?);
    Ok(())
}
