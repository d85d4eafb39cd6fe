//! What cannot be sent comes back, whatever the reason: from queues and from pipes, of owned items; of lent ones there is nothing to give.

use commonhold::{AsShared, ErrorKind, Manager, PipeOptions, Queue, SendError, Shared};
use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(1);

/// It cannot be cloned, nor shown: the error asks for neither.
#[derive(Shared)]
struct Parcel {
    number: u64,
    content: Vec<u8>,
}

fn parcel(number: u64) -> Parcel {
    Parcel { number, content: vec![7; 3000] }
}

#[track_caller]
fn is_back(unsent: SendError<Parcel>, number: u64, kind: ErrorKind) {
    assert_eq!((unsent.kind(), unsent.error().kind(), unsent.item().number), (kind, kind, number), "{unsent}");
    let (text, (error, parcel)) = (unsent.to_string(), unsent.into_parts());
    assert_eq!((error.to_string(), parcel.number, parcel.content), (text, number, vec![7; 3000]));
}

/// `try_send` that finds no room says so by a value, and not by an error.
#[track_caller]
fn fails<B>(tried: Result<Result<(), Parcel>, SendError<B>>) -> SendError<B> {
    tried.map(|sent| sent.map_err(|parcel| parcel.number)).expect_err("it was not told why")
}

/// Sends parcel after parcel in every way, all of them in vain.
fn in_vain(queue: &Queue<Parcel>, kind: ErrorKind) {
    is_back(queue.send(parcel(1)).unwrap_err(), 1, kind);
    is_back(fails(queue.try_send(parcel(2))), 2, kind);
    is_back(queue.send_timeout(parcel(3), SOON).unwrap_err(), 3, kind);
    let mut rest = (4..8).map(parcel);
    is_back(queue.send_many(&mut rest).unwrap_err(), 4, kind);
    assert_eq!(rest.next().unwrap().number, 5, "those behind it were not touched");
    let lent = parcel(6);
    let () = queue.send(&lent).unwrap_err().into_item();
    assert_eq!(fails(queue.try_send(&lent).map(|sent| sent.map_err(|_| parcel(0)))).kind(), kind);
}

#[test]
fn what_a_closed_queue_does_not_take_comes_back() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue(10).unwrap();
    queue.send(parcel(0)).unwrap();
    queue.close().unwrap();
    in_vain(&queue, ErrorKind::Closed);
    assert_eq!(queue.recv().unwrap().unwrap().number, 0);
    assert!(queue.recv().unwrap().is_none(), "nothing of the others is in it");
    manager.audit().unwrap();
}

#[test]
fn what_was_waiting_for_room_comes_back_when_the_queue_is_closed() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue(1).unwrap();
    queue.send(parcel(0)).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| queue.send(parcel(1)));
        queue.close().unwrap();
        is_back(sender.join().unwrap().unwrap_err(), 1, ErrorKind::Closed);
    });
}

#[test]
fn what_finds_no_room_in_time_comes_back() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue(1).unwrap();
    queue.send(parcel(0)).unwrap();
    is_back(queue.send_timeout(parcel(1), SOON).unwrap_err(), 1, ErrorKind::TimedOut);
    assert!(queue.send_timeout(parcel(1), SOON).is_err_and(|unsent| unsent.is_timed_out() && !unsent.is_closed()));
    assert_eq!(queue.try_send(parcel(2)).unwrap().unwrap_err().number, 2);
    let mut items = (0..3).map(parcel);
    let other = manager.queue_with(commonhold::QueueOptions::new().bytes_max(10 << 10)).unwrap();
    let large = Parcel { number: 9, content: vec![7; 1 << 20] };
    let unsent = other.send_many(items.by_ref().take(1).chain([large])).unwrap_err();
    assert_eq!((unsent.kind(), unsent.item().content.len()), (ErrorKind::TooLarge, 1 << 20), "one that would be written in pieces");
    assert_eq!((other.len().unwrap(), unsent.into_item().number), (1, 9), "the one before it is there");
}

#[test]
fn what_a_manager_that_has_ended_does_not_take_comes_back() {
    let manager = Manager::start().unwrap();
    let (queue, (_receiver, sender)) = (manager.queue(10).unwrap(), manager.pipe_one_way().unwrap());
    crate::support::process_of(&manager).kill();
    in_vain(&queue, ErrorKind::Disconnected);
    assert!(queue.send(parcel(1)).unwrap_err().is_disconnected());
    is_back(sender.send(parcel(8)).unwrap_err(), 8, ErrorKind::Disconnected);
    is_back(sender.send_timeout(parcel(9), SOON).unwrap_err(), 9, ErrorKind::Disconnected);
}

#[test]
fn what_nobody_will_receive_from_a_pipe_comes_back() {
    let manager = Manager::in_process().unwrap();
    let (receiver, sender) = manager.pipe_one_way_with(PipeOptions::new().capacity(1)).unwrap();
    sender.send(parcel(0)).unwrap();
    is_back(sender.send_timeout(parcel(1), SOON).unwrap_err(), 1, ErrorKind::TimedOut);
    assert_eq!(sender.try_send(parcel(2)).unwrap().unwrap_err().number, 2);
    drop(receiver);
    crate::support::until("the pipe has ended", || sender.send_timeout(parcel(3), SOON).is_err_and(|unsent| unsent.is_closed()));
    let unsent = sender.send(parcel(4)).unwrap_err();
    assert!(unsent.to_string().starts_with("the pipe is closed"), "{unsent}");
    is_back(unsent, 4, ErrorKind::Closed);
    is_back(fails(sender.try_send(parcel(5))), 5, ErrorKind::Closed);
    let (ours, theirs) = manager.pipe::<Parcel>().unwrap();
    theirs.close().unwrap();
    is_back(ours.send(parcel(6)).unwrap_err(), 6, ErrorKind::Closed);
}

/// Lent or given, `?` works wherever `commonhold::Error` is understood.
#[test]
fn the_error_goes_wherever_errors_go() {
    fn ours<T: Shared>(queue: &Queue<T>, item: impl AsShared<T>) -> commonhold::Result<()> {
        queue.send(item)?;
        Ok(())
    }
    fn boxed(queue: &Queue<String>, line: &str) -> Result<(), Box<dyn Error>> {
        queue.send(line)?;
        Ok(())
    }
    fn sent_elsewhere(queue: &Queue<String>, line: String) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(queue.send(line)?)
    }
    fn same<A: Debug, B: Debug>(one: &A, other: &B) {
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
    let manager = Manager::in_process().unwrap();
    let lines = manager.queue::<String>(3).unwrap();
    ours(&lines, "lent").and(ours(&lines, "given".to_owned())).unwrap();
    boxed(&lines, "lent").unwrap();
    lines.close().unwrap();
    let error = ours(&lines, "lent").unwrap_err();
    assert!(error.is_closed() && ours(&lines, "given".to_owned()).unwrap_err().is_closed());
    assert_eq!(boxed(&lines, "lent").unwrap_err().to_string(), error.to_string());
    let unsent = sent_elsewhere(&lines, "given".to_owned()).unwrap_err();
    same(&unsent, &error);
    assert_eq!(unsent.downcast::<SendError<String>>().unwrap().into_item(), "given");
}
