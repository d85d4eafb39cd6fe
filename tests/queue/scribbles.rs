//! A process that uses a queue writes over its words: errors for those who use the queue, nothing for anybody else.

use crate::vandal::Vandal;
use commonhold::{ErrorKind, Manager, Queue, QueueOptions};
use proptest::prelude::*;

/// Words of a queue of this size up to its first items.
const WORDS: usize = 24_000 / 8;

/// The words that say how many items and units may be claimed, and how many have memory behind them.
const ABOUT_MEMORY: [usize; 4] = [4, 5, 10, 11];

/// Uses it in all ways that do not wait. Whatever comes, it comes.
fn use_it(queue: &Queue<Vec<u8>>) -> Vec<commonhold::Error> {
    let mut errors = Vec::new();
    for len in [3, 3000, 70_000] {
        errors.extend(queue.try_send(vec![1; len]).err().map(commonhold::Error::from));
    }
    errors.extend(queue.try_recv().err());
    match queue.try_lease() {
        Ok(lease) => errors.extend(lease.and_then(|lease| lease.ack().err())),
        Err(error) => errors.push(error),
    }
    drop(queue.try_lease());
    errors.extend(queue.dead_letters().try_recv().err());
    errors.extend(queue.len().err());
    errors.extend(queue.join_timeout(std::time::Duration::from_millis(1)).err());
    errors.extend(queue.task_done().err());
    errors.extend(queue.close().err());
    errors.extend(queue.try_recv().err());
    errors
}

#[test]
fn scribbled_queues_hurt_their_users_only() {
    let manager = Manager::in_process().unwrap();
    let other = manager.queue::<u64>(4).unwrap();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let word = prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..1000u64, any::<u64>(), any::<u64>().prop_map(|word| word & 0xffff_ffff)];
    let words = prop::collection::vec((prop_oneof![0..60usize, 0..WORDS], word), 1..40);
    proptest!(config, |(words in words, joinable in any::<bool>())| {
        let mut options = QueueOptions::new().capacity(100).bytes_max(200 << 10).attempts_max(2);
        if joinable {
            options = options.joinable();
        }
        let queue = manager.queue_with::<Vec<u8>>(options).unwrap();
        queue.send_many([vec![1; 5], vec![2; 2000], vec![3; 10_000]]).unwrap();
        let lease = queue.lease().unwrap();
        let vandal = Vandal::attach(&manager, &queue);
        words.iter().for_each(|(at, word)| vandal.write(8 * at, *word));
        for error in use_it(&queue) {
            let expected = [ErrorKind::Corrupt, ErrorKind::Closed, ErrorKind::TooLarge, ErrorKind::Full, ErrorKind::OutOfRange, ErrorKind::Refused];
            assert!(expected.contains(&error.kind()), "{error:?}");
        }
        drop(lease);
        // Its session ends, and the manager recovers what makes no sense.
        drop(vandal);
        other.send(1).unwrap();
        assert_eq!(other.recv().unwrap(), Some(1));
        manager.audit().unwrap();
    });
}

#[test]
fn a_queue_that_says_what_it_likes_of_its_memory() {
    let manager = Manager::in_process().unwrap();
    let other = manager.queue::<u64>(4).unwrap();
    let (before, options) = (manager.stats().unwrap(), QueueOptions::new().capacity(100).bytes_max(200 << 10).attempts_max(2));
    let expected = [ErrorKind::Corrupt, ErrorKind::Closed, ErrorKind::TooLarge, ErrorKind::Full, ErrorKind::OutOfRange, ErrorKind::Refused];
    for at in ABOUT_MEMORY {
        for word in [0, 1, 2, 5, 50, 99, 100, 101, 4000, u32::MAX.into(), 1 << 32, u64::MAX] {
            let queue = manager.queue_with::<Vec<u8>>(options).unwrap();
            queue.send_many([vec![1; 5], vec![2; 2000], vec![3; 10_000]]).unwrap();
            let lease = queue.lease().unwrap();
            let vandal = Vandal::attach(&manager, &queue);
            vandal.write(8 * at, word);
            // What waits is received, whole: nothing was written over it.
            for len in [2000, 10_000] {
                assert_eq!(queue.try_recv().unwrap().map(|item| item.len()), Some(len), "{at} {word:x}");
            }
            // More than has had memory so far, so that the manager is asked for some.
            for _ in 0..60 {
                let sent = queue.try_send(vec![4; 4000]).err();
                assert!(sent.is_none_or(|error| expected.contains(&error.kind())), "{at} {word:x}");
            }
            vandal.write(8 * at, word);
            for error in use_it(&queue) {
                assert!(expected.contains(&error.kind()), "{at} {word:x}: {error:?}");
            }
            drop((lease, vandal));
            other.send(1).unwrap();
            assert_eq!(other.recv().unwrap(), Some(1));
            manager.audit().unwrap();
        }
    }
    let left = || manager.stats().map(|stats| (stats.objects, stats.segments)).unwrap();
    crate::support::until_promptly("nothing is left", || left() == (before.objects, before.segments));
}
