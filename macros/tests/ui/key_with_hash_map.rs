use commonhold::{Key, Shared};
use std::collections::HashMap;

#[derive(Shared, Key)]
enum Index {
    By(HashMap<String, u8>),
}

fn main() {}
