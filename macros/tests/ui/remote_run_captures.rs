use commonhold::{Manager, Transaction};

fn main() {
    let manager = Manager::start().unwrap();
    let start = 5u64;
    let _ = manager.run(move |_: &Transaction<'_>, more: u64| Ok(start + more), 1u64);
}
