//! Random work for pools whose workers die now and then, with an account of every call.

use commonhold::{Error, List, Manager, Pool};
use commonhold_ipc::sys;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::Signal;
use std::collections::BTreeMap;

/// What a call does, besides writing itself down.
#[derive(commonhold::Shared, Clone, Copy, Debug, PartialEq)]
enum Deed {
    Return(u32),
    ReturnMuch(u32),
    Panic,
    Exit,
    Die,
}

type Call = (List<u64>, u64, Deed);

fn act(calls: List<u64>, number: u64, deed: Deed) -> Vec<u8> {
    calls.push(number).unwrap();
    match deed {
        Deed::Return(n) => vec![n as u8; n as usize % 50],
        Deed::ReturnMuch(n) => vec![n as u8; 3000 + n as usize % 100_000],
        Deed::Panic => panic!("as told"),
        Deed::Exit => std::process::exit(3),
        Deed::Die => sys::kill_self(),
    }
}

/// One thing that is asked of the pool.
#[derive(Clone, Debug)]
enum Ask {
    Apply(Deed),
    ApplyAsync(Vec<Deed>),
    MapAll(Vec<Deed>),
    Imap(Vec<Deed>, usize, bool),
    Resize(usize),
    Kill(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => any::<u32>().prop_map(Deed::Return),
        2 => any::<u32>().prop_map(Deed::ReturnMuch),
        1 => Just(Deed::Panic),
        1 => Just(Deed::Exit),
        1 => Just(Deed::Die),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let deeds = || proptest::collection::vec(deed(), 0..25);
    prop_oneof![
        2 => deed().prop_map(Ask::Apply),
        2 => deeds().prop_map(Ask::ApplyAsync),
        3 => deeds().prop_map(Ask::MapAll),
        3 => (deeds(), 0..25usize, any::<bool>()).prop_map(|(deeds, most, ordered)| Ask::Imap(deeds, most, ordered)),
        1 => (1..4usize).prop_map(Ask::Resize),
        1 => (0..4usize).prop_map(Ask::Kill),
    ]
}

/// What was asked, and what became of it.
struct Books {
    calls: List<u64>,
    next: u64,
    /// Deeds that were brought to an end, by number, and whether workers were killed from outside since.
    settled: BTreeMap<u64, bool>,
    killing: bool,
}

impl Books {
    fn call(&mut self, deed: Deed) -> (Call, (u64, Deed)) {
        self.next += 1;
        ((self.calls.clone(), self.next, deed), (self.next, deed))
    }

    fn calls(&mut self, deeds: &[Deed]) -> (Vec<Call>, Vec<(u64, Deed)>) {
        deeds.iter().map(|deed| self.call(*deed)).unzip()
    }

    fn settle(&mut self, (number, deed): (u64, Deed), result: Result<Vec<u8>, Error>) {
        let fits = match (&result, deed) {
            (Ok(bytes), Deed::Return(n)) => *bytes == vec![n as u8; n as usize % 50],
            (Ok(bytes), Deed::ReturnMuch(n)) => *bytes == vec![n as u8; 3000 + n as usize % 100_000],
            (Err(error), Deed::Panic) => error.is_panic() || self.killing && error.is_died(),
            (Err(error), Deed::Exit) => error.is_died() && (self.killing || error.to_string().contains("exit code 3")),
            (Err(error), Deed::Die) => error.is_died() && error.to_string().contains("SIGKILL"),
            (Err(error), _) => self.killing && error.is_died(),
            (Ok(_), _) => false,
        };
        assert!(fits, "{number} {deed:?} has come to {result:?}");
        assert!(self.settled.insert(number, result.is_ok()).is_none(), "{number} has two results");
    }

    /// Each call that has a result was made once; what has none at most once.
    fn balance(&self) {
        let mut times = BTreeMap::<u64, u32>::new();
        self.calls.to_owned().unwrap().into_iter().for_each(|number| *times.entry(number).or_default() += 1);
        for number in 1..=self.next {
            let times = times.get(&number).copied().unwrap_or(0);
            let settled = self.settled.get(&number);
            assert!(times <= 1 && (settled != Some(&true) || times == 1), "{number}: {times} times, {settled:?}");
        }
    }
}

fn run(manager: &Manager, workers: usize, chunk: u64, calls_most: Option<u64>, asks: &[Ask]) {
    let mut builder = Pool::builder().workers(workers).chunk_size(chunk);
    if let Some(calls) = calls_most {
        builder = builder.max_tasks_per_child(calls);
    }
    let pool = builder.build().unwrap();
    let mut books = Books { calls: manager.list::<u64>([]).unwrap(), next: 0, settled: BTreeMap::new(), killing: false };
    let mut pending = Vec::new();
    for ask in asks {
        match ask {
            Ask::Apply(deed) => {
                let (call, entry) = books.call(*deed);
                books.settle(entry, pool.apply(act, call));
            }
            Ask::ApplyAsync(deeds) => {
                let (calls, entries) = books.calls(deeds);
                pending.extend(calls.into_iter().map(|call| pool.apply_async(act, call).unwrap()).zip(entries));
            }
            Ask::MapAll(deeds) => {
                let (calls, entries) = books.calls(deeds);
                let results = pool.map_all(act, calls).unwrap();
                assert_eq!(results.len(), entries.len());
                entries.into_iter().zip(results).for_each(|(entry, result)| books.settle(entry, result));
            }
            Ask::Imap(deeds, most, true) => {
                let (calls, entries) = books.calls(deeds);
                let results: Vec<_> = pool.imap(act, calls).unwrap().take(*most).collect();
                assert_eq!(results.len(), entries.len().min(*most));
                entries.into_iter().zip(results).for_each(|(entry, result)| books.settle(entry, result));
            }
            Ask::Imap(deeds, most, false) => {
                let (calls, entries) = books.calls(deeds);
                let given = pool.imap_unordered(act, calls).unwrap().take(*most).count();
                assert_eq!(given, entries.len().min(*most));
            }
            Ask::Resize(workers) => pool.resize(*workers).unwrap(),
            Ask::Kill(at) => {
                books.killing = true;
                if let Some(pid) = pool.pids().get(*at) {
                    // (A child that nobody has waited for: the number is still its own, or it is gone.)
                    let _ = rustix::process::Pid::from_raw(*pid as i32).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
                }
            }
        }
    }
    for (result, entry) in pending {
        books.settle(entry, result.get());
    }
    pool.close().unwrap();
    pool.join().unwrap();
    books.balance();
}

#[test]
fn every_call_is_accounted_for_whoever_dies() {
    let manager = Manager::start().unwrap();
    let mut runner = TestRunner::new(Config { cases: 5, failure_persistence: None, max_shrink_iters: 64, ..Config::default() });
    let input = (1..4usize, 1..9u64, proptest::option::of(1..20u64), proptest::collection::vec(ask(), 1..8));
    runner
        .run(&input, |(workers, chunk, calls_most, asks)| {
            run(&manager, workers, chunk, calls_most, &asks);
            Ok(())
        })
        .unwrap();
}
