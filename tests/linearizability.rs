//! Histories of operations on single keys by several processes, checked: is there an order of them in which each takes effect
//! at one instant between its call and its return, and each sees what the ones before have left?
//!
//! The checker is Wing and Gong's search with Lowe's memory of states that led nowhere. Keys are independent, so each key has
//! a history of its own, short enough for it. A canary shows that it can say no.

mod peers_support;

use commonhold::{Dict, Manager, Token};
use peers_support::{Choices, Peer, cases, heard, process_manager, say, task};
use std::collections::{HashMap, HashSet};

commonhold::init_in_tests!();

/// An operation on a key that holds a number, or nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Get,
    Insert(i64),
    Remove,
    Add(i64),
    CompareExchange(Option<i64>, Option<i64>),
    GetOrInsert(i64),
    Update(i64),
}

/// What it returned: a number, nothing, or whether it did.
type Returned = Option<i64>;

impl Op {
    /// What it does to a key, and returns.
    fn apply(self, state: Option<i64>) -> (Option<i64>, Returned) {
        match self {
            Op::Get => (state, state),
            Op::Insert(n) => (Some(n), state),
            Op::Remove => (None, state),
            Op::Add(n) => {
                let sum = state.unwrap_or(0) + n;
                (Some(sum), Some(sum))
            }
            Op::CompareExchange(expected, new) if state == expected => (new, Some(1)),
            Op::CompareExchange(..) => (state, Some(0)),
            Op::GetOrInsert(n) => (Some(state.unwrap_or(n)), Some(state.unwrap_or(n))),
            Op::Update(n) => (Some(state.unwrap_or(0) * 2 + n), None),
        }
    }

    fn run(self, dict: &Dict<u64, i64>, key: u64) -> Returned {
        let number = |guard: Option<commonhold::Ref<'_, i64>>| guard.map(|guard| *guard);
        match self {
            Op::Get => number(dict.get(key).unwrap()),
            Op::Insert(n) => number(dict.insert(key, n).unwrap()),
            Op::Remove => number(dict.remove(key).unwrap()),
            Op::Add(n) => Some(dict.add(key, n).unwrap()),
            Op::CompareExchange(expected, new) => Some(dict.compare_exchange(key, expected.as_ref(), new).unwrap().into()),
            Op::GetOrInsert(n) => Some(*dict.get_or_insert(key, n).unwrap()),
            Op::Update(n) => {
                dict.update(key, |old| Some(old.unwrap_or(0) * 2 + n)).unwrap();
                None
            }
        }
    }

    fn choose(choices: &mut Choices) -> Op {
        let some = |choices: &mut Choices| (choices.below(3) > 0).then(|| choices.below(4) as i64);
        match choices.below(9) {
            0..2 => Op::Get,
            2..4 => Op::Insert(choices.below(4) as i64),
            4 => Op::Remove,
            5 => Op::Add(1 + choices.below(3) as i64),
            6 => Op::CompareExchange(some(choices), some(choices)),
            7 => Op::GetOrInsert(choices.below(4) as i64),
            _ => Op::Update(choices.below(3) as i64),
        }
    }

    fn to_words(self) -> String {
        let word = |n: Option<i64>| n.map_or("-".to_owned(), |n| n.to_string());
        match self {
            Op::Get => "get - -".into(),
            Op::Insert(n) => format!("insert {n} -"),
            Op::Remove => "remove - -".into(),
            Op::Add(n) => format!("add {n} -"),
            Op::CompareExchange(a, b) => format!("swap {} {}", word(a), word(b)),
            Op::GetOrInsert(n) => format!("or {n} -"),
            Op::Update(n) => format!("update {n} -"),
        }
    }

    fn of_words(words: &[&str]) -> Op {
        let (a, b) = (words[1].parse().ok(), words[2].parse().ok());
        match words[0] {
            "get" => Op::Get,
            "insert" => Op::Insert(a.unwrap()),
            "remove" => Op::Remove,
            "add" => Op::Add(a.unwrap()),
            "swap" => Op::CompareExchange(a, b),
            "or" => Op::GetOrInsert(a.unwrap()),
            "update" => Op::Update(a.unwrap()),
            other => panic!("{other}"),
        }
    }
}

/// One operation of a history: called at, returned at, in nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Event {
    called: u64,
    returned: u64,
    op: Op,
    result: Returned,
}

/// Whether there is an order.
fn is_linearizable(history: &[Event]) -> bool {
    assert!(history.len() <= 64, "too long to search: {}", history.len());
    let all = if history.len() == 64 { u64::MAX } else { (1 << history.len()) - 1 };
    let mut led_nowhere = HashSet::new();
    let mut next = vec![(0u64, None)];
    while let Some((done, state)) = next.pop() {
        if done == all {
            return true;
        }
        if !led_nowhere.insert((done, state)) {
            continue;
        }
        let open = || history.iter().enumerate().filter(|(i, _)| done & (1 << i) == 0);
        // The next to take effect was called before any other that is left had returned.
        let first_return = open().map(|(_, event)| event.returned).min().unwrap();
        for (i, event) in open().filter(|(_, event)| event.called <= first_return) {
            let (after, result) = event.op.apply(state);
            if result == event.result {
                next.push((done | 1 << i, after));
            }
        }
    }
    false
}

fn event(called: u64, returned: u64, op: Op, result: Returned) -> Event {
    Event { called, returned, op, result }
}

#[test]
fn the_checker_says_no() {
    use Op::*;
    let history = [event(0, 1, Insert(1), None), event(2, 3, Get, Some(1)), event(4, 5, Remove, Some(1)), event(6, 7, Get, None)];
    assert!(is_linearizable(&history));
    // A stale read, a lost update, two winners, a value from nowhere, one that comes back.
    let bad: [&[Event]; 5] = [
        &[event(0, 1, Insert(1), None), event(2, 3, Insert(2), Some(1)), event(4, 5, Get, Some(1))],
        &[event(0, 5, Add(1), Some(1)), event(0, 5, Add(1), Some(1))],
        &[event(0, 5, CompareExchange(None, Some(1)), Some(1)), event(0, 5, CompareExchange(None, Some(2)), Some(1))],
        &[event(0, 1, Get, Some(7))],
        &[event(0, 1, Insert(1), None), event(0, 9, Insert(2), Some(1)), event(2, 3, Get, Some(2)), event(4, 5, Get, Some(1))],
    ];
    for history in bad {
        assert!(!is_linearizable(history), "{history:?}");
    }
    // Overlapping, it may have been either way round.
    assert!(is_linearizable(&[event(0, 9, Insert(1), None), event(2, 3, Get, None), event(4, 5, Get, Some(1))]));
    assert!(is_linearizable(&[event(0, 9, Add(1), Some(3)), event(0, 9, Add(2), Some(2))]));
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

const PROCESSES: u64 = 3;
const KEYS: u64 = 4;
const OPS_PER_KEY: u64 = 7;

#[test]
fn histories_of_processes_are_linearizable() {
    let manager = process_manager();
    let dict: Dict<u64, i64> = manager.dict([] as [(u64, i64); 0]).unwrap();
    let mut peers: Vec<Peer> =
        (0..PROCESSES).map(|seed| Peer::spawn("role_recorder", format_args!("{} {seed}", dict.token().unwrap()))).collect();
    let mut overlapping = 0;
    for round in 0..cases(40) {
        for peer in &mut peers {
            assert_eq!(peer.ask(round), "ready");
        }
        for peer in &mut peers {
            peer.tell("go");
        }
        let mut histories: HashMap<u64, Vec<Event>> = HashMap::new();
        for peer in &mut peers {
            for _ in 0..KEYS * OPS_PER_KEY {
                let line = peer.hear();
                let words: Vec<&str> = line.split(' ').collect();
                let (key, called, returned) = (words[0].parse().unwrap(), words[1].parse().unwrap(), words[2].parse().unwrap());
                histories.entry(key).or_default().push(event(called, returned, Op::of_words(&words[4..]), words[3].parse().ok()));
            }
        }
        assert_eq!(histories.len() as u64, KEYS);
        for (key, mut history) in histories {
            assert_eq!(history.len() as u64, PROCESSES * OPS_PER_KEY);
            history.sort_by_key(|event| event.called);
            overlapping += history.windows(2).filter(|pair| pair[1].called < pair[0].returned).count();
            assert!(is_linearizable(&history), "key {key}: {history:#?}");
            // A result that is another than it was: the checker notices, mostly. It must at least be able to.
            let last = history.last_mut().unwrap();
            last.op = Op::Get;
            last.result = Some(i64::MAX);
            assert!(!is_linearizable(&history));
        }
    }
    assert!(overlapping > 0, "nothing happened at the same time");
    for mut peer in peers {
        peer.tell("end");
        peer.finish();
    }
    manager.audit().unwrap();
}

#[test]
fn role_recorder() {
    let Some(task) = task() else { return };
    let (token, seed) = task.split_once(' ').unwrap();
    let token: Token = token.parse().unwrap();
    let _manager = Manager::connect(&token.address().to_string()).unwrap();
    let dict: Dict<u64, i64> = token.open().unwrap();
    let mut choices = Choices((seed.parse::<u64>().unwrap() + 1) * 0x1234_5677);
    while let Some(round) = heard().and_then(|line| line.parse::<u64>().ok()) {
        say("ready");
        heard();
        let mut history = Vec::new();
        for _ in 0..OPS_PER_KEY {
            for key in 0..KEYS {
                let op = Op::choose(&mut choices);
                let called = now();
                let result = op.run(&dict, round * KEYS + key);
                let returned = now();
                history.push((key, called, returned, result.map_or("-".to_owned(), |n| n.to_string()), op));
            }
        }
        for (key, called, returned, result, op) in history {
            say(format_args!("{key} {called} {returned} {result} {}", op.to_words()));
        }
    }
}
