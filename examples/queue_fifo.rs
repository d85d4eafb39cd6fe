//! A queue gives back what it got, in the same order.
//!
//! `cargo run --example queue_fifo`

use commonhold::Manager;

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let fruits = manager.queue::<String>(10)?;
    println!("pushing items to queue:");
    for (number, fruit) in (1..).zip(["Apple", "Orange", "Guava", "Papaya", "Banana"]) {
        println!("item no: {number} {fruit}");
        fruits.send(fruit)?;
    }
    println!("popping items from queue:");
    let mut number = 0;
    while !fruits.is_empty()? {
        if let Some(fruit) = fruits.try_recv()? {
            number += 1;
            println!("item no: {number} {fruit}");
        }
    }
    Ok(())
}
