//! A program that runs with rights beyond its user's.
use super::*;

/// Role: starts itself again, unless it was.
pub fn privileged() {
    if std::env::var_os("AGAIN").is_some() {
        return println!("its main was run again");
    }
    let child = Process::builder().env("AGAIN", "1").spawn(|| 5, ());
    let Err(error) = child else { return println!("it was started") };
    println!("{:?}: {error}", error.kind());
    println!("{:?}", Manager::start().map_or_else(|error| error.kind(), |_| ErrorKind::Other));
}

/// Such a program does not listen to its environment: started again it would run its `main`, and start itself again.
pub fn rights_beyond() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let program = directory.path().join("privileged");
    write_program(&program, std::fs::read(std::env::current_exe().unwrap()).unwrap());
    if chown(&program, Some(65_534), None).is_err() {
        return println!("  (only root can make one)");
    }
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let ended = Command::new(&program).arg("privileged").output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let why = "a program with rights beyond its user's (set-user-ID, capabilities of its file) does not start itself again: it would have \
               to take orders from its environment; use a manager in this process, or connect to one";
    assert_eq!(said, format!("Refused: {why}\nRefused\n"), "{}", String::from_utf8_lossy(&ended.stderr));
}
