//! Processes and pools of a library that the program uses: functions of that library, private ones, generic ones, and the program's own by
//! way of it.

use commonhold::{ErrorKind, Manager, Process, Shared};
use std::process::{Command, Stdio};
use tests_library::{Darkroom, Picture, count_elsewhere, inverted, largest, squares, told};

commonhold::init_in_tests!();

#[derive(Shared, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u32, String);

fn picture(name: &str, pixel: u8) -> Picture {
    Picture { name: name.into(), pixels: vec![pixel; 1 << 20] }
}

#[test]
fn the_program_starts_functions_of_a_library() {
    let child = Process::spawn(inverted, picture("moon", 200)).unwrap();
    assert_eq!(child.join().unwrap(), picture("inverted moon", 55));
    let ranks = vec![Rank(3, "c".into()), Rank(9, "i".into()), Rank(1, "a".into())];
    assert_eq!(Process::spawn(largest::<Rank>, ranks).unwrap().join().unwrap(), Some(Rank(9, "i".into())));
}

#[test]
fn a_library_starts_functions_of_its_own() {
    let manager = Manager::start().unwrap();
    let words = manager.list(["tree", "house", "tree"].map(String::from)).unwrap();
    let counts = manager.dict([("house".to_string(), 4u64)]).unwrap();
    assert_eq!(count_elsewhere(&words, &counts).unwrap(), 3);
    let counted = ["tree", "house"].map(|word| counts.get(word).unwrap().map(|count| *count));
    assert_eq!(counted, [Some(2), Some(5)]);
    manager.audit().unwrap();
}

#[test]
fn a_library_starts_functions_of_the_programs() {
    assert_eq!(told(|rank: Rank| Rank(rank.0 + 1, rank.1), Rank(6, "f".into())).unwrap(), r#"Rank(7, "f")"#);
    assert_eq!(told(|| commonhold::current_process().name().to_string(), ()).unwrap(), r#""told""#);
    let fails = |why: String| -> u64 { panic!("{why}") };
    let error = told(fails, "no light".to_string()).unwrap_err();
    assert!(error.kind() == ErrorKind::Panicked && error.to_string().contains("no light"), "{error}");
}

#[test]
fn a_library_has_a_pool() {
    let darkroom = Darkroom::new(2, 50).unwrap();
    let developed = darkroom.develop((0..6).map(|n| picture(&n.to_string(), 200 + n)).collect()).unwrap();
    let expected: Vec<_> = (0..6u8).map(|n| picture(&n.to_string(), (200 + n).saturating_add(50))).collect();
    assert!(developed == expected);
    let lent = darkroom.lend(|rank: Rank, by: u32| Rank(rank.0 * by, rank.1), (Rank(6, "f".into()), 7)).unwrap();
    assert_eq!(lent.get().unwrap(), Rank(42, "f".into()));
    assert_eq!(squares((1..=100).collect()).unwrap(), (1..=100).map(|n| n * n).collect::<Vec<u64>>());
    assert!(squares(vec![]).unwrap().is_empty());
}

/// As cargo-nextest runs them.
#[test]
fn each_of_these_tests_may_have_a_process_of_its_own() {
    let names = [
        "the_program_starts_functions_of_a_library",
        "a_library_starts_functions_of_its_own",
        "a_library_starts_functions_of_the_programs",
        "a_library_has_a_pool",
    ];
    let run = |name| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    for child in names.map(run) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
}
