//! Lanes whose client writes anything into them, at any moment.

use super::*;
use commonhold_ipc::lane::{CallingLanes, IN_PLACE_BYTES, LANES, Posted, ROOM, SEGMENT_BYTES, Waited};
use commonhold_ipc::limits::{LANE_ROOM_BYTES, UPLOADS_GROWING_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::socket::Spin;
use commonhold_ipc::wire::behind::PlaceBehind;
use commonhold_ipc::wire::{PART_HEAD_BYTES, PartHead};
use std::sync::atomic::{AtomicBool, AtomicU32};

/// The lanes of a raw peer.
pub struct Hands {
    pub raw: Raw,
    pub lanes: CallingLanes,
}

/// What nobody can be killed by: an alive word that says so for ever.
pub static ALIVE: AtomicU32 = AtomicU32::new(1);

impl Hands {
    pub fn new(scene: &Scene) -> Hands {
        let raw = Raw::connect(&scene.manager);
        let lanes = CallingLanes::map(raw.fds[2].try_clone().unwrap()).unwrap();
        Hands { raw, lanes }
    }

    /// Posts, and rings whether or not it must.
    pub fn post(&self, lane: u16, head: Head, payload: Result<&[u8], u64>) -> u32 {
        assert!(self.lanes.is_free(lane));
        let (mark, posted) = self.lanes.post(lane, head, payload);
        assert_ne!(posted, Posted::Over);
        self.raw.request(Call::Ring as u8, lane, 0, &[]);
        mark
    }

    /// Posts a request and waits for what becomes of it: its status, if it is answered.
    fn call(&self, lane: u16, head: Head, payload: Result<&[u8], u64>) -> Option<u8> {
        let mark = self.post(lane, head, payload);
        let waited = self.lanes.wait(lane, mark, &ALIVE, Some(&mut Spin::new())).unwrap();
        (waited == Waited::Answered).then(|| self.lanes.reply_head(lane).code)
    }
}

pub fn head(call: u8, len: usize) -> Head {
    Head { len: len as u32, code: call, quiet: false, lane: 0, number: 1 }
}

fn insert(dict: u64, key: u64) -> Vec<u8> {
    let value = Payload::inline(&[7; 8]);
    commit(&[], &[Op::Insert { object: dict, key: &key.to_le_bytes(), value, only_if_absent: false, lend: true }])
}

#[test]
fn requests_on_lanes_that_are_none() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let good = insert(dict.id(), 1);
    // A request by hand is as good as any.
    let hands = Hands::new(&scene);
    assert_eq!(hands.call(1, head(1, good.len()), Ok(&good)), Some(Status::Done as u8));
    assert_eq!(*dict.get(1).unwrap().unwrap(), 0x0707_0707_0707_0707);
    assert_eq!(hands.call(510, head(1, good.len()), Ok(&good)), Some(Status::Done as u8));
    // So is one for the ticket, which goes with the session that has it.
    assert_eq!(hands.call(1, head(Call::Ticket as u8, 0), Ok(&[])), Some(Status::Done as u8));
    drop(hands);
    dict.insert(2, 2u64).unwrap();
    dict.remove(2).unwrap();
    // Calls that do not go by lanes; none at all; lengths that reach out of the slot or the segment; a hole; what cannot be read.
    // A commit of logic is a host's, which this is not.
    let by_lanes = [Call::Commit, Call::Series, Call::Part].map(|call| call as u8);
    for code in (0..=Call::Settle as u8 + 1).filter(|code| !by_lanes.contains(code)) {
        assert_eq!(Hands::new(&scene).call(1, head(code, good.len()), Ok(&good)), None, "call {code}");
    }
    let places = [
        (IN_PLACE_BYTES + 1, 0),
        (u32::MAX as usize, 0),
        (8, 8),
        (8, ROOM - 8),
        (8, SEGMENT_BYTES - 4),
        (8, u64::MAX - 2),
        (LANE_ROOM_BYTES as usize + 8, ROOM),
        (100_000, ROOM + 4096),
    ];
    for (len, place) in places {
        for call in [Call::Commit, Call::Series, Call::Part] {
            assert_eq!(Hands::new(&scene).call(1, head(call as u8, len), Err(place)), None, "{call:?}: {len} bytes at {place}");
        }
    }
    assert_eq!(Hands::new(&scene).call(1, head(1, good.len() - 1), Ok(&good[..good.len() - 1])), None);
    // A series: as good by hand, cut short, with a condition, and with an operation that cannot be read behind one that can.
    let series = Call::Series as u8;
    let ops = [3u64, 4].map(u64::to_le_bytes);
    let value = Payload::inline(&[7; 8]);
    let ops = ops.each_ref().map(|key| Op::Insert { object: dict.id(), key, value, only_if_absent: false, lend: true });
    let two = commit(&[], &ops);
    assert_eq!(Hands::new(&scene).call(1, head(series, two.len()), Ok(&two)), Some(Status::Done as u8));
    assert_eq!(dict.len().unwrap(), 3);
    for len in 0..two.len() {
        assert_eq!(Hands::new(&scene).call(1, head(series, len), Ok(&two[..len])), None, "{len}");
    }
    let conditional = commit(&[Condition::LenIs { object: dict.id(), len: 3 }], &ops);
    assert_eq!(Hands::new(&scene).call(1, head(series, conditional.len()), Ok(&conditional)), None);
    let mut unreadable = two.clone();
    // The code of the second operation.
    unreadable[8 + (two.len() - 12) / 2] = 99;
    assert_eq!(Hands::new(&scene).call(1, head(series, two.len()), Ok(&unreadable)), None);
    assert_eq!(dict.len().unwrap(), 3);
    scene.step();
    // Parts of large values: of more than any value may be, without a head, and such as do not come next.
    let part = |len, from, bytes: &[u8]| {
        let upload = UploadHead { prefix: 16, len, handles: 0 };
        [&PartHead { upload, from }.to_bytes()[..], bytes].concat()
    };
    let send = |hands: &Hands, lane, payload: &[u8]| hands.call(lane, head(Call::Part as u8, payload.len()), Ok(payload));
    for payload in [part(7, 0, &[1; 8]), part(16, 8, &[1; 8]), part(16, u64::MAX, &[1; 8]), part(16, 0, &[]), vec![1; PART_HEAD_BYTES - 1]]
    {
        assert_eq!(send(&Hands::new(&scene), 1, &payload), None);
    }
    for second in [part(16, 0, &[1; 17]), part(16, 8, &[1; 9]), part(16, 7, &[1; 8]), part(16, 9, &[1; 7]), part(16, 8, &[])] {
        let hands = Hands::new(&scene);
        assert_eq!(send(&hands, 1, &part(16, 0, &[1; 8])), Some(Status::Done as u8));
        assert_eq!(send(&hands, 1, &second), None);
    }
    let hands = Hands::new(&scene);
    // There is no block for these; the client hears of it when it names them.
    for (len, prefix, handles) in [(8, u64::from(u32::MAX), 0), (8, 16, u32::MAX), (VALUE_BYTES_MAX + 1, 16, 0), (u64::MAX, 16, 0)] {
        let payload = [&PartHead { upload: UploadHead { prefix, len, handles }, from: 0 }.to_bytes()[..], &[1; 8]].concat();
        assert_eq!(send(&hands, 1, &payload), Some(Status::Done as u8));
    }
    // One that nobody uses; one that is begun anew; one that is given up.
    for payload in [part(16, 0, &[1; 8]), part(16, 8, &[1; 8]), part(16, 0, &[1; 8]), part(100_000, 0, &[1; 1000])] {
        assert_eq!(send(&hands, 1, &payload), Some(Status::Done as u8));
    }
    // Another lane may bring what comes next; but not more values in parts than there can be.
    assert_eq!(send(&hands, 2, &part(100_000, 1000, &[1; 1000])), Some(Status::Done as u8));
    let begin = |number: usize| {
        let payload = part(1_000, 0, &[1; 8]);
        hands.call(1, Head { number: number as u64 + 2, ..head(Call::Part as u8, payload.len()) }, Ok(&payload))
    };
    let begun = (0..).take_while(|number| begin(*number) == Some(Status::Done as u8)).count();
    // The one before is not whole either.
    assert_eq!(begun, UPLOADS_GROWING_MAX - 1);
    let hands = Hands::new(&scene);
    assert_eq!(send(&hands, 1, &part(100_000, 0, &[1; 1000])), Some(Status::Done as u8));
    scene.step();
    drop((hands, dict));
    scene.end();
}

/// Values that a request brings are there once, in their order, for its own operations, and only for a commit or series that came by a lane.
#[test]
fn values_behind_requests_that_are_none() {
    let scene = Scene::new();
    let dict: Dict<u64, Vec<u8>> = scene.manager.dict([(1u64, vec![1u8])]).unwrap();
    let list = scene.manager.list::<Vec<u8>>([]).unwrap();
    // When nothing is retired that is not free yet.
    let blocks = || {
        let until = patience();
        loop {
            let now = scene.manager.stats().unwrap();
            if now.retired_bytes == 0 {
                return now.blocks;
            }
            assert!(Instant::now() < until, "something is held: {now:?}");
            std::thread::yield_now();
        }
    };
    let no_handles = Words::new(&[]).unwrap();
    let behind = |at, len| Payload { source: Source::behind(PlaceBehind::new(at, len).unwrap()), handles: no_handles };
    let op =
        |key: &'static [u8; 8], at, len| Op::Insert { object: dict.id(), key, value: behind(at, len), only_if_absent: false, lend: false };
    let (second, third, fourth) = (b"\x02\0\0\0\0\0\0\0", b"\x03\0\0\0\0\0\0\0", b"\x04\0\0\0\0\0\0\0");
    let call = |hands: &Hands, code: Call, payload: &[u8], len: u32| {
        assert!(hands.lanes.is_free(1));
        let (mark, _) = hands.lanes.post_with(1, head(code as u8, payload.len()), Some(payload), (ROOM, len));
        hands.raw.request(Call::Ring as u8, 1, 0, &[]);
        let waited = hands.lanes.wait(1, mark, &ALIVE, Some(&mut Spin::new())).unwrap();
        (waited == Waited::Answered).then(|| hands.lanes.reply_head(1).code)
    };
    let value: Vec<u8> = contents::archive(&vec![5u8; 5_000]);
    let len = value.len();
    let one = commit(&[], &[op(second, 0, len)]);
    let hands = Hands::new(&scene);
    hands.lanes.back_room(0..LANE_ROOM_BYTES).unwrap();
    hands.lanes.write_room(0, &value);
    assert_eq!(call(&hands, Call::Commit, &one, len as u32), Some(Status::Done as u8));
    assert!(dict.get(2).unwrap().unwrap().iter().all(|byte| *byte == 5));
    let before = blocks();
    // Named twice, in part, in another order, or beyond the last one: nothing is done, nothing is left.
    for (first, then) in [
        ((0, len), (0, len)),
        ((0, len), (len - 1_024, 1_024)),
        ((1_100, 1_024), (0, 1_100)),
        ((0, 2_000), (1_999, 1_024)),
        ((0, 2_000), (2_000, len)),
    ] {
        let both = commit(&[], &[op(third, first.0, first.1), op(fourth, then.0, then.1)]);
        assert_eq!(call(&hands, Call::Commit, &both, len as u32), Some(Status::Failed as u8), "{first:?} {then:?}");
    }
    let mut run = Vec::new();
    [behind(0, len), behind(0, len)].iter().for_each(|value| value.write(&mut run));
    let splice = Op::ListSplice { object: list.id(), position: END, remove: 0, values: Values::Each(2, &run) };
    assert_eq!(call(&hands, Call::Commit, &commit(&[], &[splice]), len as u32), Some(Status::Failed as u8));
    assert!(list.is_empty().unwrap());
    // In a series each stands for itself, and yet none is there twice. The third is what the second has passed over.
    let series = [
        op(third, 0, 1_024),
        op(third, 2_000, 1_500),
        op(fourth, 1_024, 1_024),
        op(third, 0, 1_024),
        op(fourth, 3_499, 1_024),
        op(third, 3_500, len - 3_500),
    ];
    let series = commit(&[], &series);
    assert_eq!(call(&hands, Call::Series, &series, len as u32), Some(Status::Done as u8));
    assert!(dict.contains_key(3).unwrap() && !dict.contains_key(4).unwrap());
    scene.manager.batch(|batch| batch.remove(&dict, 3)).unwrap();
    // Of less than can stand there.
    let mut short = one.clone();
    let at = short.windows(8).position(|word| word == (1u64 << 63 | len as u64).to_le_bytes()).unwrap();
    for bytes in [0, 1_023u64] {
        short[at..at + 8].copy_from_slice(&(1 << 63 | bytes).to_le_bytes());
        assert_eq!(call(&hands, Call::Commit, &short, len as u32), Some(Status::Failed as u8));
    }
    // Named where there is none: behind another request's back, on the other lane, by the socket.
    assert_eq!(hands.call(1, head(1, one.len()), Ok(&one)), Some(Status::Failed as u8));
    assert_eq!(hands.call(2, head(1, one.len()), Ok(&one)), Some(Status::Failed as u8));
    let mut hands = hands;
    assert!(matches!(hands.raw.call(Call::Commit, &one), Answer::Failed(_)));
    // Brought and not named; brought for an object that is not there; larger than any room.
    let none = commit(&[], &[]);
    assert_eq!(call(&hands, Call::Commit, &none, len as u32), Some(Status::Done as u8));
    let gone = Op::ValueSet { object: 1 << 40, value: behind(0, 1_024) };
    assert_eq!(call(&hands, Call::Commit, &commit(&[], &[gone]), 1_024), Some(Status::Failed as u8));
    assert_eq!(hands.call(1, head(1, one.len()), Ok(&one)), Some(Status::Failed as u8));
    // An upload with such a number is none.
    hands.raw.upload(1 << 63 | len as u64, UploadHead { prefix: 16, len: 100, handles: 0 }, &[1; 100]);
    assert_eq!(hands.call(1, head(1, one.len()), Ok(&one)), Some(Status::Failed as u8));
    drop(hands);
    // (Logic without a mark.)
    for code in [Call::RunCommit, Call::Part, Call::Ticket, Call::Create] {
        let hands = Hands::new(&scene);
        hands.lanes.back_room(0..LANE_ROOM_BYTES).unwrap();
        assert_eq!(call(&hands, code, &one, len as u32), None, "{code:?}");
    }
    // Holes are zeros, which are an archive or none: who reads it is told.
    let hands = Hands::new(&scene);
    assert_eq!(call(&hands, Call::Commit, &one, LANE_ROOM_BYTES as u32), Some(Status::Done as u8));
    let _ = dict.get(2).map(|value| value.map(|value| value.len()));
    dict.insert(2, vec![]).unwrap();
    scene.step();
    assert!(dict.get(3).unwrap().is_none() && dict.get(4).unwrap().is_none());
    drop(hands);
    let until = patience();
    while blocks() != before {
        assert!(Instant::now() < until, "something of it is left");
        std::thread::yield_now();
    }
    drop((dict, list));
    scene.end();
}

/// Requests are changed while they are read: nothing that is checked may be something else when it is used.
#[test]
fn scribbling_at_any_moment() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let texts: Dict<u64, Vec<u8>> = scene.manager.dict([(2u64, vec![1u8])]).unwrap();
    let good = insert(dict.id(), 2);
    let behind = Payload { source: Source::behind(PlaceBehind::new(0, 3_000).unwrap()), handles: Words::new(&[]).unwrap() };
    let set = Op::Insert { object: texts.id(), key: &2u64.to_le_bytes(), value: behind, only_if_absent: false, lend: true };
    let with_value = commit(&[], &[set]);
    let mut choices = Choices(11);
    let (mut answered, mut ended) = (0, 0);
    for round in 0..cases(60) {
        let hands = Hands::new(&scene);
        let segment = Segment::map(&hands.raw.fds[2], SEGMENT_BYTES, Access::ReadWrite).unwrap();
        hands.lanes.back_room(0..64 << 10).unwrap();
        let stop = AtomicBool::new(false);
        let seed = choices.below(1 << 30);
        std::thread::scope(|scope| {
            let scribbler = scope.spawn(|| {
                let mut choices = Choices(seed + 1);
                while !stop.load(Ordering::Relaxed) {
                    // Of the first two slots in use: the request, the reply, the words; now and then the doorbells, and the value in the room.
                    let word = match choices.below(50) {
                        0 => choices.below(9),
                        40.. => ROOM / 8 + choices.below(400),
                        1..20 => (8192 + 2048) / 8 + choices.below(32),
                        20..30 => 8192 / 8 + choices.below(512),
                        _ => 12_288 / 8 + choices.below(512),
                    };
                    let old = segment.word(8 * word as usize).load(Ordering::Relaxed);
                    let new = match choices.below(3) {
                        0 => old ^ (1 << choices.below(64)),
                        1 => choices.below(1 << 30),
                        _ => old,
                    };
                    segment.word(8 * word as usize).store(new, Ordering::Relaxed);
                }
            });
            for at in 0..200 {
                let lane = 1 + (at % 2) as u16;
                let (_, posted) = match at % 3 {
                    0 => hands.lanes.post_with(lane, head(1, with_value.len()), Some(&with_value), (ROOM, 3_000)),
                    _ => hands.lanes.post(lane, head(1, good.len()), Ok(&good)),
                };
                if hands.raw.channel.send(&Head { len: 0, code: Call::Ring as u8, quiet: true, lane, number: 0 }.to_bytes()).is_err() {
                    break;
                }
                answered += u32::from(matches!(posted, Posted::Seen { .. }));
            }
            if round % 8 == 0 {
                scene.step();
            }
            stop.store(true, Ordering::Relaxed);
            scribbler.join().unwrap();
        });
        ended += u32::from(hands.raw.channel.send(&[0]).is_err());
    }
    println!("{answered} posts under the manager's eyes, {ended} sessions ended");
    // Whatever is there, who reads it reads that, or is told what it is not.
    let _ = texts.get(2).map(|text| text.map(|text| text.len()));
    scene.step();
    drop((dict, texts));
    scene.end();
}

/// Every bit of the doorbells, all the time, and every lane's request good: the others have their turn.
#[test]
fn a_flood_on_all_lanes() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let good = insert(dict.id(), 3);
    let hands = Hands::new(&scene);
    for lane in 1..LANES as u16 {
        hands.post(lane, head(1, good.len()), Ok(&good));
    }
    let segment = Segment::map(&hands.raw.fds[2], SEGMENT_BYTES, Access::ReadWrite).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                (0..8).for_each(|word| segment.word(8 * word).store(u64::MAX, Ordering::Relaxed));
                let _ = hands.raw.channel.send(&Head { len: 0, code: Call::Ring as u8, quiet: true, lane: 0, number: 0 }.to_bytes());
                std::thread::yield_now();
            }
        });
        for _ in 0..20 {
            scene.step();
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop((segment, hands, dict));
    scene.end();
}

/// Who looks for its answers is never woken, and the manager not while it watches: each wake-up is one that a side has asked for.
#[test]
fn who_looks_is_woken_by_nobody() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let good = insert(dict.id(), 4);
    let mut hands = Hands::new(&scene);
    assert!(hands.lanes.is_free(1));
    let before = scene.manager.stats().unwrap();
    let mut rung = 0;
    for _ in 0..1_000 {
        let (_, posted) = hands.lanes.post(1, head(1, good.len()), Ok(&good));
        if posted == Posted::Unseen {
            hands.raw.request(Call::Ring as u8, 1, 0, &[]);
            rung += 1;
        }
        let until = patience();
        while !hands.lanes.is_free(1) {
            assert!(Instant::now() < until, "no answer");
            std::thread::yield_now();
        }
    }
    // Behind its rings.
    assert!(matches!(hands.raw.call(Call::Names, &[]), Answer::Done(_)));
    let after = scene.manager.stats().unwrap();
    assert_eq!(after.lane_calls - before.lane_calls, 1_000);
    assert_eq!((after.lane_rings - before.lane_rings, after.lane_wakeups - before.lane_wakeups), (rung, 0));
    drop((hands, dict));
    scene.end();
}

/// Who does not read its answers is not served, by neither road, until it has read them; nobody else waits for that.
#[test]
fn a_post_of_who_does_not_read() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let good = insert(dict.id(), 4);
    let mut hands = Hands::new(&scene);
    for number in 0..2_000 {
        hands.raw.publish(&format!("{number:0>200}"), dict.id());
    }
    // One turn: look at the doorbells, and more answers than may wait for being read.
    let (mark, _) = hands.lanes.post(1, head(1, good.len()), Ok(&good));
    let names: Vec<u8> = (0..8).flat_map(|number| frame(Call::Names as u8, 1, number, &[])).collect();
    hands.raw.send(&[frame(Call::Ring as u8, 1, 0, &[]), names].concat());
    for _ in 0..5 {
        // By the sockets, too.
        drop(Raw::connect(&scene.manager));
        scene.step();
    }
    assert!(!hands.lanes.is_free(1), "served, though its answers are unread");
    (0..8).for_each(|_| assert!(matches!(hands.raw.answer(), Answer::Done(_))));
    let waited = hands.lanes.wait(1, mark, &ALIVE, Some(&mut Spin::new())).unwrap();
    assert_eq!((waited, hands.lanes.reply_head(1).code), (Waited::Answered, Status::Done as u8));
    for number in 0..2_000 {
        assert!(matches!(hands.raw.call(Call::Unpublish, format!("{number:0>200}").as_bytes()), Answer::Done(_)));
    }
    drop((hands, dict));
    scene.end();
}

/// Bits of lanes that nobody can have, all the time: they are no work, and keep nobody from the sockets.
#[test]
fn a_flood_on_lanes_that_are_none() {
    let scene = Scene::new();
    let hands = Hands::new(&scene);
    let segment = Segment::map(&hands.raw.fds[2], SEGMENT_BYTES, Access::ReadWrite).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            hands.raw.request(Call::Ring as u8, 1, 0, &[]);
            while !stop.load(Ordering::Relaxed) {
                (0..1_000).for_each(|_| segment.word(0).store(1, Ordering::Relaxed));
                segment.word(56).store(1 << 63, Ordering::Relaxed);
            }
        });
        for _ in 0..10 {
            drop(Raw::connect(&scene.manager));
            scene.step();
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop((segment, hands));
    scene.end();
}
