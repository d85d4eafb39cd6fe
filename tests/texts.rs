//! Every text of an error stands in a test, or in the list of those that do not, with the reason.
//!
//! What the kernel alone can fail at (`Error::system`) is left out: no test makes it fail there.

use std::fs::read_to_string;
use std::path::Path;

/// What no test holds, by its longest piece without placeholders, and why.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "It says that memory makes no sense which the manager alone writes to, or a pool's workers and owner.",
        &[
            "a list is shorter than it says: a process has written over it; make it anew, or start the manager again",
            "a task of a pool, or its result, cannot be read: a process that uses the pool has written over it; make a new pool",
            "has no readable type",
            "the manager's store is damaged:",
        ],
    ),
    (
        "Somebody dies, is stopped or is replaced within an instant that no test hits each time.",
        &[
            "a value was lost on its way: the thread that sends it has given up a call meanwhile",
            "is another than the one that a handle belongs to: that one has ended, and its objects with it",
            "is not there (any more): an object lives while a handle, a name or a value refers to it",
            "keeps being replaced: try again",
            "keeps being swept away: try again",
            "keeps starting and ending: try again",
            "ms: it took longer, and has left no trace",
            "the answer to this call could not be waited for: whether it took effect is not known, the session is over (",
            "the manager cannot be asked any more what became of what was to run beside it:",
            "the call was called off before its method began: it was not run",
            "the host of this program keeps starting and ending on this manager",
            "the object has been dropped: make a new one, and hold a handle or give it a name while others call it",
            "the parent has ended",
            "the process at the other end of the socket has ended, and was waited for",
        ],
    ),
    (
        "A test would need gigabytes or half a minute.",
        &[
            "the manager was told to end and has not: is its process stopped?",
            "the result is larger than a call can bring: put it into a container, and give a handle back",
            "the result of a call could not be brought to the pool's owner",
        ],
    ),
    (
        "The system fails at a call at which nothing that a test can set makes it fail.",
        &[
            "a pool's worker did not get its descriptors: raise `ulimit -n`",
            "the system has no random numbers",
            "the system has no random numbers for an address",
        ],
    ),
];

/// All sources below a directory of the workspace: of tests, or of all else.
fn sources(directory: &str, of_tests: bool) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests/texts.rs") {
            let source = read_to_string(&path).unwrap();
            let all_tests = directory == "tests" || path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
            let (code, tests) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
            match (all_tests, of_tests) {
                (true, true) => found.push(source),
                (true, false) => {}
                (false, _) => found.push(if of_tests { tests } else { code }.to_owned()),
            }
        }
    }
    found
}

/// Source with what continues a text on the next line joined.
fn joined(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace("\\\"", "\u{1}")
}

/// Whether what follows this is still within the parentheses that were open before it.
fn is_within(source: &str) -> bool {
    let mut depth = 1;
    source.chars().all(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth > 0
    })
}

/// The texts of errors in a source, each by its longest piece without placeholders.
fn texts(source: &str) -> Vec<String> {
    let source = joined(source);
    let mut found = Vec::new();
    for begin in ["Error::new(", "Error::caused(", "let text ="] {
        for rest in source.split(begin).skip(1) {
            let Some((before, text)) = rest.split_once('"') else { continue };
            let begins = if begin.starts_with("let") { ["", "format!("].contains(&before.trim()) } else { is_within(before) };
            if !begins {
                continue;
            }
            let text = text.split('"').next().unwrap_or_default();
            let pieces = text
                .split('{')
                .enumerate()
                .map(|(n, piece)| if n == 0 { piece } else { piece.split_once('}').map_or("", |(_, rest)| rest) });
            found.extend(pieces.map(str::trim).max_by_key(|piece| piece.len()).filter(|piece| piece.len() > 3).map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What of these texts neither a test nor an exception has, and which exceptions nothing needs.
fn wrong(texts: &[String], tests: &[String], exceptions: &[&str]) -> Vec<String> {
    let held = |text: &str| tests.iter().any(|test| test.contains(text));
    let excepted = |text: &str| exceptions.iter().any(|exception| exception.replace('"', "\u{1}") == text);
    let unheld =
        texts.iter().filter(|text| !held(text) && !excepted(text)).map(|text| format!("in no test: {}", text.replace('\u{1}', "\"")));
    let idle = exceptions.iter().map(|exception| exception.replace('"', "\u{1}"));
    let idle =
        idle.filter(|exception| held(exception) || !texts.contains(exception)).map(|exception| format!("needs no exception: {exception}"));
    unheld.chain(idle).collect()
}

#[test]
fn every_text_of_an_error_is_held_by_a_test() {
    let crates = ["ipc/src", "manager/src", "proxy/src", "src"];
    let of = |directories: &[&str], of_tests| directories.iter().flat_map(|directory| sources(directory, of_tests)).collect::<Vec<_>>();
    let mut found: Vec<String> = of(&crates, false).iter().flat_map(|source| texts(source)).collect();
    found.sort();
    found.dedup();
    assert!(found.len() > 150, "{}", found.len());
    let tests: Vec<String> =
        of(&[crates.as_slice(), &["tests", "ipc/tests", "manager/tests"]].concat(), true).iter().map(|test| joined(test)).collect();
    let exceptions: Vec<&str> = EXCEPTIONS.iter().flat_map(|(_, texts)| texts.iter().copied()).collect();
    let wrong = wrong(&found, &tests, &exceptions);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn canary() {
    let source = "Error::new(ErrorKind::Full, format!(\"no room for {n} more \\\n    bytes in it\")); let text = \"it is gone\"; \
                  let text = read(\"a file\"); Error::new(kind, text) \"another thing\"";
    let found = texts(source);
    assert_eq!(found, ["it is gone", "more bytes in it"]);
    let tests = ["says(x, \"it is gone\")".to_owned()];
    assert_eq!(wrong(&found, &tests, &["more bytes in it"]), [""; 0]);
    assert_eq!(wrong(&found, &tests, &[]), ["in no test: more bytes in it"]);
    assert_eq!(wrong(&found, &tests, &["more bytes in it", "it is gone", "never said"]).len(), 2);
}
