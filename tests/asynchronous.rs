//! Awaiting, in an executor of the test's own: many at once, those that are given up, deaths, and forks.
mod support;

use commonhold::{ErrorKind, Event, Manager, Pool, Process, Queue, QueueOptions, Result, parent_process};
use commonhold_ipc::points::CLIENT_STOP_VARIABLE;
use rustix::process::Signal;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use support::{Bomb, PATIENCE, Parent, Role, WELL, forked, process_of, signal_to, state_of, until};

commonhold::init_in_tests!();

/// Wakes a thread, and counts.
struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

fn unpark() -> Arc<Unpark> {
    Arc::new(Unpark(thread::current(), AtomicUsize::new(0)))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let (mut future, waker) = (pin!(future), Waker::from(unpark()));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(PATIENCE);
    }
}

/// A look that is not meant to give anything.
fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One of many futures that one thread polls: when it was woken, and never otherwise.
struct Task {
    job: Mutex<Option<Job>>,
    is_queued: AtomicBool,
    ready: Sender<Arc<Task>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            let _ = self.ready.clone().send(self);
        }
    }
}

/// Polls all of them until they are done.
fn run_all(jobs: Vec<Job>) {
    let (ready, queue): (Sender<Arc<Task>>, Receiver<_>) = channel();
    let mut left = jobs.len();
    for job in jobs {
        ready.send(Arc::new(Task { job: Mutex::new(Some(job)), is_queued: AtomicBool::new(true), ready: ready.clone() })).unwrap();
    }
    while left > 0 {
        let task = queue.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{left} futures were not woken"));
        task.is_queued.store(false, Ordering::SeqCst);
        let mut job = task.job.lock().unwrap();
        let waker = Waker::from(task.clone());
        let Some(future) = job.as_mut() else { continue };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *job = None;
            left -= 1;
        }
    }
}

fn managers() -> [Manager; 2] {
    [Manager::start().unwrap(), Manager::in_process().unwrap()]
}

fn wait_for_parent() {
    let _ = parent_process().unwrap().wait(None);
}

#[test]
fn a_thousand_receives_over_several_queues() {
    for manager in managers() {
        let queues: Vec<Queue<u64>> = (0..8).map(|_| manager.queue(1000).unwrap()).collect();
        let (sum, none) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let receive = |n: usize| {
            let (queue, sum, none) = (queues[n % 8].clone(), sum.clone(), none.clone());
            Box::pin(async move {
                match queue.recv_async().await.unwrap() {
                    Some(number) => sum.fetch_add(number, Ordering::SeqCst),
                    None => none.fetch_add(1, Ordering::SeqCst),
                };
            }) as Job
        };
        let jobs = (0..1000).map(receive).collect();
        fn send(queues: Vec<Queue<u64>>, from: u64) -> Result<()> {
            Ok((from..from + 480).try_for_each(|number| queues[number as usize % 8].send(number))?)
        }
        let children = [0, 480].map(|from| Process::spawn(send, (queues.clone(), from)).unwrap());
        let ends = queues.clone();
        thread::scope(|scope| {
            scope.spawn(move || {
                children.iter().for_each(|child| child.join().unwrap().unwrap());
                ends.iter().for_each(|queue| assert!(queue.close().unwrap()));
            });
            run_all(jobs);
        });
        assert_eq!((sum.load(Ordering::SeqCst), none.load(Ordering::SeqCst)), ((0..960).sum(), 40));
        queues.iter().for_each(|queue| assert_eq!(queue.in_use().unwrap().0, 0));
        drop(queues);
        manager.audit().unwrap();
    }
}

#[test]
fn more_things_than_one_thread_sleeps_on() {
    let manager = Manager::in_process().unwrap();
    let queues: Vec<Queue<u64>> = (0..150).map(|_| manager.queue(1).unwrap()).collect();
    let child = Process::spawn(wait_for_parent, ()).unwrap();
    let got = Arc::new(AtomicU64::new(0));
    let mut jobs: Vec<Job> = Vec::new();
    for queue in &queues {
        let (queue, got) = (queue.clone(), got.clone());
        jobs.push(Box::pin(async move {
            got.fetch_add(queue.recv_async().await.unwrap().unwrap(), Ordering::SeqCst);
        }));
    }
    let watched = (*child).clone();
    jobs.push(Box::pin(async move { watched.wait_async().await.unwrap() }));
    thread::scope(|scope| {
        scope.spawn(|| {
            queues.iter().rev().for_each(|queue| queue.send(3).unwrap());
            child.kill().unwrap();
        });
        run_all(jobs);
    });
    assert_eq!(got.load(Ordering::SeqCst), 450);
    assert_eq!(child.exit_code(), Some(-9));
}

#[test]
fn sends_wait_for_room_and_keep_what_was_not_sent() {
    for manager in managers() {
        let queue: Queue<String> = manager.queue_with(QueueOptions::new().capacity(2)).unwrap();
        let mut jobs: Vec<Job> = Vec::new();
        for number in 0..200 {
            let queue = queue.clone();
            jobs.push(Box::pin(async move {
                let item = format!("item {number}");
                queue.send_async(&item).await.unwrap();
            }));
        }
        let receiver = queue.clone();
        let got = thread::spawn(move || (0..200).map(|_| receiver.recv().unwrap().unwrap()).collect::<std::collections::BTreeSet<_>>());
        run_all(jobs);
        assert_eq!(got.join().unwrap().len(), 200, "each once");
        // Of a larger queue's first room it is told as well.
        let large = manager.queue::<u64>(8).unwrap();
        (0..8).for_each(|item| large.send(item).unwrap());
        let mut waits = Box::pin(large.send_async(8));
        assert!(poll_once(&mut waits, &Waker::from(unpark())).is_pending());
        assert_eq!(large.recv().unwrap(), Some(0));
        block_on(waits).unwrap();
        // Dropped before there was room: it is not sent.
        queue.send("a").unwrap();
        queue.send("b").unwrap();
        {
            let mut waits = Box::pin(queue.send_async("c"));
            assert!(poll_once(&mut waits, &Waker::from(unpark())).is_pending());
        }
        assert_eq!(
            (queue.recv().unwrap().unwrap(), queue.recv().unwrap().unwrap(), queue.try_recv().unwrap()),
            ("a".into(), "b".into(), None)
        );
        queue.close().unwrap();
        assert!(block_on(queue.send_async("d")).unwrap_err().is_closed());
        assert_eq!(block_on(queue.send_async("e".to_owned())).unwrap_err().into_item(), "e");
        assert_eq!(block_on(queue.recv_async()).unwrap(), None);
    }
}

/// Receives an item.
#[test]
fn role_receives() {
    let Some(mut parent) = Parent::of("role_receives") else { return };
    let queue: Queue<u64> = parent.hear_handle();
    parent.say(queue.recv().unwrap().unwrap());
}

/// A receiver is stopped when it has made room, before it can tell: who awaits room looks all the same.
#[test]
fn room_that_nobody_tells_of_is_found() {
    let manager = Manager::start().unwrap();
    let queue: Queue<u64> = manager.queue(1).unwrap();
    queue.send(1).unwrap();
    let (unpark, mut polled_for) = (unpark(), 0);
    let waker = Waker::from(unpark.clone());
    let mut send = Box::pin(queue.send_async(2));
    assert!(poll_once(&mut send, &waker).is_pending());
    let mut receiver = Role::start_with("role_receives", |command| {
        command.env(CLIENT_STOP_VARIABLE, "queue: item gone, nobody told");
    });
    receiver.say(queue.token().unwrap());
    until("the receiver stands still", || state_of(receiver.pid()) == Some('T'));
    // Polled when it was woken, and never otherwise.
    until("the item is sent", || {
        let woken = unpark.1.load(Ordering::SeqCst);
        woken != std::mem::replace(&mut polled_for, woken) && poll_once(&mut send, &waker).is_ready()
    });
    receiver.signal(Signal::CONT);
    receiver.expect("1");
    receiver.end();
    assert_eq!(queue.recv().unwrap(), Some(2));
}

/// Receives until the end, and gives most futures up before they are ready, woken or not.
fn receive_and_give_up(queue: &Queue<u64>, mut luck: u64) -> Vec<u64> {
    let (mut got, waker) = (Vec::new(), Waker::from(unpark()));
    loop {
        let mut receive = queue.recv_async();
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for patience in 0..(luck >> 60) {
            match poll_once(&mut receive, &waker) {
                Poll::Ready(Ok(Some(item))) => {
                    got.push(item);
                    break;
                }
                Poll::Ready(end) => {
                    assert_eq!(end.unwrap(), None);
                    return got;
                }
                Poll::Pending if patience % 3 == 0 => thread::yield_now(),
                Poll::Pending => thread::park_timeout(Duration::from_micros(luck >> 40 & 0xff)),
            }
        }
    }
}

#[test]
fn what_is_given_up_takes_nothing_and_keeps_nobody_waiting() {
    const ITEMS: u64 = 2000;
    for manager in managers() {
        let queue: Queue<u64> = manager.queue(3).unwrap();
        let mut all = thread::scope(|scope| {
            let quitters: Vec<_> = (1..=3)
                .map(|luck| {
                    scope.spawn({
                        let queue = &queue;
                        move || receive_and_give_up(queue, luck)
                    })
                })
                .collect();
            let patient = scope.spawn(|| {
                block_on(async {
                    let mut got = Vec::new();
                    while let Some(item) = queue.recv_async().await.unwrap() {
                        got.push(item);
                    }
                    got
                })
            });
            let blocked = scope.spawn(|| queue.iter().collect::<Result<Vec<u64>>>().unwrap());
            let half = |queue: Queue<u64>| -> Result<()> { Ok((0..ITEMS / 2).try_for_each(|item| queue.send(item))?) };
            let sender = Process::spawn(half, queue.clone()).unwrap();
            block_on(async {
                for item in ITEMS / 2..ITEMS {
                    // One that is given up before each.
                    let mut given_up = Box::pin(queue.send_async(u64::MAX));
                    // If there is room, it is sent; the receivers leave it out.
                    let _ = poll_once(&mut given_up, Waker::noop());
                    drop(given_up);
                    queue.send_async(item).await.unwrap();
                }
            });
            sender.join().unwrap().unwrap();
            queue.close().unwrap();
            let mut all: Vec<u64> = quitters.into_iter().flat_map(|quitter| quitter.join().unwrap()).collect();
            all.extend(patient.join().unwrap());
            all.extend(blocked.join().unwrap());
            all
        });
        all.retain(|item| *item != u64::MAX);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..ITEMS), "each item once, whoever was dropped");
        assert_eq!(queue.in_use().unwrap().0, 0);
    }
}

#[test]
fn events_are_heard_even_if_they_are_over() {
    let manager = Manager::in_process().unwrap();
    let event = manager.event().unwrap();
    let unparks: Vec<_> = (0..20).map(|_| unpark()).collect();
    let mut waits: Vec<_> = unparks.iter().map(|_| event.wait_async()).collect();
    for (wait, unpark) in waits.iter_mut().zip(&unparks) {
        assert!(poll_once(wait, &Waker::from(unpark.clone())).is_pending());
    }
    let child = Process::spawn(|event: Event| Ok::<_, commonhold::Error>((event.set()?, event.clear()?)), event.clone()).unwrap();
    assert_eq!(child.join().unwrap().unwrap(), (true, true));
    for (wait, unpark) in waits.iter_mut().zip(&unparks) {
        until("a waiter is woken", || unpark.1.load(Ordering::SeqCst) > 0);
        assert!(poll_once(wait, Waker::noop()).is_ready());
    }
    let mut late = event.wait_async();
    assert!(poll_once(&mut late, Waker::noop()).is_pending());
    event.set().unwrap();
    block_on(late).unwrap();
    block_on(event.wait_async()).unwrap();
}

#[test]
fn pool_results_are_awaited() {
    fn square(x: u64) -> u64 {
        x * x
    }
    let pool = Arc::new(Pool::new(2).unwrap());
    let sum = Arc::new(AtomicU64::new(0));
    let mut jobs: Vec<Job> = Vec::new();
    for n in 0..200 {
        let (result, sum) = (pool.apply_async(square, n).unwrap(), sum.clone());
        if n % 5 == 0 {
            // Given up after a look.
            let mut result = result;
            let _ = poll_once(&mut result, Waker::noop());
            continue;
        }
        jobs.push(Box::pin(async move {
            sum.fetch_add(result.await.unwrap(), Ordering::SeqCst);
        }));
    }
    run_all(jobs);
    assert_eq!(sum.load(Ordering::SeqCst), (0..200).filter(|n| n % 5 != 0).map(square).sum::<u64>());
    let mut all = pool.map_async(square, 0..1000).unwrap();
    assert_eq!(block_on(&mut all).unwrap().len(), 1000);
    assert_eq!(block_on(all).unwrap()[999], 999 * 999, "again");
    let failed = pool.apply_async(|x: u64| if x == 3 { std::process::exit(4) } else { x }, 3).unwrap();
    assert!(block_on(failed).unwrap_err().is_died());
    // Looked at, and then left to a callback.
    let mut looked_at = pool.apply_async(square, 9).unwrap();
    let _ = poll_once(&mut looked_at, Waker::noop());
    let (sender, receiver) = channel();
    looked_at.then(move |result| sender.send(result.unwrap()).unwrap());
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 81);
    // Where it could wait for ever, it does not.
    let (manager, again) = (Manager::in_process().unwrap(), pool.clone());
    let event = manager.event().unwrap();
    let (sender, receiver) = channel();
    pool.apply_async(square, 1).unwrap().then({
        let event = event.clone();
        move |_| {
            let within = again.apply_async(|event: Event| event.wait(), event).unwrap();
            sender.send(block_on(within).map(drop).map_err(|error| error.kind())).unwrap();
        }
    });
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Err(ErrorKind::Deadlock));
    event.set().unwrap();
}

#[test]
fn deaths_end_what_is_awaited() {
    let manager = Manager::start().unwrap();
    let (queue, event) = (manager.queue::<u64>(1).unwrap(), manager.event().unwrap());
    let full = manager.queue::<u64>(1).unwrap();
    full.send(1).unwrap();
    let (ours, theirs) = manager.pipe::<u64>().unwrap();
    let children: Vec<Process<()>> = (0..3).map(|_| Process::spawn(wait_for_parent, ()).unwrap()).collect();
    let holder = Process::spawn(|_end: commonhold::Connection<u64>| wait_for_parent(), theirs).unwrap();
    // Pending, all of them, when the deaths begin.
    let waits = [unpark(), unpark()].map(Waker::from);
    let (mut receive, mut pipe) = (queue.recv_async(), ours.recv_async());
    assert!(poll_once(&mut receive, &waits[0]).is_pending() && poll_once(&mut pipe, &waits[1]).is_pending());
    let mut ends: Vec<_> = children.iter().map(Process::join_async).collect();
    assert!(ends.iter_mut().all(|end| poll_once(end, &waits[0]).is_pending()));
    children[1].kill().unwrap();
    let error = block_on(ends.remove(1)).unwrap_err();
    assert!(error.is_died() && error.to_string().contains("SIGKILL"), "{error}");
    signal_to(holder.pid(), Signal::KILL);
    assert_eq!(block_on(pipe).unwrap(), None, "the end of the stream");
    assert!(ends.iter_mut().all(|end| poll_once(end, &waits[0]).is_pending()));
    let mut send = Box::pin(full.send_async(2));
    let mut set = event.wait_async();
    assert!(poll_once(&mut send, &waits[0]).is_pending() && poll_once(&mut set, &waits[0]).is_pending());
    process_of(&manager).kill();
    assert!(block_on(receive).unwrap_err().is_disconnected());
    assert!(block_on(send).unwrap_err().is_disconnected());
    assert!(block_on(set).unwrap_err().is_disconnected());
    for child in &children {
        child.kill().unwrap();
    }
    ends.into_iter().for_each(|end| assert!(block_on(end).unwrap_err().is_died()));
}

/// A sender goes while its receiver is awaited, and pending: it is woken by that, and by nothing else.
#[test]
fn a_dropped_sender_wakes_who_awaits_its_receiver() {
    for manager in managers() {
        let (receiver, sender) = manager.pipe_one_way::<u64>().unwrap();
        let unpark = unpark();
        let waker = Waker::from(unpark.clone());
        let mut receive = receiver.recv_async();
        assert!(poll_once(&mut receive, &waker).is_pending());
        assert_eq!(unpark.1.load(Ordering::SeqCst), 0);
        drop(sender);
        until("the receiver is woken", || unpark.1.load(Ordering::SeqCst) > 0);
        assert!(matches!(poll_once(&mut receive, &waker), Poll::Ready(Ok(None))), "the end of the stream");
    }
}

#[test]
fn a_parents_end_is_awaited() {
    fn outlives(up: Event, ended: Event) {
        let parent = parent_process().unwrap();
        let mut end = parent.wait_async();
        assert!(poll_once(&mut end, Waker::noop()).is_pending() && parent.is_alive());
        up.set().unwrap();
        block_on(end).unwrap();
        assert!(!parent.is_alive() && block_on(parent.wait_async()).is_ok());
        ended.set().unwrap();
    }
    fn starts(up: Event, ended: Event) {
        drop(Process::spawn(outlives, (up, ended)).unwrap());
        wait_for_parent();
    }
    let manager = Manager::start().unwrap();
    let (up, ended) = (manager.event().unwrap(), manager.event().unwrap());
    let child = Process::spawn(starts, (up.clone(), ended.clone())).unwrap();
    assert!(up.wait_timeout(PATIENCE).unwrap());
    assert!(!ended.is_set().unwrap());
    child.kill().unwrap();
    assert!(ended.wait_timeout(PATIENCE).unwrap(), "it is told of the end");
}

/// An object that takes its time.
struct Gate {
    passed: u64,
}

#[commonhold::remote]
impl Gate {
    pub fn new() -> Self {
        Gate { passed: 0 }
    }

    pub fn pass(&mut self, open: Event, n: u64) -> Result<(u64, u64)> {
        open.wait()?;
        self.passed += 1;
        Ok((self.passed, n))
    }

    pub fn die(&self) {
        commonhold_ipc::sys::kill_self()
    }
}

#[test]
fn calls_of_objects_are_awaited() {
    let manager = Manager::start().unwrap();
    let open = manager.event().unwrap();
    let gate = manager.create(Gate::new, ()).unwrap();
    let mut calls: Vec<_> = (0..200).map(|n| gate.call_async().pass(open.clone(), n).unwrap()).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call, Waker::noop()).is_pending()));
    // Some are given up, some fetched by a thread that blocks, the rest awaited, from the last to the first.
    let mut fetched = calls.split_off(150);
    drop(calls.drain(..10));
    let sum = Arc::new(AtomicU64::new(0));
    let jobs = calls.into_iter().rev().map(|call| {
        let sum = sum.clone();
        Box::pin(async move {
            let (passed, n) = call.await.unwrap().unwrap();
            assert_eq!(passed, n + 1, "in their order");
            sum.fetch_add(n, Ordering::SeqCst);
        }) as Job
    });
    let awaits = thread::spawn({
        let jobs = jobs.collect();
        move || run_all(jobs)
    });
    open.set().unwrap();
    for (n, call) in (150..).zip(fetched.drain(..)) {
        assert_eq!(call.get().unwrap().unwrap(), (n + 1, n));
    }
    awaits.join().unwrap();
    assert_eq!(sum.load(Ordering::SeqCst), (10..150).sum::<u64>());
    let mut once = gate.call_async().pass(open.clone(), 200).unwrap();
    assert_eq!(block_on(&mut once).unwrap().unwrap(), (201, 200));
    assert!(block_on(&mut once).unwrap_err().is_closed() && once.get().unwrap_err().is_closed(), "it was given");
}

#[test]
fn a_call_that_is_awaited_and_called_off_ends_at_once() {
    let manager = Manager::start().unwrap();
    let open = manager.event().unwrap();
    let gate = manager.create(Gate::new, ()).unwrap();
    let unpark = unpark();
    let waker = Waker::from(unpark.clone());
    let mut calls: Vec<_> = (0..20).map(|n| gate.call_async().pass(open.clone(), n).unwrap()).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call, &waker).is_pending()));
    // All but the first, in which the method may run, and the last.
    calls[1..19].iter().for_each(|call| call.cancel().unwrap());
    until("their wakers are called", || unpark.1.load(Ordering::SeqCst) >= 18);
    let last = calls.pop().unwrap();
    for mut call in calls.drain(1..) {
        assert!(block_on(&mut call).unwrap_err().is_cancelled());
        assert!(block_on(&mut call).unwrap_err().is_closed(), "it was given");
    }
    open.set().unwrap();
    // Those that were called off have not passed.
    assert_eq!(block_on(calls.pop().unwrap()).unwrap().unwrap(), (1, 0));
    assert_eq!(block_on(last).unwrap().unwrap(), (2, 19));
    // One that nobody has polled before, and one that is answered.
    let call = gate.call_async().pass(open.clone(), 20).unwrap();
    assert!(call.wait(PATIENCE).unwrap());
    call.cancel().unwrap();
    assert_eq!(block_on(call).unwrap().unwrap(), (3, 20));
    manager.audit().unwrap();
}

#[test]
fn the_death_of_an_object_ends_what_is_awaited() {
    for of_manager in [false, true] {
        let manager = Manager::start().unwrap();
        let open = manager.event().unwrap();
        let (gate, other) = (manager.create(Gate::new, ()).unwrap(), manager.create(Gate::new, ()).unwrap());
        let unpark = unpark();
        let waker = Waker::from(unpark.clone());
        let mut calls: Vec<_> = (0..20).map(|n| gate.call_async().pass(open.clone(), n).unwrap()).collect();
        assert!(calls.iter_mut().all(|call| poll_once(call, &waker).is_pending()));
        if of_manager {
            process_of(&manager).kill();
        } else {
            other.call_one_way().die().unwrap();
        }
        until("all are woken", || unpark.1.load(Ordering::SeqCst) >= 20);
        for call in calls {
            // (The host may be quicker to hear of the manager's end, and say so, than to end with it.)
            let error = block_on(call).and_then(|passed| passed).unwrap_err();
            assert!(if of_manager { error.is_disconnected() } else { error.is_died() }, "{error:?}");
        }
    }
}

#[test]
fn nothing_is_held_for_who_waits_no_more() {
    let manager = Manager::start().unwrap();
    for _ in 0..20 {
        let (ours, theirs) = manager.pipe::<String>().unwrap();
        let mut receive = theirs.recv_async();
        assert!(poll_once(&mut receive, Waker::noop()).is_pending());
        drop(receive);
        drop(theirs);
        assert_eq!(ours.recv().unwrap(), None, "nobody holds the other end");
        let queue = manager.queue::<u64>(1).unwrap();
        queue.send(1).unwrap();
        let mut send = Box::pin(queue.send_async(2));
        assert!(poll_once(&mut send, Waker::noop()).is_pending());
    }
    // The watcher's handles go with the futures.
    until("all objects are gone", || manager.stats().unwrap().objects == 0);
    manager.audit().unwrap();
}

/// Awaits where the thread that wakes futures cannot be started, for want of a descriptor, and again when it can be.
fn waits_without_a_watcher(event: Event) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    assert!(!event.is_set().unwrap(), "it can be looked at without a descriptor from here on");
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum }).unwrap();
    // All of them are there until the end, as of tasks that have not looked at their errors yet.
    let mut refused: Vec<_> = (0..3).map(|_| event.wait_async()).collect();
    for wait in &mut refused {
        assert!(matches!(poll_once(wait, Waker::noop()), Poll::Ready(Err(error)) if error.kind() == ErrorKind::System));
    }
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let (mut wait, unpark) = (event.wait_async(), unpark());
    assert!(poll_once(&mut wait, &Waker::from(unpark.clone())).is_pending());
    event.set().unwrap();
    until("a waiter is woken", || unpark.1.load(Ordering::SeqCst) > 0);
    block_on(wait).unwrap();
}

#[test]
fn who_cannot_be_watched_hears_it_whoever_awaits_the_same() {
    let manager = Manager::start().unwrap();
    Process::spawn(waits_without_a_watcher, manager.event().unwrap()).unwrap().join().unwrap();
}

/// A waker that panics, with what must not be dropped.
struct Panics(Sender<()>);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue::<u64>(1).unwrap();
    let (sender, woken) = channel();
    let mut receive = queue.recv_async();
    assert!(poll_once(&mut receive, &Waker::from(Arc::new(Panics(sender)))).is_pending());
    let mut patient = queue.recv_async();
    assert!(poll_once(&mut patient, &Waker::from(unpark())).is_pending());
    queue.send(7).unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(block_on(patient).unwrap(), Some(7));
    // The watcher goes on.
    let mut receive = queue.recv_async();
    let later = unpark();
    assert!(poll_once(&mut receive, &Waker::from(later.clone())).is_pending());
    queue.send(8).unwrap();
    until("a waiter is woken", || later.1.load(Ordering::SeqCst) > 0);
    assert_eq!(block_on(receive).unwrap(), Some(8));
}

#[test]
fn a_waker_that_panics_harms_no_other_call_of_an_object() {
    let manager = Manager::start().unwrap();
    let open = manager.event().unwrap();
    let gate = manager.create(Gate::new, ()).unwrap();
    let (sender, woken) = channel();
    let mut first = gate.call_async().pass(open.clone(), 0).unwrap();
    assert!(poll_once(&mut first, &Waker::from(Arc::new(Panics(sender)))).is_pending());
    let (mut second, beside) = (gate.call_async().pass(open.clone(), 1).unwrap(), unpark());
    assert!(poll_once(&mut second, &Waker::from(beside.clone())).is_pending());
    open.set().unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
    until("a waiter is woken", || beside.1.load(Ordering::SeqCst) > 0);
    // So is who comes after it.
    open.clear().unwrap();
    let (mut third, after) = (gate.call_async().pass(open.clone(), 2).unwrap(), unpark());
    assert!(poll_once(&mut third, &Waker::from(after.clone())).is_pending());
    open.set().unwrap();
    until("a waiter is woken", || after.1.load(Ordering::SeqCst) > 0);
    for (call, n) in [first, second, third].into_iter().zip(0..) {
        assert_eq!(block_on(call).unwrap().unwrap(), (n + 1, n));
    }
}

/// A forked child refuses its parent's futures, and awaits with a watcher of its own.
#[test]
fn role_forks() {
    let Some(mut parent) = Parent::of("role_forks") else { return };
    let manager = Manager::start().unwrap();
    let (queue, event) = (manager.queue::<u64>(1).unwrap(), manager.event().unwrap());
    let (mut receive, mut set) = (queue.recv_async(), event.wait_async());
    assert!(poll_once(&mut receive, Waker::noop()).is_pending() && poll_once(&mut set, Waker::noop()).is_pending());
    let mut kept = Some(queue.recv_async());
    assert!(poll_once(kept.as_mut().unwrap(), Waker::noop()).is_pending());
    let ended = forked(|| {
        let is_refused = |polled: Poll<Result<()>>| matches!(polled, Poll::Ready(Err(error)) if error.kind() == ErrorKind::UsedAfterFork);
        let refused = is_refused(poll_once(&mut receive, Waker::noop()).map_ok(drop)) && is_refused(poll_once(&mut set, Waker::noop()));
        kept = None;
        let own = Manager::in_process().unwrap();
        let mine = own.queue::<u64>(1).unwrap();
        let got = thread::scope(|scope| {
            let got = scope.spawn(|| block_on(mine.recv_async()));
            mine.send(5).unwrap();
            got.join().unwrap()
        });
        refused && got.unwrap() == Some(5)
    });
    assert_eq!(ended, WELL);
    drop(kept);
    queue.send(6).unwrap();
    assert_eq!(block_on(receive).unwrap(), Some(6));
    event.set().unwrap();
    block_on(set).unwrap();
    parent.say("well");
}

#[test]
fn forked_children_have_a_watcher_of_their_own() {
    let mut role = Role::start("role_forks");
    role.expect("well");
    role.end();
}

#[test]
fn futures_go_where_tasks_go() {
    fn is_send<T: Send>(_: &T) {}
    const fn is_task<F: Future + Send + Unpin + 'static>() {}
    const { is_task::<commonhold::Pending<String>>() };
    const { is_task::<commonhold::AsyncResult<String>>() };
    let manager = Manager::in_process().unwrap();
    let (queue, event) = (manager.queue::<String>(1).unwrap(), manager.event().unwrap());
    let (ours, theirs) = manager.pipe::<String>().unwrap();
    is_send(&queue.recv_async());
    is_send(&queue.send_async("a".to_string()));
    is_send(&event.wait_async());
    is_send(&ours.recv_async());
    is_send(&theirs.send_async("b"));
    // Nothing happens before the first poll.
    drop((queue.send_async("c"), theirs.send_async("d")));
    assert!(queue.is_empty().unwrap() && ours.try_recv().unwrap().is_none());
}
