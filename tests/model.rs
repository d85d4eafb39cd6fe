//! Long random sequences of operations against `Vec` and `HashMap`, through the public API: on a manager in a process and on
//! one in a thread, by this process and by others in turns, so that what one writes the next one reads. Snapshots are held
//! across, and the manager is audited after each sequence.
//!
//! An operation is a line of four numbers. The same function does it on the containers, here or in another process, and gives
//! its result as text; another does it on the model; the texts must be equal.

// The result of an operation is shown, also where it is nothing.
#![allow(clippy::unit_arg)]

mod peers_support;

use commonhold::{Counter, Dict, Error, ErrorKind, List, Manager, Namespace, Result, Session, Snapshot, Token, Value};
use peers_support::{Peer, cases, heard, process_manager, say, task, thread_manager, words};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Debug;

commonhold::init_in_tests!();

/// Code and three arguments.
type Op = [u64; 4];

const CODES: u64 = 49;
/// Keys, so few that they meet.
const KEYS: u64 = 24;

/// A text of a length that the argument chooses: most are short, some are sent ahead of their commit.
fn text(n: u64) -> String {
    let len = match n % 40 {
        0 => 70_000,
        1 => 5_000,
        n => n as usize,
    };
    char::from(b'a' + (n % 26) as u8).to_string().repeat(len)
}

/// A text as it is told: its beginning, and how long it is.
fn told(text: &str) -> String {
    format!("{:.3}*{}", text, text.len())
}

fn shown<T: Debug>(value: T) -> String {
    format!("{value:?}")
}

/// What [`outcome`] says of an element that is replaced, if there is one.
fn replaced<T, R: Debug>(element: Option<&mut T>, new: T, show: impl Fn(T) -> R) -> String {
    element.map_or("out of range".into(), |element| shown(show(std::mem::replace(element, new))))
}

/// The result of an operation that may be refused.
fn outcome<T: Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => shown(value),
        Err(error) if error.kind() == ErrorKind::OutOfRange => "out of range".into(),
        Err(error) if error.kind() == ErrorKind::Other => "own error".into(),
        Err(error) => panic!("{error:?}"),
    }
}

/// The containers, as one process has them.
struct Hands {
    session: Session,
    texts: Dict<u64, String>,
    numbers: Dict<String, i64>,
    list: List<u64>,
    lines: List<String>,
    value: Value<String>,
    counter: Counter,
    space: Namespace,
    inner: List<List<u64>>,
    snapshots: Vec<Snapshot>,
}

impl Hands {
    fn new(manager: &Manager) -> Hands {
        Hands {
            texts: manager.dict([] as [(u64, String); 0]).unwrap(),
            numbers: manager.dict([] as [(String, i64); 0]).unwrap(),
            list: manager.list([0u64; 0]).unwrap(),
            lines: manager.list([]).unwrap(),
            value: manager.value("first").unwrap(),
            counter: manager.counter(0).unwrap(),
            space: manager.namespace().unwrap(),
            inner: manager.list([] as [List<u64>; 0]).unwrap(),
            session: (**manager).clone(),
            snapshots: Vec::new(),
        }
    }

    fn tokens(&self) -> String {
        let tokens = [
            self.texts.token(),
            self.numbers.token(),
            self.list.token(),
            self.lines.token(),
            self.value.token(),
            self.counter.token(),
            self.space.token(),
            self.inner.token(),
        ];
        tokens.map(|token| token.unwrap().to_string()).join(" ")
    }

    fn open(session: &Session, tokens: &[Token]) -> Hands {
        Hands {
            texts: session.attach(&tokens[0]).unwrap(),
            numbers: session.attach(&tokens[1]).unwrap(),
            list: session.attach(&tokens[2]).unwrap(),
            lines: session.attach(&tokens[3]).unwrap(),
            value: session.attach(&tokens[4]).unwrap(),
            counter: session.attach(&tokens[5]).unwrap(),
            space: session.attach(&tokens[6]).unwrap(),
            inner: session.attach(&tokens[7]).unwrap(),
            session: session.clone(),
            snapshots: Vec::new(),
        }
    }

    /// Everything in one version.
    fn dump(&self, at: &Snapshot) -> String {
        let texts: Vec<_> = self.texts.at(at).iter_ordered().map(|(key, value)| (*key, told(&value))).collect();
        let numbers: Vec<_> = self.numbers.at(at).iter_ordered().map(|(key, value)| (key.to_owned(), *value)).collect();
        let lines: Vec<_> = self.lines.at(at).iter().map(|line| told(&line)).collect();
        let value = self.value.at(at).map(|value| told(&value));
        format!("{texts:?} {numbers:?} {:?} {lines:?} {value:?} {}", self.list.at(at).to_vec(), self.counter.at(at))
    }

    fn apply(&mut self, [code, a, b, c]: Op) -> String {
        let (key, name) = (a % KEYS, format!("name {}", a % 7));
        let told_of = |guard: Option<commonhold::Ref<'_, String>>| guard.map(|guard| told(&guard));
        let number_of = |guard: Option<commonhold::Ref<'_, u64>>| guard.map(|guard| *guard);
        let (position, other) = ((a % 40) as usize, (b % 40) as usize);
        match code % CODES {
            0 | 1 => outcome(self.texts.insert(key, text(b)).map(told_of)),
            2 => outcome(self.texts.remove(key).map(told_of)),
            3 => outcome(self.texts.get(key).map(told_of)),
            4 => outcome(self.texts.get_or_insert(key, text(b)).map(|guard| told(&guard))),
            5 => outcome(self.texts.compare_exchange(key, Some(&text(b)), (c % 3 > 0).then(|| text(c)))),
            6 => outcome(self.texts.compare_exchange(key, None, Some(text(b)))),
            7 => outcome(self.texts.update(key, |old| (b % 4 > 0).then(|| old.unwrap_or_default() + &text(2 + b % 8)))),
            8 => outcome(self.texts.extend((0..b % 20).map(|n| ((a + n) % KEYS, text(c + n))))),
            9 => outcome(self.texts.retain(|key, value| *key % 5 != a % 5 || value.len() % 2 == 0)),
            10 => outcome(self.texts.pop_last().map(|last| last.map(|(key, value)| (key, told(&value))))),
            11 if a.is_multiple_of(8) => outcome(self.texts.clear()),
            11 | 12 => outcome(self.numbers.add(name, b as i64 % 1000)),
            13 => outcome(self.numbers.insert(name, b as i64).map(|old| old.map(|old| *old))),
            14 => outcome(self.numbers.contains_key(&name).map(|found| (found, self.numbers.len().unwrap()))),
            15 | 16 => outcome(self.list.push(b)),
            17 => outcome(self.list.insert(position, b)),
            18 => outcome(self.list.set(position, b).map(|old| *old)),
            19 => outcome(self.list.remove(position).map(number_of)),
            20 => outcome(self.list.pop().map(number_of)),
            21 => outcome(self.list.splice(position..position + other % 9, (0..c % 12).map(|n| b + n))),
            22 => outcome(self.list.swap(position, other)),
            23 => outcome(if b.is_multiple_of(2) { self.list.reverse() } else { self.list.sort() }),
            24 => outcome(self.list.truncate(position)),
            25 => outcome(self.list.extend((0..b % 200).map(|n| a ^ n))),
            26 => outcome(self.list.index_of(b % 50).and_then(|at| Ok((at, self.list.remove_value(b % 50)?)))),
            27 => outcome(self.list.slice(position..position.max(other)).map(|slice| slice.to_vec())),
            28 | 29 => outcome(self.lines.push(text(b))),
            30 => outcome(self.lines.insert(position, text(b))),
            31 => outcome(self.lines.set(position, text(b)).map(|old| told(&old))),
            32 => outcome(self.lines.remove(position).map(told_of)),
            33 => outcome(self.lines.splice(position.., (0..b % 5).map(|n| text(c + n)))),
            34 => outcome(self.lines.sort_by(|x, y| x.len().cmp(&y.len()))),
            35 => {
                outcome(self.value.update(|value| *value = value.chars().take(3).collect::<String>() + &text(b)).map(|value| told(&value)))
            }
            36 => outcome(self.counter.add(b as i64 % 100)),
            37 => self.attributes(a, b),
            38 => outcome(self.batch(a, b, c)),
            39 => outcome(self.transaction(a, b, c)),
            44 => outcome(self.stream(a, b, c)),
            45 if b.is_multiple_of(2) => outcome(self.value.set(text(a % 4))),
            45 => outcome(self.value.compare_exchange(text(a % 4), text(c))),
            46 => outcome(self.list.count(b % 50).and_then(|count| Ok((count, self.list.contains(b % 50)?)))),
            47 => outcome(self.all_of(a, b)),
            48 => outcome(self.rewrite(a, b, c)),
            40 => self.handles(a, b),
            41 => {
                self.snapshots.push(self.session.snapshot().unwrap());
                String::new()
            }
            42 if !self.snapshots.is_empty() => {
                let at = self.snapshots.swap_remove(a as usize % self.snapshots.len());
                self.dump(&at)
            }
            42 => "no snapshot".into(),
            _ => self.dump(&self.session.snapshot().unwrap()),
        }
    }

    fn attributes(&self, a: u64, b: u64) -> String {
        let name = format!("attribute {}", a % 5);
        match b % 4 {
            0 => outcome(self.space.set(&name, text(b))),
            1 => outcome(self.space.set(&name, b)),
            2 => outcome(self.space.remove(&name)),
            _ => {
                let read = |name: &String| match self.space.get::<u64>(name) {
                    Ok(number) => shown(number.map(|number| *number)),
                    Err(error) if error.kind() == ErrorKind::WrongType => told(&self.space.get::<String>(name).unwrap().unwrap()),
                    Err(error) => panic!("{error}"),
                };
                shown(self.space.names().unwrap().iter().map(read).collect::<Vec<_>>())
            }
        }
    }

    fn batch(&self, a: u64, b: u64, c: u64) -> Result<()> {
        self.session.batch(|batch| {
            batch.insert(&self.texts, a % KEYS, text(b))?;
            batch.remove(&self.texts, b % KEYS)?;
            batch.add(&self.numbers, "batch", 1)?;
            batch.push(&self.list, b)?;
            batch.set_at(&self.list, (c % 40) as usize, c)?;
            batch.remove_at(&self.lines, (b % 40) as usize)?;
            batch.push(&self.lines, text(c))?;
            batch.set(&self.value, text(a))?;
            batch.count(&self.counter, 1)?;
            match a % 6 {
                0 => Err(Error::other("changed my mind")),
                1 => batch.insert_at(&self.list, 1_000_000, 1),
                _ => Ok(()),
            }
        })
    }

    /// Writes that do not wait for each other. One of them may fail: the others happen all the same.
    fn stream(&self, a: u64, b: u64, c: u64) -> Result<()> {
        let mut writer = self.session.writer()?;
        for n in 0..c % 60 {
            writer.insert(&self.texts, (a + n) % KEYS, text(b + n))?;
            writer.push(&self.list, b ^ n)?;
            if n % 7 == 3 {
                writer.remove(&self.texts, (b + n) % KEYS)?;
                writer.extend(&self.lines, (0..n % 4).map(|m| text(c + m)))?;
            }
            writer.add(&self.numbers, "stream", 1)?;
        }
        if a.is_multiple_of(3) {
            writer.insert_at(&self.list, 1_000_000, 1)?;
        }
        writer.set_at(&self.list, (c % 40) as usize, c)?;
        writer.remove_at(&self.lines, (b % 40) as usize)?;
        writer.set(&self.value, text(c))?;
        writer.count(&self.counter, 2)?;
        writer.flush()
    }

    fn transaction(&self, a: u64, b: u64, c: u64) -> Result<String> {
        self.session.transaction(|tx| {
            let old = tx.get(&self.texts, a % KEYS)?.map(|old| told(&old));
            tx.insert(&self.texts, b % KEYS, text(c))?;
            let removed = tx.remove(&self.texts, c % KEYS)?;
            let sum = tx.add(&self.numbers, format!("name {}", b % 7), 5)?;
            tx.push(&self.list, a)?;
            tx.insert_at(&self.list, 0, b)?;
            let middle = tx.len(&self.list)? / 2;
            let taken = tx.remove_at(&self.list, middle)?;
            let popped = if c.is_multiple_of(2) { tx.pop(&self.lines)?.map(|line| told(&line)) } else { None };
            tx.set(&self.value, format!("{}!", c % 10))?;
            tx.count(&self.counter, -1)?;
            let seen = (tx.value(&self.value)?.to_owned(), tx.counter(&self.counter)?, tx.len(&self.texts)?, tx.elements(&self.list)?);
            if a.is_multiple_of(5) {
                return Err(Error::other("changed my mind"));
            }
            Ok(format!("{old:?} {removed} {sum} {taken:?} {popped:?} {seen:?}"))
        })
    }

    /// Everything in a dict, or half of it, sorted: what it is walked by has no order.
    fn all_of(&self, a: u64, b: u64) -> Result<Vec<String>> {
        let mut all: Vec<String> = match b % 4 {
            0 => self.texts.keys()?.map(|key| key.to_string()).collect(),
            1 => self.texts.values()?.map(|value| told(&value)).collect(),
            2 => self.texts.to_owned()?.into_iter().map(|(key, value)| format!("{key} {}", told(&value))).collect(),
            _ => self.numbers.to_owned()?.into_iter().map(|(key, value)| format!("{key} {value} {a}")).collect(),
        };
        all.sort();
        Ok(all)
    }

    /// Containers are emptied and filled anew, by a batch or by a transaction that looks at what it does.
    fn rewrite(&self, a: u64, b: u64, c: u64) -> Result<String> {
        if b.is_multiple_of(2) {
            return self.session.batch(|batch| {
                if a.is_multiple_of(3) {
                    batch.clear(&self.lines)?;
                }
                if a.is_multiple_of(4) {
                    batch.clear(&self.texts)?;
                }
                batch.extend(&self.lines, (0..b % 5).map(|n| text(c + n)))?;
                batch.extend(&self.list, (0..c % 30).map(|n| a ^ n))?;
                batch.insert(&self.texts, a % KEYS, text(b))?;
                if c.is_multiple_of(6) { Err(Error::other("changed my mind")) } else { Ok("a batch".into()) }
            });
        }
        self.session.transaction(|tx| {
            let there = tx.contains_key(&self.texts, a % KEYS)?;
            if a.is_multiple_of(3) {
                tx.clear(&self.texts)?;
                tx.insert(&self.texts, c % KEYS, text(c))?;
            }
            if a.is_multiple_of(4) {
                tx.clear(&self.list)?;
                (0..c % 30).try_for_each(|n| tx.push(&self.list, b ^ n))?;
            }
            tx.set_at(&self.list, (c % 40) as usize, a)?;
            tx.set_at(&self.lines, 0, text(b))?;
            let mut entries: Vec<_> = tx.entries(&self.texts)?.into_iter().map(|(key, value)| (key, told(&value))).collect();
            entries.sort();
            let after = (tx.contains_key(&self.texts, a % KEYS)?, tx.contains_key(&self.texts, c % KEYS)?);
            Ok(format!("{there} {entries:?} {after:?} {:?}", tx.elements(&self.list)?))
        })
    }

    /// Lists in a list: made, filled, found again, dropped.
    fn handles(&self, a: u64, b: u64) -> String {
        match b % 4 {
            0 => outcome(self.session.list([a, b]).and_then(|list| self.inner.push(list))),
            1 => {
                let last = self.inner.iter().unwrap().next_back().map(|list| list.to_owned());
                outcome(last.map_or(Ok(()), |list| list.push(a)))
            }
            2 => outcome(self.inner.remove((a % 10) as usize).map(|list| list.is_some())),
            _ => shown(self.inner.iter().unwrap().map(|list| list.to_owned().to_owned().unwrap()).collect::<Vec<_>>()),
        }
    }
}

/// A dict as Python's: in the order in which keys came.
#[derive(Clone)]
struct Ordered<K, V>(Vec<(K, V)>);

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Ordered(Vec::new())
    }
}

impl<K: PartialEq, V: Clone> Ordered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone())
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }
}

#[derive(Clone)]
enum Attribute {
    Text(String),
    Number(u64),
}

/// What the containers should hold.
#[derive(Clone, Default)]
struct State {
    texts: Ordered<u64, String>,
    numbers: Ordered<String, i64>,
    list: Vec<u64>,
    lines: Vec<String>,
    value: String,
    counter: i64,
    space: Ordered<String, Attribute>,
    inner: Vec<Vec<u64>>,
}

#[derive(Default)]
struct Model {
    now: State,
    /// Snapshots, by whose hands hold them.
    snapshots: BTreeMap<usize, Vec<State>>,
}

impl State {
    fn dump(&self) -> String {
        let texts: Vec<_> = self.texts.0.iter().map(|(key, value)| (*key, told(value))).collect();
        let lines: Vec<_> = self.lines.iter().map(|line| told(line)).collect();
        let value = Some(told(&self.value));
        format!("{texts:?} {:?} {:?} {lines:?} {value:?} {}", self.numbers.0, self.list, self.counter)
    }

    fn attributes(&mut self, a: u64, b: u64) -> String {
        let name = format!("attribute {}", a % 5);
        match b % 4 {
            0 => shown(drop(self.space.insert(name, Attribute::Text(text(b))))),
            1 => shown(drop(self.space.insert(name, Attribute::Number(b)))),
            2 => shown(self.space.remove(&name).is_some()),
            _ => {
                let read = |(_, attribute): &(String, Attribute)| match attribute {
                    Attribute::Number(number) => shown(Some(number)),
                    Attribute::Text(text) => told(text),
                };
                shown(self.space.0.iter().map(read).collect::<Vec<_>>())
            }
        }
    }

    fn batch(&mut self, a: u64, b: u64, c: u64) -> std::result::Result<(), &'static str> {
        self.texts.insert(a % KEYS, text(b));
        self.texts.remove(&(b % KEYS));
        let sum = self.numbers.get(&"batch".into()).unwrap_or(0) + 1;
        self.numbers.insert("batch".into(), sum);
        self.list.push(b);
        let element = self.list.get_mut((c % 40) as usize).map(|element| *element = c);
        let at = (b % 40) as usize;
        if at < self.lines.len() {
            self.lines.remove(at);
        }
        self.lines.push(text(c));
        self.value = text(a);
        self.counter += 1;
        match a % 6 {
            0 => Err("own error"),
            1 => Err("out of range"),
            _ => element.ok_or("out of range"),
        }
    }

    /// Whether none of the writes failed.
    fn stream(&mut self, a: u64, b: u64, c: u64) -> bool {
        for n in 0..c % 60 {
            self.texts.insert((a + n) % KEYS, text(b + n));
            self.list.push(b ^ n);
            if n % 7 == 3 {
                self.texts.remove(&((b + n) % KEYS));
                self.lines.extend((0..n % 4).map(|m| text(c + m)));
            }
            let sum = self.numbers.get(&"stream".into()).unwrap_or(0) + 1;
            self.numbers.insert("stream".into(), sum);
        }
        let element = self.list.get_mut((c % 40) as usize).map(|element| *element = c);
        let at = (b % 40) as usize;
        if at < self.lines.len() {
            self.lines.remove(at);
        }
        self.value = text(c);
        self.counter += 2;
        !a.is_multiple_of(3) && element.is_some()
    }

    fn transaction(&mut self, a: u64, b: u64, c: u64) -> std::result::Result<String, &'static str> {
        let old = self.texts.get(&(a % KEYS)).map(|old| told(&old));
        self.texts.insert(b % KEYS, text(c));
        let removed = self.texts.remove(&(c % KEYS)).is_some();
        let name = format!("name {}", b % 7);
        let sum = self.numbers.get(&name).unwrap_or(0).checked_add(5).ok_or("out of range")?;
        self.numbers.insert(name, sum);
        self.list.push(a);
        self.list.insert(0, b);
        let taken = Some(self.list.remove(self.list.len() / 2));
        let popped = if c.is_multiple_of(2) { self.lines.pop().map(|line| told(&line)) } else { None };
        self.value = format!("{}!", c % 10);
        self.counter -= 1;
        let seen = (&self.value, self.counter, self.texts.0.len(), &self.list);
        if a.is_multiple_of(5) { Err("own error") } else { Ok(format!("{old:?} {removed} {sum} {taken:?} {popped:?} {seen:?}")) }
    }

    fn all_of(&self, a: u64, b: u64) -> Vec<String> {
        let mut all: Vec<String> = match b % 4 {
            0 => self.texts.0.iter().map(|(key, _)| key.to_string()).collect(),
            1 => self.texts.0.iter().map(|(_, value)| told(value)).collect(),
            2 => self.texts.0.iter().map(|(key, value)| format!("{key} {}", told(value))).collect(),
            _ => self.numbers.0.iter().map(|(key, value)| format!("{key} {value} {a}")).collect(),
        };
        all.sort();
        all
    }

    fn rewrite(&mut self, a: u64, b: u64, c: u64) -> std::result::Result<String, &'static str> {
        if b.is_multiple_of(2) {
            if a.is_multiple_of(3) {
                self.lines.clear();
            }
            if a.is_multiple_of(4) {
                self.texts.0.clear();
            }
            self.lines.extend((0..b % 5).map(|n| text(c + n)));
            self.list.extend((0..c % 30).map(|n| a ^ n));
            self.texts.insert(a % KEYS, text(b));
            return if c.is_multiple_of(6) { Err("own error") } else { Ok("a batch".into()) };
        }
        let there = self.texts.get(&(a % KEYS)).is_some();
        if a.is_multiple_of(3) {
            self.texts.0.clear();
            self.texts.insert(c % KEYS, text(c));
        }
        if a.is_multiple_of(4) {
            self.list.clear();
            self.list.extend((0..c % 30).map(|n| b ^ n));
        }
        *self.list.get_mut((c % 40) as usize).ok_or("out of range")? = a;
        *self.lines.first_mut().ok_or("out of range")? = text(b);
        let mut entries: Vec<_> = self.texts.0.iter().map(|(key, value)| (*key, told(value))).collect();
        entries.sort();
        let after = (self.texts.get(&(a % KEYS)).is_some(), self.texts.get(&(c % KEYS)).is_some());
        Ok(format!("{there} {entries:?} {after:?} {:?}", self.list))
    }

    fn handles(&mut self, a: u64, b: u64) -> String {
        match b % 4 {
            0 => shown(self.inner.push(vec![a, b])),
            1 => shown(self.inner.last_mut().map(|list| list.push(a)).unwrap_or(())),
            2 => {
                let at = (a % 10) as usize;
                // Taken out, and with that gone: nobody else has a handle on it.
                let removed = if at < self.inner.len() { Some(self.inner.remove(at)) } else { None };
                shown(removed.is_some())
            }
            _ => shown(&self.inner),
        }
    }
}

impl Model {
    fn apply(&mut self, who: usize, [code, a, b, c]: Op) -> String {
        let now = &mut self.now;
        let (key, name) = (a % KEYS, format!("name {}", a % 7));
        let told_of = |text: Option<String>| text.map(|text| told(&text));
        let (position, other) = ((a % 40) as usize, (b % 40) as usize);
        let in_range = |done: bool| if done { shown(()) } else { "out of range".into() };
        match code % CODES {
            0 | 1 => shown(told_of(now.texts.insert(key, text(b)))),
            2 => shown(told_of(now.texts.remove(&key))),
            3 => shown(told_of(now.texts.get(&key))),
            4 => {
                let found = now.texts.get(&key).unwrap_or_else(|| text(b));
                now.texts.insert(key, found.clone());
                shown(told(&found))
            }
            5 if now.texts.get(&key) != Some(text(b)) => shown(false),
            5 if c % 3 > 0 => shown(now.texts.insert(key, text(c)).is_some()),
            5 => shown(now.texts.remove(&key).is_some()),
            6 if now.texts.get(&key).is_some() => shown(false),
            6 => shown(now.texts.insert(key, text(b)).is_none()),
            7 => match now.texts.get(&key) {
                old if b % 4 > 0 => shown(drop(now.texts.insert(key, old.unwrap_or_default() + &text(2 + b % 8)))),
                _ => shown(drop(now.texts.remove(&key))),
            },
            8 => shown((0..b % 20).for_each(|n| drop(now.texts.insert((a + n) % KEYS, text(c + n))))),
            9 => shown(now.texts.0.retain(|(key, value)| *key % 5 != a % 5 || value.len() % 2 == 0)),
            10 => shown(now.texts.0.pop().map(|(key, value)| (key, told(&value)))),
            11 if a.is_multiple_of(8) => shown(now.texts.0.clear()),
            11 | 12 => match now.numbers.get(&name).unwrap_or(0).checked_add(b as i64 % 1000) {
                Some(sum) => {
                    now.numbers.insert(name, sum);
                    shown(sum)
                }
                None => "out of range".into(),
            },
            13 => shown(now.numbers.insert(name, b as i64)),
            14 => shown((now.numbers.get(&name).is_some(), now.numbers.0.len())),
            15 | 16 => shown(now.list.push(b)),
            17 => in_range(
                position <= now.list.len() && {
                    now.list.insert(position, b);
                    true
                },
            ),
            18 => replaced(now.list.get_mut(position), b, |old| old),
            19 => shown((position < now.list.len()).then(|| now.list.remove(position))),
            20 => shown(now.list.pop()),
            21 => {
                let empty = other % 9 == 0 && c.is_multiple_of(12);
                in_range(
                    empty
                        || position <= now.list.len() && {
                            let end = (position + other % 9).min(now.list.len());
                            now.list.splice(position..end, (0..c % 12).map(|n| b + n));
                            true
                        },
                )
            }
            22 => in_range(
                position.max(other) < now.list.len() && {
                    now.list.swap(position, other);
                    true
                },
            ),
            23 => shown(if b.is_multiple_of(2) { now.list.reverse() } else { now.list.sort() }),
            24 => shown(now.list.truncate(position)),
            25 => shown(now.list.extend((0..b % 200).map(|n| a ^ n))),
            26 => {
                let at = now.list.iter().position(|n| *n == b % 50);
                let found = at.map(|at| now.list.remove(at)).is_some();
                shown((at, found))
            }
            27 => shown(now.list.get(position..position.max(other).min(now.list.len()).max(position)).map_or(vec![], <[u64]>::to_vec)),
            28 | 29 => shown(now.lines.push(text(b))),
            30 => in_range(
                position <= now.lines.len() && {
                    now.lines.insert(position, text(b));
                    true
                },
            ),
            31 => replaced(now.lines.get_mut(position), text(b), |old| told(&old)),
            32 => shown(told_of((position < now.lines.len()).then(|| now.lines.remove(position)))),
            33 => in_range(
                position <= now.lines.len() && {
                    now.lines.splice(position.., (0..b % 5).map(|n| text(c + n)));
                    true
                },
            ),
            34 => shown(now.lines.sort_by_key(String::len)),
            35 => {
                now.value = now.value.chars().take(3).collect::<String>() + &text(b);
                shown(told(&now.value))
            }
            36 => {
                now.counter += b as i64 % 100;
                shown(now.counter)
            }
            37 => now.attributes(a, b),
            38 => {
                let before = now.clone();
                now.batch(a, b, c).map(shown).unwrap_or_else(|error| {
                    *now = before;
                    error.into()
                })
            }
            39 => {
                let before = now.clone();
                now.transaction(a, b, c).map(shown).unwrap_or_else(|error| {
                    *now = before;
                    error.into()
                })
            }
            44 => in_range(now.stream(a, b, c)),
            45 if b.is_multiple_of(2) => shown(now.value = text(a % 4)),
            45 => {
                let equal = now.value == text(a % 4);
                if equal {
                    now.value = text(c);
                }
                shown(equal)
            }
            46 => {
                let count = now.list.iter().filter(|n| **n == b % 50).count();
                shown((count, count > 0))
            }
            47 => shown(now.all_of(a, b)),
            48 => {
                let before = now.clone();
                now.rewrite(a, b, c).map(shown).unwrap_or_else(|error| {
                    *now = before;
                    error.into()
                })
            }
            40 => now.handles(a, b),
            41 => {
                self.snapshots.entry(who).or_default().push(self.now.clone());
                String::new()
            }
            42 => match self.snapshots.get_mut(&who).filter(|held| !held.is_empty()) {
                Some(held) => held.swap_remove(a as usize % held.len()).dump(),
                None => "no snapshot".into(),
            },
            _ => now.dump(),
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<(usize, Op)>> {
    let argument = || prop_oneof![3 => 0..200u64, 1 => any::<u64>().prop_map(|n| n >> 1)];
    let op = (0..4usize, 0..CODES, argument(), argument(), argument()).prop_map(|(who, code, a, b, c)| (who, [code, a, b, c]));
    proptest::collection::vec(op, 1..150)
}

/// Runs sequences on one manager, `peers` of it in other processes.
fn run(manager: &Manager, mut peers: Vec<Peer>, sequences: u32) {
    let config = ProptestConfig { cases: sequences, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() };
    let peers = std::cell::RefCell::new(&mut peers);
    let ran = proptest::test_runner::TestRunner::new(config).run(&ops(), |ops| {
        let peers = &mut **peers.borrow_mut();
        let mut hands = Hands::new(manager);
        let mut model = Model { now: State { value: "first".into(), ..State::default() }, ..Model::default() };
        let tokens = hands.tokens();
        for peer in peers.iter_mut() {
            prop_assert_eq!(peer.ask(format_args!("open {tokens}")), "opened");
        }
        for (step, (who, op)) in ops.into_iter().enumerate() {
            let who = who % (1 + peers.len());
            let expected = model.apply(who, op);
            let found = match who {
                0 => hands.apply(op),
                who => peers[who - 1].ask(op.map(|n| n.to_string()).join(" ")),
            };
            prop_assert_eq!(found, expected, "step {} by {}: {:?}", step, who, op);
        }
        let all = [43, 0, 0, 0];
        let expected = model.apply(0, all);
        prop_assert_eq!(hands.apply(all), expected.clone());
        for (who, peer) in (1..).zip(peers.iter_mut()) {
            prop_assert_eq!(peer.ask("43 0 0 0"), expected.clone());
            while model.snapshots.get(&who).is_some_and(|held| !held.is_empty()) {
                prop_assert_eq!(peer.ask("42 0 0 0"), model.apply(who, [42, 0, 0, 0]));
            }
        }
        while model.snapshots.get(&0).is_some_and(|held| !held.is_empty()) {
            prop_assert_eq!(hands.apply([42, 0, 0, 0]), model.apply(0, [42, 0, 0, 0]));
        }
        manager.audit().map_err(|error| TestCaseError::fail(error.to_string()))
    });
    ran.unwrap();
    for peer in std::mem::take(*peers.borrow_mut()) {
        peer.finish();
    }
    while manager.stats().unwrap().objects > 0 {
        std::thread::yield_now();
    }
    manager.audit().unwrap();
}

#[test]
fn a_manager_in_a_thread() {
    run(&thread_manager(), Vec::new(), cases(300));
}

#[test]
fn a_manager_in_a_process() {
    run(&process_manager(), Vec::new(), cases(200));
}

/// Hashes of which only a few bits count: keys collide all the time.
#[test]
fn a_manager_whose_hashes_collide() {
    let manager = Manager::builder().capacity(512 << 20).hash_mask(0x3).in_process().start().unwrap();
    run(&manager, Vec::new(), cases(150));
}

#[test]
fn three_processes_and_this_one() {
    let manager = process_manager();
    let peers = (0..3).map(|_| Peer::spawn("role_hands", manager.address())).collect();
    run(&manager, peers, cases(200));
}

#[test]
fn another_process_on_a_manager_in_a_thread_of_this_one() {
    let manager = thread_manager();
    let peers = vec![Peer::spawn("role_hands", manager.address())];
    run(&manager, peers, cases(200));
}

#[test]
fn role_hands() {
    let Some(address) = task() else { return };
    let manager = Manager::connect(&address).unwrap();
    let mut hands: Option<Hands> = None;
    while let Some(line) = heard() {
        match line.strip_prefix("open ") {
            Some(tokens) => {
                let tokens: Vec<Token> = words(tokens);
                hands = Some(Hands::open(&manager, &tokens));
                say("opened");
            }
            None => {
                let op: Op = words::<u64>(&line).try_into().unwrap();
                say(hands.as_mut().expect("opened first").apply(op));
            }
        }
    }
}

/// A wrong answer is found: the model is not just anything.
#[test]
fn the_model_says_no() {
    let manager = thread_manager();
    let (mut hands, mut model) = (Hands::new(&manager), Model::default());
    model.now.value = "first".into();
    let op = [0, 1, 5, 0];
    assert_eq!(hands.apply(op), model.apply(0, op));
    hands.texts.remove(1).unwrap();
    assert_ne!(hands.apply([3, 1, 0, 0]), model.apply(0, [3, 1, 0, 0]));
    assert_ne!(hands.apply([43, 0, 0, 0]), model.apply(0, [43, 0, 0, 0]));
}
