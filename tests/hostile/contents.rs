//! Pages and values that are not what they should be.

use super::*;
use commonhold_ipc::block::LARGE_VALUE_BYTES;
use commonhold_ipc::handshake::OPTION_CHECK_ALWAYS;

#[test]
fn a_page_full_of_nonsense() {
    let scene = Scene::new();
    let mut choices = Choices(0x5eed_0001);
    let mut raw = Raw::connect(&scene.manager);
    let page = raw.page();
    for round in 0..60u64 {
        for word in 0..(PAGE_BYTES / 8) {
            let value = match choices.below(6) {
                0 => 0,
                1 => u64::MAX,
                2 => scene.manager.version() + choices.below(100),
                3 => choices.below(scene.manager.version() + 1),
                _ => choices.below(u64::MAX),
            };
            if round % 4 != 0 || word == round % 2 {
                page.word(word as usize * 8).store(value, Ordering::Relaxed);
            }
        }
        scene.step();
        assert!(matches!(raw.call(Call::Stats, &[]), Answer::Done(_)));
        // Lent values on lanes that are none.
        let op = Op::Insert { object: scene.dict.id(), key: &[9; 8], value: Payload::inline(&[1; 8]), only_if_absent: false, lend: true };
        raw.request(Call::Commit as u8, choices.below(65_536) as u16, u64::MAX - round, &commit(&[], &[op]));
        assert!(matches!(raw.answer(), Answer::Done(_)));
    }
    page.word(0).store(u64::MAX, Ordering::Relaxed);
    page.word(8).store(1, Ordering::Relaxed);
    for _ in 0..2000 {
        scene.step();
    }
    let held = scene.manager.stats().unwrap();
    assert_eq!(held.oldest_pin, Some(1), "its own floor holds what came since");
    drop((raw, page));
    scene.dict.remove(u64::from_le_bytes([9; 8])).unwrap();
    scene.end();
}

/// Frames of the manager's own one-way calls carry the number of the lane that all threads share: they end nothing there.
#[test]
fn what_is_lent_stays_lent_through_one_way_calls() {
    let scene = Scene::new();
    let dict: Dict<u64, Vec<u8>> = scene.manager.dict([(u64::from_le_bytes([9; 8]), vec![1u8; 1000])]).unwrap();
    let mut raw = Raw::connect(&scene.manager);
    let op = Op::Remove { object: dict.id(), key: &[9; 8], lend: true };
    raw.request(Call::Commit as u8, 0, 1, &commit(&[], &[op]));
    let Answer::Done(outcomes) = raw.answer() else { panic!("not removed") };
    assert!(matches!(outcomes[..], [Outcome::Lent(..)]));
    let lent = || scene.manager.stats().unwrap().oldest_pin.is_some();
    assert!(lent());
    for (call, payload) in [(Call::Release, &[][..]), (Call::Discard, &[]), (Call::TicketBack, &[1; 8])] {
        raw.request(call as u8, 0, 0, payload);
        assert!(matches!(raw.call(Call::Names, &[]), Answer::Done(_)), "done with what came before");
        assert!(lent(), "{call:?}");
    }
    raw.request(Call::Names as u8, 0, 2, &[]);
    raw.answer();
    assert!(!lent());
    drop((raw, dict));
    scene.end();
}

#[test]
fn objects_that_are_not_what_they_say() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let mut raw = Raw::connect(manager);
    // Descriptions that no client sends.
    for (kind, align, bytes) in
        [(Kind::Dict, 0, 0), (Kind::Dict, 3, 0), (Kind::Dict, 255, 0), (Kind::List, 0, u32::MAX), (Kind::List, 0, 4096)]
    {
        assert!(matches!(raw.create(kind, align, bytes, (1, "x")), Answer::Failed(_)), "{kind:?} {align} {bytes}");
    }
    assert!(matches!(raw.create(Kind::List, 0, 8, (1, &"x".repeat(70_000))), Answer::Failed(ErrorKind::TooLarge)));
    // A value that was never set.
    let id = raw.made::<Value<String>>(Kind::Value, 0, 0);
    raw.publish("unset", id);
    let unset: Value<String> = manager.open("unset").unwrap();
    says(unset.get().map(drop), ErrorKind::NotFound, &format!("value {id} has never been set: its maker died before it did, so set it"));
    assert_eq!(unset.update(|_| {}).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(unset.compare_exchange("a", "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(manager.transaction(|tx| tx.value(&unset).map(|_| ())).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(unset.at(&manager.snapshot().unwrap()).is_none() && !unset.to_string().is_empty());
    unset.set("set after all").unwrap();
    assert_eq!(unset.get().unwrap(), "set after all");
    scene.step();
    // Elements of a size that is not the type's.
    let id = raw.made::<List<u64>>(Kind::List, 0, 1);
    raw.publish("small", id);
    assert!(matches!(
        raw.commit(&[Op::ListSplice { object: id, position: END, remove: 0, values: Values::Packed(&[1, 2]) }]),
        Answer::Done(_)
    ));
    let small: List<u64> = manager.open("small").unwrap();
    assert_eq!(small.get(0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(small.index_of(1).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(small.sort().unwrap_err().kind(), ErrorKind::Corrupt);
    // Attributes without their heads.
    let id = raw.made::<Namespace>(Kind::Namespace, 16, 0);
    raw.publish("space", id);
    for (key, bytes) in
        [(&b"a\xff\xff\xff\xff\xff\xff\xff"[..], &[][..]), (b"b\xff\xff\xff\xff\xff\xff\xff", &[0xff; 100]), (b"\xfe\xff", &[1; 16])]
    {
        let op = Op::Insert { object: id, key, value: Payload::inline(bytes), only_if_absent: false, lend: true };
        assert!(matches!(raw.commit(&[op]), Answer::Done(_)));
    }
    let space: Namespace = manager.open("space").unwrap();
    says(
        space.get::<String>("b").map(drop),
        ErrorKind::Corrupt,
        "an attribute of a namespace is damaged: a process has written nonsense; set it again",
    );
    for name in ["a", "b"] {
        let kind = space.get::<String>(name).err().map(|error| error.kind());
        assert!(kind.is_none_or(|kind| matches!(kind, ErrorKind::Corrupt | ErrorKind::WrongType)), "{name}: {kind:?}");
    }
    assert_eq!(space.names().unwrap_err().kind(), ErrorKind::Corrupt);
    for name in ["unset", "small", "space"] {
        manager.unpublish(name).unwrap();
    }
    drop((unset, small, space, raw));
    scene.end();
}

/// Archives that no serialiser of ours writes, stored through the wire: reading gives `Corrupt`.
#[test]
fn corrupt_and_bottomless_archives() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let dict: Dict<u64, Any> = manager.dict([(0u64, Any::Null)]).unwrap();
    let texts: Dict<u64, Vec<String>> = manager.dict([(0u64, vec!["a".repeat(30), "b".into()])]).unwrap();
    let mut raw = Raw::connect(manager);
    let mut put = |object: u64, bytes: &[u8]| {
        let value = Payload::inline(bytes);
        let op = Op::Insert { object, key: &1u64.to_le_bytes(), value, only_if_absent: false, lend: false };
        assert!(matches!(raw.commit(&[op]), Answer::Done(_)));
    };
    // Nested as deeply as 60 kB go. The serialiser itself refuses such, so it is put together by hand: each level is a list of
    // one element, which lies before it.
    let level = archive(&Any::List(vec![Any::Null]));
    let size = std::mem::size_of::<commonhold::ArchivedAny>();
    assert_eq!(level.len(), 2 * size);
    let mut bottomless = level[..size].to_vec();
    while bottomless.len() + size <= 60_000 {
        bottomless.extend_from_slice(&level[size..]);
    }
    put(dict.id(), &bottomless);
    says(
        dict.get(1).map(drop),
        ErrorKind::Corrupt,
        "reading a value in place: its {…} bytes are no archive of `Any`: it claims to be nested deeper than 128 levels; its writer, or a \
         process that can write over it, has damaged it: write it anew",
    );
    assert_eq!(dict.update(1, |old| old).unwrap_err().kind(), ErrorKind::Corrupt);
    // One level that points at itself.
    let mut circle = level[size..].to_vec();
    for offset in 0..size - 3 {
        let mut one = circle.clone();
        one[offset..offset + 4].copy_from_slice(&0i32.to_le_bytes());
        put(dict.id(), &one);
        let _ = dict.get(1).map(|value| value.map(|value| value.to_string()));
    }
    circle.fill(0xff);
    put(dict.id(), &circle);
    assert_eq!(dict.get(1).unwrap_err().kind(), ErrorKind::Corrupt);
    // Every byte of a proper one changed, and every truncation.
    let proper = archive(&vec!["a".repeat(30), "b".to_string(), "c".repeat(9)]);
    let mut corrupt = 0;
    for at in 0..proper.len() {
        for change in [1u8, 0x80, 0xff] {
            let mut bytes = proper.clone();
            bytes[at] ^= change;
            put(texts.id(), &bytes);
            match texts.get(1) {
                Ok(value) => assert!(!format!("{value:?}").is_empty()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    corrupt += 1;
                }
            }
        }
        put(texts.id(), &proper[..at]);
        let _ = texts.get(1).map(|value| value.map(|value| value.to_owned()));
    }
    assert!(corrupt > proper.len());
    scene.step();
    drop((raw, dict, texts));
    scene.end();
}

/// Values that are large enough to be checked once for each thread: one that is not what it should be is never taken for checked, and
/// a manager that says so has everything checked always.
#[test]
fn large_corrupt_archives_stay_refused() {
    for always in [false, true] {
        let scene = Scene::of(Manager::builder().capacity(64 << 20).check_always(always).start().unwrap());
        let texts: Dict<u64, Vec<String>> = scene.manager.dict::<u64, Vec<String>>([]).unwrap();
        let mut raw = Raw::connect(&scene.manager);
        assert_eq!(raw.welcome.options & OPTION_CHECK_ALWAYS != 0, always);
        let strings: Vec<String> = (0..300).map(|n| format!("a text with the number {n}")).collect();
        let proper = archive(&strings);
        assert!(proper.len() as u64 > 2 * LARGE_VALUE_BYTES);
        let mut corrupt = proper.clone();
        // Within the first text: no longer UTF-8.
        corrupt[3] = 0xff;
        // In turn, so that what was in a place before is not taken for what is there now.
        for (bytes, is_proper) in [(&proper, true), (&corrupt, false), (&proper, true), (&corrupt, false)] {
            let value = Payload::inline(bytes);
            let op = Op::Insert { object: texts.id(), key: &1u64.to_le_bytes(), value, only_if_absent: false, lend: false };
            assert!(matches!(raw.commit(&[op]), Answer::Done(_)));
            for read in 1..4 {
                match texts.get(1) {
                    Ok(found) => assert!(is_proper && found.unwrap().to_owned() == strings, "read {read}"),
                    Err(error) => assert!(!is_proper && error.kind() == ErrorKind::Corrupt, "read {read}: {error}"),
                }
            }
        }
        scene.step();
        drop((raw, texts));
        scene.end();
    }
}

pub fn archive<T: commonhold::Shared>(value: &T) -> Vec<u8> {
    let mut ser = commonhold::__rt::Ser::buffer();
    let range = ser.put::<T>(value).unwrap();
    ser.bytes()[range].to_vec()
}
