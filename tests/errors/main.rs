//! What errors say. Each is provoked here once, and its whole text held: what was tried, on what, why it failed, and what to do.
//!
//! In the expected texts `{…}` stands for what differs from run to run: an address, a process, a number of bytes.

use commonhold::{Dict, Error, ErrorKind, List, Lock, Manager, Process, Queue, QueueOptions, Shared, Token};
use says::{matches, says};
use std::time::Duration;

mod forks;
mod handshakes;
mod misuse;
mod objects;
mod pipes;
mod places;
mod pools;
mod says;
mod starts;
#[path = "../support/mod.rs"]
mod support;

commonhold::init_in_tests!();

#[test]
fn the_matcher_tells_right_from_wrong() {
    for (expected, text) in [("a", "a"), ("a {…} c", "a b c"), ("{…}: x", "y: x"), ("x {…}, {…}", "x 1, 2")] {
        assert!(matches(expected, text), "{expected}");
    }
    for (expected, text) in [("a", "ab"), ("a {…} c", "a b"), ("{…}: x", "y: z"), ("x {…}, {…}!", "x 1, 2"), ("", "a")] {
        assert!(!matches(expected, text), "{expected} took {text}");
    }
}

/// An order as two builds of a program know it.
macro_rules! order {
    ($module:ident, $price:ty) => {
        mod $module {
            #[derive(commonhold::Shared)]
            pub struct Order {
                customer: String,
                articles_and_their_numbers: Vec<(String, u64)>,
                price_in_cents: $price,
            }
        }
    };
}

order!(before, u32);
order!(now, u64);

#[derive(Shared, Clone, Debug, PartialEq)]
struct Reading {
    celsius: f64,
}

#[test]
fn of_managers() {
    says(
        Manager::builder().capacity(4096).start(),
        ErrorKind::OutOfRange,
        "a capacity of 4096 bytes is too small for a manager: give it at least {…}",
    );
    says(Manager::builder().sessions_max(0).start(), ErrorKind::OutOfRange, "a manager without sessions is of no use: allow at least one");
    says(Manager::connect(".hidden"), ErrorKind::OutOfRange, "a manager cannot have the name \".hidden\": it begins with a dot");
    says(
        Manager::connect(&"x".repeat(201)),
        ErrorKind::TooLarge,
        "a manager cannot have the name {…}: it has 201 bytes, and a name has at most 200",
    );
    says(Manager::connect(""), ErrorKind::OutOfRange, "a manager cannot have the name \"\": it is empty");
    says(
        Manager::connect("@commonhold-that-is-not-there"),
        ErrorKind::NotFound,
        "could not connect to a manager at @commonhold-that-is-not-there: nobody listens there; the manager has ended: start the program that makes it, or use open_or_start in both",
    );
    let manager = Manager::builder().authkey(b"a key of enough bytes").start().unwrap();
    let without = |address: String| Manager::connect(&address).map(drop);
    says(
        Process::spawn(without, manager.address().to_string()).unwrap().join().unwrap(),
        ErrorKind::Refused,
        "not connected to the manager at {…}: it has an authkey, and this program gave none: give the one that the manager was started with",
    );
    let with_another = |address: String| Manager::builder().authkey(b"another key of such").connect(&address).map(drop);
    says(
        Process::spawn(with_another, manager.address().to_string()).unwrap().join().unwrap(),
        ErrorKind::Refused,
        "not connected to the manager at {…}: this program's authkey is not the manager's: give the one that the manager was started with",
    );
    says(Manager::builder().authkey(b"short").start(), ErrorKind::OutOfRange, "an authkey has 8 to 1024 bytes, and this one has 5");
}

#[test]
fn of_a_manager_that_has_ended() {
    let manager = Manager::start().unwrap();
    let list = manager.list([1u8]).unwrap();
    let token = list.token().unwrap();
    manager.shutdown().unwrap();
    manager.wait_for_end(None).unwrap();
    let ended = "the manager has ended (its program ended, it was shut down, or it was killed): what is held by guards and snapshots stays readable, nothing else works; keep the manager longer (its program joins its children first), or connect to a new one";
    says(list.push(1), ErrorKind::Disconnected, ended);
    says(list.get(0), ErrorKind::Disconnected, ended);
    says(manager.list([1u8]), ErrorKind::Disconnected, ended);
    says(manager.attach::<List<u8>>(&token), ErrorKind::Disconnected, ended);
}

#[test]
fn of_names_and_tokens() {
    let manager = Manager::in_process().unwrap();
    says(manager.open::<List<u8>>("jobs"), ErrorKind::NotFound, "this manager has no object named \"jobs\": it has no named objects yet");
    let (list, other) = (manager.list([1u8]).unwrap(), manager.list([2u8]).unwrap());
    manager.publish("numbers", &list).unwrap();
    says(manager.open::<List<u8>>("jobs"), ErrorKind::NotFound, "this manager has no object named \"jobs\": there are \"numbers\"");
    says(
        manager.publish("numbers", &other),
        ErrorKind::AlreadyExists,
        "the name \"numbers\" is taken by object 1: open it, unpublish it first, replace it by `publish_over`, or choose another name",
    );
    says(manager.publish("", &list), ErrorKind::OutOfRange, "a name of 0 bytes cannot be given: names have 1 to 200 bytes");
    says(manager.publish(&"x".repeat(201), &list), ErrorKind::OutOfRange, "a name of 201 bytes cannot be given: names have 1 to 200 bytes");
    says(
        manager.open::<Dict<u8, u8>>("numbers"),
        ErrorKind::WrongType,
        "\"numbers\" was made as List<u8>, not as Dict<u8, u8>: open it with the type that it was made with, or, if that has changed since, shut its manager down, or use a new name",
    );
    manager.publish("orders", &manager.dict::<String, before::Order>([]).unwrap()).unwrap();
    says(
        manager.open::<Dict<String, now::Order>>("orders"),
        ErrorKind::WrongType,
        "\"orders\" was made as another type: at Order.price_in_cents it has u32, not u64; open it with the type that it was made with, or, if that has changed since, shut its manager down, or use a new name.\nIt was made as\n    Dict<String, struct Order {{…}price_in_cents: u32}>\nnot as\n    Dict<String, struct Order {{…}price_in_cents: u64}>",
    );
    says("nonsense".parse::<Token>(), ErrorKind::OutOfRange, "\"nonsense\" is not a token: pass the whole line that `token()` gave");
    let token = list.token().unwrap();
    says(
        manager.attach::<Lock>(&token),
        ErrorKind::WrongType,
        "object 1 of this token was made as List<u8>, not as Lock: open it with the type that it was made with, or, if that has changed since, shut its manager down, or use a new name",
    );
    let elsewhere = Manager::in_process().unwrap();
    says(
        elsewhere.attach::<List<u8>>(&token),
        ErrorKind::NotFound,
        "this token is of another manager than the one at {…}: that one has ended, and so have its objects",
    );
    says(
        elsewhere.publish("numbers", &list),
        ErrorKind::Refused,
        "an object gets its names from its own manager: this handle is of another",
    );
    let token = other.token().unwrap();
    drop(other);
    manager.list([0u8]).unwrap();
    says(
        manager.attach::<List<u8>>(&token),
        ErrorKind::NotFound,
        "object 2 is gone: nobody held it any more (an object lives while a handle, a name or a value refers to it)",
    );
}

#[test]
fn of_containers() {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u32, 2, 3]).unwrap();
    says(list.swap(0, 3), ErrorKind::OutOfRange, "cannot swap position 3 of a list of 3 elements: positions count from 0");
    says(list.insert(4, 0), ErrorKind::OutOfRange, "cannot insert at position 4 of a list of 3 elements: positions count from 0");
    let dict = manager.dict([("a".to_string(), 250u8)]).unwrap();
    says(
        dict.add("a", 10),
        ErrorKind::OutOfRange,
        "adding to this number would take it out of its type's range (or the value is not such a number): nothing was changed",
    );
    says(
        dict.insert("k".repeat((1 << 20) + 1), 1),
        ErrorKind::TooLarge,
        "a key of {…} bytes cannot be stored: the most is 1048576; use a hash of it as the key",
    );
    let counter = manager.counter(i64::MAX).unwrap();
    says(
        counter.add(1),
        ErrorKind::OutOfRange,
        "adding 1 to a counter at 9223372036854775807 is beyond what 64 bits hold: nothing was changed",
    );
    let settings = manager.namespace().unwrap();
    settings.set::<u16>("port", 8080).unwrap();
    says(settings.get::<u64>("port"), ErrorKind::WrongType, "attribute \"port\" of a namespace: it was set as u16, not as u64");
    says(
        settings.set::<List<u32>>("list", &list),
        ErrorKind::Refused,
        "an attribute of a namespace cannot hold handles: put them into a dict or a list",
    );
    let mut nested = commonhold::Any::from(1);
    for _ in 0..200 {
        nested = commonhold::Any::from(vec![nested]);
    }
    says(
        manager.list([nested]).map(drop),
        ErrorKind::TooLarge,
        "writing a `Any` to shared memory: it is nested deeper than 128 levels, the most that readers follow; keep such a structure flat, as a list whose elements name each other by index",
    );
}

#[test]
fn of_batches_and_transactions() {
    let (manager, elsewhere) = (Manager::in_process().unwrap(), Manager::in_process().unwrap());
    let (list, other) = (manager.list([1u8]).unwrap(), elsewhere.list([1u8]).unwrap());
    says(
        manager.batch(|batch| batch.push(&other, 1)),
        ErrorKind::Refused,
        "a batch, transaction or writer works on containers of one manager: this one is of another",
    );
    says(
        manager.transaction(|tx| tx.get(&other, 0).map(drop)),
        ErrorKind::Refused,
        "a transaction works on containers of one manager: this one is of another",
    );
    says(
        manager.transaction(|_| list.push(1)),
        ErrorKind::Refused,
        "inside of a transaction write by it: `tx.insert(&dict, …)`, `tx.push(&list, …)`; a write by the handle itself or by a batch would \
         happen at once, and once more whenever the closure runs again",
    );
    says(manager.transaction(|_| Err::<(), _>(Error::other("ada is out of money"))), ErrorKind::Other, "ada is out of money");
    says(
        manager.transaction(|tx| tx.set_at(&list, 5, 1).map(drop)),
        ErrorKind::OutOfRange,
        "cannot set position 5 of a list of 1 elements: positions count from 0",
    );
}

#[test]
fn of_queues() {
    let manager = Manager::in_process().unwrap();
    says(manager.queue::<u8>(0), ErrorKind::OutOfRange, "a queue for 0 items cannot be made: from 1 to 900000");
    says(
        manager.queue_with::<u8>(QueueOptions::new().bytes_max(65 << 30)),
        ErrorKind::OutOfRange,
        "a queue of 69793218560 bytes cannot be made: the most is 68719476736",
    );
    let queue: Queue<Vec<u8>> = manager.queue_with(QueueOptions::new().capacity(1).bytes_max(10 << 10)).unwrap();
    says(
        queue.send(vec![0; 20 << 10]),
        ErrorKind::TooLarge,
        "an item of {…} bytes does not fit into {…} bytes, which is all the room here even when nothing waits: ask for a larger `bytes_max`",
    );
    says(
        queue.task_done(),
        ErrorKind::Refused,
        "this queue does not count what is done: make it with `queue_with(QueueOptions::new().joinable())`",
    );
    says(
        queue.recv_timeout(Duration::from_millis(1)),
        ErrorKind::TimedOut,
        "no item came to object {…} at {…} within 1ms: wait longer, or see whether anybody sends",
    );
    says(
        queue.dead_letters().recv_timeout(Duration::from_millis(1)),
        ErrorKind::TimedOut,
        "no dead letter came to object {…} at {…} within 1ms: wait longer, or see whether anybody sends",
    );
    queue.send(vec![1]).unwrap();
    says(
        queue.send_timeout(vec![2], Duration::from_millis(1)),
        ErrorKind::TimedOut,
        "the queue, object {…} at {…}, stayed full for 1ms: wait longer, or see who receives, and how fast",
    );
    queue.close().unwrap();
    says(queue.send(vec![2]), ErrorKind::Closed, "the queue, object {…} at {…}, is closed: nothing can be sent any more");
    let jobs = manager.queue_with::<u8>(QueueOptions::new().joinable()).unwrap();
    jobs.send(1).unwrap();
    jobs.lease().unwrap().unwrap().ack().unwrap();
    says(
        jobs.task_done(),
        ErrorKind::OutOfRange,
        "task_done was called more often than this process has received items: call it once for each (an acknowledged lease is already counted)",
    );
    let elsewhere = Manager::in_process().unwrap();
    let lists = manager.queue::<List<u8>>(2).unwrap();
    says(
        lists.send(elsewhere.list([1u8]).unwrap()),
        ErrorKind::Refused,
        "the item holds a handle on object 1 of another manager: a queue can refer to objects of its own manager only: make it there, or send its `token()`",
    );
}

#[test]
fn of_locks() {
    let manager = Manager::in_process().unwrap();
    let lock = manager.lock().unwrap();
    let guard = lock.lock().unwrap().into_guard();
    says(
        lock.lock(),
        ErrorKind::Deadlock,
        "this thread holds this lock already and would wait for itself: give it back first, or use an RLock",
    );
    drop(guard);
    says(manager.semaphore(100_000), ErrorKind::OutOfRange, "a semaphore with 100000 permits cannot be made: the most is 65536");
    says(manager.barrier(0), ErrorKind::OutOfRange, "a barrier for 0 parties cannot be made: there are 1 to 4096");
    let elsewhere = Manager::in_process().unwrap();
    says(elsewhere.condition_with(&lock), ErrorKind::Refused, "a condition is made for a lock of its own manager: this one is of another");
    says(
        manager.bounded_semaphore(1).unwrap().release(),
        ErrorKind::OutOfRange,
        "this semaphore has all the permits that it began with: something was released that had not been acquired and forgotten",
    );
}

#[test]
fn of_raw_memory() {
    let manager = Manager::builder().capacity(8 << 20).in_process().start().unwrap();
    let array = manager.array([true, false]).unwrap();
    says(array.get(2), ErrorKind::OutOfRange, "an array of 2 elements has no element 2: its positions are from 0 to below 2");
    says(
        array.read_into(1, &mut [false; 2]),
        ErrorKind::OutOfRange,
        "an array of 2 elements has no 2 elements from 1 on: its positions are from 0 to below 2",
    );
    says(
        manager.array::<u64>(1 << 20),
        ErrorKind::Full,
        "no room for 8388992 more bytes in objects of kind Array: they have {…} bytes, and may have 4194304 together; give the manager a larger capacity",
    );
    says(
        manager.array::<u64>(usize::MAX),
        ErrorKind::TooLarge,
        "18446744073709551615 elements of 8 bytes cannot be in one Array: 64 bits cannot count their bytes; ask for less",
    );
    let block = manager.shared_bytes(10).unwrap();
    says(block.read(5..11), ErrorKind::OutOfRange, "a block of 10 bytes has no 6 bytes from 5 on: read and write within it");
}

fn panics() {
    panic!("out of cheese");
}

#[test]
fn of_processes() {
    says(
        Process::spawn(panics, ()).unwrap().join(),
        ErrorKind::Panicked,
        "{…} (pid {…}, running `{…}panics`) panicked at tests/errors/main.rs:{…}: out of cheese",
    );
    says(
        Process::spawn(|code: i32| -> () { std::process::exit(code) }, 3).unwrap().join(),
        ErrorKind::Died,
        "{…} (pid {…}, running `{…}`) {…}3{…} before its function returned",
    );
    says(
        Process::builder().env("A=B", "c").spawn(panics, ()),
        ErrorKind::OutOfRange,
        "\"A=B\" cannot be the name of an environment variable",
    );
    says(
        Process::builder().current_dir("/there/is/no/such").spawn(panics, ()).and_then(|child| child.join()),
        ErrorKind::System,
        "{…}cannot make /there/is/no/such the current directory",
    );
}

/// The number before this in a text.
#[track_caller]
fn number_before(text: &str, behind: &str) -> u64 {
    let digits = text.split(behind).next().and_then(|before| before.rsplit(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no number before {behind:?} in: {text}"))
}

#[test]
fn of_a_full_manager_with_figures_that_add_up() {
    let manager = Manager::builder().capacity(8 << 20).in_process().start().unwrap();
    let list = manager.list::<Vec<u8>>([]).unwrap();
    let error = (0..100).find_map(|n| list.push(vec![n; 300_000]).err()).unwrap();
    let text = error.to_string();
    says(
        Err::<(), _>(error),
        ErrorKind::Full,
        "no room for a change of {…} B and for a removal after it: {…} B in one piece, for blocks of {…} B in all, are not to be had: {…} B of the capacity of 8388608 B are used; raise `capacity`, remove entries, or end readers that hold old versions",
    );
    let (change, piece) = (number_before(&text, " B and for a removal"), number_before(&text, " B in one piece"));
    let (blocks, used) = (number_before(&text, " B in all"), number_before(&text, " B of the capacity"));
    assert!((300_000..310_000).contains(&change) && change < blocks && blocks < piece, "{text}");
    assert!(used + piece > 8 << 20, "what is used and what is wanted are more than there is: {text}");
    // The room for it is there: nobody is kept from emptying what is full.
    list.clear().unwrap();
    list.push(vec![0; 300_000]).unwrap();
}

#[test]
fn of_a_change_that_no_room_is_enough_for() {
    let manager = Manager::builder().capacity(8 << 20).in_process().start().unwrap();
    let value = manager.value(Vec::<u8>::new()).unwrap();
    says(
        value.set(vec![0; 20_000_000]),
        ErrorKind::Full,
        "a change of {…} B does not fit into a manager of 8388608 B, even if nothing else is there: give it more, with `Manager::builder().capacity(…)`",
    );
    says(
        value.set(vec![0; 8_000_000]),
        ErrorKind::Full,
        "no room for a change of {…} B and for a removal after it: {…} B in one piece, for blocks of {…} B in all, are not to be had: {…} B of the capacity of 8388608 B are used, and it is more than the capacity; raise `capacity`",
    );
    value.set(vec![0; 300_000]).unwrap();
}

struct Clerk;

#[commonhold::remote]
impl Clerk {
    pub fn new() -> Self {
        Clerk
    }
    pub fn fail(&mut self) {
        panic!("out of paper")
    }
    pub fn leave(&mut self) {
        std::process::exit(1)
    }
}

#[test]
fn of_objects_of_ones_own() {
    let manager = Manager::start().unwrap();
    let clerk = manager.create(Clerk::new, ()).unwrap();
    says(clerk.fail(), ErrorKind::Panicked, "Clerk::fail panicked at tests/errors/main.rs:{…}: out of paper");
    says(
        clerk.fail(),
        ErrorKind::Panicked,
        "object {…} (Clerk) is poisoned: Clerk::fail panicked at tests/errors/main.rs:{…}: out of paper; make a new one in its place",
    );
    let clerk = manager.create(Clerk::new, ()).unwrap();
    says(
        clerk.leave(),
        ErrorKind::Died,
        "the host process, where the object's methods run, has ended, and its objects with it: whether a call that was under way took effect is lost with them. Make a new object; the manager's own are not touched",
    );
    says(
        commonhold::current_manager().map(drop),
        ErrorKind::NotFound,
        "this process is not a host: only the methods of objects that live beside a manager have a current one",
    );
}
