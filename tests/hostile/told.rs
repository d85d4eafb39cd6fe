//! What a peer is told that asks for what no client of ours does.

use super::*;
use commonhold::{PipeSender, Queue};
use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, HOSTS_MAX};
use commonhold_ipc::wire::NewHost;

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn object(kind: u8, text: &str, parameters: &[u64]) -> Vec<u8> {
    let (mut payload, parameters) = (Vec::new(), words(parameters));
    let parameters = Words::new(&parameters).unwrap();
    NewObject { kind, value_align: 0, element_bytes: 8, fingerprint: 1, text, parameters }.write(&mut payload);
    payload
}

/// A program of which nobody has heard.
fn host(number: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    NewHost { invited: false, headers: number, file: [number; 4], id: &[] }.write(&mut payload);
    payload
}

#[test]
fn of_objects_of_the_wrong_kind() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let list = raw.made::<List<u64>>(Kind::List, 0, 8);
    let calls = [
        (
            Call::Create,
            object(250, "x", &[]),
            ErrorKind::Corrupt,
            "a kind of an object that cannot be read: does the other side run another version of commonhold?",
        ),
        (
            Call::Create,
            object(Kind::List as u8, &"x".repeat(70_000), &[]),
            ErrorKind::TooLarge,
            "the description of this type has 70000 bytes, the most is 65536: it has too many parts",
        ),
        (
            Call::Create,
            object(Kind::Condition as u8, "x", &[list]),
            ErrorKind::WrongType,
            "object {…} is not a lock: a condition is made for one",
        ),
        (
            Call::Create,
            object(Kind::PipeEnd as u8, "x", &[list, 0]),
            ErrorKind::WrongType,
            "object {…} is not a queue: a pipe is made of queues",
        ),
        (
            Call::Create,
            object(Kind::Remote as u8, "x", &[]),
            ErrorKind::Refused,
            "an object of a user's type is made by the host that it lives in",
        ),
        (Call::Attach, words(&[list]), ErrorKind::WrongType, "object {…} has no segment: it is not of a kind that is shared in this way"),
        (Call::Block, words(&[list]), ErrorKind::WrongType, "object {…} is no block of named memory"),
        (Call::Grow, words(&[list, 1, 1]), ErrorKind::WrongType, "object {…} is no queue: it does not grow"),
        (
            Call::Commit,
            commit(&[], &[Op::CounterAdd { object: list, delta: 1 }]),
            ErrorKind::WrongType,
            "object {…} is a List: it does not have this method",
        ),
        (
            Call::Unpack,
            words(&[list, 77]),
            ErrorKind::NotFound,
            "what an item's handles refer to is not kept (any more): a process that uses the queue has written over the item",
        ),
    ];
    for (call, payload, kind, expected) in calls {
        let answer = raw.call(call, &payload);
        assert!(matches!(answer, Answer::Failed(_)), "{call:?}: {answer:?}");
        raw.was_told(kind, expected);
        scene.step();
    }
    drop(raw);
    scene.end();
}

#[test]
fn of_too_many_handles() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let dict = scene.dict.id();
    let handles = dict.to_le_bytes().repeat(HANDLES_PER_VALUE_MAX + 1);
    let value = Payload { source: Source::Inline(&[1; 8]), handles: Words::new(&handles).unwrap() };
    raw.commit(&[Op::Insert { object: dict, key: &[9; 8], value, only_if_absent: false, lend: false }]);
    raw.was_told(ErrorKind::TooLarge, "a value with 65537 handles cannot be stored: the most is 65536; put them into a list or dict");
    drop(raw);
    scene.end();
}

#[test]
fn of_ends_of_pipes_that_are_turned_around() {
    let scene = Scene::new();
    let queue: Queue<u8> = scene.manager.queue(4).unwrap();
    let mut raw = Raw::connect(&scene.manager);
    raw.call(Call::Retain, &words(&[queue.id()]));
    let (fingerprint, text) = (commonhold::__rt::fingerprint::<PipeSender<u8>>(), commonhold::__rt::text::<PipeSender<u8>>());
    let (mut payload, parameters) = (Vec::new(), words(&[queue.id(), 0]));
    let parameters = Words::new(&parameters).unwrap();
    NewObject { kind: Kind::PipeEnd as u8, value_align: 0, element_bytes: 0, fingerprint, text, parameters }.write(&mut payload);
    let Answer::Done(outcomes) = raw.call(Call::Create, &payload) else { panic!("not made: {:?}", raw.refused) };
    let [Outcome::Number(id)] = outcomes[..] else { panic!("{outcomes:?}") };
    raw.publish("sender", id);
    let sender: PipeSender<u8> = scene.manager.open("sender").unwrap();
    says(sender.try_send(1).map(drop), ErrorKind::WrongType, "this end of a pipe was made for the other direction: use the other end");
    scene.manager.unpublish("sender").unwrap();
    drop((raw, sender, queue));
    scene.end();
}

#[test]
fn of_programs_and_their_hosts() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    raw.call(Call::FindHost, &host(1));
    raw.was_told(
        ErrorKind::NotFound,
        "this manager was started by another program (or another build of this one), and does not have this program's types: no program \
         has any here. To offer them here, connect with `Manager::builder().register::<Type>()`",
    );
    raw.call(Call::Reach, &[vec![0], words(&[999])].concat());
    raw.was_told(ErrorKind::Died, "the host process has ended, and its objects with it: make a new object");
    let mut hosts: Vec<Raw> = (0..HOSTS_MAX).map(|_| Raw::connect(&scene.manager)).collect();
    for (number, raw) in hosts.iter_mut().enumerate() {
        assert!(matches!(raw.call(Call::Host, &host(number as u64)), Answer::Done(_)));
    }
    raw.call(Call::Host, &host(3));
    raw.was_told(ErrorKind::AlreadyExists, "this program has a host here already: use that");
    raw.call(Call::Host, &host(HOSTS_MAX as u64));
    raw.was_told(ErrorKind::Full, "64 programs have a host here, the most there can be: end one of them, or start another manager");
    drop((raw, hosts));
    scene.end();
}
