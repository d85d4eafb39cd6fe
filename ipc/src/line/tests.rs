//! Tests of lines' memory, both sides in one process.
use super::*;
use std::time::Duration;

fn both() -> (LineEnd, LineEnd) {
    let memory = line_memory().unwrap();
    let (one, other) = Channel::pair().unwrap();
    (LineEnd::map(&memory, one, Side::Client).unwrap(), LineEnd::map(&memory, other, Side::Host).unwrap())
}

fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + salt) % 251) as u8).collect()
}

fn now() -> Option<Instant> {
    Some(Instant::now())
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(20))
}

#[test]
fn what_is_sent_arrives_at_every_length_and_place() {
    let (client, host) = both();
    // Half a ring at the most has been received without its sender knowing.
    for (salt, len) in (1..200).chain([LINE_RING_BYTES / 2 - 1, LINE_RING_BYTES / 2, 4096]).cycle().take(1_000).enumerate() {
        for (from, to) in [(&client, &host), (&host, &client)] {
            let sent = bytes(len, salt);
            assert_eq!(from.send(&sent).unwrap(), len);
            let mut got = AlignedVec::new();
            // In two parts, as a head and a payload are.
            let first = len.min(16);
            assert_eq!(to.receive(first, &mut got).unwrap(), first);
            assert_eq!(to.receive(usize::MAX, &mut got).unwrap(), len - first);
            assert_eq!(got[..], sent[..]);
            assert_eq!(to.receive(1, &mut got).unwrap(), 0);
        }
    }
}

#[test]
fn a_full_ring_takes_nothing_until_there_is_room() {
    let (client, host) = both();
    assert_eq!(client.send(&bytes(LINE_RING_BYTES + 5, 0)).unwrap(), LINE_RING_BYTES);
    assert_eq!(client.send(&[1]).unwrap(), 0);
    let mut spin = Spin::new();
    assert_eq!(client.wait(Wanted::Room, &mut spin, now).unwrap(), Waited::Nothing);
    let mut got = AlignedVec::new();
    host.receive(LINE_RING_BYTES / 2, &mut got).unwrap();
    assert_eq!(client.wait(Wanted::Room, &mut spin, now).unwrap(), Waited::Ready);
    assert_eq!(client.send(&bytes(LINE_RING_BYTES, LINE_RING_BYTES)).unwrap(), LINE_RING_BYTES / 2);
    host.receive(usize::MAX, &mut got).unwrap();
    assert_eq!(got[..], bytes(LINE_RING_BYTES * 3 / 2, 0)[..]);
}

#[test]
fn both_sides_sleep_and_wake_each_other() {
    let (client, host) = both();
    let there = 40 * LINE_RING_BYTES + 77;
    let sent = bytes(there, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut spin, mut got) = (Spin::new(), AlignedVec::new());
            while got.len() < there {
                assert_eq!(host.wait(Wanted::Bytes, &mut spin, soon).unwrap(), Waited::Ready);
                host.receive(1000, &mut got).unwrap();
            }
            // And back, byte by byte at first.
            for part in got.chunks(1).take(100).chain([&got[100..]]) {
                let mut part = part;
                while !part.is_empty() {
                    assert_eq!(host.wait(Wanted::Room, &mut spin, soon).unwrap(), Waited::Ready);
                    part = &part[host.send(part).unwrap()..];
                }
            }
        });
        let mut spin = Spin::new();
        let mut rest = &sent[..];
        while !rest.is_empty() {
            assert_eq!(client.wait(Wanted::Room, &mut spin, soon).unwrap(), Waited::Ready);
            rest = &rest[client.send(rest).unwrap()..];
        }
        let mut got = AlignedVec::new();
        while got.len() < there {
            assert_eq!(client.wait(Wanted::RoomOrBytes, &mut spin, soon).unwrap(), Waited::Ready);
            client.receive(usize::MAX, &mut got).unwrap();
        }
        assert!(got[..] == sent[..]);
    });
}

#[test]
fn who_is_gone_has_sent_what_it_sent() {
    let (client, host) = both();
    let mut spin = Spin::new();
    assert_eq!(host.wait(Wanted::Bytes, &mut spin, now).unwrap(), Waited::Nothing);
    client.send(b"last words").unwrap();
    drop(client);
    assert_eq!(host.wait(Wanted::Bytes, &mut spin, soon).unwrap(), Waited::Ready);
    let mut got = AlignedVec::new();
    assert_eq!(host.receive(100, &mut got).unwrap(), 10);
    assert_eq!(host.wait(Wanted::Bytes, &mut spin, || None).unwrap(), Waited::Ended);
    // Whether it slept or not when it ended: an error, or bytes for nobody.
    let _ = host.send(&bytes(LINE_RING_BYTES, 0));
    assert_eq!(host.wait(Wanted::Room, &mut spin, || None).unwrap(), Waited::Ended);
}

#[test]
fn who_has_given_up_is_known_by_the_other_side_alone() {
    let (client, host) = both();
    client.send(b"a question").unwrap();
    assert!(!host.is_given_up());
    client.give_up();
    assert!(host.is_given_up() && !client.is_given_up());
    // What it has sent is there all the same.
    let mut got = AlignedVec::new();
    assert_eq!(host.receive(100, &mut got).unwrap(), 10);
}

#[test]
fn words_that_make_no_sense_end_the_line() {
    for (word_at, value) in [(WRITTEN, LINE_RING_BYTES as u64 + 1), (WRITTEN, u64::MAX), (READ, 1), (READ, u64::MAX / 2)] {
        let (client, host) = both();
        client.end.words.word(word(Side::Client, word_at)).store(value, Ordering::Relaxed);
        let mut got = AlignedVec::new();
        let mut spin = Spin::new();
        assert_eq!(host.wait(Wanted::RoomOrBytes, &mut spin, || None).unwrap(), Waited::Ready);
        let error = if word_at == WRITTEN { host.receive(10, &mut got).unwrap_err() } else { host.send(b"x").unwrap_err() };
        assert_eq!((error.kind(), got.len()), (ErrorKind::Corrupt, 0));
        let nonsense = "the memory of a line to a host makes no sense: the process at its other end has written nonsense; connect anew";
        assert_eq!(error.to_string(), nonsense);
    }
    // What a side stores for others to see is not what it goes by.
    let (client, host) = both();
    host.send(b"abc").unwrap();
    for at in [WRITTEN, READ] {
        host.end.words.word(word(Side::Host, at)).store(2, Ordering::Relaxed);
    }
    let mut got = AlignedVec::new();
    host.send(b"def").unwrap();
    assert_eq!(client.receive(100, &mut got).unwrap(), 6);
    assert_eq!(&got[..], b"abcdef");
}
