use commonhold::Manager;

fn main() -> commonhold::Result<()> {
    let manager = Manager::start()?;
    manager.array(vec!["a".to_string()])?;
    Ok(())
}
