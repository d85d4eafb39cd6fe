//! Searches the index of another program, `index_server`, of which it knows only a trait. `index_client <name>`.
mod search;

use commonhold::Manager;
use search::SearchProxy;

struct Notebook;

#[commonhold::remote]
impl Notebook {
    pub fn new() -> Self {
        Notebook
    }
    pub fn lines(&self) -> u64 {
        3
    }
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let name = std::env::args().nth(1).unwrap_or_else(|| "index".to_owned());
    let manager = Manager::connect(&name)?;
    let index = manager.open::<SearchProxy>("index")?;
    index.add("Moby Dick", "Call me Ishmael")?;
    index.add("Emma", "Emma Woodhouse handsome clever and rich")?;
    println!("{} documents", index.add("A letter", "call me when you are rich")?);
    println!("{:?}", index.find(&["call".to_string(), "me".to_string()])?);
    println!("{:?}", index.find(&["rich".to_string()])?);
    // The manager is another program's: it has no types of ours unless we offer them.
    println!("{}", manager.create(Notebook::new, ()).unwrap_err());
    let manager = Manager::builder().register::<Notebook>().connect(&name)?;
    println!("{} lines in our own object there", manager.create(Notebook::new, ())?.lines()?);
    Ok(())
}
