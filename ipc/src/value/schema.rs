//! A type's structure as text: what two programs compare before one reads what the other wrote.
//!
//! The text is put together at run time, once per type and program: a constant could not be computed for a recursive type, it
//! would depend on itself. It names types and fields as the source does, so it depends on neither compiler nor module path, and
//! it is what an error shows when the fingerprints differ. A type that comes up again is written as `#n`, the n-th type of the
//! text counted from 0 in the order in which they begin: so recursion ends, and a type used twice does not double the text.
use std::any::TypeId;
use std::fmt::{Display, Write};
use std::ops::Range;

/// A finished type whose text is not longer than this is written again instead of being referred to.
const REPEATED_BYTES_MAX: usize = 24;

/// Collects the description of a type. `#[derive(Shared)]` calls its methods.
#[derive(Default)]
pub struct Schema {
    pub(super) text: String,
    seen: Vec<Seen>,
    /// Out-of-line levels between the root and the type that is being described, and the most of them so far.
    level: u32,
    pub(super) deepest: u32,
    pub(super) is_recursive: bool,
}

struct Seen {
    id: TypeId,
    /// `None` while the type is still being described: whoever meets it then is inside of it.
    finished: Option<Finished>,
}

struct Finished {
    text: Range<usize>,
    levels: u32,
}

/// A type that is being described.
pub(super) struct Begun {
    number: usize,
    start: usize,
    outer_deepest: u32,
}

impl Schema {
    /// A type begins, if it is to be described here: the number that it gets. None: it has been before, and is referred to.
    pub(super) fn begin(&mut self, id: TypeId) -> Option<Begun> {
        if let Some(number) = self.seen.iter().position(|seen| seen.id == id) {
            self.repeat(number);
            return None;
        }
        let number = self.seen.len();
        self.seen.push(Seen { id, finished: None });
        let begun = Begun { number, start: self.text.len(), outer_deepest: self.deepest };
        self.deepest = self.level;
        Some(begun)
    }

    /// The type has been described.
    pub(super) fn end(&mut self, begun: Begun) {
        let levels = self.deepest - self.level;
        self.deepest = self.deepest.max(begun.outer_deepest);
        self.seen[begun.number].finished = Some(Finished { text: begun.start..self.text.len(), levels });
    }

    fn repeat(&mut self, number: usize) {
        match &self.seen[number].finished {
            Some(Finished { text, levels }) => {
                self.deepest = self.deepest.max(self.level + levels);
                if text.len() <= REPEATED_BYTES_MAX {
                    return self.text.extend_from_within(text.clone());
                }
            }
            None => self.is_recursive = true,
        }
        self.display(format_args!("#{number}"));
    }

    /// What `describe` describes lies out of line, behind up to `levels` pointers one after the other.
    pub fn out_of_line(&mut self, levels: u32, describe: impl FnOnce(&mut Self)) {
        self.level += levels;
        self.deepest = self.deepest.max(self.level);
        describe(self);
        self.level -= levels;
    }

    /// The type that is being described contains itself, in a way that its description leaves out.
    pub(super) fn contains_itself(&mut self) {
        self.is_recursive = true;
    }

    /// Text as it is.
    pub fn word(&mut self, word: &str) {
        self.text.push_str(word);
    }

    pub(super) fn display(&mut self, what: impl Display) {
        write!(self.text, "{what}").expect("a string takes what is written to it");
    }

    pub(super) fn separate(&mut self) {
        if !self.text.ends_with(['(', '{', '<']) {
            self.text.push_str(", ");
        }
    }

    /// A type of the user's begins: `struct Point`. Its parameters, then [`word`](Schema::word) with its brackets, follow.
    pub fn open(&mut self, kind: &str, name: &str) {
        self.display(format_args!("{kind} {name}"));
    }

    /// A constant parameter.
    pub fn constant(&mut self, value: impl Display) {
        self.display(format_args!("<{value}>"));
    }

    /// An enum's variant. Its brackets and fields follow.
    pub fn variant(&mut self, name: &str) {
        self.separate();
        self.text.push_str(name);
    }
}
