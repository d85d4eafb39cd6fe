//! Results so large that they have files of their own: they arrive whole, without a copy, whoever dies, floods, or has no descriptor left.

use super::square;
use super::support::{has_large_pages, until};
use commonhold::{Error, List, Manager, Pool, Process, ResourceLimit};
use commonhold_ipc::limits::{POOL_FILE_KEPT_BYTES, POOL_LARGE_PAGES_AGAIN, POOL_LARGE_PAGES_BYTES, POOL_PASSED_MAX, POOL_SEALED_BYTES};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sockopt};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MIB: u64 = 1 << 20;
/// Has a file of its own, alone as it is.
const LARGE: u64 = 2 * POOL_FILE_KEPT_BYTES;

/// Held by tests that have many descriptors under way, and by those that have few of their own: what is under way counts for all that a user does,
/// against what the sender may have open.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    let _turn = alone();
    let pool = Pool::new(2).unwrap();
    let sizes = [
        1 << 10,
        100 << 10,
        POOL_SEALED_BYTES,
        MIB - 8,
        MIB,
        2 * MIB + 8,
        3 * MIB - 8,
        3 * MIB,
        7 * MIB + 8,
        16 * MIB,
        LARGE - 104,
        LARGE,
        40 * MIB,
    ];
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

/// How a result comes: whether its owner has a file of its mapped before anybody has asked for it; then whether it is right.
///
/// `small`: its worker gets no large pages from then on.
fn comes_in_a_file(pool: &Pool, small: bool, len: u64, salt: u64) -> bool {
    fn give_small(small: bool, len: u64, salt: u64) -> Vec<u64> {
        if small {
            rustix::thread::disable_transparent_huge_pages(true).unwrap();
        }
        pattern(len, salt)
    }
    let result = pool.apply_async(give_small, (small, len, salt)).unwrap();
    result.wait(None).unwrap();
    let is_mapped = mapped_results() == 1;
    assert!(is_right(&result.get().unwrap(), len, salt), "{len}");
    is_mapped
}

/// From where it is used half, if there are any; and at the ends of such pages.
#[test]
fn results_that_fill_large_pages_have_files_in_these() {
    fn owner() -> Vec<bool> {
        let pool = Pool::new(1).unwrap();
        let below = POOL_LARGE_PAGES_BYTES - 64;
        assert!(!comes_in_a_file(&pool, false, below, 1), "it is too short");
        let sizes = [POOL_LARGE_PAGES_BYTES, 2 * MIB - 8, 2 * MIB, 3 * MIB - 64, 3 * MIB, 7 * MIB + 8, 16 * MIB, LARGE - 64];
        (2..).zip(sizes).map(|(salt, len)| comes_in_a_file(&pool, false, len, salt)).collect()
    }
    // One may be refused, because something in the kernel looks at its first page just then, or be late, beside busy neighbours; then the next ones are left
    // out for a while. But not each time.
    let mut tries = (0..20).map(|_| (has_large_pages(LARGE), Process::spawn(owner, ()).unwrap().join().unwrap()));
    assert!(tries.any(|(has_any, in_files)| !has_any || in_files.iter().all(|is_in_file| *is_in_file)));
}

/// As kernels do that make none.
#[test]
fn without_large_pages_results_come_as_they_did() {
    fn owner() -> Vec<bool> {
        let pool = Pool::new(1).unwrap();
        let calls = std::iter::repeat_n(2 * MIB, 2 * POOL_LARGE_PAGES_AGAIN as usize + 3).chain([LARGE]);
        (0..).zip(calls).map(|(salt, len)| comes_in_a_file(&pool, true, len, salt)).collect()
    }
    let mut in_files = Process::spawn(owner, ()).unwrap().join().unwrap();
    assert!(in_files.pop().unwrap(), "there is no warm memory for it");
    assert!(in_files.iter().all(|is_in_file| !is_in_file));
}

/// More of them in one task than its worker may hand over, of three workers at once, whose share in the socket is less than that.
#[test]
fn what_finds_no_room_on_the_socket_goes_another_way() {
    let _turn = alone();
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
    let _turn = alone();
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
    let _turn = alone();
    assert!(Process::builder().limit(ResourceLimit::OpenFiles, 64).spawn(owner, ()).unwrap().join().unwrap());
}

/// The worker's end of the socket that files are handed over by, if it has one.
fn find_handover() -> Option<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut copies = (3..100).filter_map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
    copies.find(|fd| sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET))
}

fn handover() -> OwnedFd {
    find_handover().expect("a worker has such a socket")
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

fn message(number: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&LARGE.to_le_bytes());
    bytes
}

/// What no worker of ours sends: of many lengths, with several descriptors, with numbers of all workers, those that come next among them. How many of them
/// there was room for.
fn send_junk(socket: &OwnedFd, most: u64) -> u64 {
    let junk = File::open("/dev/null").unwrap();
    let several = [junk.as_fd(); 5];
    let is_sent = |n: &u64| {
        let whose = if n.is_multiple_of(2) { n % 5 } else { n << 20 };
        let len = [24, 0, 7, 24, 30][*n as usize % 5];
        let bytes = [&message((whose << 32) | (n / 7))[..], &[0; 6]].concat();
        send(socket, &bytes[..len], &several[..1 + *n as usize % 5])
    };
    (0..most).take_while(is_sent).count() as u64
}

/// Workers that send what makes no sense, as much as there is room for or less, and end the socket: results arrive nevertheless, in files of their own
/// where there is room, and nothing is left of what was sent.
#[test]
fn floods_hurt_nobody() {
    fn flood(most: u64, salt: u64) -> Vec<u64> {
        send_junk(&handover(), most);
        pattern(LARGE, salt)
    }
    fn owner() -> (u64, u64, u64) {
        let pool = Pool::builder().workers(2).build().unwrap();
        pool.map(square, 0..10).unwrap();
        let before = open_files(|_| true);
        let mut in_files = 0;
        for (salt, most) in (0..).zip([1, 5, 12, u64::MAX, 12, u64::MAX, u64::MAX, 7]) {
            let result = pool.apply_async(flood, (most, salt)).unwrap();
            result.wait(None).unwrap();
            in_files += mapped_results();
            assert!(is_right(&result.get().unwrap(), LARGE, salt), "{most}");
            drop(result);
            assert!(is_right(&pool.apply(give, (LARGE, 7)).unwrap(), LARGE, 7), "{most}, and the next");
        }
        (before, open_files(|_| true), in_files)
    }
    let _turn = alone();
    let (before, after, in_files) = Process::spawn(owner, ()).unwrap().join().unwrap();
    assert!(after <= before, "{before} {after}");
    // (Behind a flood that has filled it, the socket may still be full.)
    assert!(in_files >= 3, "{in_files} results were taken from behind what makes no sense");
}

/// As much of it as the kernel keeps for a worker that asks for more: what was counted is found behind all that.
#[test]
fn what_was_counted_is_found_behind_any_flood() {
    fn flood(_: u64) -> Vec<u64> {
        let (socket, junk) = (handover(), File::open("/dev/null").unwrap());
        sockopt::set_socket_send_buffer_size(&socket, 1 << 30).unwrap();
        let room = sockopt::socket_send_buffer_size(&socket).unwrap() as u64;
        // Nine tenths of it: there is room for what follows.
        (0..room / 768 * 9 / 10).for_each(|_| _ = send(&socket, &[1], &[junk.as_fd()]));
        pattern(LARGE, 5)
    }
    fn owner() -> u64 {
        let pool = Pool::new(1).unwrap();
        let mut in_files = 0;
        for _ in 0..3 {
            let result = pool.apply_async(flood, 0).unwrap();
            result.wait(None).unwrap();
            in_files += mapped_results();
            assert!(is_right(&result.get().unwrap(), LARGE, 5));
        }
        in_files
    }
    let _turn = alone();
    assert_eq!(Process::spawn(owner, ()).unwrap().join().unwrap(), 3);
}

/// Nobody looks for what lies there, and no file is sent where there is no room.
#[test]
fn a_socket_does_not_stay_full() {
    fn fill(_: u64) -> u64 {
        send_junk(&handover(), u64::MAX)
    }
    let _turn = alone();
    let pool = Pool::new(1).unwrap();
    assert!(pool.apply(fill, 0).unwrap() > 8);
    until("room on the socket", || {
        assert!(is_right(&pool.apply(give, (LARGE, 7)).unwrap(), LARGE, 7));
        pool.apply(fill, 0).unwrap() > 8
    });
}

/// What was sent and counted before somebody ends the socket is there. Workers see that it is over, and ask no more.
#[test]
fn a_socket_that_is_ended_gives_what_is_in_it() {
    fn end_it(salt: u64) -> Vec<u64> {
        if salt == 1 {
            rustix::net::shutdown(handover(), rustix::net::Shutdown::Both).unwrap();
        }
        pattern(LARGE, salt)
    }
    let pool = Pool::builder().workers(1).chunk_size(3).build().unwrap();
    let results = pool.map(end_it, 0..3).unwrap();
    assert!((0..).zip(&results).all(|(salt, result)| is_right(result, LARGE, salt)));
    assert!(!pool.apply(|_: u64| find_handover().is_some(), 0).unwrap());
    assert!(is_right(&pool.apply(give, (LARGE, 7)).unwrap(), LARGE, 7));
}

/// A worker may hand over more than is under way at once: what was taken counts no more.
#[test]
fn results_one_after_another_all_have_files() {
    fn owner() -> u64 {
        let pool = Pool::new(1).unwrap();
        let mut in_files = 0;
        for salt in 0..POOL_PASSED_MAX as u64 + 8 {
            let result = pool.apply_async(|salt: u64| vec![salt; LARGE as usize / 8], salt).unwrap();
            result.wait(None).unwrap();
            in_files += mapped_results();
        }
        in_files
    }
    assert_eq!(Process::spawn(owner, ()).unwrap().join().unwrap(), POOL_PASSED_MAX as u64 + 8);
}

/// What is under way counts for all that a user does: results that wait use up little of that. (It is not counted for root.)
#[test]
fn results_that_wait_keep_nobody_from_starting() {
    // More than there is warm memory for, and as many as would fill the sockets if these held what the kernel lets them.
    const CALLS: u64 = POOL_FILE_KEPT_BYTES / POOL_SEALED_BYTES + 110;
    fn stay(n: u64) -> Vec<u64> {
        if n < CALLS {
            return vec![n; POOL_SEALED_BYTES as usize / 8];
        }
        loop {
            std::thread::park();
        }
    }
    fn start() -> Result<i64, Error> {
        Ok(Process::spawn(square, 3)?.join()? + Pool::new(1)?.apply(square, 4)?)
    }
    let _turn = alone();
    let pools = [(); 2].map(|()| Pool::builder().workers(1).chunk_size(CALLS + 1).build().unwrap());
    let waiting = pools.each_ref().map(|pool| pool.map_async(stay, 0..=CALLS).unwrap());
    until("results", || waiting.iter().all(|results| results.progress().done == CALLS));
    // More than two sockets of them hold, and less than two that hold what the kernel lets them.
    let sum = Process::builder().limit(ResourceLimit::OpenFiles, 128).spawn(start, ()).unwrap().join().unwrap();
    assert_eq!(sum.map_err(|error| error.to_string()), Ok(25));
}

/// Though somebody still has a handle of one of its jobs.
#[test]
fn a_pool_that_is_over_keeps_nothing() {
    fn stay(n: u64) -> Vec<u64> {
        if n == 0 {
            return pattern(LARGE, n);
        }
        loop {
            std::thread::park();
        }
    }
    fn owner() -> (u64, u64) {
        let pool = Pool::builder().workers(2).chunk_size(2).build().unwrap();
        let kept = pool.map_async(stay, 0..2).unwrap();
        until("its first result", || kept.progress().done == 1);
        // Of the other worker; the first one's file is met on the way.
        assert!(is_right(&pool.apply(give, (LARGE, 7)).unwrap(), LARGE, 7));
        let aside = mapped_results();
        pool.terminate().unwrap();
        pool.join().unwrap();
        assert!(kept.get().is_err());
        (aside, mapped_results())
    }
    assert_eq!(Process::spawn(owner, ()).unwrap().join().unwrap(), (1, 0));
}

/// Workers die at each of their points, with large results in their hands. Every call has its own result, or fails by a death; and no memory of
/// the dead stays.
#[test]
fn workers_die_at_every_point_of_a_large_result() {
    // In a process without other tests: it counts mappings.
    for len in [LARGE, 3 * MIB] {
        let (points, partly) = Process::spawn(die_at_every_point, len).unwrap().join().unwrap();
        println!("{points} points, {partly} of them in a call");
        assert!(partly > 10, "{partly}");
    }
}

fn die_at_every_point(len: u64) -> (u64, u64) {
    fn call(calls: List<u64>, len: u64, n: u64) -> Vec<u64> {
        calls.push(n).unwrap();
        pattern(len, n)
    }
    let manager = Manager::start().unwrap();
    let (mut partly, mut alive) = (0, 0);
    // Those before the first call are others' matter.
    for point in 4.. {
        let calls = manager.list::<u64>([]).unwrap();
        let pool =
            Pool::builder().workers(1).chunk_size(2).env(commonhold_ipc::points::CLIENT_VARIABLE, point.to_string()).build().unwrap();
        let first = pool.pids();
        let results = match pool.map_all(call, (0..2).map(|n| (calls.clone(), len, n))) {
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
                Ok(words) => assert!(times == 1 && is_right(&words, len, n), "{point} {n}"),
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
        // What the dead have left goes before the pool does.
        until("nothing of the dead", || mapped_results() == 0);
        drop(pool);
        if alive > 1 {
            return (point - 2, partly);
        }
    }
    unreachable!("a worker comes to an end of its points")
}
