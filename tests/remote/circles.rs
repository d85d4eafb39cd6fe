//! Calls that come back to where they are from: an error, and never a wait without end.
use commonhold::{ErrorKind, Manager, Queue};
use std::time::Duration;

struct Node {
    next: Option<NodeProxy>,
    value: u64,
}

#[commonhold::remote]
impl Node {
    pub fn new(value: u64) -> Self {
        Node { next: None, value }
    }
    pub fn link(&mut self, next: NodeProxy) {
        self.next = Some(next);
    }
    pub fn unlink(&mut self) {
        self.next = None;
    }
    /// The sum of this node and those behind it.
    pub fn sum(&self) -> commonhold::Result<u64> {
        match &self.next {
            Some(next) => Ok(self.value + next.sum()??),
            None => Ok(self.value),
        }
    }
    /// Waits, so that others come in between, and then asks the next one.
    pub fn slow_sum(&self, ms: u64) -> commonhold::Result<u64> {
        std::thread::sleep(Duration::from_millis(ms));
        match &self.next {
            Some(next) => Ok(self.value + next.value()?),
            None => Ok(self.value),
        }
    }
    pub fn value(&self) -> u64 {
        self.value
    }
    pub fn ask(&self, other: NodeProxy) -> commonhold::Result<u64> {
        other.value()
    }
    /// The same ahead: several times, and the last result.
    pub fn ask_ahead(&self, other: NodeProxy, times: u64) -> commonhold::Result<u64> {
        let asked = (0..times).map(|_| other.call_async().value()).collect::<commonhold::Result<Vec<_>>>()?;
        asked.into_iter().try_fold(0, |_, asked| asked.get())
    }
    /// Has another node ask a third one, ahead.
    pub fn have_asked(&self, other: NodeProxy, third: NodeProxy) -> commonhold::Result<u64> {
        other.call_async().ask_ahead(third, 1)?.get()?
    }
    /// Tells the other one something, and does not wait.
    pub fn tell(&self, other: NodeProxy, value: u64) -> commonhold::Result<()> {
        other.call_one_way().set(value)
    }
    pub fn set(&mut self, value: u64) {
        self.value = value;
    }
    /// Meets the other one, which does the same, in a queue; and then asks it ahead, on the line that both have in common.
    pub fn meet_and_ask(&self, here: Queue<u64>, there: Queue<u64>, other: NodeProxy) -> commonhold::Result<u64> {
        there.send(1u64)?;
        here.recv()?;
        other.call_async().value()?.get()
    }
    /// Has two nodes meet, by calls ahead of the host.
    pub fn have_met(&self, nodes: Vec<NodeProxy>, queues: Vec<Queue<u64>>) -> commonhold::Result<Vec<Option<u64>>> {
        let meet = |n: usize| {
            let (here, there, other) = (queues[n].clone(), queues[1 - n].clone(), nodes[1 - n].clone());
            // From threads of its own: no part of this chain, and of two.
            let node = nodes[n].clone();
            std::thread::spawn(move || node.call_async().meet_and_ask(here, there, other)?.get()?)
        };
        Ok([meet(0), meet(1)].into_iter().map(|met| met.join().ok()?.ok()).collect())
    }
}

fn nodes(manager: &Manager, count: u64) -> Vec<NodeProxy> {
    (0..count).map(|n| manager.create(Node::new, (1 << n,)).unwrap()).collect()
}

#[test]
fn a_row_is_fine_and_a_circle_is_an_error() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 3);
    nodes[0].link(nodes[1].clone()).unwrap();
    nodes[1].link(nodes[2].clone()).unwrap();
    assert_eq!(nodes[0].sum().unwrap().unwrap(), 7);
    nodes[2].link(nodes[0].clone()).unwrap();
    let error = nodes[0].sum().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    // Nothing is broken.
    nodes[2].unlink().unwrap();
    assert_eq!(nodes[0].sum().unwrap().unwrap(), 7);
}

#[test]
fn a_row_that_is_too_long_is_told_so() {
    let manager = crate::manager();
    let nodes: Vec<NodeProxy> = (0..66).map(|_| manager.create(Node::new, (1,)).unwrap()).collect();
    for pair in nodes.windows(2) {
        pair[0].link(pair[1].clone()).unwrap();
    }
    assert_eq!(nodes[2].sum().unwrap().unwrap(), 64);
    let error = nodes[0].sum().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    let told = "a call within 64 calls of methods, the most there may be: do they call each other without end?";
    assert!(error.to_string().ends_with(told), "{error}");
}

#[test]
fn an_object_that_calls_itself_is_told_so() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 1);
    let error = nodes[0].ask(nodes[0].clone()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    let told = "this call would wait for itself: it goes, maybe by way of others, to an object in which a method of the same chain of calls \
                still runs. Let the method return first, or make the call one-way";
    assert!(error.to_string().ends_with(told), "{error}");
}

#[test]
fn of_two_that_wait_for_each_other_one_is_told() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 2);
    nodes[0].link(nodes[1].clone()).unwrap();
    nodes[1].link(nodes[0].clone()).unwrap();
    for _ in 0..3 {
        // Both are inside of their object before either asks the other.
        let calls = [nodes[0].call_async().slow_sum(300).unwrap(), nodes[1].call_async().slow_sum(300).unwrap()];
        let results: Vec<_> = calls.into_iter().map(|call| call.get().unwrap().map_err(|error| error.kind())).collect();
        let told = results.iter().filter(|result| **result == Err(ErrorKind::Deadlock)).count();
        let done = results.iter().filter(|result| **result == Ok(3)).count();
        // On a machine that was busy elsewhere they may have missed each other.
        assert!((told, done) == (1, 1) || (told, done) == (0, 2), "{results:?}");
    }
}

#[test]
fn calls_ahead_of_methods_never_wait_for_themselves() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 3);
    // Several calls of one chain to one object are no circle.
    assert_eq!(nodes[0].ask_ahead(nodes[1].clone(), 50).unwrap().unwrap(), 2);
    // Its own object; and by way of another one, on the line on which that was called.
    assert_eq!(nodes[0].ask_ahead(nodes[0].clone(), 1).unwrap().unwrap_err().kind(), ErrorKind::Deadlock);
    assert_eq!(nodes[0].have_asked(nodes[1].clone(), nodes[2].clone()).unwrap().unwrap(), 4);
    assert_eq!(nodes[0].have_asked(nodes[1].clone(), nodes[0].clone()).unwrap().unwrap_err().kind(), ErrorKind::Deadlock);
    assert_eq!(nodes[0].have_asked(nodes[1].clone(), nodes[1].clone()).unwrap().unwrap_err().kind(), ErrorKind::Deadlock);
    // Nobody waits for a call without an answer: it is done when its object is free.
    nodes[0].tell(nodes[0].clone(), 77).unwrap().unwrap();
    crate::support::until("it has been told", || nodes[0].value().unwrap() == 77);
}

#[test]
fn of_two_that_ask_each_other_ahead_one_is_told() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 3);
    let queues = vec![manager.queue::<u64>(4).unwrap(), manager.queue::<u64>(4).unwrap()];
    for _ in 0..5 {
        let met = nodes[2].have_met(nodes[..2].to_vec(), queues.clone()).unwrap().unwrap();
        // Both are in their objects when they ask: one is told that there is a circle, and so the other one gets its answer.
        assert_eq!(met.iter().flatten().count(), 1, "{met:?}");
    }
    manager.audit().unwrap();
}
