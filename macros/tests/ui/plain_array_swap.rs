use commonhold::Manager;

fn main() -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let pairs = manager.array([(1u64, 2u64)])?;
    pairs.swap(0, (3, 4))?;
    Ok(())
}
