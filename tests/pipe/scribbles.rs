//! A process that has an end of a pipe writes over its words: errors for those who use the pipe, nothing for anybody else.

use crate::vandal::Vandal;
use commonhold::{ErrorKind, Manager, PipeOptions, Queue, Token, wait};
use proptest::prelude::*;
use std::time::Duration;

/// Words of the queue of a pipe of this size up to its first items.
const WORDS: usize = 24_000 / 8;

/// The queues of bytes that there are. Also those that nobody holds any more, until the manager comes to let them go.
fn queues(manager: &Manager) -> Vec<u64> {
    let objects = manager.objects().unwrap();
    objects.iter().filter(|object| object.type_text.starts_with("Queue<Vec")).map(|object| object.id).collect()
}

/// The queue of the only pipe that has been made since there were these.
fn queue_of(manager: &Manager, before: &[u64]) -> Queue<Vec<u8>> {
    let id = queues(manager).into_iter().find(|id| !before.contains(id)).expect("it is made of one");
    // The line of another object of that type, with this one's id.
    let like = manager.queue::<Vec<u8>>(1).unwrap().token().unwrap().to_string();
    let mut parts: Vec<&str> = like.splitn(4, ':').collect();
    let id = id.to_string();
    parts[2] = &id;
    parts.join(":").parse::<Token>().unwrap().open().unwrap()
}

#[test]
fn scribbled_pipes_hurt_their_users_only() {
    let manager = Manager::in_process().unwrap();
    let other = manager.queue::<u64>(4).unwrap();
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let word = prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..1000u64, any::<u64>(), any::<u64>().prop_map(|word| word & 0xffff_ffff)];
    let words = prop::collection::vec((prop_oneof![0..60usize, 0..WORDS], word), 1..40);
    proptest!(config, |(words in words)| {
        let before = queues(&manager);
        let (receiver, sender) = manager.pipe_one_way_with::<Vec<u8>>(PipeOptions::new().capacity(100).bytes_max(200 << 10)).unwrap();
        [vec![1; 5], vec![2; 2000], vec![3; 10_000]].into_iter().try_for_each(|item| sender.send(item)).unwrap();
        let vandal = Vandal::attach(&manager, &queue_of(&manager, &before));
        words.iter().for_each(|(at, word)| vandal.write(8 * at, *word));
        let mut errors = Vec::new();
        for len in [3, 3000, 70_000] {
            errors.extend(sender.try_send(vec![1; len]).err().map(commonhold::Error::from));
        }
        errors.extend(receiver.poll(Duration::ZERO).err());
        errors.extend(wait(&[&receiver, &other], Duration::ZERO).err());
        errors.extend(receiver.try_recv().err());
        errors.extend(receiver.recv_timeout(Duration::from_millis(1)).err());
        errors.extend(sender.close().err());
        errors.extend(receiver.try_recv().err());
        for error in errors {
            let expected = [ErrorKind::Corrupt, ErrorKind::Closed, ErrorKind::TooLarge, ErrorKind::Full, ErrorKind::TimedOut];
            prop_assert!(expected.contains(&error.kind()), "{error:?}");
        }
        // The ends go, and the manager closes what makes no sense.
        drop((receiver, sender, vandal));
        other.send(1).unwrap();
        prop_assert_eq!(other.recv().unwrap(), Some(1));
        manager.audit().unwrap();
    });
}
