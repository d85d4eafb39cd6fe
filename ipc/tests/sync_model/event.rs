//! Events.
use crate::check;
use crate::segment::{Patience, Segment};
use commonhold_ipc::sync::Claim;
use commonhold_ipc::sync::event::Event;
use loom::thread;

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_an_event_that_was_cleared_before_is_waited_for() {
    check(6, || {
        let segment = Segment::new(&[0, 16], &[8]);
        let event = Event::new(&*segment, 0);
        let other = thread::spawn({
            let segment = segment.clone();
            move || {
                let event = Event::new(&*segment, 0);
                event.change(true);
                event.change(false)
            }
        });
        if event.is_set() {
            assert!(event.wait(Claim::new(1, 0), &Patience { segment: &segment, is_long: false }).unwrap());
        }
        assert!(other.join().unwrap());
    });
}

#[test]
fn an_event_wakes_who_waits() {
    check(3, || {
        let segment = Segment::new(&[0, 16], &[8]);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || Event::new(&*segment, 0).wait(Claim::new(1, 0), &Patience { segment: &segment, is_long: false }).unwrap()
        });
        Event::new(&*segment, 0).change(true);
        assert!(waiter.join().unwrap());
    });
}
