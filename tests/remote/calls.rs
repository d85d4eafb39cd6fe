//! What goes in, what comes out, and who waits for whom.
use crate::support::{Bomb, PATIENCE, PROMPT, Parent, Role, until};
use commonhold::{Counter, Dict, ErrorKind, Event, Handle, List, Lock, Manager, Process, Queue, Shared, current_manager};
use commonhold_ipc::limits::{TEXT_BYTES_MAX, VALUE_BYTES_MAX};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Shared, Debug, PartialEq, Clone)]
enum Refusal {
    TooMuch { wanted: u64, left: u64 },
}

struct Store {
    stock: u64,
    log: List<String>,
}

#[commonhold::remote]
impl Store {
    pub fn open(stock: u64, log: List<String>) -> Self {
        Store { stock, log }
    }

    pub fn open_if(stock: u64, log: List<String>) -> Result<Self, Refusal> {
        if stock > 100 { Err(Refusal::TooMuch { wanted: stock, left: 100 }) } else { Ok(Store { stock, log }) }
    }

    /// Takes some.
    pub fn take(&mut self, wanted: u64) -> Result<u64, Refusal> {
        if wanted > self.stock {
            return Err(Refusal::TooMuch { wanted, left: self.stock });
        }
        self.stock -= wanted;
        Ok(self.stock)
    }

    pub fn note(&self, who: &str, what: &[String], more: Option<(u8, f64)>, raw: &[u8], all: &Vec<i64>) -> commonhold::Result<u64> {
        self.log.push(format!("{who} {what:?} {more:?} {raw:?} {all:?}"))?;
        Ok(self.log.len()? as u64)
    }

    pub fn fill(&self, into: Dict<String, u64>) -> commonhold::Result<()> {
        into.insert("stock", self.stock)?;
        into.insert("keep", 1u64)?;
        Ok(())
    }

    /// That many bytes.
    pub fn make(&mut self, bytes: u64, made: Counter) -> commonhold::Result<Vec<u8>> {
        made.add(1)?;
        Ok(vec![7; bytes as usize])
    }

    pub fn fresh(&self, first: u64) -> commonhold::Result<List<u64>> {
        current_manager()?.list([first, self.stock])
    }

    pub fn branch(&self) -> commonhold::Result<StoreProxy> {
        current_manager()?.create(Store::open, (self.stock / 2, self.log.clone()))
    }

    pub fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    pub fn sleep(&mut self, ms: u64) -> u64 {
        self.log.push("sleeping").unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        self.stock
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.stock += n;
        self.stock
    }

    /// Takes something from a queue, as soon as there is something.
    pub fn fetch(&mut self, from: Queue<u64>) -> u64 {
        self.stock += from.recv().unwrap().unwrap();
        self.stock
    }

    /// As many bytes as a number from a queue says, as soon as there is one.
    pub fn fetch_bytes(&mut self, from: Queue<u64>) -> Vec<u8> {
        vec![7; from.recv().unwrap().unwrap() as usize]
    }

    pub fn r#type(&self) -> String {
        "store".into()
    }

    #[local]
    pub fn generic<T>(&self, value: T) -> T {
        value
    }

    fn _private(&self) {}
}

fn store(manager: &Manager, stock: u64) -> (StoreProxy, List<String>) {
    let log = manager.list([]).unwrap();
    (manager.create(Store::open, (stock, log.clone())).unwrap(), log)
}

#[test]
fn arguments_and_results_of_all_kinds() {
    let manager = crate::manager();
    let (store, log) = store(&manager, 10);
    assert_eq!(store.take(3).unwrap(), Ok(7));
    assert_eq!(store.take(8).unwrap(), Err(Refusal::TooMuch { wanted: 8, left: 7 }));
    assert_eq!(
        store.note("ada", &["x".into(), "a longer text than eight".into()], Some((1, 2.5)), b"raw", &vec![-1, 2]).unwrap().unwrap(),
        1
    );
    assert_eq!(*log.get(0).unwrap().unwrap(), *r#"ada ["x", "a longer text than eight"] Some((1, 2.5)) [114, 97, 119] [-1, 2]"#);
    assert_eq!(store.r#type().unwrap(), "store");
    let dict = manager.dict::<String, u64>([]).unwrap();
    store.fill(dict.clone()).unwrap().unwrap();
    assert_eq!(dict.to_string(), r#"{"stock": 7, "keep": 1}"#);
    // A handle on something that nobody else holds.
    assert_eq!(store.fresh(1).unwrap().unwrap().to_string(), "[1, 7]");
    let branch = store.branch().unwrap().unwrap();
    assert_eq!(branch.take(1).unwrap(), Ok(2));
    assert!(branch != store);
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    assert!(store.echo(large.clone()).unwrap() == large);
    let store = Store { stock: 1, log };
    assert_eq!(store.generic(5), 5);
    manager.audit().unwrap();
}

#[test]
fn constructors_may_fail() {
    let manager = crate::manager();
    let log = manager.list::<String>([]).unwrap();
    let refused = manager.create(Store::open_if, (101, log.clone())).unwrap();
    assert_eq!(refused.unwrap_err(), Refusal::TooMuch { wanted: 101, left: 100 });
    let made = manager.create(Store::open_if, (5, log.clone())).unwrap().unwrap();
    assert_eq!(made.add(1).unwrap(), 6);
    // A closure is a constructor, too.
    let made = manager.create(|log: List<String>| Store { stock: 40, log }, log).unwrap();
    assert_eq!(made.add(2).unwrap(), 42);
}

#[test]
fn a_proxy_is_a_handle_like_all_others() {
    let manager = crate::manager();
    let (store, _) = store(&manager, 1);
    assert!(format!("{store:?}").starts_with("<Store object "), "{store:?}");
    let shelf: Dict<String, StoreProxy> = manager.dict([("s".to_string(), store.clone())]).unwrap();
    let again = shelf.get("s").unwrap().unwrap().to_owned();
    assert!(again == store);
    assert_eq!(again.add(1).unwrap(), 2);
    let same: StoreProxy = store.token().unwrap().to_string().parse::<commonhold::Token>().unwrap().open().unwrap();
    assert_eq!(same.add(1).unwrap(), 3);
    manager.publish("store", &store).unwrap();
    assert_eq!(manager.open::<StoreProxy>("store").unwrap().add(1).unwrap(), 4);
    let error = manager.open::<Dict<String, u64>>("store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongType);
    assert!(error.to_string().contains("remote Store {take(&mut self, u64) -> Result<u64, enum Refusal"), "{error}");
    assert!(manager.open::<MeetingProxy>("store").unwrap_err().to_string().contains("remote Meeting"));
    let found = manager.objects().unwrap().into_iter().find(|object| object.id == store.id()).unwrap();
    assert_eq!((found.kind.as_str(), &found.names[..], found.inside), ("Remote", &["store".to_string()][..], 1));
    let hosts: Vec<_> = manager.sessions().unwrap().into_iter().filter(|session| session.is_host).collect();
    assert_eq!(found.host, Some(hosts[0].number));
    assert_eq!(hosts.len(), 1);
}

struct Clerk {
    orders: Queue<u64>,
}

#[commonhold::remote]
impl Clerk {
    pub fn new(orders: Queue<u64>) -> Self {
        Clerk { orders }
    }

    /// Moves what waits in its own queue to another one, under a lock that its callers use as well.
    pub fn hand_over(&mut self, to: Queue<u64>, desk: Lock, total: Counter) -> commonhold::Result<u64> {
        let mut moved = 0;
        while let Some(order) = self.orders.try_recv()? {
            let guard = desk.lock()?;
            to.send(order)?;
            total.add(order as i64)?;
            drop(guard);
            moved += 1;
        }
        Ok(moved)
    }
}

#[test]
fn methods_use_queues_and_locks_of_their_own_and_of_their_callers() {
    let manager = crate::manager();
    let (orders, done) = (manager.queue::<u64>(1000).unwrap(), manager.queue::<u64>(1000).unwrap());
    let (desk, total) = (manager.lock().unwrap(), manager.counter(0).unwrap());
    let clerks: Vec<_> = (0..3).map(|_| manager.create(Clerk::new, (orders.clone(),)).unwrap()).collect();
    (1..=300).for_each(|order| orders.send(order).unwrap());
    std::thread::scope(|scope| {
        let moved: Vec<_> = clerks
            .iter()
            .map(|clerk| scope.spawn(|| clerk.hand_over(done.clone(), desk.clone(), total.clone()).unwrap().unwrap()))
            .collect();
        // Its callers are at the desk, too.
        for _ in 0..50 {
            drop(desk.lock().unwrap());
        }
        assert_eq!(moved.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>(), 300);
    });
    assert_eq!(total.get().unwrap(), 300 * 301 / 2);
    let mut got: Vec<u64> = (0..300).map(|_| done.recv().unwrap().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (1..=300).collect::<Vec<_>>());
    manager.audit().unwrap();
}

fn hammer(store: StoreProxy, times: u64) -> commonhold::Result<u64> {
    for _ in 0..times {
        store.add(1)?;
    }
    store.call_one_way().add(1)?;
    let pending: Vec<_> = (0..times).map(|_| store.call_async().add(1)).collect::<commonhold::Result<_>>()?;
    for pending in pending {
        pending.get()?;
    }
    Ok(times)
}

#[test]
fn hammered_from_several_processes_every_call_counts_once() {
    let manager = crate::manager();
    let (store, _) = store(&manager, 0);
    let workers: Vec<_> = (0..4).map(|_| Process::spawn(hammer, (store.clone(), 300u64)).unwrap()).collect();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || (0..200).for_each(|_| assert!(store.add(1).unwrap() > 0)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for worker in workers {
        assert_eq!(worker.join().unwrap().unwrap(), 300);
    }
    assert_eq!(store.add(0).unwrap(), 4 * (2 * 300 + 1) + 4 * 200);
    manager.audit().unwrap();
}

struct Meeting {
    inside: AtomicU64,
}

#[commonhold::remote(sync)]
impl Meeting {
    pub fn new() -> Self {
        Meeting { inside: AtomicU64::new(0) }
    }

    /// Whether somebody else was there at the same time.
    pub fn meet(&self, patience_ms: u64) -> bool {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_millis(patience_ms);
        while self.inside.load(Ordering::SeqCst) < 2 && Instant::now() < until {
            std::thread::yield_now();
        }
        self.inside.load(Ordering::SeqCst) >= 2
    }

    pub fn alone(&mut self) -> u64 {
        self.inside.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn several_look_at_once_where_the_type_asks_for_it() {
    let manager = crate::manager();
    let meeting = manager.create(Meeting::new, ()).unwrap();
    let other = meeting.call_async();
    let first = other.meet(PATIENCE.as_millis() as u64).unwrap();
    assert!(meeting.meet(PATIENCE.as_millis() as u64).unwrap());
    assert!(first.get().unwrap());
    assert_eq!(meeting.alone().unwrap(), 2);
}

#[test]
fn a_method_that_blocks_delays_nobody_else() {
    let manager = crate::manager();
    let (slow, log) = store(&manager, 1);
    let (quick, _) = store(&manager, 2);
    let sleeping = slow.call_async().sleep(3_000).unwrap();
    until("the method runs", || log.len().unwrap() == 1);
    let began = Instant::now();
    assert_eq!(quick.add(1).unwrap(), 3);
    assert_eq!(manager.list([1u64]).unwrap().len().unwrap(), 1);
    assert!(!sleeping.is_ready().unwrap());
    // Whoever wants the same object waits no longer than he likes.
    let error = slow.with_timeout(Duration::from_millis(20)).add(1).unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert!(began.elapsed() < Duration::from_millis(2_900), "{:?}", began.elapsed());
    assert!(sleeping.wait(PATIENCE).unwrap());
    assert_eq!(sleeping.get().unwrap(), 1);
    // The call that was given up before its turn was not run.
    assert_eq!(slow.add(0).unwrap(), 1);
    // Nor does one delay the end of the manager.
    let _sleeping = slow.call_async().sleep(60_000).unwrap();
    until("the method runs", || log.len().unwrap() == 2);
    let began = Instant::now();
    manager.shutdown().unwrap();
    assert!(began.elapsed() < PROMPT);
    assert!(quick.add(1).unwrap_err().is_disconnected());
}

#[test]
fn calls_ahead_keep_their_order_and_more_than_a_socket_holds() {
    let manager = crate::manager();
    let (store, _) = store(&manager, 0);
    let pending: Vec<_> = (1..=5_000u64).map(|_| store.call_async().add(1).unwrap()).collect();
    for (n, pending) in (1..).zip(pending) {
        assert_eq!(pending.get().unwrap(), n);
    }
    for _ in 0..5_000 {
        store.call_one_way().add(1).unwrap();
    }
    assert_eq!(store.call_async().add(0).unwrap().get().unwrap(), 10_000);
    // Dropped, they are done all the same.
    (0..1_000).for_each(|_| drop(store.call_async().add(1).unwrap()));
    assert_eq!(store.call_async().add(0).unwrap().get().unwrap(), 11_000);
    // What arguments refer to is held until the host has it.
    for n in 0..20u64 {
        let into = manager.dict::<String, u64>([("n".to_string(), n)]).unwrap();
        let filled = store.call_async().fill(into.clone()).unwrap();
        let token = into.token().unwrap();
        drop(into);
        filled.get().unwrap().unwrap();
        until("the dict is gone", || token.open::<Dict<String, u64>>().is_err());
    }
    manager.audit().unwrap();
}

#[test]
fn calls_ahead_of_many_objects_share_a_line_and_wait_for_none_but_their_own() {
    let manager = crate::manager();
    let (stores, queues): (Vec<_>, Vec<_>) = (0..40u64).map(|n| (store(&manager, n).0, manager.queue::<u64>(4).unwrap())).unzip();
    let quick = stores.iter().map(|store| store.call_async().add(1).unwrap()).collect::<Vec<_>>();
    for (n, pending) in (1..).zip(quick) {
        assert_eq!(pending.get().unwrap(), n);
    }
    let lines = threads_of_host(&manager, "line");
    // All but the last wait in their methods; calls of those wait behind, in order; the last one is not delayed.
    let slow: Vec<_> = stores.iter().zip(&queues).skip(1).map(|(store, queue)| store.call_async().fetch(queue.clone()).unwrap()).collect();
    let behind: Vec<_> = stores.iter().skip(1).map(|store| store.call_async().add(1_000).unwrap()).collect();
    stores[0].call_one_way().add(1).unwrap();
    assert_eq!(stores[0].call_async().add(0).unwrap().get().unwrap(), 2);
    assert!(!slow[38].is_ready().unwrap() && !behind[38].is_ready().unwrap());
    assert!(slow[0].wait(Duration::from_millis(1)).is_ok_and(|is_ready| !is_ready));
    // Several threads wait for results of one line, and are let go in any order.
    std::thread::scope(|scope| {
        let waiting = slow.into_iter().zip(behind).zip(1..40u32).rev();
        for ((slow, behind), n) in waiting {
            scope.spawn(move || {
                assert_eq!(slow.get().unwrap(), u64::from(n) + 1 + 100);
                assert_eq!(behind.get().unwrap(), u64::from(n) + 1 + 1_100);
            });
        }
        queues.iter().for_each(|queue| queue.send(100u64).unwrap());
    });
    // A few are kept, and helpers of the library that they have started have their name.
    until("threads that have nothing to do are gone", || threads_of_host(&manager, "line") <= lines + 16);
    manager.audit().unwrap();
}

/// How many threads of the manager's host have this name.
fn threads_of_host(manager: &Manager, name: &str) -> usize {
    let host = manager.sessions().unwrap().into_iter().find(|session| session.is_host).expect("a host");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid)).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn a_client_that_ends_has_its_calls_ahead_done() {
    let manager = crate::manager();
    let (store, _) = store(&manager, 0);
    let child = Process::spawn(call_ahead_and_end, (store.clone(), 300)).unwrap();
    child.join().unwrap().unwrap();
    until("all of them are done", || store.add(0).unwrap() == 300);
}

#[test]
fn a_client_that_dies_with_answers_unread_has_its_calls_ahead_done() {
    let manager = crate::manager();
    let (store, _) = store(&manager, 0);
    let (made, asked) = (manager.counter(0).unwrap(), manager.queue::<u64>(1).unwrap());
    let go_on = manager.event().unwrap();
    let child = Process::spawn(call_ahead_and_read_nothing, (store.clone(), made.clone(), go_on.clone(), asked.clone())).unwrap();
    until("two are done", || made.get().unwrap() == 2);
    // What is asked now is not read as long as nobody takes the answers of those two.
    go_on.set().unwrap();
    asked.recv().unwrap();
    child.kill().unwrap();
    until("all of them are done", || made.get().unwrap() == 4 && store.add(0).unwrap() == 30);
    manager.audit().unwrap();
}

fn call_ahead_and_read_nothing(store: StoreProxy, made: Counter, go_on: Event, asked: Queue<u64>) -> commonhold::Result<()> {
    let make_two = || (0..2).map(|_| store.call_async().make(600_000, made.clone())).collect::<commonhold::Result<Vec<_>>>();
    let _first = make_two()?;
    go_on.wait()?;
    let _then = make_two()?;
    (0..30).try_for_each(|_| store.call_one_way().add(1))?;
    asked.send(1u64)?;
    loop {
        std::thread::park();
    }
}

fn call_ahead_and_end(store: StoreProxy, count: u64) -> commonhold::Result<()> {
    for n in 0..count {
        match n % 2 {
            0 => store.call_one_way().add(1)?,
            _ => drop(store.call_async().add(1)?),
        }
    }
    Ok(())
}

#[test]
fn large_arguments_and_results_of_calls_ahead_go_both_ways_at_once() {
    let manager = crate::manager();
    let stores: Vec<_> = (0..3).map(|n| store(&manager, n).0).collect();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    let pending: Vec<_> = (0..9).map(|n| stores[n % 3].call_async().echo(bytes.clone()).unwrap()).collect();
    for pending in pending.into_iter().rev() {
        assert!(pending.get().unwrap() == bytes);
    }
}

#[test]
fn a_result_that_nobody_waits_for_any_more_is_let_go_and_its_call_done_in_its_turn() {
    let manager = crate::manager();
    let (store, _log) = store(&manager, 1);
    let key = manager.queue::<u64>(1).unwrap();
    assert_eq!(store.call_async().add(0).unwrap().get().unwrap(), 1);
    let objects = manager.objects().unwrap().len();
    let blocked = store.call_async().fetch(key.clone()).unwrap();
    drop(store.call_async().add(10).unwrap());
    // Its result is a handle on something that nobody else holds.
    drop(store.call_async().fresh(5).unwrap());
    drop(blocked);
    let last = store.call_async().add(1000).unwrap();
    key.send(100u64).unwrap();
    assert_eq!(last.get().unwrap(), 1111);
    // The same of one that was here already.
    let here = store.call_async().fresh(6).unwrap();
    assert!(here.wait(PATIENCE).unwrap());
    drop(here);
    until("what it made is gone", || manager.objects().unwrap().len() == objects);
    manager.audit().unwrap();
}

#[test]
fn results_that_nobody_wants_do_not_pile_up_while_calls_are_made() {
    let manager = crate::manager();
    let (store, _log) = store(&manager, 1);
    drop(store.call_async().add(0).unwrap());
    let objects = manager.objects().unwrap().len();
    // Nobody ever waits on this line, and each answer has a handle on something new.
    for number in 0..20 {
        drop(store.call_async().fresh(number).unwrap());
    }
    let key = manager.queue::<u64>(1).unwrap();
    let argument = key.id();
    drop(store.call_async().fetch(key.clone()).unwrap());
    key.send(1u64).unwrap();
    drop(key);
    until("what they have held is gone, one call behind the last", || {
        drop(store.call_async().add(0).unwrap());
        let now = manager.objects().unwrap();
        now.len() == objects && now.iter().all(|object| object.id != argument)
    });
    manager.audit().unwrap();
}

#[test]
fn a_panic_comes_without_a_backtrace_if_the_hosts_environment_says_so() {
    fn source_of_a_panic() -> Option<String> {
        let manager = crate::manager();
        let fuse = manager.create(Fuse::new, ()).unwrap();
        let error = fuse.blow("too much current").unwrap_err();
        assert!(error.is_panic() && error.to_string().ends_with("too much current"), "{error:?}");
        std::error::Error::source(&error).map(ToString::to_string)
    }
    let with = |setting: &str| commonhold::Process::builder().env_remove("RUST_LIB_BACKTRACE").env("RUST_BACKTRACE", setting);
    assert_eq!(with("0").spawn(source_of_a_panic, ()).unwrap().join().unwrap(), None);
    assert!(with("1").spawn(source_of_a_panic, ()).unwrap().join().unwrap().unwrap().contains("Fuse::blow"));
}

#[test]
fn a_panic_comes_to_the_caller_and_poisons_the_object() {
    let manager = crate::manager();
    let fuse = manager.create(Fuse::new, ()).unwrap();
    let other = manager.create(Fuse::new, ()).unwrap();
    manager.publish("fuse", &fuse).unwrap();
    let error = fuse.blow("too much current").unwrap_err();
    assert!(error.is_panic(), "{error:?}");
    assert!(error.to_string().starts_with("Fuse::blow panicked at tests/remote/calls.rs:"), "{error}");
    assert!(error.to_string().ends_with("too much current"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("Fuse::blow"));
    let error = fuse.count().unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("is poisoned: Fuse::blow panicked"), "{error}");
    assert_eq!(other.count().unwrap(), 1);
    // Another one takes its place.
    assert!(manager.open::<FuseProxy>("fuse").unwrap().count().unwrap_err().is_panic());
    manager.publish_over("fuse", &manager.create(Fuse::new, ()).unwrap()).unwrap();
    assert_eq!(manager.open::<FuseProxy>("fuse").unwrap().count().unwrap(), 1);
    let error = manager.create(Fuse::broken, ()).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("broken from the beginning"), "{error}");
}

#[derive(Debug)]
struct Fuse(u64);

#[commonhold::remote]
impl Fuse {
    pub fn new() -> Self {
        Fuse(0)
    }
    pub fn named(name: String) -> Self {
        Fuse(name.len() as u64)
    }
    pub fn broken() -> Self {
        panic!("broken from the beginning")
    }
    pub fn blow(&mut self, why: &str) {
        self.0 = 99;
        panic!("{why}")
    }
    /// As one that says why, but what it leaves must not be dropped.
    pub fn burst(&mut self) {
        std::panic::panic_any(Bomb)
    }
    pub fn count(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
    pub fn abort(&self) {
        std::process::abort()
    }
    pub fn overflow(&self, depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        if depth == u64::MAX { room[0] } else { Fuse::overflow(self, depth + 1) + room[7] }
    }
    /// As a wrong pointer in a C library would: the kernel's own signal. The first one ends at the handler by which the standard library tells
    /// of overflows, and which steps back then.
    pub fn segfault(&self) {
        loop {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::SEGV).unwrap();
        }
    }
}

#[test]
fn a_panic_that_leaves_what_must_not_be_dropped_is_told_and_costs_no_line() {
    let manager = crate::manager();
    let fuse = manager.create(Fuse::new, ()).unwrap();
    for error in [fuse.burst().unwrap_err(), fuse.count().unwrap_err()] {
        assert!(error.is_panic() && error.to_string().contains("Fuse::burst panicked") && error.to_string().contains("no text"), "{error}");
    }
    let bursts = || -> Fuse { std::panic::panic_any(Bomb) };
    let error = manager.create(bursts, ()).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("no text"), "{error}");
    let error =
        manager.run(|_: &commonhold::Transaction<'_>, ()| -> commonhold::Result<()> { std::panic::panic_any(Bomb) }, ()).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("no text"), "{error}");
}

#[test]
fn aborts_segfaults_and_overflows_take_the_host_and_not_the_store() {
    type Fault = fn(&FuseProxy) -> commonhold::Result<()>;
    let manager = crate::manager();
    let kept = manager.list([1u64]).unwrap();
    let faults: [Fault; 3] = [FuseProxy::abort, FuseProxy::segfault, |fuse| fuse.overflow(0).map(drop)];
    for fault in faults {
        let fuse = manager.create(Fuse::new, ()).unwrap();
        let neighbour = manager.create(Fuse::new, ()).unwrap();
        let error = fault(&fuse).unwrap_err();
        assert!(error.is_died(), "{error:?}");
        assert!(fuse.count().unwrap_err().is_died());
        assert!(neighbour.count().unwrap_err().is_died());
        assert!(neighbour.call_async().count().and_then(|pending| pending.get()).unwrap_err().is_died());
        kept.push(2).unwrap();
    }
    // A new host for new ones.
    assert_eq!(manager.create(Fuse::new, ()).unwrap().count().unwrap(), 1);
    assert_eq!(kept.len().unwrap(), 4);
    manager.audit().unwrap();
}

#[test]
fn a_text_that_is_too_long_for_any_value_is_told_its_limit() {
    let manager = crate::manager();
    let fuse = manager.create(Fuse::new, ()).unwrap();
    // Zeros of the system's own: no memory stands behind them.
    let text = String::from_utf8(vec![0; TEXT_BYTES_MAX + 1]).unwrap();
    let errors = [fuse.blow(&text).unwrap_err(), manager.create(Fuse::named, (text,)).unwrap_err()];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        let said = error.to_string();
        for part in ["String", &TEXT_BYTES_MAX.to_string(), "split it", "Vec<u8>"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    // Nothing was sent.
    assert_eq!(fuse.count().unwrap(), 1);
    manager.audit().unwrap();
}

struct Printer {
    prints: u64,
}

#[commonhold::remote]
impl Printer {
    pub fn new() -> Self {
        Printer { prints: 0 }
    }
    /// Of zeros, which are the system's own.
    pub fn print(&mut self, bytes: u64, last: u8) -> Vec<u8> {
        self.prints += 1;
        let mut page = vec![0; bytes as usize];
        page[bytes as usize - 1] = last;
        page
    }
    pub fn prints(&self) -> u64 {
        self.prints
    }
}

/// The most bytes of a result that is a `Vec<u8>`: its archive has a head of 8.
const RESULT_BYTES_MAX: u64 = VALUE_BYTES_MAX - 8;

#[test]
fn results_are_of_any_size_and_beyond_the_most_an_error_that_says_it() {
    let manager = crate::manager();
    let printer = manager.create(Printer::new, ()).unwrap();
    let is_whole = |page: &[u8], bytes: u64, last: u8| {
        let (end, zeros) = page.split_last().unwrap();
        page.len() as u64 == bytes && *end == last && zeros.chunks(4096).all(|part| *part == [0; 4096][..part.len()])
    };
    let mut prints = 0;
    for bytes in [4096, 16 << 10, (16 << 10) + 1, 1 << 20, 40 << 20] {
        let ahead = printer.call_async().print(bytes, 1).unwrap();
        assert!(is_whole(&printer.print(bytes, 2).unwrap(), bytes, 2), "{bytes}");
        assert!(is_whole(&ahead.get().unwrap(), bytes, 1), "{bytes}");
        prints += 2;
    }
    let ahead = printer.call_async().print(VALUE_BYTES_MAX + 1, 1).unwrap();
    let behind = printer.call_async().prints().unwrap();
    for error in [ahead.get().unwrap_err(), printer.print(VALUE_BYTES_MAX + 1, 2).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains(&VALUE_BYTES_MAX.to_string()), "{error}");
    }
    // The methods have run, the lines go on, and so does the object. (The call that did not go ahead may have come in before the last one that did.)
    assert!([prints + 1, prints + 2].contains(&behind.get().unwrap()));
    assert_eq!(printer.prints().unwrap(), prints + 2);
    assert!(is_whole(&printer.print(5000, 3).unwrap(), 5000, 3));
    manager.audit().unwrap();
}

#[test]
#[ignore = "takes 12 GiB of memory"]
fn results_are_of_any_size_up_to_the_most_to_the_byte() {
    let manager = crate::manager();
    let printer = manager.create(Printer::new, ()).unwrap();
    let page = printer.print(RESULT_BYTES_MAX, 7).unwrap();
    assert_eq!((page.len() as u64, page.last()), (RESULT_BYTES_MAX, Some(&7)));
    drop(page);
    assert_eq!(printer.print(RESULT_BYTES_MAX + 1, 7).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(printer.prints().unwrap(), 2);
}

#[test]
fn in_a_thread_of_this_process_there_are_hosts_as_well() {
    let manager = Manager::in_process().unwrap();
    let fuse = manager.create(Fuse::new, ()).unwrap();
    assert_eq!(fuse.count().unwrap(), 1);
    assert_eq!(current_manager().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn more_calls_than_may_wait_behind_a_blocked_one_wait_where_they_are() {
    let manager = crate::manager();
    let (blocked, _) = store(&manager, 1);
    let (other, _) = store(&manager, 2);
    let key = manager.queue::<u64>(1).unwrap();
    let waiting = blocked.call_async().fetch(key.clone()).unwrap();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    // Beyond 16 MiB the host reads no more of this line, and so takes what is behind on it later; by other lines it is called as ever.
    let calling = std::thread::spawn({
        let (blocked, other, bytes) = (blocked.clone(), other.clone(), bytes.clone());
        move || {
            let echoes: Vec<_> = (0..12).map(|_| blocked.call_async().echo(bytes.clone()).unwrap()).collect();
            (echoes, other.call_async().add(1).unwrap())
        }
    });
    assert_eq!(other.add(1).unwrap(), 3);
    assert!(!waiting.is_ready().unwrap());
    key.send(100u64).unwrap();
    assert_eq!(waiting.get().unwrap(), 101);
    let (echoes, added) = calling.join().unwrap();
    assert!(echoes.into_iter().all(|echo| echo.get().unwrap() == bytes));
    assert_eq!(added.get().unwrap(), 4);
    manager.audit().unwrap();
}

#[test]
fn a_result_comes_whole_while_too_many_calls_wait_behind_a_blocked_one() {
    let manager = crate::manager();
    let (blocked, _) = store(&manager, 1);
    let (other, _) = store(&manager, 2);
    let [key, bytes] = [(); 2].map(|()| manager.queue::<u64>(1).unwrap());
    let waiting = blocked.call_async().fetch(key.clone()).unwrap();
    let large = other.call_async().fetch_bytes(bytes.clone()).unwrap();
    let asked = AtomicUsize::new(0);
    let value = vec![0; 2_000_000];
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let echo = || {
                let echo = blocked.call_async().echo(value.clone()).unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
                echo
            };
            (0..12).map(|_| echo()).collect::<Vec<_>>()
        });
        until("16 MiB wait, and nothing more is read", || asked.load(Ordering::Relaxed) == 9);
        // More than fits into the line: the rest of it must be sent by the thread that reads no more.
        bytes.send(4 << 20).unwrap();
        assert_eq!(large.get().unwrap(), [7; 4 << 20]);
        assert_eq!(asked.load(Ordering::Relaxed), 9);
        key.send(100u64).unwrap();
        assert_eq!(waiting.get().unwrap(), 101);
        assert!(calling.join().unwrap().into_iter().all(|echo| echo.get().unwrap() == value));
    });
}

#[test]
fn role_that_blows_a_fuse_one_way() {
    let Some(mut parent) = Parent::of("calls::role_that_blows_a_fuse_one_way") else { return };
    let manager = crate::manager();
    let fuse = manager.create(Fuse::new, ()).unwrap();
    fuse.call_one_way().blow("nobody waits for this").unwrap();
    // In order, behind it.
    let error = fuse.call_async().count().unwrap().get().unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("is poisoned: Fuse::blow panicked"), "{error}");
    parent.say("poisoned");
}

#[test]
fn a_panic_of_a_one_way_call_poisons_and_is_told_where_the_host_writes() {
    let path = std::env::temp_dir().join(format!("commonhold-one-way-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    let mut role = Role::start_with("calls::role_that_blows_a_fuse_one_way", |command| {
        command.stderr(file);
    });
    role.expect("poisoned");
    role.end();
    let told = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(told.contains("commonhold-host: Fuse::blow panicked at") && told.contains("nobody waits for this"), "{told}");
}

#[test]
fn a_one_way_call_that_panics_costs_no_line_where_nobody_reads_what_the_host_writes() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut role = Role::start_with("calls::role_that_blows_a_fuse_one_way", |command| {
        command.stderr(writer);
    });
    role.expect("poisoned");
    role.end();
}

/// One type for several others, each a remote type of its own.
struct Best<T>(Vec<T>);

#[commonhold::remote(name = BestText)]
impl Best<String> {
    pub fn new() -> Self {
        Best(Vec::new())
    }
    pub fn offer(&mut self, value: String) -> Option<String> {
        self.0.push(value);
        self.0.iter().max().cloned()
    }
}

#[commonhold::remote(name = BestNumber)]
impl Best<u64> {
    pub fn new() -> Self {
        Best(Vec::new())
    }
    pub fn offer(&mut self, value: u64) -> Option<u64> {
        self.0.push(value);
        self.0.iter().max().copied()
    }
    /// Handles, lent.
    pub fn offer_all(&mut self, list: &List<u64>, dict: &Dict<String, u64>) -> commonhold::Result<Option<u64>> {
        self.0.extend(list.to_owned()?);
        self.0.extend(dict.get("best")?.map(|best| *best));
        Ok(self.0.iter().max().copied())
    }
}

#[test]
fn instances_of_a_generic_type_are_types_of_their_own() {
    let manager = crate::manager();
    let (texts, numbers) = (manager.create(Best::<String>::new, ()).unwrap(), manager.create(Best::<u64>::new, ()).unwrap());
    assert_eq!(texts.offer("b".into()).unwrap().as_deref(), Some("b"));
    assert_eq!((numbers.offer(7).unwrap(), numbers.offer(5).unwrap()), (Some(7), Some(7)));
    assert_eq!(texts.offer("a".into()).unwrap().as_deref(), Some("b"));
    manager.publish("texts", &texts).unwrap();
    let error = manager.open::<BestNumberProxy>("texts").unwrap_err();
    assert!(error.kind() == ErrorKind::WrongType && error.to_string().contains("BestText"), "{error}");
    assert_eq!(manager.open::<BestTextProxy>("texts").unwrap().offer("c".into()).unwrap().as_deref(), Some("c"));
}

#[test]
fn handles_are_lent_to_methods() {
    let manager = crate::manager();
    let best = manager.create(Best::<u64>::new, ()).unwrap();
    let (list, dict) = (manager.list([1u64, 9, 3]).unwrap(), manager.dict([("best".to_string(), 8u64)]).unwrap());
    assert_eq!(best.offer_all(&list, &dict).unwrap().unwrap(), Some(9));
    dict.insert("best", 20u64).unwrap();
    assert_eq!(best.call_async().offer_all(&list, &dict).unwrap().get().unwrap().unwrap(), Some(20));
    // They are ours as before, and the host holds them no more.
    assert_eq!((list.len().unwrap(), dict.len().unwrap()), (3, 1));
    let of = |id: u64| manager.objects().unwrap().into_iter().find(|object| object.id == id).unwrap().holders.len();
    until("only we hold them", || (of(list.id()), of(dict.id())) == (1, 1));
    manager.audit().unwrap();
}
