//! Calls that come back to where they are from: an error, and never a wait without end.
use commonhold::{ErrorKind, Manager};
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
fn an_object_that_calls_itself_is_told_so() {
    let manager = crate::manager();
    let nodes = nodes(&manager, 1);
    let error = nodes[0].ask(nodes[0].clone()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
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
