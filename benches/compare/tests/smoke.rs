//! The program as a whole, on the one system that is always there, and with everybody else missing.
use std::process::{Command, Output};

use serde_json::Value;

fn compare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compare")).args(arguments).output().expect("the program starts")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}

#[test]
fn a_row_of_the_ceiling_is_measured_and_printed_as_json() {
    let output = compare(&["--quick", "--json", "--systems", "hashmap", "--rows", "list_push_64,bytes_per_entry"]);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["row"], &lines[0]["system"], &lines[0]["unit"]), (&"list_push_64".into(), &"hashmap".into(), &"ns".into()));
    assert!(lines[0]["median"].as_f64().is_some_and(|median| median > 0.0));
    assert_eq!(lines[0]["n"], 3);
    assert_eq!(lines[1]["unit"], "B");
}

#[test]
fn peers_that_are_not_installed_are_missing_and_nothing_fails() {
    let output = Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(["--quick", "--json", "--systems", "redis,python", "--rows", "snapshot"])
        .env("PATH", "/nonexistent")
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["median"].is_null() && line["missing"].is_string()), "{lines:?}");
}

#[test]
fn an_unknown_row_is_refused_with_the_names_of_all() {
    let output = compare(&["--rows", "nonsense"]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("nonsense") && message.contains("dict_set_batch_10k"), "{message}");
}
