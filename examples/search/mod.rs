//! What the two programs of the index know of each other: a trait.

/// A search index.
#[commonhold::remote]
pub trait Search {
    /// Takes a document in, and says how many there are.
    fn add(&mut self, title: &str, text: &str) -> u64;

    /// The titles of documents with all of these words, in order.
    fn find(&self, words: &[String]) -> Vec<String>;
}
