//! An index in memory that other programs search: they know the trait, and nothing of what is behind it.
//!
//! `index_server <name>` serves until a line is read, or its input ends. See `index_client`.
mod search;

use commonhold::Manager;
use search::{Search, SearchProxy};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct MemoryIndex {
    titles: BTreeMap<String, BTreeSet<String>>,
    documents: BTreeSet<String>,
}

impl Search for MemoryIndex {
    fn add(&mut self, title: &str, text: &str) -> u64 {
        self.documents.insert(title.to_owned());
        for word in text.split_whitespace() {
            self.titles.entry(word.to_lowercase()).or_default().insert(title.to_owned());
        }
        self.documents.len() as u64
    }

    fn find(&self, words: &[String]) -> Vec<String> {
        let none = BTreeSet::new();
        let mut found = words.iter().map(|word| self.titles.get(&word.to_lowercase()).unwrap_or(&none));
        let Some(first) = found.next() else { return Vec::new() };
        found.fold(first.clone(), |all, next| &all & next).into_iter().collect()
    }
}

// Searches may run several at once.
#[commonhold::remote(sync, traits(Search))]
impl MemoryIndex {
    pub fn new() -> Self {
        MemoryIndex::default()
    }
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let name = std::env::args().nth(1).unwrap_or_else(|| "index".to_owned());
    let manager = Manager::open_or_start(&name)?;
    let index = manager.create(MemoryIndex::new, ())?;
    manager.publish("index", &SearchProxy::from(index))?;
    println!("serving");
    let _ = std::io::stdin().read_line(&mut String::new());
    manager.shutdown()
}
