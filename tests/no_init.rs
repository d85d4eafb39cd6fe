//! A program that never calls `init`.
use commonhold::{ErrorKind, Manager};

#[test]
fn a_manager_is_not_started_without_init() {
    for error in [Manager::start().unwrap_err(), Manager::builder().capacity(64 << 20).start().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotInitialised);
        assert!(error.to_string().contains("commonhold::init()"), "{error}");
    }
    // As a thread it needs no other process.
    assert_eq!(Manager::in_process().unwrap().list([1u64]).unwrap().len().unwrap(), 1);
}

#[test]
fn nor_is_a_named_one() {
    let directory = std::env::temp_dir().join(format!("commonhold-no-init-{}", std::process::id()));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role_named", "--nocapture"])
        .env("COMMONHOLD_RUNTIME_DIR", &directory)
        .env("COMMONHOLD_TEST_ROLE", "role_named")
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(&directory);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn role_named() {
    if std::env::var("COMMONHOLD_TEST_ROLE").is_ok_and(|role| role == "role_named") {
        assert_eq!(Manager::open_or_start("name").unwrap_err().kind(), ErrorKind::NotInitialised);
    }
}
