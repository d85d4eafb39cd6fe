//! Results so large that they have files of their own: they arrive whole, without a copy, whoever dies, floods, or has no descriptor left.

use super::square;
use commonhold::{Error, List, Manager, Pool, Process, ResourceLimit};
use commonhold_ipc::limits::{POOL_FILE_KEPT_BYTES, POOL_PASSED_MAX, POOL_SEALED_BYTES};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sockopt};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MIB: u64 = 1 << 20;
/// Has a file of its own, alone as it is.
const LARGE: u64 = 2 * POOL_FILE_KEPT_BYTES;

/// Words for so many bytes, which tell where they stand, now and then, and whose they are.
fn pattern(len: u64, salt: u64) -> Vec<u64> {
    let mut words = vec![salt; len as usize / 8];
    (0..words.len()).step_by(500).for_each(|at| words[at] ^= (at as u64) << 32);
    words
}

fn give(len: u64, salt: u64) -> Vec<u64> {
    pattern(len, salt)
}

fn is_right(result: &[u64], len: u64, salt: u64) -> bool {
    result == pattern(len, salt)
}

/// Descriptors of this process by what they lead to: whether it is that.
fn open_files(is_it: impl Fn(&str) -> bool) -> u64 {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| is_it(&link.to_string_lossy())).count() as u64
}

/// Mappings of files that results have come in.
fn mapped_results() -> u64 {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("commonhold-pool-result")).count() as u64
}

#[test]
fn results_of_every_size_arrive_whole() {
    let pool = Pool::new(2).unwrap();
    let sizes = [1 << 10, 100 << 10, POOL_SEALED_BYTES, MIB, 7 * MIB + 8, 16 * MIB, LARGE - 104, LARGE, 40 * MIB];
    for (salt, len) in (0..).zip(sizes) {
        assert!(is_right(&pool.apply(give, (len, salt)).unwrap(), len, salt), "{len}");
    }
    // Many at once, of which some find warm memory, and some do not; chunks of several, collected by several threads.
    let pool = Pool::builder().workers(3).chunk_size(12).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let pool = &pool;
            scope.spawn(move || {
                let calls: Vec<(u64, u64)> = (0..30).map(|n| ((2 + n % 3) * MIB + 8 * n, thread << 32 | n)).collect();
                for ((len, salt), result) in calls.iter().zip(pool.imap(give, calls.clone()).unwrap()) {
                    assert!(is_right(&result.unwrap(), *len, *salt));
                }
            });
        }
    });
}

/// More of them in one task than may be under way, and more than the socket holds.
#[test]
fn what_finds_no_room_on_the_socket_goes_another_way() {
    let pool = Pool::builder().workers(3).chunk_size(400).build().unwrap();
    let calls = (POOL_FILE_KEPT_BYTES / POOL_SEALED_BYTES) + 2 * POOL_PASSED_MAX as u64;
    let all = pool.map(|salt: u64| vec![salt; POOL_SEALED_BYTES as usize / 8], 0..calls).unwrap();
    assert!((0..).zip(&all).all(|(salt, words)| words.len() as u64 == POOL_SEALED_BYTES / 8 && words.iter().all(|word| *word == salt)));
}

/// As a process that has next to no memory of its own for them.
#[test]
fn there_is_no_second_copy() {
    fn take(len: u64) -> Result<(bool, u64), Error> {
        let most = |figure: &str| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with(figure)).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        let pool = Pool::new(1)?;
        pool.apply(square, 3)?;
        let before = most("VmData");
        let result = pool.apply_async(give, (len, 7))?;
        result.wait(None)?;
        // It is here, and nobody has made a value of it yet.
        let grown = most("VmData").saturating_sub(before);
        assert_eq!(mapped_results(), 1);
        let value = result.get()?;
        // (It is not compared with another one: there is no memory for that.)
        let ends = (value.len() as u64, value[0], value[500]);
        Ok((ends == (len / 8, 7, 7 ^ 500 << 32), grown))
    }
    let len = 2 * LARGE;
    let (is_whole, grown) = Process::builder().limit(ResourceLimit::Data, 3 * len / 2).spawn(take, len).unwrap().join().unwrap().unwrap();
    assert!(is_whole && grown < len / 4, "{grown}");
}

#[test]
fn no_descriptor_and_no_mapping_is_left() {
    fn use_it() -> (u64, u64, u64) {
        let pool = Pool::builder().workers(2).chunk_size(2).build().unwrap();
        pool.map(square, 0..10).unwrap();
        let open = || open_files(|_| true);
        let before = open();
        for salt in 0..4 {
            let results = pool.map(give, [(LARGE, salt), (LARGE, salt + 1)]).unwrap();
            assert!(is_right(&results[0], LARGE, salt) && is_right(&results[1], LARGE, salt + 1));
        }
        // Results that nobody looks at, and a call that fails beside one.
        drop(pool.map_async(give, [(LARGE, 1), (LARGE, 2)]).unwrap());
        fn at_second(n: u64) -> Vec<u64> {
            if n == 1 { panic!("on purpose") } else { pattern(LARGE, n) }
        }
        assert!(pool.map(at_second, 0..4).unwrap_err().is_panic());
        // Until all is brought in.
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        pool.close().unwrap();
        pool.join().unwrap();
        let files = open_files(|link| link.contains("commonhold-pool-result"));
        (before, open() + files, mapped_results())
    }
    let (before, after, mapped) = Process::spawn(use_it, ()).unwrap().join().unwrap();
    assert!(after <= before && mapped == 0, "{before} {after} {mapped}");
}

/// All that this process may open, but for so many.
fn exhaust(spare: usize) -> Vec<File> {
    let mut open: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    open.truncate(open.len().saturating_sub(spare));
    open
}

#[test]
fn an_owner_without_descriptors_gets_its_results() {
    fn frugal() -> Vec<bool> {
        let pool = Pool::builder().workers(2).chunk_size(3).build().unwrap();
        pool.map(square, 0..10).unwrap();
        let open = exhaust(0);
        assert!(File::open("/dev/null").is_err());
        let mut right = Vec::new();
        for round in 0..3 {
            right.push(is_right(&pool.apply(give, (LARGE, round)).unwrap(), LARGE, round));
            let results = pool.map(give, (0..9).map(|n| (9 * MIB, n))).unwrap();
            right.push(results.iter().zip(0..).all(|(result, n)| is_right(result, 9 * MIB, n)));
        }
        drop(open);
        right
    }
    let right = Process::builder().limit(ResourceLimit::OpenFiles, 64).spawn(frugal, ()).unwrap().join().unwrap();
    assert!(right.len() == 6 && right.into_iter().all(|right| right));
}

#[test]
fn a_worker_without_descriptors_gives_its_results() {
    fn frugal(n: u64) -> Vec<u64> {
        // (It keeps them: for its other calls, too.)
        std::mem::forget(exhaust(n as usize));
        pattern(LARGE, n)
    }
    fn owner() -> bool {
        let pool = Pool::new(1).unwrap();
        [0, 1, 2, 0].iter().all(|spare| is_right(&pool.apply(frugal, *spare).unwrap(), LARGE, *spare))
    }
    assert!(Process::builder().limit(ResourceLimit::OpenFiles, 64).spawn(owner, ()).unwrap().join().unwrap());
}

/// The worker's end of the socket that files are handed over by.
fn handover() -> OwnedFd {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut copies = (3..100).filter_map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
    copies.find(|fd| sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)).expect("a worker has such a socket")
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

/// Workers that fill the socket with what makes no sense, and end it: results arrive nevertheless, and nothing piles up.
#[test]
fn floods_hurt_nobody() {
    fn flood(how: u64) -> Vec<u64> {
        let socket = handover();
        let junk = File::open("/dev/null").unwrap();
        let several = [junk.as_fd(); 5];
        match how {
            0 => {
                for n in 0..u64::MAX {
                    let whose = if n % 2 == 0 { n % 5 } else { n << 20 };
                    let number = whose << 32 | n & 0xffff;
                    let message = [number.to_le_bytes(), MIB.to_le_bytes()].concat();
                    if !send(&socket, &message[..if n % 3 == 0 { 7 } else { 16 }], &several[..1 + n as usize % 5]) {
                        break;
                    }
                }
            }
            _ => rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap(),
        }
        pattern(LARGE, how)
    }
    fn owner() -> (u64, u64) {
        let pool = Pool::builder().workers(2).build().unwrap();
        pool.map(square, 0..10).unwrap();
        let before = open_files(|_| true);
        for how in [0, 0, 0, 1, 0] {
            assert!(is_right(&pool.apply(flood, how).unwrap(), LARGE, how), "{how}");
            assert!(is_right(&pool.apply(give, (LARGE, 7)).unwrap(), LARGE, 7), "{how}, and the next");
        }
        (before, open_files(|_| true))
    }
    let (before, after) = Process::spawn(owner, ()).unwrap().join().unwrap();
    assert!(after <= before, "{before} {after}");
}

/// Workers die at each of their points, with large results in their hands. Every call has its own result, or fails by a death; and no memory of
/// the dead stays.
#[test]
fn workers_die_at_every_point_of_a_large_result() {
    // In a process without other tests: it counts mappings.
    let (points, partly) = Process::spawn(die_at_every_point, ()).unwrap().join().unwrap();
    println!("{points} points, {partly} of them in a call");
    assert!(partly > 10, "{partly}");
}

fn die_at_every_point() -> (u64, u64) {
    fn call(calls: List<u64>, n: u64) -> Vec<u64> {
        calls.push(n).unwrap();
        pattern(LARGE, n)
    }
    let manager = Manager::start().unwrap();
    let (mut partly, mut alive) = (0, 0);
    // Those before the first call are others' matter.
    for point in 4.. {
        let calls = manager.list::<u64>([]).unwrap();
        let pool =
            Pool::builder().workers(1).chunk_size(2).env(commonhold_ipc::points::CLIENT_VARIABLE, point.to_string()).build().unwrap();
        let first = pool.pids();
        let results = match pool.map_all(call, (0..2).map(|n| (calls.clone(), n))) {
            Ok(results) => results,
            Err(error) => {
                assert!(error.to_string().contains("in a row"), "{error}");
                continue;
            }
        };
        let mut done = true;
        for (n, result) in (0..).zip(results) {
            let times = calls.count(n).unwrap();
            match result {
                Ok(words) => assert!(times == 1 && is_right(&words, LARGE, n), "{point} {n}"),
                Err(error) => {
                    assert!(error.is_died() && times <= 1, "point {point}: {error:?}");
                    done = false;
                }
            }
        }
        if done {
            alive = if pool.pids() == first { alive + 1 } else { 0 };
        } else {
            partly += 1;
        }
        drop(pool);
        assert_eq!(mapped_results(), 0, "{point}");
        if alive > 1 {
            return (point - 2, partly);
        }
    }
    unreachable!("a worker comes to an end of its points")
}
