//! What only a client does.
#![deny(missing_docs)]
#![forbid(unsafe_code)]
