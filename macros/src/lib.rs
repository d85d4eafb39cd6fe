//! Derive macros of commonhold.
