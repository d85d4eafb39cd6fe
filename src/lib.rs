//! commonhold.
#![deny(missing_docs)]
