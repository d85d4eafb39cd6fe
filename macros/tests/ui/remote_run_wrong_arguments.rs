use commonhold::{Manager, Transaction};

fn logic(_: &Transaction<'_>, one: u64, two: u64) -> commonhold::Result<u64> {
    Ok(one + two)
}

fn main() {
    let manager = Manager::start().unwrap();
    let _: commonhold::Result<u64> = manager.run(logic, (1u64, 2u64));
}
