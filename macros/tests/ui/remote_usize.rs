struct Shelf(Vec<String>);

#[commonhold::remote]
impl Shelf {
    pub fn new() -> Self {
        Shelf(Vec::new())
    }
    pub fn label(&self, at: usize) -> String {
        self.0[at].clone()
    }
    pub fn opened(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

fn main() {}
