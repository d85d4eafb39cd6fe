//! Arguments and results that are not what they claim to be, on every road: calls ahead, one-way calls, logic beside the data. Each is an error to who
//! has sent it, or the end of its line, and nobody else notices.
use super::hostile::{Plain, PlainProxy, Raw, RawHost, ask, frame, frame_on, scribble_with};
use crate::support::until;
use commonhold::{ErrorKind, Handle, List, Manager, Transaction};
use commonhold_ipc::limits::REMOTE_FRAME_BYTES_MAX;
use commonhold_ipc::line::LineEnd;
use commonhold_ipc::task::Build;
use commonhold_ipc::value::fingerprint;
use commonhold_ipc::wire::remote::{Answer, Ask, Asked, write_result};
use commonhold_ipc::wire::reply::parse_error;
use commonhold_ipc::wire::{HEAD_BYTES, Head, Reader, Words};

/// Lane of calls that are made ahead.
const AHEAD: u16 = 1;

/// A call ahead. `quiet`: one-way.
fn ahead(number: u64, quiet: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Ask::Call as u8, number, payload);
    let head = Head { lane: AHEAD, quiet, ..Head::parse(&bytes).unwrap() };
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    bytes
}

/// Sends all of it, however much room there is at a time. `false`: the other side has hung up.
fn send_all(line: &LineEnd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match line.send(bytes) {
            Ok(0) => std::thread::yield_now(),
            Ok(count) => bytes = &bytes[count..],
            Err(_) => return false,
        }
    }
    true
}

/// What a failed call says.
fn told(answer: Option<(Head, rkyv::util::AlignedVec<16>)>, number: u64) -> String {
    let (head, payload) = answer.expect("an answer");
    assert_eq!((head.code, head.number), (Answer::Failed as u8, number));
    parse_error(&mut Reader::new(&payload)).unwrap().to_string()
}

#[test]
fn bombs_among_calls_ahead_are_errors_of_their_own_and_the_calls_behind_them_are_done() {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let (id, interface) = (plain.id(), fingerprint::<PlainProxy>());
    let raw = Raw::connect(&manager);
    let (line, _) = raw.line_with_memory();
    let good = ask(id, interface, 0, &[0; 8], &[(0, 8)], &[]);
    let claims = [[0u8, 0, 0, 0], [0xff, 0xff, 0xff, 0x7f]].concat();
    let bombs = [
        ("argument is missing", ask(id, interface, 0, &[], &[], &[])),
        ("archive", ask(id, interface, 0, &claims, &[(0, 8)], &[])),
        ("archive", ask(id, interface, 0, &[0xff; 64], &[(0, 64)], &[])),
        // Large, and nothing but noise.
        ("archive", ask(id, interface, 0, &vec![0xa5; 3 << 20], &[(0, 3 << 20)], &[])),
        ("gone", ask(id, interface, 0, &[0; 8], &[(0, 8)], &[id + 5])),
        ("no method 9", ask(id, interface, 9, &[0; 8], &[(0, 8)], &[])),
        ("is not there", ask(id + 1, interface, 0, &[0; 8], &[(0, 8)], &[])),
    ];
    let mut number = 0;
    for (what, bomb) in &bombs {
        number += 3;
        assert!(send_all(&line, &ahead(number, false, bomb)), "{what}");
        // One-way it is an error that nobody hears of.
        assert!(send_all(&line, &ahead(number + 1, true, bomb)), "{what}");
        assert!(send_all(&line, &ahead(number + 2, false, &good)), "{what}");
        let said = told(frame_on(&line), number);
        assert!(said.contains(what), "{what}: {said}");
        let (head, _) = frame_on(&line).expect("the call behind it is done");
        assert_eq!((head.code, head.number), (Answer::Done as u8, number + 2), "{what}");
    }
    // What cannot be read ends the line, and so does what does not belong there.
    let most = Head { len: REMOTE_FRAME_BYTES_MAX as u32 + 1, code: Ask::Call as u8, quiet: false, lane: AHEAD, number: 1 };
    let claims = |len: u32| Head { len, ..most }.to_bytes().to_vec();
    // Ranges that end before they begin, or behind everything.
    let ranges = [(16, 0), (0, u32::MAX as usize)].map(|range| ahead(2, false, &ask(id, interface, 0, &[0; 64], &[range], &[])));
    let mut nonsense = vec![claims(REMOTE_FRAME_BYTES_MAX as u32 + 1), claims(u32::MAX), ahead(2, false, &good[..40])];
    nonsense.extend([frame(Ask::Run as u8, 3, &good), frame(Ask::Logic as u8, 3, &good), frame(99, 3, &good)]);
    nonsense.extend(ranges);
    for bytes in nonsense {
        let (line, _) = raw.line_with_memory();
        assert!(send_all(&line, &ahead(1, false, &good)));
        assert_eq!(frame_on(&line).expect("an answer").0.number, 1);
        send_all(&line, &bytes);
        assert!(frame_on(&line).is_none());
    }
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

/// Logic with arguments that refer to something.
fn append(tx: &Transaction<'_>, (list, texts): (List<u64>, Vec<String>)) -> commonhold::Result<u64> {
    tx.push(&list, texts.len() as u64)?;
    Ok(texts.len() as u64)
}

/// A host by hand for this very program, in a manager that has no other.
fn own_host(manager: &Manager) -> RawHost {
    let mut build = Vec::new();
    Build::own().to_wire(false).write(&mut build);
    RawHost::of_build(manager, &build)
}

/// What a client of this program asks when it wants `append` to run on a list: the payload, as a host by hand has read it, which is gone then.
fn asked_by_a_client(manager: &Manager, list: &List<u64>) -> Vec<u8> {
    let mut host = own_host(manager);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| manager.run(append, (list.clone(), vec!["one".to_string(), "two".repeat(100)])));
        let (head, payload) = host.asked();
        assert_eq!(head.code, Ask::Logic as u8);
        let mut result = Vec::new();
        write_result(&mut result, Words::default(), &7u64.to_le_bytes());
        host.say(&frame(Answer::Done as u8, head.number, &result));
        assert_eq!(caller.join().unwrap().unwrap(), 7);
        drop(host);
        until("the host is gone", || manager.sessions().unwrap().iter().all(|session| !session.is_host));
        payload.to_vec()
    })
}

/// Runs `append` when a host by hand is gone. Its end of a line that is kept may seem to be there for a moment more: a process that another test
/// starts just now has it, too, until it becomes another program. What is asked there is not done, and its error says so.
fn append_in_a_new_host(manager: &Manager, list: &List<u64>) -> u64 {
    loop {
        match manager.run(append, (list.clone(), vec![])) {
            Err(error) if error.kind() == commonhold::ErrorKind::Died => println!("{error}"),
            done => return done.unwrap(),
        }
    }
}

/// The same with something changed.
fn changed<'a>(payload: &'a [u8], change: impl FnOnce(&mut Asked<'a>)) -> Vec<u8> {
    let mut asked = Asked::parse(payload).unwrap();
    change(&mut asked);
    let mut bytes = Vec::new();
    asked.write(&mut bytes);
    bytes
}

#[test]
fn bombs_for_logic_leave_no_trace_and_keep_nobody_waiting() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let payload = asked_by_a_client(&manager, &list);
    assert_eq!(append_in_a_new_host(&manager, &list), 0);
    let raw = Raw::connect(&manager);
    let say = |code: Ask, payload: &[u8]| {
        let (line, _) = raw.line_with_memory();
        send_all(&line, &frame(code as u8, 7, payload));
        loop {
            match frame_on(&line) {
                Some((head, _)) if head.code == Answer::Begun as u8 => {}
                answer => return answer,
            }
        }
    };
    // What that client has asked can be asked by anybody of this program, whichever word it is asked with.
    for code in [Ask::Logic, Ask::Run] {
        let (head, answer) = say(code, &payload).expect("an answer");
        assert_eq!(head.code, Answer::Done as u8, "{:?}", parse_error(&mut Reader::new(&answer)));
    }
    assert_eq!(list.to_string(), "[0, 2, 2]");
    let archives = Asked::parse(&payload).unwrap().archives.to_vec();
    let noise = vec![0xa5; archives.len()];
    let ids = [u64::MAX, 5, 1].map(u64::to_le_bytes).concat();
    let end = (archives.len() as u64) << 32;
    let ranges = [end << 4, 8, end + 1].map(u64::to_le_bytes);
    let mut bombs = vec![
        changed(&payload, |asked| asked.object += 32),
        changed(&payload, |asked| asked.object = u64::MAX - 3),
        changed(&payload, |asked| asked.name = "append"),
        changed(&payload, |asked| asked.interface ^= 1),
        changed(&payload, |asked| asked.archives = &[]),
        changed(&payload, |asked| asked.archives = &noise),
        changed(&payload, |asked| asked.archives = &archives[..archives.len() - 16]),
        changed(&payload, |asked| asked.ranges = Words::default()),
    ];
    bombs.extend(ranges.iter().map(|range| changed(&payload, |asked| asked.ranges = Words::new(range).unwrap())));
    for (n, bomb) in bombs.iter().enumerate() {
        // Ranges beyond the archives end the line.
        let said = say(Ask::Logic, bomb).map(|answer| told(Some(answer), 7));
        assert!(said.is_some() == Asked::parse(bomb).is_some(), "bomb {n}: {said:?}");
        assert_eq!(list.len().unwrap(), 3, "bomb {n}: {said:?}");
    }
    // Handles that it names are its caller's to hold: here nobody looks at them, and what is used is checked for itself.
    let named = changed(&payload, |asked| asked.handles = Words::new(&ids).unwrap());
    assert!(say(Ask::Logic, &named).is_some());
    let before = list.len().unwrap();
    // Any byte of the arguments, any bit.
    for at in 0..archives.len() {
        let mut bytes = archives.clone();
        bytes[at] ^= 1 << (at % 8);
        let changed = changed(&payload, |asked| asked.archives = &bytes);
        assert!(say(Ask::Logic, &changed).is_some(), "byte {at}");
    }
    assert!(list.len().unwrap() <= before + archives.len());
    for bytes in [&payload[..0], &payload[..20], &payload[..payload.len() / 2]] {
        assert!(say(Ask::Logic, bytes).is_none(), "cut at {}", bytes.len());
    }
    // Nobody has the ticket, or waits for it.
    list.clear().unwrap();
    assert_eq!(manager.run(append, (list.clone(), vec!["a".into()])).unwrap(), 1);
    assert_eq!(list.to_string(), "[1]");
    manager.audit().unwrap();
}

#[test]
fn scribbling_on_a_line_of_logic_at_any_moment() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let payload = asked_by_a_client(&manager, &list);
    append_in_a_new_host(&manager, &list);
    scribble_with(&manager, &frame(Ask::Logic as u8, 7, &payload), || manager.run(append, (list.clone(), vec![])).is_ok());
    assert!(list.len().unwrap() > 30);
    manager.audit().unwrap();
}

/// What a host says to the call of a number.
type Answering<'a> = Box<dyn Fn(u64) -> Vec<u8> + 'a>;

#[test]
fn who_asks_for_logic_believes_nothing_of_a_host() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let mut host = own_host(&manager);
    let mut result = Vec::new();
    write_result(&mut result, Words::default(), &5u64.to_le_bytes());
    let mut handles = Vec::new();
    write_result(&mut handles, Words::new(&[9u64, 99].map(u64::to_le_bytes).concat()).unwrap(), &5u64.to_le_bytes());
    let bomb = |number| Head { len: u32::MAX, code: 0, quiet: false, lane: 0, number }.to_bytes().to_vec();
    let answer = |code: Answer, payload: &[u8]| {
        let payload = payload.to_vec();
        move |number| frame(code as u8, number, &payload)
    };
    let answers: [(&str, Answering); 9] = [
        ("5", Box::new(answer(Answer::Done, &result))),
        ("archive", Box::new(answer(Answer::Done, &result[..20]))),
        ("result", Box::new(answer(Answer::Done, &result[..3]))),
        ("ended", Box::new(answer(Answer::Done, &handles))),
        ("result", Box::new(answer(Answer::Failed, &[0xff; 3]))),
        ("result", Box::new(answer(Answer::Panicked, &[0xff; 3]))),
        ("call", Box::new(bomb)),
        // That it has begun, over and over, and then a result.
        (
            "5",
            Box::new(|number| [frame(Answer::Begun as u8, number, &[]).repeat(100), frame(Answer::Done as u8, number, &result)].concat()),
        ),
        ("5", Box::new(answer(Answer::Done, &result))),
    ];
    for (what, answer) in &answers {
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| manager.run(append, (list.clone(), vec![])));
            let (head, _) = host.asked();
            host.say(&answer(head.number));
            let said = caller.join().unwrap().map_or_else(|error| error.to_string(), |number| number.to_string());
            assert!(said.contains(what), "{what}: {said}");
        });
    }
    // One that says no more than that it has begun is given up.
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| manager.run(append, (list.clone(), vec![])));
        let (head, _) = host.asked();
        host.say(&frame(Answer::Begun as u8, head.number, &[]));
        assert!(caller.join().unwrap().unwrap_err().is_timed_out());
    });
    assert!(list.is_empty().unwrap());
    manager.audit().unwrap();
}

/// An object as it is in a true host, a host by hand, one that this claims to have, and a result: 5.
fn host_by_hand(manager: &Manager) -> (PlainProxy, RawHost, PlainProxy, Vec<u8>) {
    let example = manager.create(Plain::new, ()).unwrap();
    let host = RawHost::new(manager);
    let plain = host.make(manager, &example);
    let mut result = Vec::new();
    write_result(&mut result, Words::default(), &5u64.to_le_bytes());
    (example, host, plain, result)
}

#[test]
fn results_of_calls_ahead_that_are_none_are_errors_of_their_own() {
    let manager = Manager::start().unwrap();
    let (example, mut host, plain, result) = host_by_hand(&manager);
    let answers: [(&str, u8, &[u8]); 5] = [
        ("archive", Answer::Done as u8, &result[..20]),
        ("result", Answer::Failed as u8, &[0xff; 3]),
        ("result", Answer::Panicked as u8, &[]),
        ("result", 77, &result),
        ("5", Answer::Done as u8, &result),
    ];
    let pending: Vec<_> = answers.iter().map(|_| plain.call_async().add(vec![]).unwrap()).collect();
    let numbers: Vec<_> = answers.iter().map(|_| host.asked().0.number).collect();
    // The last one is answered first.
    for ((_, code, payload), number) in answers.iter().zip(&numbers).rev() {
        host.say(&frame(*code, *number, payload));
    }
    for (pending, (what, ..)) in pending.into_iter().zip(&answers) {
        let said = pending.get().map_or_else(|error| error.to_string(), |number| number.to_string());
        assert!(said.contains(what), "{what}: {said}");
    }
    // A frame that cannot be, or answers what was not asked, is the end of all that are under way, and of no more than that.
    for nonsense in [Head { len: u32::MAX, code: 0, quiet: false, lane: 0, number: 1 }.to_bytes().to_vec(), frame(0, u64::MAX, &result)] {
        let pending: Vec<_> = (0..3).map(|_| plain.call_async().add(vec![]).unwrap()).collect();
        (0..3).for_each(|_| drop(host.asked()));
        host.say(&nonsense);
        pending.into_iter().for_each(|pending| assert!(pending.get().is_err()));
    }
    assert_eq!(example.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

#[test]
fn what_a_host_has_answered_is_heard_though_nothing_more_can_be_sent_to_it() {
    let manager = Manager::start().unwrap();
    let (_example, mut host, plain, result) = host_by_hand(&manager);
    let pending: Vec<_> = (0..3).map(|_| plain.call_async().add(vec![]).unwrap()).collect();
    let numbers: Vec<_> = pending.iter().map(|_| host.asked().0.number).collect();
    numbers[..2].iter().for_each(|number| host.say(&frame(Answer::Done as u8, *number, &result)));
    host.hang_up();
    // Of the one or of the other it is told that nobody hears it.
    let said = [plain.call_async().add(vec![]).map(drop), pending[2].cancel()];
    assert!(said.into_iter().all(|said| said.is_err_and(|error| error.kind() == ErrorKind::Died)));
    let got: Vec<_> = pending.into_iter().map(|pending| pending.get().map_err(|error| error.kind())).collect();
    assert_eq!(got, [Ok(5), Ok(5), Err(ErrorKind::Died)]);
}
