//! An object of one's own: a counter with a history, that lives beside the manager.
use commonhold::{Dict, Manager};

struct Tally {
    hits: u64,
}

#[commonhold::remote]
impl Tally {
    pub fn new(start: u64) -> Self {
        Tally { hits: start }
    }

    pub fn hit(&mut self, n: u64) -> u64 {
        self.hits += n;
        self.hits
    }

    pub fn hits(&self) -> u64 {
        self.hits
    }

    pub fn label(&self, prefix: &str, parts: &[String], more: Option<String>) -> Result<String, String> {
        if prefix.is_empty() {
            return Err("a label needs a prefix".to_string());
        }
        Ok(format!("{prefix}{}{parts:?}{more:?}", self.hits))
    }
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let tally = manager.create(Tally::new, (0,))?;
    println!("{tally:?}");
    println!("{}", tally.hit(3)?);
    println!("{:?}", tally.label("x", &["a".to_string()], None)?);
    println!("{:?}", tally.label("", &[], Some("b".to_string()))?);
    let board: Dict<String, TallyProxy> = manager.dict([("first".to_string(), tally)])?;
    let again = board.get("first")?.unwrap().to_owned();
    again.call_one_way().hit(4)?;
    let pending = again.call_async().hit(5)?;
    println!("{}", pending.get()?);
    println!("{}", again.hits()?);
    Ok(())
}
