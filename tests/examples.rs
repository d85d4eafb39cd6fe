//! Every example prints what stands in `examples/expected/`, fails politely, and leaves nothing behind.
//!
//! `cargo test` builds the examples before it runs this. In the expected files `{n}` stands for a number, `{address}` for the address
//! of a manager, and `{…}` for anything on that line.

use commonhold::Manager;
use commonhold_ipc::sys;
use rustix::pipe::PipeFlags;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of these programs takes, by far.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is run as it is.
const ALONE: &[&str] = &[
    "proxy_objects",
    "accounts",
    "children",
    "process",
    "cpu_count",
    "pool_squares",
    "pool_progress",
    "tour",
    "queue_fifo",
    "pipe",
    "tally",
    "rate_limiter",
    "leaderboard",
    "shared_array",
    "shared_memory",
];

/// What prints in any order, but for so many lines at its end.
const SIDE_BY_SIDE: &[(&str, usize)] = &[("process_arguments", 1), ("task_queue", 0), ("supervised_workers", 5), ("pool_waits", 1)];

/// What is asked to kill some of its own, and how.
const KILLED: &[(&str, &[&str])] = &[
    ("web_server", &["--kill"]),
    ("crawler_frontier", &["--kill"]),
    ("job_server", &["--kill"]),
    ("metrics", &["--kill", "5"]),
    ("simulation", &["--kill"]),
    ("sample_index", &["--samples", "20000", "--kill"]),
];

/// What has a test of its own here, under this very name.
const BY_THEMSELVES: [&str; 6] = ["checksum_tree", "compute_cache", "unrelated_writer", "unrelated_reader", "index_server", "index_client"];

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests are built into `deps`");
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "{} is not there: `cargo build --examples` makes it", program.display());
    program
}

fn run(name: &str, arguments: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(program(name));
    command.args(arguments).env("COMMONHOLD_RUNTIME_DIR", directory).output().expect("the example runs")
}

/// A directory for the named managers of one test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("commonhold-examples-{}-{test}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).expect("a directory for this test");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Fails if something was left in it, which the tests themselves look for.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whether a line is as expected, placeholders and all.
fn line_matches(expected: &str, line: &str) -> bool {
    for placeholder in ["{n}", "{address}", "{…}"] {
        if let Some(rest) = expected.strip_prefix(placeholder) {
            let takes = |c: char| match placeholder {
                "{n}" => c.is_ascii_digit() || c == '.' || c == ',',
                "{address}" => c.is_ascii_alphanumeric() || "@/-_.".contains(c),
                _ => true,
            };
            let ends = line.char_indices().take_while(|(_, c)| takes(*c)).map(|(at, c)| at + c.len_utf8());
            return ends.into_iter().any(|end| line_matches(rest, &line[end..]));
        }
    }
    match (expected.chars().next(), line.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => line_matches(&expected[a.len_utf8()..], &line[b.len_utf8()..]),
        _ => false,
    }
}

fn expected(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/expected").join(format!("{name}.txt"));
    std::fs::read_to_string(path).expect("every example has an expected output")
}

fn check(name: &str, output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} ended with {}:\n{stdout}\n{stderr}", output.status);
    assert_eq!(stderr, "", "{name} has complained");
    let expected = expected(name);
    let (expected, got): (Vec<_>, Vec<_>) = (expected.lines().collect(), stdout.lines().collect());
    for (number, (expected, line)) in (1..).zip(expected.iter().zip(&got)) {
        assert!(line_matches(expected, line), "line {number} of {name}\n expected: {expected}\n      got: {line}");
    }
    assert_eq!(expected.len(), got.len(), "number of lines of {name}:\n{stdout}");
}

#[test]
fn the_matcher_tells_right_from_wrong() {
    assert!(line_matches("12 {n} words, {…}!", "12 3,400.5 words, so many!"));
    assert!(line_matches("at {address}>", "at @commonhold-0a1b>"));
    for (expected, line) in [("{n}", ""), ("{n}", "x"), ("a", "ab"), ("ab", "a"), ("{…}b", "abc"), ("at {address}", "at ")] {
        assert!(!line_matches(expected, line), "{expected} took {line}");
    }
}

#[test]
fn programs_by_themselves_print_what_is_expected() {
    let directory = Directory::new("alone");
    for name in ALONE.iter().filter(|name| **name != "shared_memory" || cfg!(feature = "shared-memory")) {
        check(name, &run(name, &[], &directory.0));
    }
}

/// Puts the lines of a program into the order of those that are expected of it, but for the last ones, which are in order.
fn in_expected_order(name: &str, output: &mut Output, in_order: usize) {
    let text = String::from_utf8(std::mem::take(&mut output.stdout)).unwrap();
    let mut rest: Vec<&str> = text.lines().collect();
    let mut ordered = rest.split_off(rest.len().saturating_sub(in_order));
    for expected in expected(name).lines().rev().skip(in_order) {
        if let Some(at) = rest.iter().position(|line| line_matches(expected, line)) {
            ordered.insert(0, rest.remove(at));
        }
    }
    output.stdout = [rest, ordered].concat().join("\n").into_bytes();
}

#[test]
fn processes_side_by_side_print_in_any_order() {
    let directory = Directory::new("processes");
    for (name, in_order) in SIDE_BY_SIDE {
        let mut output = run(name, &[], &directory.0);
        in_expected_order(name, &mut output, *in_order);
        check(name, &output);
    }
}

#[test]
fn a_tree_is_summed_whoever_is_killed() {
    use std::os::unix::ffi::OsStrExt;
    let directory = Directory::new("tree");
    let tree = tempfile::tempdir().unwrap();
    for (entry, files, bytes) in [("large", 3, 3 << 20), ("many", 120, 1000), ("none", 2, 0)] {
        std::fs::create_dir_all(tree.path().join(entry).join("below")).unwrap();
        for number in 0..files {
            let content: Vec<u8> = (0..bytes).map(|at| (at * 31 + number * 7) as u8).collect();
            let below = if number % 2 == 0 { "" } else { "below/" };
            std::fs::write(tree.path().join(entry).join(format!("{below}{number}")), content).unwrap();
        }
    }
    // Not UTF-8; and a link in a circle, which nobody follows.
    std::fs::write(tree.path().join(std::ffi::OsStr::from_bytes(b"odd \xff name")), "x").unwrap();
    std::os::unix::fs::symlink(tree.path(), tree.path().join("none/circle")).unwrap();
    let path = tree.path().to_str().unwrap();
    check("checksum_tree", &run("checksum_tree", &[path, "--workers", "3", "--kill-some", "--verify"], &directory.0));
    let alone = run("checksum_tree", &[path, "--alone"], &directory.0);
    let whole = expected("checksum_tree");
    let table = whole.lines().rev().skip(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
    assert_eq!(String::from_utf8_lossy(&alone.stdout).lines().collect::<Vec<_>>(), table);
    let missing = run("checksum_tree", &["/does/not/exist"], &directory.0);
    assert!(
        missing.status.code() == Some(1) && String::from_utf8_lossy(&missing.stderr).contains("cannot read /does/not/exist: No such file")
    );
}

#[test]
fn tasks_are_done_by_real_processes() {
    let directory = Directory::new("tasks");
    let output = run("task_queue", &[], &directory.0);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut done: Vec<(u32, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Task no ")?.split_once(" is done by "))
        .map(|(number, by)| (number.parse().unwrap(), by))
        .collect();
    done.sort_unstable();
    assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>(), "each once");
    assert!(done.iter().all(|(_, by)| ["Process-1", "Process-2", "Process-3"].contains(by)), "{text}");
}

#[test]
fn real_programs_survive_what_they_do_to_themselves() {
    let directory = Directory::new("killed");
    for (name, arguments) in KILLED {
        check(name, &run(name, arguments, &directory.0));
    }
}

#[test]
fn a_server_that_stays_replaces_its_workers() {
    use std::io::{Read, Write};
    let mut server = Command::new(program("web_server")).arg("--stay").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut hear = |what: &str| lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("the server ended before it said: {what}"));
    let address = hear("2 workers at http://").rsplit_once('/').unwrap().1.to_owned();
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    for restart in 1..=3 {
        // Nothing, or a connection that was reset.
        assert!(ask("/die").map_or_else(|_| true, |answer| answer.is_empty()));
        hear("was killed by signal 6 (SIGABRT)");
        hear("was started again");
        assert!(ask("/").unwrap().contains("Hello from worker-"), "after death {restart}");
    }
    let children = children_of(server.id());
    assert_eq!(children.len(), 3, "two workers and a manager");
    server.kill().unwrap();
    server.wait().unwrap();
    for child in children {
        assert!(sys::wait_readable(&[child.as_fd()], Some(Instant::now() + PATIENCE)).unwrap() != 0, "all end with the server");
    }
}

#[test]
fn a_cache_computes_what_is_missing_once_and_survives_who_computes() {
    let directory = Directory::new("cache");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(program("compute_cache"));
        command.args(arguments).env("COMMONHOLD_RUNTIME_DIR", &directory.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the example runs")
    };
    let together: Vec<_> = (0..4).map(|_| ask(&["871"])).collect();
    let answers = together.into_iter().map(|tool| {
        let output = tool.wait_with_output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    });
    let answers: Vec<String> = answers.collect();
    assert!(answers.iter().all(|answer| answer.starts_with("871: 178 steps (")), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.contains("computed")).count(), 1, "{answers:?}");
    assert!(!ask(&["--kill", "97"]).wait().unwrap().success());
    check("compute_cache", &ask(&["97", "871"]).wait_with_output().unwrap());
    assert!(ask(&["--shutdown"]).wait().unwrap().success());
    let gone = ask(&["--shutdown"]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&gone.stderr).contains("has not been started"), "{gone:?}");
}

/// The names of the files of a directory that end so.
fn names(directory: &Path, extension: &str) -> Vec<String> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| path.extension().is_some_and(|it| it == extension));
    let mut names: Vec<_> = ours.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_example_is_run_and_has_an_expected_output() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let by_tables = ALONE.iter().copied().chain(SIDE_BY_SIDE.iter().map(|(name, _)| *name)).chain(KILLED.iter().map(|(name, _)| *name));
    let mut runs: Vec<&str> = by_tables.chain(BY_THEMSELVES).collect();
    runs.sort_unstable();
    assert_eq!(runs, names(&directory, "rs"), "what is run here, what is in examples/");
    assert_eq!(runs, names(&directory.join("expected"), "txt"), "what is run here, what is in examples/expected/");
    let tests = include_str!("examples.rs");
    for name in BY_THEMSELVES {
        let calls = [format!("check(\"{name}\", "), format!("program(\"{name}\")")];
        assert!(calls.iter().any(|call| tests.contains(call)), "no test runs {name}");
    }
}

#[test]
fn unrelated_programs_meet_by_a_name() {
    let directory = Directory::new("unrelated");
    check("unrelated_writer", &run("unrelated_writer", &["--hour", "1"], &directory.0));
    // The writer has ended; what it has written is still there, and so is the manager.
    check("unrelated_reader", &run("unrelated_reader", &["--shutdown"], &directory.0));
    let again = run("unrelated_writer", &["--shutdown"], &directory.0);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "there is no manager \"weather\"\n");
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_client_needs_only_the_trait() {
    let directory = Directory::new("index");
    let mut server = Command::new(program("index_server"));
    server.arg("index").env("COMMONHOLD_RUNTIME_DIR", &directory.0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().expect("the example runs");
    let mut output = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, expected("index_server"));
    check("index_client", &run("index_client", &["index"], &directory.0));
    drop(server.stdin.take());
    assert!(server.wait().expect("it ends").success());
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "something was left behind");
}

#[test]
fn reader_and_writer_at_the_same_time() {
    let directory = Directory::new("together");
    let mut reader = Command::new(program("unrelated_reader"));
    let reader = reader.env("COMMONHOLD_RUNTIME_DIR", &directory.0).stdout(Stdio::piped()).spawn().unwrap();
    check("unrelated_writer", &run("unrelated_writer", &["--hour", "5"], &directory.0));
    let output = reader.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.lines().last().unwrap().starts_with("23:00   bergen   6.0"), "{text}");
    assert!(run("unrelated_writer", &["--shutdown"], &directory.0).status.success());
}

#[test]
fn wrong_arguments_are_explained() {
    let directory = Directory::new("arguments");
    let cases = [
        ("tour", vec!["--workers", "0"], "1..=64"),
        ("tour", vec!["--text", "no/such/file"], "no/such/file"),
        ("tour", vec!["--wrokers", "2"], "--workers"),
        ("unrelated_writer", vec!["--hour", "soon"], "--hour"),
        ("unrelated_reader", vec!["--patience"], "SECONDS"),
        ("checksum_tree", vec![], "<DIRECTORY>"),
        ("checksum_tree", vec![".", "--workers", "0"], "1..=64"),
        ("checksum_tree", vec![".", "--alone", "--kill-some"], "--kill-some"),
    ];
    for (name, arguments, hint) in cases {
        let output = run(name, &arguments, &directory.0);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name} {arguments:?}: {text}");
        assert!(text.contains(hint) && text.contains("--help"), "{name} {arguments:?}: {text}");
    }
    for name in ["checksum_tree", "tour", "unrelated_writer", "unrelated_reader"] {
        let help = run(name, &["--help"], &directory.0);
        assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage"));
    }
}

/// The tour, its address, and its output from then on. The pipe holds one line: the tour waits for us before it prints the next but one,
/// so it cannot be over before its time.
fn begin_tour() -> (std::process::Child, String, BufReader<File>) {
    let (ours, its) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).unwrap();
    rustix::pipe::fcntl_setpipe_size(&ours, rustix::param::page_size()).unwrap();
    let tour = Command::new(program("tour")).stdout(its).spawn().unwrap();
    let mut output = BufReader::new(File::from(ours));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the tour ended early");
        if let Some((_, address)) = line.split_once(" at ") {
            break address.trim().to_owned();
        }
    };
    (tour, address, output)
}

/// The children of a process, by descriptors that become readable at their end.
fn children_of(pid: u32) -> Vec<OwnedFd> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let of = |process: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        (stat.rsplit_once(") ")?.1.split(' ').nth(1)? == pid.to_string()).then_some(())
    };
    let children = processes.filter(|process| of(process).is_some());
    children.filter_map(|child| sys::pidfd_open(child.file_name().to_str()?.parse().ok()?).ok()).collect()
}

#[test]
fn a_terminated_tour_leaves_no_process_behind() {
    let (mut tour, address, mut output) = begin_tour();
    let manager = Manager::connect(&address).unwrap();
    let mut line = String::new();
    while !line.starts_with("workers") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the tour ended early");
    }
    // Workers that have done all pages by now are still the tour's children: it has not asked about them.
    let children = children_of(tour.id());
    assert!(children.len() > 1, "there are workers");
    // Not SIGINT: who is started in the background of a script inherits that it is ignored.
    rustix::process::kill_process(rustix::process::Pid::from_child(&tour), rustix::process::Signal::TERM).unwrap();
    assert!(!tour.wait().unwrap().success());
    assert!(manager.wait_for_end(PATIENCE).unwrap(), "the manager ends with its program");
    for child in children {
        assert!(sys::wait_readable(&[child.as_fd()], Some(Instant::now() + PATIENCE)).unwrap() != 0, "all end with the tour");
    }
}

#[test]
fn a_tour_that_nobody_reads_ends_quietly() {
    let (mut tour, address, output) = begin_tour();
    let manager = Manager::connect(&address).unwrap();
    drop(output);
    assert!(tour.wait().unwrap().success());
    assert!(manager.wait_for_end(PATIENCE).unwrap());
}
