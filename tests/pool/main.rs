//! Pools: what is called, in what order it comes back, and what everybody sees when somebody dies.

#[path = "../support/mod.rs"]
mod support;

mod deaths;
mod ends;
mod hostile;
mod input;
mod large;
mod random;

use commonhold::{AsyncResult, Dict, ErrorKind, Imap, List, Manager, Pool, PoolBuilder, Progress, Watch, current_process};
use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::{PATIENCE, until};

commonhold::init_in_tests!();

/// They may go to other threads.
const _: () = {
    const fn send_and_sync<T: Send + Sync + 'static>() {}
    send_and_sync::<Pool>();
    send_and_sync::<PoolBuilder>();
    send_and_sync::<AsyncResult<Vec<String>>>();
    send_and_sync::<Watch<'static, u64>>();
    send_and_sync::<Imap<std::ops::Range<u64>, String>>();
    send_and_sync::<Progress>();
};

fn square(x: i64) -> i64 {
    x * x
}

/// The name of the worker that runs it.
fn whose(_: u64) -> String {
    current_process().name().to_owned()
}

#[test]
fn the_program_of_the_documentation() {
    fn fetch(url: String) -> commonhold::Result<u64> {
        Ok(url.len() as u64)
    }
    fn area(w: f64, h: f64) -> f64 {
        w * h
    }
    let pool = Pool::new(5).unwrap();
    assert_eq!(pool.map(|x: i64| x * x * x, [1, 2, 3]).unwrap(), [1, 8, 27]);
    let urls = vec!["a".to_string(), "bb".to_string()];
    let lengths: BTreeSet<u64> = pool.imap_unordered(fetch, urls).unwrap().map(|result| result.unwrap().unwrap()).collect();
    assert_eq!(lengths, BTreeSet::from([1, 2]));
    assert_eq!(pool.apply_async(fetch, "ccc".to_string()).unwrap().get().unwrap().unwrap(), 3);
    assert_eq!(pool.apply(area, (2.0, 3.0)).unwrap(), 6.0);
    assert_eq!(pool.starmap(area, [(1.0, 2.0), (3.0, 4.0)]).unwrap(), [2.0, 12.0]);
}

#[test]
fn results_keep_their_order_whatever_the_chunks_are() {
    for chunk in [None, Some(1), Some(7), Some(100_000)] {
        let mut builder = Pool::builder().workers(3);
        if let Some(calls) = chunk {
            builder = builder.chunk_size(calls);
        }
        let pool = builder.build().unwrap();
        let squares: Vec<i64> = (0..2000).map(square).collect();
        assert_eq!(pool.map(square, 0..2000).unwrap(), squares, "{chunk:?}");
        // An input that does not know its length.
        assert_eq!(pool.map(square, (0..2000).filter(|_| true)).unwrap(), squares, "{chunk:?}");
        assert_eq!(pool.imap(square, 0..2000).unwrap().collect::<Result<Vec<_>, _>>().unwrap(), squares, "{chunk:?}");
        assert_eq!(pool.map_async(square, 0..2000).unwrap().get().unwrap(), squares, "{chunk:?}");
        let mut unordered = pool.imap_unordered(square, 0..2000).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        unordered.sort_unstable();
        assert_eq!(unordered, squares, "{chunk:?}");
    }
}

#[test]
fn nothing_at_all_is_nothing() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(square, [0i64; 0]).unwrap(), [0i64; 0]);
    assert!(pool.map_all(square, [0i64; 0]).unwrap().is_empty());
    assert!(pool.imap(square, [0i64; 0]).unwrap().next().is_none());
    pool.for_each(|_: i64| (), [0i64; 0]).unwrap();
    let none = pool.map_async(square, [0i64; 0]).unwrap();
    assert!(none.is_ready() && none.get().unwrap().is_empty());
    assert_eq!(none.watch().collect::<Vec<_>>(), [Progress { done: 0, total: 0 }]);
    let (sender, receiver) = channel();
    pool.map_async(square, [0i64; 0]).unwrap().then(move |results| sender.send(results.unwrap().len()).unwrap());
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 0);
    pool.close().unwrap();
    pool.join().unwrap();
}

#[test]
fn arguments_and_results_of_every_size() {
    fn longer(bytes: Vec<u8>) -> Vec<u8> {
        let mut longer = bytes.clone();
        longer.extend(bytes);
        longer
    }
    let sizes = [0, 1, 100, 150, 200, 2000, 4080, 4088, 4096, 5000, 65_000, 300_000];
    let bytes = |size: usize| (0..size).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    let pool = Pool::new(2).unwrap();
    for size in sizes {
        assert!(pool.apply(longer, bytes(size)).unwrap() == longer(bytes(size)), "{size}");
    }
    let pool = Pool::builder().workers(2).chunk_size(5).build().unwrap();
    let results = pool.map(longer, sizes.map(bytes)).unwrap();
    assert!(results.into_iter().zip(sizes).all(|(result, size)| result == longer(bytes(size))));
    // More than may be on its way at once.
    fn length(words: Vec<u64>) -> u64 {
        words.len() as u64
    }
    let many = pool.map(length, (0..80).map(|_| vec![7; 128 << 10])).unwrap();
    assert_eq!(many.into_iter().sum::<u64>(), 80 * (128 << 10));
}

#[test]
fn chunks_whose_results_have_no_room_are_done_in_parts() {
    fn text(n: u64) -> String {
        format!("{n} ").repeat(300)
    }
    let pool = Pool::builder().workers(2).chunk_size(1000).build().unwrap();
    let texts = pool.map(text, 0..3000).unwrap();
    assert!(texts.into_iter().zip(0..).all(|(result, n)| result == text(n)));
}

#[test]
fn handles_pass_both_ways() {
    fn work(numbers: List<u64>, totals: Dict<String, u64>) -> commonhold::Result<List<u64>> {
        totals.add("sum", numbers.iter()?.sum::<u64>())?;
        numbers.push(100)?;
        Ok(numbers)
    }
    for manager in [Manager::start().unwrap(), Manager::in_process().unwrap()] {
        let pool = Pool::builder().workers(2).chunk_size(3).build().unwrap();
        let totals = manager.dict::<String, u64>([]).unwrap();
        // Nobody else holds the lists: the tasks do, and then the results.
        let lists = (0..20).map(|n| (manager.list([n, n]).unwrap(), totals.clone()));
        let results = pool.map(work, lists).unwrap();
        for (n, list) in (0..).zip(results) {
            assert_eq!(list.unwrap().to_owned().unwrap(), [n, n, 100]);
        }
        assert_eq!(*totals.get("sum").unwrap().unwrap(), 380);
        // Made by a worker, which ends before anybody looks.
        let made = pool.apply_async(|totals: Dict<String, u64>| totals.get("sum").map(|_| totals.clone()), totals.clone()).unwrap();
        pool.close().unwrap();
        pool.join().unwrap();
        assert_eq!(*made.get().unwrap().unwrap().get("sum").unwrap().unwrap(), 380);
        drop((made, totals));
        until("the objects are gone", || manager.stats().unwrap().objects == 0);
        manager.audit().unwrap();
    }
}

#[test]
fn async_results_can_be_asked_again_and_again() {
    let manager = Manager::start().unwrap();
    let gate = manager.event().unwrap();
    let pool = Pool::new(1).unwrap();
    let waits = pool.apply_async(|gate: commonhold::Event| gate.wait(), gate.clone()).unwrap();
    assert!(!waits.is_ready());
    assert!(!waits.wait(Duration::from_millis(1)).unwrap());
    assert!(waits.get_timeout(Duration::ZERO).unwrap().is_none());
    let next = pool.apply_async(square, 3).unwrap();
    gate.set().unwrap();
    waits.get().unwrap().unwrap();
    assert!(waits.is_ready() && waits.wait(None).unwrap());
    assert_eq!((next.get().unwrap(), next.get().unwrap()), (9, 9));
    assert_eq!(next.get_timeout(Duration::ZERO).unwrap(), Some(9));
    assert!(format!("{next:?}").contains("1 of 1 done"), "{next:?}");
}

#[test]
fn callbacks_run_whether_anybody_waits_or_not() {
    let pool = Pool::new(2).unwrap();
    let (sender, receiver) = channel();
    for n in 0..300 {
        let sender = sender.clone();
        pool.apply_async(square, n).unwrap().then(move |result| sender.send(result.unwrap()).unwrap());
    }
    let mut results: Vec<i64> = (0..300).map(|_| receiver.recv_timeout(PATIENCE).unwrap()).collect();
    results.sort_unstable();
    assert_eq!(results, (0..300).map(square).collect::<Vec<_>>());
    // One that panics, one that comes too late, one that asks for more, and one that would wait for itself.
    let ready = pool.apply_async(square, 1).unwrap();
    ready.wait(None).unwrap();
    ready.then(|_| panic!("on purpose"));
    let pool = std::sync::Arc::new(pool);
    let (again, sender_of_more) = (pool.clone(), sender.clone());
    pool.apply_async(square, 2).unwrap().then(move |_| {
        assert_eq!(again.apply(square, 3).unwrap_err().kind(), ErrorKind::Deadlock);
        assert_eq!(again.join().unwrap_err().kind(), ErrorKind::Deadlock);
        again.apply_async(square, 4).unwrap().then(move |result| sender_of_more.send(result.unwrap()).unwrap());
    });
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 16);
    pool.close().unwrap();
    pool.join().unwrap();
}

#[test]
fn several_threads_use_one_pool() {
    let pool = Pool::new(3).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6i64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..30 {
                    let n = thread * 1000 + round;
                    match thread % 3 {
                        0 => assert_eq!(pool.apply(square, n).unwrap(), n * n),
                        1 => assert_eq!(pool.map(square, n..n + 50).unwrap(), (n..n + 50).map(square).collect::<Vec<_>>()),
                        _ => assert_eq!(pool.imap(square, n..).unwrap().nth(20).unwrap().unwrap(), (n + 20) * (n + 20)),
                    }
                }
            });
        }
    });
}

#[test]
fn progress_is_counted_call_by_call() {
    let pool = Pool::builder().workers(2).chunk_size(10).build().unwrap();
    let squares = pool.map_async(square, 0..500).unwrap();
    let counts: Vec<Progress> = squares.watch().collect();
    assert!(counts.iter().all(|count| count.total == 500) && counts.is_sorted_by_key(|count| count.done));
    assert_eq!(counts.last().unwrap().done, 500);
    assert_eq!(squares.progress(), Progress { done: 500, total: 500 });
    // Also within a chunk, which tells of nothing before its end.
    let manager = Manager::start().unwrap();
    let gate = manager.queue::<u64>(10).unwrap();
    let pool = Pool::builder().workers(1).chunk_size(3).build().unwrap();
    let waits = pool.map_async(|gate: commonhold::Queue<u64>| gate.recv(), vec![gate.clone(); 3]).unwrap();
    gate.send(1).unwrap();
    until("one call is done", || waits.progress().done == 1);
    gate.close().unwrap();
    assert_eq!(waits.watch().last().unwrap(), Progress { done: 3, total: 3 });
}

#[test]
fn workers_have_names_and_processors_and_variables() {
    let cpus = commonhold_ipc::sys::own_cpus();
    let pool = Pool::builder().workers(2).name("crew").one_cpu_each().env("WHERE", "here").chunk_size(1).build().unwrap();
    fn look(_: u64) -> (String, Vec<u32>, String) {
        let name = current_process().name().to_owned();
        (name, commonhold_ipc::sys::own_cpus(), std::env::var("WHERE").unwrap())
    }
    for (name, own, place) in pool.map(look, 0..50).unwrap() {
        assert!(["crew-1", "crew-2"].contains(&name.as_str()), "{name}");
        assert!(own.len() == 1 && cpus.contains(&own[0]) && place == "here");
    }
    let one = Pool::builder().workers(2).cpus([cpus[0]]).chunk_size(1).build().unwrap();
    assert!(one.map(|_: u64| commonhold_ipc::sys::own_cpus(), 0..20).unwrap().into_iter().all(|own| own == [cpus[0]]));
    assert_eq!((pool.workers(), pool.pids().len()), (2, 2));
    assert_eq!(format!("{pool:?}"), "<Pool \"crew\", 2 workers, open>");
    assert!(commonhold::active_children().iter().any(|child| child.name() == "crew-1"));
}

#[test]
fn a_worker_may_have_a_pool_of_its_own() {
    fn nested(n: u64) -> commonhold::Result<u64> {
        let pool = Pool::new(2)?;
        Ok(pool.map(|x: u64| x + 1, 0..n)?.into_iter().sum())
    }
    assert_eq!(Pool::new(2).unwrap().map(nested, [3, 4]).unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>(), [6, 10]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |builder: PoolBuilder| assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::OutOfRange);
    refused(Pool::builder().workers(0));
    refused(Pool::builder().workers(257));
    refused(Pool::builder().chunk_size(0));
    refused(Pool::builder().look_ahead(0));
    refused(Pool::builder().max_tasks_per_child(0));
    refused(Pool::builder().cpus([]));
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.resize(0).unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
}

#[test]
fn a_call_that_needs_what_is_not_there_fails_alone() {
    let manager = Manager::start().unwrap();
    let dict = manager.dict::<String, u64>([]).unwrap();
    let pool = Pool::builder().workers(1).chunk_size(3).build().unwrap();
    let other = Manager::start().unwrap();
    let orphan = other.dict::<String, u64>([]).unwrap();
    other.shutdown().unwrap();
    fn count(dict: Dict<String, u64>) -> u64 {
        dict.len().unwrap_or(99) as u64
    }
    let results: Vec<_> = pool.imap(count, [dict.clone(), orphan, dict]).unwrap().collect();
    assert_eq!(*results[0].as_ref().unwrap(), 0);
    assert!(results[1].as_ref().unwrap_err().is_disconnected(), "{:?}", results[1]);
    assert_eq!(*results[2].as_ref().unwrap(), 0);
}
