//! A program that never calls `init`.
use commonhold::{ErrorKind, Manager, Process};

const NOT_INITIALISED: &str = "a manager, and whatever else is a process of its own, begins in `commonhold::init()`: call that in the \
                               first line of `main` (in a test file, put `commonhold::init_in_tests!();` at its top)";

#[test]
fn a_manager_is_not_started_without_init() {
    for error in [Manager::start().unwrap_err(), Manager::builder().capacity(64 << 20).start().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotInitialised);
        assert_eq!(error.to_string(), NOT_INITIALISED);
    }
    // As a thread it needs no other process.
    assert_eq!(Manager::in_process().unwrap().list([1u64]).unwrap().len().unwrap(), 1);
}

#[test]
fn nor_is_a_process() {
    fn never() {}
    let error = Process::spawn(never, ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInitialised);
    assert_eq!(error.to_string(), NOT_INITIALISED);
}

struct Clerk;

#[commonhold::remote]
impl Clerk {
    pub fn new() -> Self {
        Clerk
    }
}

#[test]
fn nor_is_an_object_made() {
    let error = Manager::in_process().unwrap().create(Clerk::new, ()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInitialised);
    let told = "an object of a user's type lives in a host, a process of this program that begins in `commonhold::init()`: call that in the \
                first line of `main` (in a test file, put `commonhold::init_in_tests!();` at its top)";
    assert_eq!(error.to_string(), told);
}

/// A program that is started as a child, does not know it, and starts itself: the child's child is refused.
#[test]
fn nor_does_one_process_lead_to_endless_others() {
    if std::env::var_os("COMMONHOLD_TEST_ROLE").is_some() {
        // What is started here runs this test alone, without end if nothing stops it.
        let program = std::env::current_exe().unwrap();
        let child = Process::builder().executable(program).spawn(|| (), ());
        println!("{}", child.map_or_else(|error| format!("refused: {:?}", error.kind()), |child| format!("{:?}", child.join())));
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nor_does_one_process_lead_to_endless_others", "--nocapture"])
        .env("COMMONHOLD_TEST_ROLE", "chain")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!((said.matches("refused: NotInitialised").count(), said.matches("before it began").count()), (1, 1), "{said}");
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
