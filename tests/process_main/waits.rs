//! Children for which somebody else has waited, or nobody can.
use super::*;

/// Role: something else waits for the children before the library does.
pub fn thief() {
    let steal = || waitpid(None, WaitOptions::empty()).unwrap();
    let result = Process::spawn(|| 5, ()).unwrap();
    steal();
    assert_eq!((result.join().unwrap(), result.exit_code(), result.is_alive()), (5, None, false));
    let killed = Process::spawn(endure, ()).unwrap();
    killed.kill().unwrap();
    steal();
    let error = killed.join().unwrap_err();
    assert!(error.to_string().contains("how, is unknown"), "{error}");
    assert_eq!((killed.exit_code(), killed.is_alive()), (None, false));
    killed.kill().unwrap();
}

/// Role: nobody waits for anybody.
pub fn ignored() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64]).unwrap();
    assert_eq!(Process::spawn(|list: List<u64>| list.len().unwrap() as u64, list).unwrap().join().unwrap(), 1);
    assert!(Process::builder().stderr(Stream::Null).spawn(|| -> () { panic!("so") }, ()).unwrap().join().unwrap_err().is_panic());
    for _ in 0..20 {
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        let error = Process::builder().executable("/bin/true").spawn(|| (), ()).unwrap().join().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInitialised);
    }
}

pub fn a_stolen_wait() {
    assert!(role("thief").stdout(Stdio::inherit()).status().unwrap().success());
}

pub fn an_ignored_signal() {
    let program = std::env::current_exe().unwrap();
    let status = Command::new("env").args(["--ignore-signal=CHLD".as_ref(), program.as_os_str(), "ignored".as_ref()]).status().unwrap();
    assert!(status.success());
}
