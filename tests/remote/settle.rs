//! What becomes of logic whose host says nothing more is asked of the manager: hosts and callers by hand, that say what they like.
use crate::hostile::{Raw, RawHost};
use crate::support::until;
use commonhold::{ErrorKind, Handle, List, Manager};
use commonhold_ipc::limits::{RUN_HOSTS_ENDED_MAX, RUN_LINES_MAX, TICKET_MS};
use commonhold_ipc::value::Ser;
use commonhold_ipc::wire::commit::{CommitWriter, END, Op, Values};
use commonhold_ipc::wire::reply::{Status, parse_error};
use commonhold_ipc::wire::run::{RUN_MARK_BYTES, RunMark, Settle};
use commonhold_ipc::wire::{Call, Payload, Reader, Source, UploadHead, Words};
use std::time::{Duration, Instant};

/// A commit that pushes a number.
fn push(list: &List<u64>, number: u64) -> Vec<u8> {
    let mut ser = Ser::buffer();
    let range = ser.put::<u64>(&number).unwrap();
    let mut commit = CommitWriter::default();
    commit.op(&Op::ListSplice { object: list.id(), position: END, remove: 0, values: Values::Packed(&ser.bytes()[range]) });
    let mut bytes = Vec::new();
    commit.write(&mut bytes);
    bytes
}

/// Of logic: the same.
pub fn logic(list: &List<u64>, number: u64, mark: RunMark) -> Vec<u8> {
    [push(list, number), mark.to_bytes().to_vec()].concat()
}

/// The ticket's number. Whoever has it before must give it back.
pub fn ticket(raw: &Raw) -> u64 {
    let (code, payload, _) = raw.ask(Call::Ticket, &[]).unwrap();
    assert_eq!(code, Status::Done as u8);
    u64::from_le_bytes(payload[9..17].try_into().unwrap())
}

/// A line to the host that there is: its number. The other end is the host's to drop.
fn line(host: &mut RawHost, caller: &Raw) -> u64 {
    drop(caller.line());
    host.told()
}

/// Whether a commit was done; none if the manager has hung up.
pub fn is_done(raw: &Raw, payload: &[u8]) -> Option<bool> {
    let (code, ..) = raw.ask(Call::RunCommit, payload)?;
    assert!(code == Status::Done as u8 || code == Status::Conflict as u8, "{code}");
    Some(code == Status::Done as u8)
}

/// Whether it has been done, as the manager says.
fn settled(raw: &Raw, settle: Settle) -> bool {
    let mut payload = Vec::new();
    settle.write(&mut payload);
    let (code, payload, _) = raw.ask(Call::Settle, &payload).unwrap();
    assert_eq!(code, Status::Done as u8);
    // Something, or nothing.
    match payload[8] {
        4 => true,
        0 => false,
        other => panic!("{other}"),
    }
}

/// Pushes a number by the run of this number on a line, under a ticket of its own; under another one, if that was over before, as on a busy machine.
#[track_caller]
pub fn commit(host: &Raw, list: &List<u64>, value: u64, (line, number): (u64, u64)) {
    let tries = |_: &i32| is_done(host, &logic(list, value, RunMark { ticket: ticket(host), line, number, is_last: true })) == Some(true);
    assert!((0..50).any(|n| tries(&n)), "it is refused");
}

/// What comes of something that takes less than a ticket is good for, as often as it takes longer.
fn in_time<T>(mut scenario: impl FnMut() -> T) -> T {
    for _ in 0..50 {
        let since = Instant::now();
        let come = scenario();
        if since.elapsed() < Duration::from_millis(TICKET_MS) {
            return come;
        }
    }
    panic!("it takes longer each time");
}

#[test]
fn logic_is_committed_under_its_own_ticket_or_not_at_all() {
    let manager = Manager::start().unwrap();
    let (mut host, caller) = (RawHost::new(&manager), Raw::connect(&manager));
    let number = caller.host;
    let (line, other) = (line(&mut host, &caller), line(&mut host, &caller));
    let raw = &host.raw;
    let (list, first, said) = in_time(|| {
        let list = manager.list::<u64>([]).unwrap();
        let first = ticket(raw);
        let mark = RunMark { ticket: first, line, number: 1, is_last: false };
        let done = |value, mark| is_done(raw, &logic(&list, value, mark)).unwrap();
        // Of others than the one that it has, and of nobody's.
        let wrong = [first + 1, first - 1, 0, u64::MAX].map(|wrong| done(1, RunMark { ticket: wrong, ..mark }));
        // It has kept its ticket; then it is given back.
        let right = [done(2, mark), done(3, RunMark { number: 2, is_last: true, ..mark }), done(4, RunMark { number: 3, ..mark })];
        (list, first, (wrong, right))
    });
    assert_eq!(said, ([false; 4], [true, true, false]));
    // Nobody waits for it.
    list.push(5).unwrap();
    let next = ticket(raw);
    assert_eq!(next, first + 1);
    let mark = RunMark { ticket: next, line, number: 3, is_last: false };
    assert_eq!(is_done(raw, &logic(&list, 6, RunMark { ticket: first, ..mark })), Some(false), "under the last one");
    // Once its time is over, which this one waits for.
    list.push(7).unwrap();
    assert_eq!(is_done(raw, &logic(&list, 8, mark)), Some(false), "in time or not at all");
    assert_eq!(list.to_owned().unwrap(), [2, 3, 5, 7]);
    for (line, n, done) in [(line, 2, true), (line, 3, false), (line, 1, false), (other, 1, false)] {
        assert_eq!(settled(&caller, Settle { host: number, line, number: n }), done, "{line}, {n}");
    }
    manager.audit().unwrap();
}

#[test]
fn what_is_asked_about_and_was_not_done_is_barred() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (mut host, caller) = (RawHost::new(&manager), Raw::connect(&manager));
    let number = caller.host;
    let (line, second) = (line(&mut host, &caller), line(&mut host, &caller));
    let other = RawHost::of_build(&manager, &another_build(1));
    let raw = &host.raw;
    let about = |line, n| Settle { host: number, line, number: n };
    commit(raw, &list, 1, (line, 1));
    assert!(settled(&caller, about(line, 1)));
    // What was done stays so, and bars nothing.
    commit(raw, &list, 2, (line, 2));
    // What was not done is not done from then on, however fresh its ticket; what comes after it on that line is, and what comes on others.
    assert!(!settled(&caller, about(line, 3)));
    let mark = RunMark { ticket: ticket(raw), line, number: 3, is_last: false };
    let refused = raw.ask(Call::RunCommit, &logic(&list, 3, mark)).unwrap();
    assert_eq!(refused.0, Status::Failed as u8);
    let error = parse_error(&mut Reader::new(&refused.1)).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "what runs beside the manager came to its commit when its caller had given it up: it has left no trace");
    raw.tell(Call::TicketBack, &mark.ticket.to_le_bytes());
    assert!(!settled(&caller, about(line, 3)), "never");
    commit(raw, &list, 4, (line, 4));
    // Nor does its host lose its ticket by that, which may be for somebody else.
    let kept = in_time(|| {
        let mark = RunMark { ticket: ticket(raw), line: second, number: 1, is_last: true };
        assert!(!settled(&caller, about(line, 5)));
        is_done(raw, &logic(&list, 5, mark)).unwrap()
    });
    assert!(kept);
    // A host speaks for itself alone, whichever line it names.
    commit(&other.raw, &list, 6, (line, 9));
    assert!(!settled(&caller, about(line, 9)));
    let noted = list.to_owned().unwrap();
    assert_eq!(noted.iter().filter(|value| **value != 5).collect::<Vec<_>>(), [&1, &2, &4, &6]);
    manager.audit().unwrap();
}

/// What a refused commit has sent ahead is used up, as by one that is done or loses.
#[test]
fn what_a_refused_commit_names_is_used_up() {
    let manager = Manager::start().unwrap();
    let value = manager.value(vec![0u8]).unwrap();
    let host = RawHost::new(&manager);
    let upload = UploadHead { prefix: 16, len: 4096, handles: 0 };
    let commit = |ticket: u64| {
        let mut commit = CommitWriter::default();
        commit.op(&Op::ValueSet { object: value.id(), value: Payload { source: Source::Upload(7), handles: Words::default() } });
        let mut bytes = Vec::new();
        commit.write(&mut bytes);
        bytes.extend_from_slice(&RunMark { ticket, line: 1, number: 1, is_last: true }.to_bytes());
        host.raw.ask(Call::RunCommit, &bytes)
    };
    host.raw.tell_numbered(Call::Upload, 7, &[&upload.to_bytes()[..], &[0; 4096]].concat());
    assert_eq!(commit(u64::MAX).unwrap().0, Status::Conflict as u8);
    // Named again it is not there any more.
    let (code, said, _) = commit(ticket(&host.raw)).unwrap();
    assert_eq!((code, parse_error(&mut Reader::new(&said)).unwrap().kind()), (Status::Failed as u8, ErrorKind::Corrupt));
    assert_eq!(value.get().unwrap().as_slice(), [0]);
    manager.audit().unwrap();
}

#[test]
fn a_line_is_asked_about_by_who_was_given_it() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (mut host, caller, stranger) = (RawHost::new(&manager), Raw::connect(&manager), Raw::connect(&manager));
    let line = line(&mut host, &caller);
    let about = Settle { host: caller.host, line, number: 1 };
    let hung_up = |raw: &Raw, settle: Settle| {
        let mut payload = Vec::new();
        settle.write(&mut payload);
        raw.ask(Call::Settle, &payload).is_none()
    };
    assert!(hung_up(&stranger, about), "somebody else's");
    assert!(hung_up(&Raw::connect(&manager), Settle { line: line + 1, ..about }), "nobody's yet");
    // And it bars nothing.
    commit(&host.raw, &list, 1, (line, 1));
    assert!(settled(&caller, about));
}

/// A host gives back the ticket that it has, not one that it had.
#[test]
fn a_ticket_is_given_back_by_its_number() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let host = RawHost::new(&manager);
    let back = |number: u64| host.raw.tell(Call::TicketBack, &number.to_le_bytes());
    let said = in_time(|| {
        let first = ticket(&host.raw);
        back(first);
        let second = ticket(&host.raw);
        assert_eq!(second, first + 1);
        // Of others than the one that it has.
        [first, 0, second + 1].into_iter().for_each(back);
        let mark = RunMark { ticket: second, line: 1, number: 1, is_last: false };
        let has_it = is_done(&host.raw, &logic(&list, 1, mark));
        back(second);
        [has_it, is_done(&host.raw, &logic(&list, 2, RunMark { number: 2, ..mark }))]
    });
    assert_eq!(said, [Some(true), Some(false)]);
}

fn another_build(n: u8) -> Vec<u8> {
    [&[0u8][..], &[n; 8 + 32], &3u32.to_le_bytes(), b"abc"].concat()
}

#[test]
fn of_hosts_that_have_ended_it_is_still_known() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let sessions = manager.sessions().unwrap().len();
    let mut caller = Raw::connect(&manager);
    let mut runs = Vec::new();
    for n in 0..=RUN_HOSTS_ENDED_MAX as u8 {
        let mut host = RawHost::of_build(&manager, &another_build(n));
        caller.host = host_of(&manager);
        let line = line(&mut host, &caller);
        commit(&host.raw, &list, n.into(), (line, 1));
        runs.push(Settle { host: caller.host, line, number: 1 });
        drop(host);
        until("it has ended", || manager.sessions().unwrap().len() == sessions + 1);
    }
    for run in &runs[1..] {
        assert!(settled(&caller, *run));
        assert!(!settled(&caller, Settle { number: 2, ..*run }));
    }
    is_unknown(&caller, runs[0]);
    assert!(!settled(&caller, Settle { host: runs[0].host + 100_000, ..runs[0] }), "there was none");
    assert_eq!(list.len().unwrap(), runs.len());
}

/// The number of the first host.
fn host_of(manager: &Manager) -> u64 {
    manager.sessions().unwrap().iter().find(|session| session.is_host).unwrap().number
}

/// The manager has forgotten it, and says so.
#[track_caller]
fn is_unknown(raw: &Raw, settle: Settle) {
    let mut payload = Vec::new();
    settle.write(&mut payload);
    let (code, payload, _) = raw.ask(Call::Settle, &payload).unwrap();
    assert_eq!(code, Status::Failed as u8);
    let error = parse_error(&mut Reader::new(&payload)).unwrap();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let text = "the host of what runs beside the manager has said nothing more, and the manager has forgotten whether it was done: look at what \
                it was to change before you do it again";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_has_been_forgotten_is_said_to_be_unknown_and_can_be_barred_by_nobody() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (mut host, caller, stranger) = (RawHost::new(&manager), Raw::connect(&manager), Raw::connect(&manager));
    let number = caller.host;
    let (old, barred) = (line(&mut host, &caller), line(&mut host, &caller));
    let about = |line| Settle { host: number, line, number: 1 };
    assert!(!settled(&caller, about(barred)));
    // Somebody else is given as many lines as are known, and bars them all.
    let lines: Vec<_> = (0..RUN_LINES_MAX).map(|_| line(&mut host, &stranger)).collect();
    is_unknown(&caller, about(old));
    for line in &lines[1..] {
        assert!(!settled(&stranger, about(*line)));
    }
    let done = |line| {
        let mark = RunMark { ticket: ticket(&host.raw), line, number: 1, is_last: true };
        host.raw.ask(Call::RunCommit, &logic(&list, line, mark)).unwrap().0 == Status::Done as u8
    };
    assert!(!done(barred), "what was said stays true");
    // And what is forgotten is no worse than before.
    commit(&host.raw, &list, old, (old, 1));
    is_unknown(&caller, about(old));
    commit(&host.raw, &list, lines[0], (lines[0], 1));
    assert!(settled(&stranger, about(lines[0])));
    // Too much is barred: the oldest goes, and what is as old and forgotten counts as barred.
    assert!(!settled(&stranger, Settle { number: 2, ..about(lines[0]) }));
    assert!(!done(barred));
    drop(stranger);
    until("their session is over", || manager.sessions().unwrap().iter().filter(|session| !session.is_host).count() == 2);
    let new = line(&mut host, &caller);
    commit(&host.raw, &list, new, (new, 1));
    let _newer = line(&mut host, &caller);
    assert!(settled(&caller, about(new)), "nobody takes its room");
}

#[test]
fn nonsense_is_the_end_of_who_says_it() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let mark = RunMark { ticket: 1, line: 1, number: 1, is_last: true };
    let whole = logic(&list, 1, mark);
    // From a session that is no host, even with a ticket.
    let raw = Raw::connect(&manager);
    let mark = RunMark { ticket: ticket(&raw), ..mark };
    assert_eq!(is_done(&raw, &logic(&list, 1, mark)), None);
    // Cut short or changed, with its ticket and without. What is whole is a conflict there.
    for has_ticket in [false, true] {
        for len in (0..whole.len()).rev() {
            let host = RawHost::of_build(&manager, &another_build(len as u8));
            let mark = RunMark { ticket: if has_ticket { ticket(&host.raw) } else { u64::MAX }, ..mark };
            let cut = [&whole[..len.saturating_sub(RUN_MARK_BYTES)], &mark.to_bytes()[..len.min(RUN_MARK_BYTES)]].concat();
            assert_eq!(is_done(&host.raw, &cut), None, "{len}, {has_ticket}");
        }
    }
    for len in (0..64).filter(|len| *len != 24) {
        assert!(Raw::connect(&manager).ask(Call::Settle, &vec![7; len]).is_none(), "{len}");
    }
    assert_eq!(list.len().unwrap(), 0);
    list.push(1).unwrap();
    manager.audit().unwrap();
}
