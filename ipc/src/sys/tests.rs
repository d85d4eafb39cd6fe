//! Tests of futexes, robust words, peers, polling and locks.
use super::*;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

fn after(ms: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(ms))
}

#[test]
fn a_changed_word_is_not_slept_on() {
    let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
    assert_eq!(futex_wait(&a, 0, None).unwrap(), WaitOutcome::Changed);
    assert_eq!(futex_wait_either(&a, 0, &b, 2, None).unwrap(), WaitOutcome::Changed);
    assert_eq!(futex_wait_either(&a, 1, &b, 0, None).unwrap(), WaitOutcome::Changed);
    assert_eq!(futex::wait_in_slices(&a, 0, &[(&b, 2)], None).unwrap(), WaitOutcome::Changed);
    assert_eq!(futex::wait_in_slices(&a, 1, &[(&b, 0)], None).unwrap(), WaitOutcome::Changed);
}

#[test]
fn deadlines_end_sleeps_and_are_not_early() {
    let (a, b) = (AtomicU32::new(0), AtomicU32::new(0));
    let start = Instant::now();
    assert_eq!(futex_wait(&a, 0, after(30)).unwrap(), WaitOutcome::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(futex_wait_either(&a, 0, &b, 0, after(30)).unwrap(), WaitOutcome::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(futex::wait_in_slices(&a, 0, &[(&b, 0)], after(30)).unwrap(), WaitOutcome::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(90));
    assert_eq!(futex_wait(&a, 0, Some(start)).unwrap(), WaitOutcome::TimedOut);
}

/// Runs `sleep` on two words in a thread, changes and wakes one of them, and checks that the sleep ends.
fn wakes(second: bool, sleep: fn(&AtomicU32, &AtomicU32) -> Result<WaitOutcome>) -> WaitOutcome {
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let sleeper = thread::spawn({
        let words = Arc::clone(&words);
        move || sleep(&words[0], &words[1]).unwrap()
    });
    let word = &words[usize::from(second)];
    word.store(1, Ordering::Release);
    while !sleeper.is_finished() {
        futex_wake_all(word);
        thread::yield_now();
    }
    sleeper.join().unwrap()
}

#[test]
fn either_word_wakes() {
    for second in [false, true] {
        let outcome = wakes(second, |a, b| futex_wait_either(a, 0, b, 0, None));
        let woken = if second { WaitOutcome::WokenBySecond } else { WaitOutcome::Woken };
        assert!(outcome == woken || outcome == WaitOutcome::Changed, "{outcome:?}");
        wakes(second, |a, b| futex::wait_in_slices(a, 0, &[(b, 0)], None));
    }
    wakes(false, |a, _| futex_wait(a, 0, None));
}

#[test]
fn a_thread_that_ends_leaves_its_mark() {
    const WAITERS: u32 = 0x8000_0000;
    let word = Arc::new(AtomicU32::new(0));
    let (to_thread, gate) = std::sync::mpsc::channel::<()>();
    let holder = thread::spawn({
        let word = Arc::clone(&word);
        move || {
            with_robust_word(&word, |tid| {
                word.store(tid | WAITERS, Ordering::Release);
                gate.recv().unwrap();
                end_thread();
            })
        }
    });
    while word.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
    let held = word.load(Ordering::Acquire);
    to_thread.send(()).unwrap();
    while word.load(Ordering::Acquire) == held {
        futex_wait(&word, held, after(1000)).unwrap();
    }
    assert_eq!(word.load(Ordering::Acquire), WAITERS | 0x4000_0000);
    // It never returned, so there is no result: it stays unjoined.
    mem::forget(holder);
}

#[test]
fn a_body_that_returns_or_panics_leaves_the_word_alone() {
    thread::spawn(|| {
        let word = AtomicU32::new(0);
        let tid = with_robust_word(&word, |tid| {
            word.store(tid, Ordering::Relaxed);
            tid
        });
        assert_eq!(word.load(Ordering::Relaxed), tid.unwrap());
        let unwound = std::panic::catch_unwind(|| with_robust_word(&AtomicU32::new(0), |_| panic!("on purpose")));
        assert!(unwound.is_err());
    })
    .join()
    .unwrap();
}

#[test]
fn peers_are_known() {
    let (a, _b) = UnixStream::pair().unwrap();
    let peer = peer_credentials(&a).unwrap();
    assert_eq!((peer.pid, peer.uid), (std::process::id(), own_uid()));
    let alive = peer_pidfd(&a).unwrap();
    assert_eq!(wait_readable(&[alive.as_fd()], after(0)).unwrap(), 0);
    assert!(rustix::io::fcntl_getfd(&alive).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn a_pidfd_tells_of_a_death() {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(child.id()).unwrap();
    assert_eq!(wait_readable(&[pidfd.as_fd()], after(0)).unwrap(), 0);
    child.kill().unwrap();
    assert_eq!(wait_readable(&[pidfd.as_fd()], None).unwrap(), 1);
    child.wait().unwrap();
    assert!(pidfd_open(0).unwrap_err().is_not_found());
    let error = pidfd_open(u32::MAX).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), format!("there is no process {} (any more)", u32::MAX));
}

/// In either way; nothing comes with it that is open without close-on-exec.
#[test]
fn a_process_has_its_streams_and_what_it_is_handed() {
    use std::io::Read;
    let low = rustix::fs::memfd_create("accident", rustix::fs::MemfdFlags::empty()).unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&low, 500).unwrap();
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
    for close_others in [spawn::close_others, spawn::close_what_is_open] {
        let (mut shown, its) = std::io::pipe().unwrap();
        let plan = Plan {
            program: std::path::Path::new("/bin/sh"),
            arguments: ["sh", "-c", "ls -l /proc/$$/fd; exit"].map(Into::into).into(),
            environment: std::env::vars_os().collect(),
            streams: [Stream::Null, OwnedFd::from(its).into(), Stream::Null],
            handed: UnixStream::pair().unwrap().0.into(),
        };
        let process = plan.spawn_closing(close_others).unwrap();
        let mut text = String::new();
        shown.read_to_string(&mut text).unwrap();
        assert_eq!(process.wait(None).unwrap(), Some(End::Code(0)));
        let open: Vec<_> = text.lines().filter_map(|line| line.split_once(" -> ")?.0.rsplit_once(' ').map(|(_, number)| number)).collect();
        assert_eq!(open, ["0", "1", "2", "3"], "{text}");
        assert!(text.lines().last().unwrap().contains(" 3 -> socket:"), "{text}");
    }
}

#[test]
fn polling_tells_which_descriptor_is_ready() {
    let (a, b) = UnixStream::pair().unwrap();
    let (c, d) = UnixStream::pair().unwrap();
    assert_eq!(wait_readable(&[a.as_fd(), c.as_fd()], after(10)).unwrap(), 0);
    rustix::io::write(&d, b"x").unwrap();
    assert_eq!(wait_readable(&[a.as_fd(), c.as_fd()], None).unwrap(), 0b10);
    drop(b);
    assert_eq!(wait_readable(&[a.as_fd(), c.as_fd()], None).unwrap(), 0b11);
    assert!(wait_writable(&c, None).unwrap());
}

#[test]
fn file_locks_exclude_and_can_be_asked_about() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(path.path()).unwrap();
    let (first, second) = (open(), open());
    assert!(!is_file_locked(&second).unwrap());
    assert!(try_lock_file(&first).unwrap());
    assert!(is_file_locked(&second).unwrap());
    assert!(!try_lock_file(&second).unwrap());
    drop(first);
    // A process that another test is starting may hold a copy of the closed descriptor for an instant.
    while is_file_locked(&second).unwrap() {
        thread::yield_now();
    }
    assert!(try_lock_file(&second).unwrap());
}

#[test]
fn this_test_runs_with_plain_rights() {
    assert!(!is_secure_execution());
}

#[test]
fn a_thread_that_leaves_its_processor_may_come_back() {
    thread::spawn(|| {
        let allowed = own_cpus();
        assert_eq!(leave_cpu(), allowed.len() > 1);
        assert_eq!(own_cpus(), allowed);
        run_on(&allowed[..1]).unwrap();
        assert!(!leave_cpu(), "there is no other");
        assert_eq!((own_cpus(), current_cpu()), (allowed[..1].to_vec(), allowed[0]));
    })
    .join()
    .unwrap();
}

#[test]
fn memory_that_no_system_has_is_an_error() {
    let file = memfd_sealed("test-back", 4096).unwrap();
    let error = back(&file, 1 << 62..1 << 63).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let told =
        "the system has no memory for 4611686018427387904 bytes more of shared memory: free some, or give the manager a smaller budget";
    assert_eq!(error.to_string(), told);
}
