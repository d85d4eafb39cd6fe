//! What an error has to say.

use commonhold::{Error, ErrorKind};
use std::fmt::Debug;

/// Whether a text is the expected one, with `{…}` for anything.
pub fn matches(expected: &str, text: &str) -> bool {
    let mut parts = expected.split("{…}");
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// What went wrong says this.
#[track_caller]
pub fn says<T: Debug>(result: Result<T, impl Into<Error>>, kind: ErrorKind, expected: &str) {
    let error = result.map_err(Into::into).expect_err(expected);
    assert!(matches(expected, &error.to_string()), "\nexpected: {expected}\n    says: {error}");
    assert_eq!(error.kind(), kind, "{error}");
}
