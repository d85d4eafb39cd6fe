fn main() -> commonhold::Result<()> {
    let manager = commonhold::Manager::start()?;
    let _ = manager.dict([("ada", 1u64)])?;
    Ok(())
}
