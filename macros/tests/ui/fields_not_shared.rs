use commonhold::{Plain, Shared};
use std::collections::BTreeMap;

// Among fields of all kinds, in a recursive type, and in one with parameters, it is the one that is pointed at.
#[derive(Shared)]
enum Tree {
    Leaf(std::rc::Rc<u8>),
    Node { name: String, below: Vec<Tree>, by_name: BTreeMap<String, Box<Tree>>, size: isize },
    Nothing,
}

#[derive(Shared)]
struct Tagged<T> {
    tag: &'static str,
    value: T,
    values: Vec<Option<T>>,
}

#[derive(Shared, Plain, Clone, Copy)]
struct Place {
    row: u32,
    // Shared, and not plain.
    column: Option<u32>,
    depth: std::num::NonZero<usize>,
}

fn main() {}
