//! What callers of logic make of hosts that have done it, and then say something else.
use crate::hostile::{RawHost, frame};
use crate::settle::commit;
use commonhold::{Error, ErrorKind, List, Manager, Transaction};
use commonhold_ipc::task::Build;
use commonhold_ipc::wire::Head;
use commonhold_ipc::wire::remote::Answer;
use commonhold_ipc::wire::reply::write_error;

fn append(tx: &Transaction<'_>, (list, number): (List<u64>, u64)) -> commonhold::Result<()> {
    tx.push(&list, number)
}

/// A host of this very program, by hand: if it shall, it commits what it is asked for, and then it says this.
fn said_of(does: bool, answer: &[u8]) -> ErrorKind {
    let manager = Manager::start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let mut build = Vec::new();
    Build::own().to_wire(false).write(&mut build);
    let mut host = RawHost::of_build(&manager, &build);
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| manager.run(append, (list.clone(), 1)).unwrap_err());
        let number = host.asked().0.number;
        if does {
            commit(&host.raw, &list, 1, (host.number, number));
        }
        host.say(answer);
        running.join().unwrap()
    });
    assert_eq!(list.len().unwrap(), usize::from(does), "{error}");
    error.kind()
}

#[test]
fn a_host_is_not_believed_that_it_has_not_done_what_it_has() {
    let failed = |kind| {
        let mut payload = Vec::new();
        write_error(&mut payload, &Error::new(kind, "it says so"));
        frame(Answer::Failed as u8, 1, &payload)
    };
    let too_long = Head { len: u32::MAX, code: Answer::Done as u8, quiet: false, lane: 0, number: 1 };
    for (answer, otherwise) in [
        (failed(ErrorKind::Disconnected), ErrorKind::Disconnected),
        (failed(ErrorKind::OutcomeUnknown), ErrorKind::OutcomeUnknown),
        (frame(Answer::Failed as u8, 1, &[0xff; 3]), ErrorKind::Corrupt),
        (frame(Answer::Panicked as u8, 1, &[0xff; 3]), ErrorKind::Corrupt),
        (frame(99, 1, &[]), ErrorKind::Corrupt),
        (too_long.to_bytes().to_vec(), ErrorKind::Corrupt),
    ] {
        assert_eq!((said_of(true, &answer), said_of(false, &answer)), (ErrorKind::ResultLost, otherwise), "{answer:?}");
    }
    // A result that cannot be read.
    assert_eq!(said_of(true, &frame(Answer::Done as u8, 1, &[0xff; 40])), ErrorKind::ResultLost);
}
