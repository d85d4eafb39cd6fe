//! Tests of lanes, both sides in one process.
use super::*;
use crate::liveness::AliveKeeper;
use crate::map::ArenaWriter;
use crate::socket::Spin;
use crate::sys::{self, LARGE_PAGE_BYTES, Pace};
use crate::wire::behind::PlaceBehind;
use crate::wire::{Call, Head};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

fn both() -> (ServedLanes, CallingLanes) {
    let served = ServedLanes::make().unwrap();
    let calling = CallingLanes::map(std::os::fd::AsFd::as_fd(&served).try_clone_to_owned().unwrap()).unwrap();
    (served, calling)
}

fn head(len: usize) -> Head {
    Head { len: len as u32, code: Call::Commit as u8, quiet: true, lane: 0, number: 7 }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&head(payload.len()).to_bytes()[..], payload].concat()
}

/// Takes the bits of the doorbells.
fn rung(served: &mut ServedLanes) -> [u64; DOORBELL_WORDS] {
    let mut rung = [0; DOORBELL_WORDS];
    served.take_rung(|at, bits| rung[at] |= bits);
    rung
}

/// Gives an answer; whether it fitted.
fn answer(served: &ServedLanes, lane: u16, mark: u32, reply: &[u8]) -> bool {
    served.answer(lane, mark, reply).fits
}

#[test]
fn both_sides_know_whether_they_share_a_processor() {
    std::thread::spawn(|| {
        let cpu = crate::sys::own_cpus()[0];
        crate::sys::run_on(&[cpu]).unwrap();
        let (mut served, calling) = both();
        let post = |served: &ServedLanes, lane| calling.post(lane, head(0), Ok(&[])).1 == Posted::Seen { here: true } && served.is_rung();
        assert!(calling.is_free(1) && calling.is_free(2));
        served.watch(cpu);
        assert!(post(&served, 1));
        served.watch(cpu + 1);
        assert!(!post(&served, 2));
        rung(&mut served);
        assert_eq!([served.request(1).unwrap().cpu, served.request(2).unwrap().cpu], [cpu, cpu]);
    })
    .join()
    .unwrap();
}

#[test]
fn a_call_there_and_back_at_every_length() {
    let (mut served, calling) = both();
    served.watch(u32::MAX);
    let alive = AtomicU32::new(1);
    let bytes: Vec<u8> = (0..4096).map(|at| at as u8).collect();
    let lengths = (0..70).chain([IN_PLACE_BYTES - 9, IN_PLACE_BYTES - 1, IN_PLACE_BYTES]);
    for (count, len) in lengths.enumerate() {
        let lane = [1, 63, 64, 510][count % 4];
        assert!(calling.is_free(lane));
        let (mark, posted) = calling.post(lane, head(len), Ok(&bytes[..len]));
        assert_eq!(posted, Posted::Seen { here: false });
        assert!(!calling.is_free(lane), "in quarantine until it is answered");
        assert!(served.is_rung());
        let rung = rung(&mut served);
        assert_eq!(rung.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        assert_eq!(rung[usize::from(lane / 64)], 1 << (lane % 64));
        let request = served.request(lane).unwrap();
        assert_eq!((request.head, request.mark), (Head { lane, ..head(len) }, mark));
        // A buffer that something else has been in keeps what the request does not fill.
        let mut buffer = vec![0xee; 64 * (count % 4)];
        assert_eq!(served.copy_payload(&request, usize::MAX, &mut buffer), Some(&bytes[..len]));
        let reply_len = len.min(REPLY_BYTES - HEAD_BYTES);
        assert!(answer(&served, lane, mark, &frame(&bytes[..reply_len])));
        assert_eq!(calling.wait(lane, mark, &alive, Some(&mut Spin::new())).unwrap(), Waited::Answered);
        let mut reply = vec![0; reply_len];
        calling.copy_reply(lane, &mut reply);
        assert_eq!((calling.reply_head(lane), &reply[..]), (head(reply_len), &bytes[..reply_len]));
        assert!(calling.is_free(lane));
    }
    assert!(!served.is_rung());
}

#[test]
fn large_payloads_go_through_the_room() {
    let (served, calling) = both();
    let bytes: Vec<u8> = (0..LANE_ROOM_BYTES).map(|at| (at % 251) as u8).collect();
    calling.back_room(0..LANE_ROOM_BYTES).unwrap();
    calling.write_room(0, &bytes);
    assert!(calling.is_free(3));
    for (offset, len) in [(0, LANE_ROOM_BYTES), (4096, 5000), (LANE_ROOM_BYTES - 10, 10), (LANE_ROOM_BYTES - 1, 0)] {
        calling.post(3, head(len as usize), Err(ROOM + offset));
        let request = served.request(3).unwrap();
        let mut buffer = Vec::new();
        let expected = &bytes[offset as usize..(offset + len) as usize];
        assert_eq!(served.copy_payload(&request, usize::MAX, &mut buffer), Some(expected));
        assert_eq!(served.copy_payload(&request, 16, &mut buffer), Some(&expected[..expected.len().min(16)]));
    }
    calling.punch_room(0..LANE_ROOM_BYTES);
}

#[test]
fn a_room_in_a_large_page_has_what_was_there() {
    let (served, calling) = both();
    let bytes: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
    calling.back_room(0..500_000).unwrap();
    calling.write_room(777, &bytes[..100_000]);
    // Refused where the kernel has none, or where somebody looks at a page just then: nothing is lost then, either.
    let is_large = (0..20).any(|_| calling.enlarge_page(&Pace::new(true)));
    let memory = 512 * rustix::fs::fstat(&served).unwrap().st_blocks as u64;
    assert!(!is_large || memory >= LARGE_PAGE_BYTES, "{memory} bytes");
    calling.stream_into_room(100_777, &bytes[100_000..]);
    assert!(calling.is_free(3));
    calling.post(3, head(bytes.len()), Err(ROOM + 777));
    let mut buffer = Vec::new();
    assert_eq!(served.copy_payload(&served.request(3).unwrap(), usize::MAX, &mut buffer), Some(&bytes[..]));
}

#[test]
fn nothing_is_lost_while_pages_are_put_together_and_apart() {
    let (served, calling) = both();
    calling.back_room(0..LARGE_PAGE_BYTES).unwrap();
    assert!(calling.is_free(3));
    let (half, together, is_over) = (LARGE_PAGE_BYTES / 2, AtomicU32::new(0), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                together.fetch_add(calling.enlarge_page(&Pace::new(true)).into(), Ordering::Relaxed);
                calling.punch_room(half..LARGE_PAGE_BYTES);
            }
        });
        let mut buffer = Vec::new();
        // Many times, if the kernel makes any.
        let mut rounds = (0..20_000u64).take_while(|_| together.load(Ordering::Relaxed) < 50);
        let wrong = rounds.find(|round| {
            let bytes: Vec<u8> = (0..20_000 + round % 1_000).map(|at| (at * (round + 1)) as u8).collect();
            let place = round * 4099 % (half - 21_000);
            if round % 2 == 0 {
                calling.stream_into_room(place, &bytes)
            } else {
                calling.write_room(place, &bytes)
            }
            calling.post(3, head(bytes.len()), Err(ROOM + place));
            let request = served.request(3);
            request.is_none_or(|request| served.copy_payload(&request, usize::MAX, &mut buffer) != Some(&bytes[..]))
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
}

#[test]
fn requests_that_reach_out_of_the_segment_are_none() {
    let (served, calling) = both();
    assert!(calling.is_free(1));
    let long = IN_PLACE_BYTES + 1;
    for (len, place) in [
        (0, 8),
        (0, ROOM - 8),
        (0, SEGMENT_BYTES),
        (1, u64::MAX),
        (LANE_ROOM_BYTES as usize + 1, ROOM),
        (2, SEGMENT_BYTES - 1),
        (u32::MAX as usize, ROOM),
    ] {
        calling.post(1, head(len), Err(place));
        assert_eq!(served.request(1), None, "{len} bytes at {place}");
    }
    calling.post(1, head(long), Ok(&[]));
    assert_eq!(served.request(1), None, "longer than a slot");
    calling.post(1, head(0), Ok(&[]));
    assert!(served.request(1).is_some());
}

#[test]
fn a_value_goes_behind_its_request_from_the_room_into_its_block() {
    let (served, calling) = both();
    let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", 1 << 20).unwrap(), 1 << 20).unwrap();
    arena.back(0..1 << 20).unwrap();
    let bytes: Vec<u8> = (0..LANE_ROOM_BYTES).map(|at| (at % 251) as u8).collect();
    calling.back_room(0..LANE_ROOM_BYTES).unwrap();
    calling.write_room(0, &bytes);
    assert!(calling.is_free(3));
    let (mut buffer, small) = (Vec::new(), [0xa5; IN_PLACE_BYTES]);
    // At the room's beginning, anywhere, and up to its last byte; the request in its slot, up to all of that, or following the value.
    for (at, len) in [(0u64, 1_024u32), (777, 65_536), (LANE_ROOM_BYTES - 5_000, 2_000)] {
        for request_len in [0, 70, IN_PLACE_BYTES, IN_PLACE_BYTES + 1, 3_000] {
            let in_slot = (request_len <= IN_PLACE_BYTES).then(|| &small[..request_len]);
            let (mark, _) = calling.post_with(3, head(request_len), in_slot, (ROOM + at, len));
            let request = served.request(3).unwrap();
            assert_eq!((request.head, request.mark, request.values_len), (Head { lane: 3, ..head(request_len) }, mark, len));
            let end = at as usize + len as usize;
            let expected = in_slot.unwrap_or_else(|| &bytes[end..end + request_len]);
            assert_eq!(served.copy_payload(&request, usize::MAX, &mut buffer), Some(expected));
            let mut values = served.values_behind(&request).unwrap();
            arena.zero(4096, 70_000);
            assert!(values.copy_to_arena(PlaceBehind::new(0, len as usize).unwrap(), &arena, 4096 + 24));
            let reader = arena.reader();
            assert_eq!(reader.bytes(4096 + 24, len.into()), &bytes[at as usize..end]);
            assert_eq!((reader.word(4096 + 16), reader.bytes(4096 + 24 + u64::from(len), 1)), (0, &[0][..]), "no more than that");
            assert!(answer(&served, 3, mark, &frame(&[])));
        }
    }
    calling.post(3, head(0), Ok(&[]));
    assert!(served.values_behind(&served.request(3).unwrap()).is_none());
    // None of these is a request.
    let long = IN_PLACE_BYTES + 1;
    let beyond = [
        (0, 8, 1),
        (0, ROOM - 1, 1),
        (0, ROOM - 8, 16),
        (0, SEGMENT_BYTES, 1),
        (0, SEGMENT_BYTES - 1, 2),
        (0, ROOM, LANE_ROOM_BYTES as u32 + 1),
        (0, u32::MAX.into(), u32::MAX),
        (0, 0, u32::MAX),
        (long, 0, 1),
        (long, 0, ROOM as u32),
        (long, ROOM - 8, 16),
        (long, SEGMENT_BYTES - long as u64, 1),
        (u32::MAX as usize, ROOM, 1),
        (u32::MAX as usize, u32::MAX.into(), u32::MAX),
    ];
    for (request_len, place, len) in beyond {
        calling.post_with(3, head(request_len), None, (place, len));
        assert_eq!(served.request(3), None, "{request_len} bytes, a value of {len} at {place}");
    }
    calling.punch_room(0..LANE_ROOM_BYTES);
}

#[test]
fn values_behind_a_request_are_copied_in_their_order_and_each_byte_once() {
    let (served, calling) = both();
    let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", 1 << 20).unwrap(), 1 << 20).unwrap();
    arena.back(0..1 << 20).unwrap();
    calling.back_room(0..64 << 10).unwrap();
    let bytes: Vec<u8> = (0..30_000u16).map(|at| (at / 100 + at) as u8).collect();
    calling.write_room(100, &bytes);
    assert!(calling.is_free(3));
    calling.post_with(3, head(8), Some(&[0; 8]), (ROOM + 100, 30_000));
    let mut values = served.values_behind(&served.request(3).unwrap()).unwrap();
    let place = |at, len| PlaceBehind::new(at, len).unwrap();
    let copied = |values: &mut ValuesBehind, at: usize, len: usize| {
        arena.zero(4096, 32_768);
        let copied = values.copy_to_arena(place(at, len), &arena, 4096);
        let expected = if copied { &bytes[at..at + len] } else { &[0; 30_000][..len.min(30_000)] };
        assert!(arena.reader().bytes(4096, expected.len() as u64) == expected, "{len} bytes at {at}");
        copied
    };
    for (at, len, is_copied) in [
        (0, 10_000, true),
        (0, 1_024, false),
        (8_977, 1_024, false),
        (10_000, 1_024, true),
        // What is passed over is gone, too.
        (15_000, 5_000, true),
        (12_000, 1_024, false),
        (19_999, 2_000, false),
    ] {
        assert_eq!((values.has(place(at, len)), copied(&mut values, at, len)), (is_copied, is_copied), "{len} bytes at {at}");
    }
    // The next commit, and the same again: what the one before has used stays used.
    values.begin();
    assert!(copied(&mut values, 20_000, 5_000) && copied(&mut values, 26_000, 4_000) && !values.has(place(20_000, 2_000)));
    values.begin_again();
    assert!(!values.has(place(19_999, 2_000)) && copied(&mut values, 20_000, 5_000) && copied(&mut values, 26_000, 4_000));
    values.begin_again();
    assert!(!values.has(place(28_977, 1_024)) && copied(&mut values, 28_976, 1_024));
    // Beyond its values a request has none, whatever stands in the room.
    assert!(!copied(&mut values, 30_000, 1_024) && !copied(&mut values, (1 << 31) - 1, u32::MAX as usize));
    calling.punch_room(0..64 << 10);
}

#[test]
fn what_does_not_fit_is_announced() {
    let (served, calling) = both();
    assert!(calling.is_free(1));
    let (mark, posted) = calling.post(1, head(0), Ok(&[]));
    assert_eq!(posted, Posted::Unseen);
    assert!(!answer(&served, 1, mark, &frame(&[0; REPLY_BYTES])));
    assert_eq!(calling.reply_head(1).code, BY_SOCKET);
}

#[test]
fn sleepers_wake_by_an_answer_and_by_the_end() {
    for ends in [false, true] {
        let (mut served, calling) = both();
        let calling = Arc::new(calling);
        let alive = Arc::new([AtomicU32::new(0)]);
        struct Word(Arc<[AtomicU32; 1]>);
        impl AsRef<AtomicU32> for Word {
            fn as_ref(&self) -> &AtomicU32 {
                &self.0[0]
            }
        }
        let keeper = AliveKeeper::start(Word(alive.clone())).unwrap();
        let marks: Vec<u32> = (1..4)
            .map(|lane| {
                assert!(calling.is_free(lane));
                calling.post(lane, head(0), Ok(&[])).0
            })
            .collect();
        let callers: Vec<_> = (1..4)
            .zip(marks.clone())
            .map(|(lane, mark)| {
                let (calling, alive) = (calling.clone(), alive.clone());
                std::thread::spawn(move || calling.wait(lane, mark, &alive[0], Some(&mut Spin::new())).unwrap())
            })
            .collect();
        let asleep = |lane| served.segment.half(slot(lane) + SLEEPING).load(Ordering::Relaxed) == 1;
        while !(1..4).all(asleep) {
            std::thread::yield_now();
        }
        if ends {
            served.end();
            assert_eq!(calling.post(9, head(0), Ok(&[])).1, Posted::Over);
        } else {
            (1..4).zip(marks).for_each(|(lane, mark)| assert!(answer(&served, lane, mark, &frame(&[]))));
        }
        let expected = if ends { Waited::Over } else { Waited::Answered };
        callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), expected));
        drop(keeper);
    }
}

#[test]
fn a_dead_manager_answers_nobody() {
    let (_served, calling) = both();
    assert!(calling.is_free(1));
    let (mark, _) = calling.post(1, head(0), Ok(&[]));
    assert_eq!(calling.wait(1, mark, &AtomicU32::new(0xC000_0000), Some(&mut Spin::new())).unwrap(), Waited::Over);
    assert!(!calling.is_free(1), "in quarantine");
}

#[test]
fn stray_bits_are_ignored() {
    let (mut served, _calling) = both();
    words(&served.segment, 0, DOORBELL_WORDS).iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    let rung = rung(&mut served);
    assert_eq!(rung.iter().map(|word| word.count_ones()).sum::<u32>() as usize, LANES - 1);
    assert_eq!((rung[0] & 1, rung[DOORBELL_WORDS - 1] >> (LANES % 64)), (0, 0));
    for lane in 1..LANES as u16 {
        assert_eq!(served.request(lane), None, "a mark of 0 is none");
    }
}

#[test]
fn bytes_of_every_length_go_through_words() {
    let words: Vec<AtomicU64> = (0..12).map(|_| AtomicU64::new(0)).collect();
    for len in 0..=90 {
        let bytes: Vec<u8> = (0..len).map(|byte| byte as u8 ^ len as u8).collect();
        super::store_bytes(&words, &bytes);
        let mut read = vec![0; len];
        super::load_bytes(&words, &mut read);
        assert_eq!(read, bytes);
    }
}
