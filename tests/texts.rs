//! Every text of an error stands in a test, or in the list of those that do not, with the reason.
//!
//! What the kernel alone can fail at (`Error::system`) is left out: no test makes it fail there.

use std::fs::read_to_string;
use std::path::Path;

/// What no test holds, by its longest piece without placeholders, and why.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "What another process has written into shared memory, sends or sets is nonsense, or of another version. Tests that scribble hold the kind.",
        &[
            "'s process sent an empty report",
            "'s process sent half a report",
            ": a process that uses the array has written over it; set it again",
            ": a program has changed its length",
            ": it does not have this method",
            ": was the caller built with other methods?",
            "a list is shorter than it says: a process has written over it; make it anew, or start the manager again",
            "a message of the handshake cannot be read:",
            "a message that is too long",
            "a session page has",
            "a task of a pool, or its result, cannot be read: a process that uses the pool has written over it",
            "a value changed while it was sent: it had",
            "a value has changed while it was written for another process",
            "an attribute of a namespace is damaged",
            "an object of a user's type is made by the host that it lives in",
            "are not within a mapping of",
            "does not say that it is: a process that uses it has written over it",
            "has no readable type",
            "has no segment: it is not of a kind that is shared in this way",
            "is no block of named memory",
            "is no queue: it does not grow",
            "is not a lock: a condition is made for one",
            "is not a queue: a pipe is made of queues",
            "is not a role: unset that variable",
            "is not an address: it is empty or holds a zero byte",
            "is not what this library sets: unset that variable",
            "make no sense: a process that uses it has written over them; make a new one",
            "orders that cannot be read",
            "orders without a name",
            "reading a value in place: its",
            "that cannot be read: does the other side run another version of commonhold?",
            "the description of this type has",
            "the manager's store is damaged:",
            "the memory of a line to a host makes no sense: the process at its other end has written nonsense",
            "this end of a pipe was made for the other direction",
            "this program has a host here already",
            "what an item's handles refer to is not kept (any more): a process that uses the queue has written over the item",
        ],
    ),
    (
        "Somebody dies, stops or is replaced at the very moment.",
        &[
            ": if its method had begun, it is run to its end; else it is not run",
            ": it has ended, or has no room",
            "a new socket has no room for a byte",
            "a value was lost on its way: the thread that sends it has given up a call meanwhile",
            "before it began: it is this program started again, whose `main` must begin with `commonhold::init()`, and nothing may end it before",
            "could not be started:",
            "does not take new callers: is it stopped?",
            "has never been set: its maker died before it did, so set it",
            "is another than the one that a handle belongs to: that one has ended",
            "is not there (any more): an object lives while a handle, a name or a value refers to it",
            "is not there any more: nobody held it",
            "keeps being replaced: try again",
            "keeps being swept away: try again",
            "keeps starting and ending: try again",
            "processes were given handles and have not begun, the most there can be: are they stopped?",
            "the answer to this call could not be waited for: whether it took effect is not known, the session is over (",
            "the call was called off before its method began: it was not run",
            "the host of this program keeps starting and ending on this manager",
            "the host process has ended, and its objects with it: make a new object",
            "the object has been dropped: make a new one, and hold a handle or give it a name while others call it",
            "the other side does not answer",
            "the other side has ended",
            "the parent has ended",
            "the pool has no workers left, and no other can be started:",
            "the process at the other end of the line is gone",
            "the process at the other end of the socket does not answer; is it stopped?",
            "the process at the other end of the socket has ended",
            "the process at the other end of the socket is gone",
            "the process at the other end of the socket takes no more bytes; is it stopped?",
            "the result of a call could not be brought to the pool's owner",
            "there is no process",
        ],
    ),
    (
        "There is too little of something, or so much that a test of it would take too long; or it changes in between.",
        &[
            "/proc/sys/kernel/overflowuid",
            ": do it in several parts",
            ": pass large values in containers",
            ": put them into a list or dict",
            ": remove some there, or mount it larger",
            ": the system could not load it; is its memory limited too tightly?",
            "; keep it in pieces, a list of parts for example",
            "a pool's worker did not get its descriptors: raise `ulimit -n`",
            "bytes are held by readers of older versions, the oldest (version",
            "bytes cannot be sent at once: make several of it",
            "bytes does not fit this machine's address space",
            "bytes more of shared memory: free some, or give the manager a smaller budget",
            "bytes of large values are on their way in this pool, and",
            "bytes of the block of shared memory",
            "bytes, the most that one may have (split it, or hand it over as bytes, `Vec<u8>`), or a collection in it did not have as many elements as it claims",
            "calls of methods, the most there may be",
            "could not give a block of shared memory the name",
            "does not lead to this block of shared memory any more: it was unlinked; processes that have used it go on, others need a new one",
            "handles cannot be stored: the most is",
            "items with handles in queues, the most there can be: receive some",
            "large values in one request: send fewer at a time",
            "no descriptor came with a line to a host: close descriptors or raise `ulimit -n`",
            "no descriptor came with the manager's answer: close descriptors or raise `ulimit -n`",
            "no descriptor is left for another connection: raise `ulimit -n`",
            "no room for a removal:",
            "objects with a segment of their own, the most that its descriptors allow (`ulimit -n`)",
            "programs have a host here, the most there can be",
            "readers have this lock, the most that there can be: try again when one has left",
            "steps, of which an entry set or an element moved takes one and an element put into or taken out of the middle of a list",
            "the host serves as many callers at a time as it can: let some calls end first",
            "the result is too large for a call",
            "the system has no random numbers for a handshake",
            "the system has no random numbers for an address",
            "times in a row, though it had the writer's ticket: make it shorter",
        ],
    ),
    (
        "A program can come there, and no test holds the whole of what it is told then; of some a piece, or the kind.",
        &[
            "); does `main` call `commonhold::init()` before anything else?",
            "` is in a library that was loaded into this program, where a child process may not find it: let a function of the main executable call it",
            "` that a process could run",
            "a call to the manager from within the code that writes a value, while that value is on its way over the same connection: nothing was done; make such calls before or after (reading is no call)",
            "address of a host",
            "an object of a user's type lives in a host, a process of this program that begins in `commonhold::init()`: call that in the first line of `main` (in a test file, put `commonhold::init_in_tests!();` at its top)",
            "cannot make another object: this manager has",
            "is another user's, who does not let this one write to it",
            r#"its backtrace:\n"#,
            "ms: it took longer, and has left no trace",
            "of a manager that this process has no connection to cannot be passed on",
            "the handshake with the manager at",
            "the manager was told to end and has not: is its process stopped?",
            "the task is not finished",
            "there is already a socket at",
            "this call would wait for itself: it goes, maybe by way of others, to an object in which a method of the same chain of calls still runs. Let the method return first, or make the call one-way",
            "this executable is another program, or another build, than the one whose function `",
            "this handle belongs to a manager that this process has no connection to: connect to it first",
            "this manager was started by another program (or another build of this one), and does not have this program's types:",
            "to a counter is beyond what 64 bits hold: nothing was changed",
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

/// The texts of errors in a source, each by its longest piece without placeholders.
fn texts(source: &str) -> Vec<String> {
    let source = joined(source);
    let mut found = Vec::new();
    for begin in ["Error::new(", "Error::caused(", "let text ="] {
        for rest in source.split(begin).skip(1) {
            let statement = rest.split(';').next().unwrap_or_default();
            let direct = !begin.starts_with("let") || statement.trim_start().starts_with(['"', 'f']);
            let Some((_, text)) = rest.split_once('"').filter(|(before, _)| direct && before.len() < statement.len()) else { continue };
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
    let source = "Error::new(ErrorKind::Full, format!(\"no room for {n} more \\\n    bytes in it\")); let text = \"it is gone\";";
    let found = texts(source);
    assert_eq!(found, ["it is gone", "more bytes in it"]);
    let tests = ["says(x, \"it is gone\")".to_owned()];
    assert_eq!(wrong(&found, &tests, &["more bytes in it"]), [""; 0]);
    assert_eq!(wrong(&found, &tests, &[]), ["in no test: more bytes in it"]);
    assert_eq!(wrong(&found, &tests, &["more bytes in it", "it is gone", "never said"]).len(), 2);
}
