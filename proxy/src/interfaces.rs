//! What the catalog says of an object of a user's type: its own interface, then those of its traits.

use std::fmt::Write;

/// The fingerprint of an object with these interfaces, each a fingerprint and a text, and the text that it is made with.
pub fn describe(interfaces: Vec<(u64, &'static str)>) -> (u64, String) {
    let mut interfaces = interfaces.into_iter();
    let (fingerprint, own) = interfaces.next().unwrap_or_default();
    let mut text = own.to_owned();
    for (other, description) in interfaces {
        // A string takes what is written to it.
        let _ = write!(text, " as [{other:016x}] {description}");
    }
    (fingerprint, text)
}

/// Whether an object of this text has an interface besides its own.
pub fn has_interface(text: &str, fingerprint: u64) -> bool {
    text.contains(&format!(" as [{fingerprint:016x}] "))
}
