//! Frames that are cut, too long, or say what cannot be.

use super::*;
use commonhold_ipc::limits::LUGGAGE_MAX;

/// A conversation that uses most calls: what is cut short at every byte.
fn conversation(dict: u64, list: u64) -> Vec<u8> {
    let mut new = Vec::new();
    NewObject { kind: Kind::List as u8, value_align: 0, element_bytes: 8, fingerprint: 1, text: "List<u64>", parameters: Words::default() }
        .write(&mut new);
    let value = Payload::inline(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let insert = Op::Insert { object: dict, key: &[9; 8], value, only_if_absent: false, lend: true };
    let splice = Op::ListSplice { object: list, position: END, remove: 0, values: Values::Each(1, &[0, 2, 0, 0, 0, 7, 7, 0, 0, 0, 0]) };
    let sent = Payload { source: Source::Upload(5), handles: Words::new(&[]).unwrap() };
    let upload = UploadHead { prefix: 16, len: 100, handles: 0 };
    [
        frame(Call::Create as u8, 1, 1, &new),
        frame(Call::Retain as u8, 1, 2, &dict.to_le_bytes()),
        frame(Call::Commit as u8, 1, 3, &commit(&[], &[insert, splice])),
        frame(Call::Upload as u8, 0, 5, &[&upload.to_bytes()[..], &[3; 100]].concat()),
        frame(Call::Commit as u8, 1, 4, &commit(&[], &[Op::ListSet { object: list, position: 0, value: sent, lend: true }])),
        frame(Call::Publish as u8, 1, 5, &[&list.to_le_bytes()[..], b"\x01raw"].concat()),
        frame(Call::Lookup as u8, 1, 6, b"raw"),
        frame(Call::Unpublish as u8, 1, 7, b"raw"),
        frame(Call::Arm as u8, 1, 8, &list.to_le_bytes()),
        frame(Call::Commit as u8, 1, 9, &commit(&[], &[Op::ListRemove { object: list, position: END, lend: true }])),
        frame(Call::Commit as u8, 1, 10, &commit(&[], &[Op::Remove { object: dict, key: &[9; 8], lend: true }])),
        frame(Call::Release as u8, 0, 0, &dict.to_le_bytes()),
        frame(Call::Discard as u8, 0, 0, &5u64.to_le_bytes()),
        frame(Call::Names as u8, 1, 11, &[]),
        frame(Call::Ticket as u8, 1, 12, &[]),
        frame(Call::TicketBack as u8, 0, 0, &1u64.to_le_bytes()),
    ]
    .concat()
}

#[test]
fn every_truncation_of_a_conversation() {
    let scene = Scene::new();
    let (dict, list): (Dict<u64, u64>, List<String>) =
        (scene.manager.dict([(1u64, 1u64)]).unwrap(), scene.manager.list(["x".to_string()]).unwrap());
    let whole = conversation(dict.id(), list.id());
    for len in 0..=whole.len() {
        let raw = Raw::connect(&scene.manager);
        raw.send(&whole[..len]);
        drop(raw);
        if len % 16 == 0 {
            scene.step();
        }
    }
    // In small pieces it means the same.
    let mut raw = Raw::connect(&scene.manager);
    for byte in &whole {
        raw.send(&[*byte]);
    }
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(raw.answer());
    }
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Done(_) | Answer::Failed(_))), "{answers:?}");
    drop((raw, dict, list));
    scene.end();
}

fn is_call(code: u8) -> bool {
    Call::from_code(code).is_some()
}

#[test]
fn frames_of_impossible_lengths_and_calls() {
    let scene = Scene::new();
    for len in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        for call in (0..=u8::MAX).filter(|call| is_call(*call) && *call != Call::Upload as u8) {
            let mut raw = Raw::connect(&scene.manager);
            raw.send(&Head { len, code: call, quiet: false, lane: 1, number: 1 }.to_bytes());
            raw.closed();
        }
        scene.step();
    }
    // Those beside a call, and others.
    let is_edge = |call: u8| is_call(call.wrapping_sub(1)) || is_call(call.wrapping_add(1)) || [99, 255].contains(&call);
    for call in (0..=u8::MAX).filter(|call| !is_call(*call) && is_edge(*call)) {
        let mut raw = Raw::connect(&scene.manager);
        raw.request(call, 1, 1, &[]);
        raw.closed();
        scene.step();
    }
    // Payloads that are too short or too long for their call.
    let nothing: &[Call] = &[Call::Commit, Call::Create, Call::Retain, Call::Publish, Call::Arm, Call::Grow];
    for call in nothing {
        for payload in [&[][..], &[0xff; 7], &[0xff; 9], &[0xff; 1000]] {
            let mut raw = Raw::connect(&scene.manager);
            raw.request(*call as u8, 1, 1, payload);
            if !matches!((call, raw.answer()), (Call::Publish, Answer::Failed(_)) | (_, Answer::Closed)) {
                panic!("{call:?} with {payload:?} was answered");
            }
        }
        scene.step();
    }
    for call in [Call::Release, Call::Discard, Call::Ring, Call::Forget] {
        let mut raw = Raw::connect(&scene.manager);
        raw.request(call as u8, 1, 1, &[1; 7]);
        raw.closed();
    }
    scene.end();
}

#[test]
fn operations_on_the_wrong_objects() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let (dict, list): (Dict<u64, u64>, List<u64>) = (manager.dict([(1u64, 1u64)]).unwrap(), manager.list([1u64]).unwrap());
    let (value, counter, space) = (manager.value(1u8).unwrap(), manager.counter(1).unwrap(), manager.namespace().unwrap());
    let dead = {
        let gone = manager.counter(1).unwrap();
        gone.id()
    };
    let mut raw = Raw::connect(manager);
    let ids = [dict.id(), list.id(), value.id(), counter.id(), space.id(), dead, 0, 1 << 28, u64::MAX];
    let payload = Payload::inline(&[1; 8]);
    let unknown = Payload { source: Source::Upload(77), handles: Words::new(&[]).unwrap() };
    let holding = [u64::MAX.to_le_bytes(), dead.to_le_bytes()].concat();
    let holding = Payload { source: Source::Inline(&[1; 8]), handles: Words::new(&holding).unwrap() };
    let big_key = vec![7; (1 << 20) + 1];
    let far = [u64::MAX - 1, END, 1, 2, 1 << 40];
    let mut answered = 0;
    for object in ids {
        let mut ops = vec![
            Op::Clear { object },
            Op::ListReverse { object },
            Op::CounterAdd { object, delta: i64::MAX },
            Op::CounterAdd { object, delta: i64::MIN },
            Op::Remove { object, key: &[], lend: true },
            Op::Add { object, key: &[], number: 255, delta: &[1; 300] },
            Op::Add { object, key: &[1, 0, 0, 0, 0, 0, 0, 0], number: 3, delta: &[] },
            Op::Add { object, key: &[1, 0, 0, 0, 0, 0, 0, 0], number: 5, delta: &[1; 16] },
            Op::Insert { object, key: &big_key, value: payload, only_if_absent: false, lend: true },
            Op::ListPermute { object, from: Words::new(&[]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0xff; 8]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0; 16]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0; 80]).unwrap() },
        ];
        for value in [payload, unknown, holding] {
            ops.push(Op::ValueSet { object, value });
            ops.push(Op::Insert { object, key: &[], value, only_if_absent: false, lend: true });
            ops.push(Op::ListSet { object, position: 0, value, lend: true });
        }
        for position in far {
            ops.push(Op::ListRemove { object, position, lend: true });
            ops.push(Op::ListSwap { object, a: position, b: 0 });
            ops.push(Op::ListSet { object, position, value: payload, lend: true });
            ops.push(Op::ListSplice { object, position, remove: u64::MAX, values: Values::Packed(&[1; 7]) });
            ops.push(Op::ListSplice { object, position, remove: u64::MAX, values: Values::Packed(&[]) });
            ops.push(Op::ListSplice { object, position, remove: 0, values: Values::Each(0, &[]) });
        }
        for op in &ops {
            assert!(!matches!(raw.commit(&[*op]), Answer::Closed), "{op:?}");
            // After one that changes something and before one that fails: all or nothing.
            raw.commit(&[Op::Clear { object: list.id() }, *op, Op::Clear { object: dead }]);
            answered += 1;
        }
        for condition in [
            Condition::EntryIs { object, key: &[], block: 1 },
            Condition::Unmodified { object, modified: u64::MAX },
            Condition::ElementIs { object, position: u64::MAX, block: 1 },
            Condition::ElementBytes { object, position: END, bytes: &[] },
            Condition::LenIs { object, len: u64::MAX },
            Condition::RootIs { object, root: u64::MAX },
        ] {
            assert!(matches!(raw.conditional(&[condition], &[]), Answer::Conflict), "{condition:?}");
        }
        scene.step();
    }
    assert!(answered > 300);
    for call in [Call::Retain, Call::Arm] {
        assert!(!matches!(raw.call(call, &u64::MAX.to_le_bytes()), Answer::Closed));
    }
    // Lets go what it never held.
    raw.request(Call::Release as u8, 0, 0, &[list.id().to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    scene.step();
    assert!(list.is_empty().is_ok() && dict.len().is_ok());
    drop((raw, dict, list, value, counter, space));
    scene.end();
}

#[test]
fn counts_that_are_not_there() {
    let scene = Scene::new();
    let object = scene.list.id();
    let values = |count: u32| {
        let mut bytes = Vec::new();
        Op::ListSplice { object, position: END, remove: 0, values: Values::Each(count, &[0; 9]) }.write(&mut bytes);
        bytes
    };
    let payloads = [
        [u32::MAX.to_le_bytes(), 0u32.to_le_bytes()].concat(),
        [0u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(),
        [&0u32.to_le_bytes()[..], &1u32.to_le_bytes(), &values(u32::MAX)].concat(),
        [&0u32.to_le_bytes()[..], &1u32.to_le_bytes(), &values(0)].concat(),
        [&0u32.to_le_bytes()[..], &2u32.to_le_bytes(), &values(1)].concat(),
        [&0u32.to_le_bytes()[..], &0u32.to_le_bytes(), &values(1)].concat(),
    ];
    for payload in payloads {
        let mut raw = Raw::connect(&scene.manager);
        assert!(matches!(raw.call(Call::Commit, &payload), Answer::Closed), "{payload:?}");
        scene.step();
    }
    scene.end();
}

#[test]
fn uploads_that_never_come_or_fit() {
    let scene = Scene::new();
    let list: List<Vec<u8>> = scene.manager.list([vec![1u8]]).unwrap();
    let dict: Dict<u64, Vec<u8>> = scene.manager.dict([(1u64, vec![1u8])]).unwrap();
    let sent = |number| Payload { source: Source::Upload(number), handles: Words::new(&[]).unwrap() };
    let of = |prefix, len| UploadHead { prefix, len, handles: 0 };
    // Announced and not sent, or not all of it.
    for share in [0, 1, 100_000] {
        let raw = Raw::connect(&scene.manager);
        raw.upload(1, of(16, 1 << 20), &vec![1; share]);
        scene.step();
        drop(raw);
    }
    let mut raw = Raw::connect(&scene.manager);
    // Wrong room before it, the same number twice in one commit, in two commits, for two kinds of things.
    raw.upload(1, of(0, 100), &[1; 100]);
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(1), lend: true }]), Answer::Failed(_)));
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(1), lend: true }]), Answer::Failed(_)));
    for twice in 0..3 {
        raw.upload(2, of(16, 100), &[1; 100]);
        let set = Op::ListSet { object: list.id(), position: 0, value: sent(2), lend: true };
        let insert = Op::Insert { object: dict.id(), key: &[2; 8], value: sent(2), only_if_absent: twice == 1, lend: true };
        let ops = if twice == 2 { [insert, set] } else { [set, insert] };
        assert!(matches!(raw.commit(&ops), Answer::Failed(_)));
        scene.step();
        scene.manager.audit().unwrap();
    }
    // The same number again before it is used; discarded; discarded while unknown.
    raw.upload(3, of(16, 100_000), &[1; 100_000]);
    raw.upload(3, of(16, 100), &[2; 100]);
    raw.request(Call::Discard as u8, 0, 0, &[4u64.to_le_bytes(), 3u64.to_le_bytes(), 3u64.to_le_bytes()].concat());
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(3), lend: true }]), Answer::Failed(_)));
    // Empty, and more of them than a session may have.
    raw.upload(5, of(16, 0), &[]);
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(5), lend: false }]), Answer::Done(_)));
    for number in 100..100 + 4096 + 10 {
        raw.upload(number, of(16, 10), &[1; 10]);
    }
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(100), lend: false }]), Answer::Done(_)));
    let last = raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(4200), lend: false }]);
    assert!(matches!(last, Answer::Failed(ErrorKind::Full)), "{last:?}");
    raw.was_told(ErrorKind::Full, "more than 4096 large values in one request: send fewer at a time");
    scene.manager.audit().unwrap();
    // More handles behind it than it was announced with, and heads that contradict themselves.
    let handles = [scene.list.id().to_le_bytes(); 100].concat();
    raw.upload(7, of(16, 10), &[1; 10]);
    let value = Payload { source: Source::Upload(7), handles: Words::new(&handles).unwrap() };
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value, lend: false }]), Answer::Failed(_)));
    for head in [of(u64::from(u32::MAX), 10), UploadHead { prefix: 16, len: 10, handles: u32::MAX }, of((1 << 20) + 65, 10)] {
        raw.upload(8, head, &[1; 10]);
        assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(8), lend: false }]), Answer::Failed(_)));
    }
    // Larger than the manager may have: thrown away as it comes.
    let mut huge = Raw::connect(&scene.manager);
    huge.upload(1, of(16, 1 << 30), &vec![1; 1 << 20]);
    scene.step();
    drop(huge);
    huge = Raw::connect(&scene.manager);
    huge.send(&Head { len: 50, code: Call::Upload as u8, quiet: false, lane: 0, number: 1 }.to_bytes());
    huge.send(&of(16, 10_000).to_bytes());
    huge.closed();
    drop((raw, list, dict));
    scene.end();
}

/// Requests that are well-formed, of nonsense; or not even that.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![0..8u64, any::<u64>()];
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let last = (0..=u8::MAX).rfind(|code| is_call(*code)).unwrap();
    let random = (0..=last + 1, any::<u16>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(call, lane, number, payload)| frame(if call == Call::Shutdown as u8 { 1 } else { call }, lane, number, &payload));
    let op = (0..12u8, id, any::<u64>(), bytes.clone(), bytes).prop_map(|(code, object, n, key, value)| {
        let payload = Payload::inline(&value);
        let position = n % 4;
        let whole = value.len() / 8 * 8;
        let from = Words::new(&value[..whole]).unwrap();
        let op = match code {
            0 => Op::Insert { object, key: &key, value: payload, only_if_absent: n % 2 == 0, lend: n % 3 == 0 },
            1 => Op::Remove { object, key: &key, lend: n % 2 == 0 },
            2 => Op::Add { object, key: &key, number: n as u8, delta: &value },
            3 => Op::Clear { object },
            4 => Op::ListSet { object, position, value: payload, lend: n % 2 == 0 },
            5 => Op::ListRemove { object, position, lend: n % 2 == 0 },
            6 => Op::ListSplice { object, position, remove: n, values: Values::Packed(&value) },
            7 => Op::ListSwap { object, a: position, b: n % 3 },
            8 => Op::ListReverse { object },
            9 => Op::ListPermute { object, from },
            10 => Op::ValueSet { object, value: payload },
            _ => Op::CounterAdd { object, delta: n as i64 },
        };
        frame(Call::Commit as u8, 1, n, &commit(&[], &[op, op]))
    });
    let damaged = (op.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, value)| {
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes
    });
    prop_oneof![3 => op, 2 => damaged, 1 => random]
}

/// Frames as one stream, in which a damaged one does not happen to end the manager, as anybody may who is let in.
fn without_shutdown(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = frames.concat();
    let mut at = 0;
    // Head by head, as the manager finds them: a damaged length makes others of what follows.
    while let Some(head) = bytes.get_mut(at..at + HEAD_BYTES) {
        if head[4] == Call::Shutdown as u8 {
            head[4] = Call::Commit as u8;
        }
        at += HEAD_BYTES + u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
    }
    bytes
}

#[test]
fn frames_at_random() {
    let scene = Scene::new();
    let manager = &scene.manager;
    // Objects with low ids to hit, of which the contents are anybody's.
    let (dict, list): (Dict<String, u64>, List<u64>) = (manager.dict([("a".to_string(), 1u64)]).unwrap(), manager.list([1u64, 2]).unwrap());
    let (value, counter) = (manager.value("x".to_string()).unwrap(), manager.counter(1).unwrap());
    let config = ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&proptest::collection::vec(any_frame(), 1..30), |frames| {
            let raw = Raw::connect(manager);
            raw.send(&without_shutdown(&frames));
            raw.channel.shut_down();
            // The client's own containers, by ids 1 and 2, may have been changed: so it looks and writes elsewhere.
            manager.counter(1).unwrap().add(1).unwrap();
            manager.audit().map_err(|error| TestCaseError::fail(error.to_string()))
        })
        .unwrap();
    let _ = (dict.len().unwrap(), list.len().unwrap(), value.get().map(|_| ()), counter.get().unwrap());
    manager.audit().unwrap();
    assert!(thread_manager().audit().is_ok());
}

/// Entrusts an object of the peer's, and takes the end that keeps it, or does not. Else the answer.
fn entrusted(raw: &mut Raw, id: u64, takes: bool) -> Result<Option<OwnedFd>, Answer> {
    raw.request(Call::Entrust as u8, 1, 2, &id.to_le_bytes());
    end_of_entrusted(raw, takes)
}

/// What comes of it that was asked for before.
fn end_of_entrusted(raw: &mut Raw, takes: bool) -> Result<Option<OwnedFd>, Answer> {
    let (mut buffer, mut taken) = ([0; 512], Vec::new());
    match raw.channel.receive_before(&mut buffer, &mut taken, usize::from(takes), patience()).unwrap() {
        Received::Bytes(len) => raw.received.extend_from_slice(&buffer[..len]),
        _ => panic!("no answer"),
    }
    match raw.answer() {
        Answer::Done(_) => Ok(taken.pop()),
        other => Err(other),
    }
}

#[test]
fn luggage_beyond_the_most_is_refused() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let id = raw.made::<List<u64>>(Kind::List, 0, 8);
    // Each end is a descriptor, here and in the manager: where a process has fewer, they end before.
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if open < LUGGAGE_MAX as u64 + 200 {
        return;
    }
    let mut ends: Vec<_> = (0..LUGGAGE_MAX).map(|_| entrusted(&mut raw, id, true).unwrap().expect("an end")).collect();
    scene.step();
    let refused = entrusted(&mut raw, id, true);
    assert!(matches!(refused, Err(Answer::Failed(ErrorKind::Full))), "{refused:?}");
    raw.was_told(ErrorKind::Full, "4096 processes were given handles and have not begun, the most there can be: are they stopped?");
    // One that is received makes room for one; the others are there.
    ends.pop();
    let until = patience();
    ends.push(loop {
        match entrusted(&mut raw, id, true) {
            Ok(end) => break end.expect("an end"),
            Err(other) => assert!(matches!(other, Answer::Failed(ErrorKind::Full)) && Instant::now() < until, "{other:?}"),
        }
    });
    scene.step();
    drop((raw, ends));
    scene.end();
}

#[test]
fn role_that_goes_before_it_ends() {
    let Some(address) = task() else { return };
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
    let (channel, welcome, fds) = handshake::connect(&address.parse().unwrap(), &offer, patience()).unwrap();
    let raw = Raw { channel, welcome, fds, received: Vec::new(), refused: None };
    say("here");
    heard();
    drop(raw);
    say("gone");
    heard();
}

#[test]
fn luggage_outlives_whoever_had_its_place_before() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let id = raw.made::<List<u64>>(Kind::List, 0, 8);
    let with_it = scene.manager.stats().unwrap().objects;
    let mut before = Peer::spawn("frames::role_that_goes_before_it_ends", scene.manager.address());
    assert_eq!(before.hear(), "here");
    // The manager hears in one go: its session is over, the luggage is given up, its process has ended.
    let manager = rustix::process::Pid::from_raw(scene.manager.pid() as i32).unwrap();
    stop(manager);
    assert_eq!(before.ask("go"), "gone");
    raw.request(Call::Entrust as u8, 1, 2, &id.to_le_bytes());
    before.finish();
    go_on(manager);
    let end = end_of_entrusted(&mut raw, true).unwrap().expect("an end");
    raw.send(&frame(Call::Release as u8, 0, 0, &id.to_le_bytes()));
    raw.call(Call::Names, &[]);
    assert_eq!(scene.manager.stats().unwrap().objects, with_it, "the luggage keeps it");
    drop((raw, end));
    scene.end();
}

#[test]
fn luggage_that_nobody_holds_or_somebody_talks_to() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let strange = raw.call(Call::Entrust, &scene.dict.id().to_le_bytes());
    assert!(matches!(strange, Answer::Failed(ErrorKind::NotFound)), "it is another session's: {strange:?}");
    let id = raw.made::<List<u64>>(Kind::List, 0, 8);
    let objects = || scene.manager.stats().unwrap().objects;
    let with_it = objects();
    // Its end is closed by who does not take the descriptor, talked to, or shut down though somebody else has it as well.
    for way in 0..3 {
        let end = entrusted(&mut raw, id, way > 0).unwrap().map(|end| (end.try_clone().unwrap(), Channel::from_fd(end).unwrap()));
        if way == 2 {
            // From here on the luggage alone keeps it.
            raw.send(&frame(Call::Release as u8, 0, 0, &id.to_le_bytes()));
            raw.call(Call::Names, &[]);
            assert_eq!(objects(), with_it);
        }
        match (way, &end) {
            (1, Some((_, end))) => drop(end.send(b"hello")),
            (2, Some((_, end))) => end.shut_down(),
            _ => {}
        }
        scene.step();
    }
    let until = patience();
    while objects() == with_it {
        assert!(Instant::now() < until, "it stays");
        std::thread::yield_now();
    }
    raw.send(&frame(Call::Entrust as u8, 1, 1, &[0; 7]));
    raw.closed();
    drop(raw);
    scene.end();
}
