//! A queue against `VecDeque`s: what waits, what came back, what is leased, dead letters.

use commonhold::{Lease, Manager, Queue, QueueOptions};
use proptest::prelude::*;
use std::collections::VecDeque;

const CAPACITY: u64 = 5;
const ATTEMPTS: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Send(u16),
    Receive,
    ReceiveMany(usize),
    Lease,
    Acknowledge(usize),
    Return(usize),
    DeadLetter,
    Close,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..5000u16).prop_map(Op::Send),
        4 => Just(Op::Receive),
        1 => (0..4usize).prop_map(Op::ReceiveMany),
        4 => Just(Op::Lease),
        3 => (0..8usize).prop_map(Op::Acknowledge),
        3 => (0..8usize).prop_map(Op::Return),
        1 => Just(Op::DeadLetter),
        1 => Just(Op::Close),
    ];
    prop::collection::vec(op, 1..120)
}

/// An item and how often it has been leased.
type Item = (Vec<u8>, u32);

#[derive(Default)]
struct Model {
    waiting: VecDeque<Item>,
    returned: VecDeque<Item>,
    leased: Vec<Item>,
    dead: VecDeque<Vec<u8>>,
    closed: bool,
    next: u8,
}

impl Model {
    fn take(&mut self) -> Option<Item> {
        self.returned.pop_front().or_else(|| self.waiting.pop_front())
    }
}

fn step(op: &Op, queue: &Queue<Vec<u8>>, leases: &mut Vec<Lease<Vec<u8>>>, model: &mut Model) {
    match op {
        Op::Send(len) => {
            model.next = model.next.wrapping_add(1);
            let item = vec![model.next; usize::from(*len)];
            match queue.try_send(&item) {
                Err(error) => assert!(error.is_closed() && model.closed),
                Ok(sent) => {
                    assert!(!model.closed);
                    assert_eq!(sent.is_ok(), (model.waiting.len() as u64) < CAPACITY);
                    if sent.is_ok() {
                        model.waiting.push_back((item, 0));
                    }
                }
            }
        }
        Op::Receive => assert_eq!(queue.try_recv().unwrap(), model.take().map(|(item, _)| item)),
        Op::ReceiveMany(most) => {
            if !model.waiting.is_empty() || !model.returned.is_empty() || *most == 0 {
                let expected: Vec<Vec<u8>> = (0..*most).map_while(|_| model.take()).map(|(item, _)| item).collect();
                assert_eq!(queue.recv_many(*most).unwrap(), expected);
            }
        }
        Op::Lease => {
            let lease = queue.try_lease().unwrap();
            let expected = model.take().map(|(item, attempts)| (item, attempts + 1));
            assert_eq!(lease.as_ref().map(|lease| ((**lease).clone(), lease.attempt())), expected);
            leases.extend(lease);
            model.leased.extend(expected);
        }
        Op::Acknowledge(which) if *which < leases.len() => {
            assert_eq!(leases.remove(*which).ack().unwrap(), model.leased.remove(*which).0);
        }
        Op::Return(which) if *which < leases.len() => {
            drop(leases.remove(*which));
            let (item, attempts) = model.leased.remove(*which);
            if attempts >= ATTEMPTS { model.dead.push_back(item) } else { model.returned.push_back((item, attempts)) }
        }
        Op::Acknowledge(_) | Op::Return(_) => {}
        Op::DeadLetter => assert_eq!(queue.dead_letters().try_recv().unwrap(), model.dead.pop_front()),
        Op::Close => {
            assert_eq!(queue.close().unwrap(), !model.closed);
            model.closed = true;
        }
    }
    let waiting = model.waiting.len() + model.returned.len();
    assert_eq!((queue.len().unwrap(), queue.is_empty().unwrap()), (waiting, waiting == 0));
    assert_eq!(queue.is_full().unwrap(), model.waiting.len() as u64 == CAPACITY);
    assert_eq!(queue.dead_letters().len().unwrap(), model.dead.len());
    let items = (waiting + model.leased.len() + model.dead.len()) as u64;
    assert_eq!(queue.in_use().unwrap().0, items);
}

#[test]
fn a_queue_does_what_deques_do() {
    let manager = Manager::in_process().unwrap();
    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in ops())| {
        let options = QueueOptions::new().capacity(CAPACITY).attempts_max(ATTEMPTS).bytes_max(1 << 20);
        let queue = manager.queue_with::<Vec<u8>>(options).unwrap();
        let (mut leases, mut model) = (Vec::new(), Model::default());
        ops.iter().for_each(|op| step(op, &queue, &mut leases, &mut model));
        drop(leases);
        while queue.try_recv().unwrap().is_some() {}
        while queue.dead_letters().try_recv().unwrap().is_some() {}
        assert_eq!(queue.in_use().unwrap(), (0, 0));
    });
}
