//! What becomes of logic whose host says nothing more is asked of the manager: hosts and callers by hand, that say what they like.
use crate::hostile::{Raw, RawHost};
use crate::support::until;
use commonhold::{ErrorKind, Handle, List, Manager};
use commonhold_ipc::limits::{RUN_HOSTS_ENDED_MAX, RUN_LINES_MAX, TICKET_MS};
use commonhold_ipc::value::Ser;
use commonhold_ipc::wire::commit::{CommitWriter, END, Op, Values};
use commonhold_ipc::wire::reply::{Status, parse_error};
use commonhold_ipc::wire::run::{RUN_MARK_BYTES, RunMark, Settle};
use commonhold_ipc::wire::{Call, Reader};
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
fn logic(list: &List<u64>, number: u64, mark: RunMark) -> Vec<u8> {
    [push(list, number), mark.to_bytes().to_vec()].concat()
}

/// The ticket's number. Whoever has it before must give it back.
fn ticket(raw: &Raw) -> u64 {
    let (code, payload, _) = raw.ask(Call::Ticket, &[]).unwrap();
    assert_eq!(code, Status::Done as u8);
    u64::from_le_bytes(payload[9..17].try_into().unwrap())
}

/// Whether a commit was done; none if the manager has hung up.
fn is_done(raw: &Raw, payload: &[u8]) -> Option<bool> {
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

#[test]
fn logic_is_committed_under_its_own_ticket_or_not_at_all() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (host, caller) = (RawHost::new(&manager), Raw::connect(&manager));
    let number = caller.host;
    let raw = &host.raw;
    let first = ticket(raw);
    let mark = RunMark { ticket: first, line: 5, number: 1, is_last: false };
    // Of others than the one that it has, and of nobody's.
    for wrong in [first + 1, first - 1, 0, u64::MAX] {
        assert_eq!(is_done(raw, &logic(&list, 1, RunMark { ticket: wrong, ..mark })), Some(false), "{wrong}");
    }
    assert_eq!(is_done(raw, &logic(&list, 2, mark)), Some(true));
    // It has kept its ticket; another one's number is of no use to it.
    assert_eq!(is_done(raw, &logic(&list, 3, RunMark { number: 2, is_last: true, ..mark })), Some(true));
    assert_eq!(is_done(raw, &logic(&list, 4, RunMark { number: 3, ..mark })), Some(false), "it was given back");
    // Given back, so nobody waits for it.
    list.push(5).unwrap();
    let next = ticket(raw);
    assert_eq!(next, first + 1);
    assert_eq!(is_done(raw, &logic(&list, 6, RunMark { number: 3, ..mark })), Some(false), "under the last one");
    // Once its time is over, which this one waits for.
    let since = Instant::now();
    list.push(7).unwrap();
    assert!(since.elapsed() < Duration::from_millis(50 * TICKET_MS));
    assert_eq!(is_done(raw, &logic(&list, 8, RunMark { ticket: next, number: 3, ..mark })), Some(false), "in time or not at all");
    assert_eq!(list.to_owned().unwrap(), [2, 3, 5, 7]);
    for (asked, done) in [((number, 5, 2), true), ((number, 5, 3), false), ((number, 5, 1), false), ((number, 6, 1), false)] {
        let (host, line, number) = asked;
        assert_eq!(settled(&caller, Settle { host, line, number }), done, "{asked:?}");
    }
    manager.audit().unwrap();
}

#[test]
fn what_is_asked_about_and_was_not_done_is_barred() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (host, other, caller) = (RawHost::new(&manager), RawHost::of_build(&manager, &another_build(1)), Raw::connect(&manager));
    let number = caller.host;
    let raw = &host.raw;
    let mark = RunMark { ticket: ticket(raw), line: 1, number: 1, is_last: false };
    assert_eq!(is_done(raw, &logic(&list, 1, mark)), Some(true));
    assert!(settled(&caller, Settle { host: number, line: 1, number: 1 }));
    // What was done stays so, and bars nothing.
    assert_eq!(is_done(raw, &logic(&list, 2, RunMark { number: 2, ..mark })), Some(true));
    // What was not done is not done from then on, however fresh its ticket; what comes after it on that line is, and what comes on others.
    assert!(!settled(&caller, Settle { host: number, line: 1, number: 3 }));
    let refused = raw.ask(Call::RunCommit, &logic(&list, 3, RunMark { number: 3, ..mark })).unwrap();
    assert_eq!(refused.0, Status::Failed as u8);
    let error = parse_error(&mut Reader::new(&refused.1)).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "what runs beside the manager came to its commit when its caller had given it up: it has left no trace");
    assert!(!settled(&caller, Settle { host: number, line: 1, number: 3 }), "never");
    assert_eq!(is_done(raw, &logic(&list, 4, RunMark { line: 2, number: 1, ..mark })), Some(true), "the ticket is still there");
    assert_eq!(is_done(raw, &logic(&list, 5, RunMark { number: 4, is_last: true, ..mark })), Some(true));
    // A host speaks for itself alone: its line 1 is another one's.
    let theirs = ticket(&other.raw);
    assert_eq!(is_done(&other.raw, &logic(&list, 6, RunMark { ticket: theirs, number: 9, is_last: true, ..mark })), Some(true));
    assert!(!settled(&caller, Settle { host: number, line: 1, number: 9 }));
    assert_eq!(list.to_owned().unwrap(), [1, 2, 4, 5, 6]);
    manager.audit().unwrap();
}

#[test]
fn a_line_is_asked_about_by_who_was_given_it() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (mut host, caller, stranger) = (RawHost::new(&manager), Raw::connect(&manager), Raw::connect(&manager));
    let _line = caller.line_with_memory();
    let line = host.told();
    let mark = RunMark { ticket: ticket(&host.raw), line, number: 1, is_last: true };
    let about = Settle { host: caller.host, line, number: 1 };
    let mut payload = Vec::new();
    about.write(&mut payload);
    assert!(stranger.ask(Call::Settle, &payload).is_none(), "somebody else's");
    assert_eq!(is_done(&host.raw, &logic(&list, 1, mark)), Some(true), "and it bars nothing");
    assert!(settled(&caller, about));
}

/// A host gives back the ticket that it has, not one that it had.
#[test]
fn a_ticket_is_given_back_by_its_number() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let host = RawHost::new(&manager);
    let first = ticket(&host.raw);
    let back = |number: u64| host.raw.tell(Call::TicketBack, &number.to_le_bytes());
    back(first);
    let second = ticket(&host.raw);
    assert_eq!(second, first + 1);
    [first, 0, second + 1].into_iter().for_each(back);
    let mark = RunMark { ticket: second, line: 1, number: 1, is_last: false };
    assert_eq!(is_done(&host.raw, &logic(&list, 1, mark)), Some(true), "it still has it");
    back(second);
    assert_eq!(is_done(&host.raw, &logic(&list, 2, RunMark { number: 2, ..mark })), Some(false));
}

fn another_build(n: u8) -> Vec<u8> {
    [&[0u8][..], &[n; 8 + 32], &3u32.to_le_bytes(), b"abc"].concat()
}

#[test]
fn of_hosts_that_have_ended_it_is_still_known() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let sessions = manager.sessions().unwrap().len();
    let mut hosts = Vec::new();
    for n in 0..=RUN_HOSTS_ENDED_MAX as u8 {
        let host = RawHost::of_build(&manager, &another_build(n));
        hosts.push(Raw::connect(&manager).host);
        let mark = RunMark { ticket: ticket(&host.raw), line: 1, number: 1, is_last: n % 2 == 0 };
        assert_eq!(is_done(&host.raw, &logic(&list, n.into(), mark)), Some(true));
        drop(host);
        until("it has ended", || manager.sessions().unwrap().len() == sessions);
    }
    let caller = Raw::connect(&manager);
    for host in &hosts[1..] {
        assert!(settled(&caller, Settle { host: *host, line: 1, number: 1 }));
        assert!(!settled(&caller, Settle { host: *host, line: 1, number: 2 }));
    }
    is_unknown(&caller, Settle { host: hosts[0], line: 1, number: 1 });
    assert!(!settled(&caller, Settle { host: hosts[0] + 100_000, line: 1, number: 1 }), "there was none");
    assert_eq!(list.len().unwrap(), hosts.len());
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
fn what_has_been_forgotten_is_said_to_be_unknown() {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let (host, caller) = (RawHost::new(&manager), Raw::connect(&manager));
    for line in 1..=RUN_LINES_MAX as u64 + 1 {
        let mark = RunMark { ticket: ticket(&host.raw), line, number: 1, is_last: true };
        assert_eq!(is_done(&host.raw, &logic(&list, line, mark)), Some(true));
    }
    is_unknown(&caller, Settle { host: caller.host, line: 1, number: 1 });
    // What is younger than all that has been forgotten is known, also if there was nothing of it yet.
    for (line, done) in [(2, true), (RUN_LINES_MAX as u64 + 1, true), (RUN_LINES_MAX as u64 + 2, false)] {
        assert_eq!(settled(&caller, Settle { host: caller.host, line, number: 1 }), done, "{line}");
    }
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
