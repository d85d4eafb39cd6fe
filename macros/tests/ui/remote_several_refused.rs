struct Tally(u64);
#[commonhold::remote]
impl Tally {
    pub fn new() -> Self {
        Tally(0)
    }
    pub fn hit(&mut self) {
        self.0 += 1;
    }
    pub fn fill(&self, _into: &mut Vec<u8>, _from: Option<&str>) {}
    pub fn name(&self) -> &str {
        "tally"
    }
    pub async fn wait(&self) {}
    #[local]
    pub fn finish(self) -> u64 {
        self.0
    }
}

fn main() -> commonhold::Result<()> {
    let manager = commonhold::Manager::start()?;
    let tally: TallyProxy = manager.create(Tally::new, ())?;
    tally.hit()
}
