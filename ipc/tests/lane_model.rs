//! The two handshakes of lanes, run in every order that loom finds: nothing that was posted is overlooked, nobody sleeps through
//! an answer or the end of the session.
//!
//! The tables are at the head of `lane`. Both sides use the crate's own `post`, `stop_watching`, `begin_sleep` and `answer`, on loom's
//! atomics. The shared memory's fetch-or and the load behind it are SeqCst; loom knows that strength of fences only, so the model has a
//! fence between them. The kernel compares the word once more before it lets a caller sleep; the model of answers does without.
//! The canaries leave one step out and must be caught, or the model would prove nothing.

use commonhold_ipc::lane::{AnswerWords, PostWords, answer, begin_sleep, post, stop_watching};
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Which fence is left out, or that a session's end wakes.
#[derive(Clone, Copy, PartialEq)]
enum LeftOut {
    Nothing,
    Clients,
    Managers,
    WakeUp,
}

/// The manager's word that the session is over, as both halves read it.
const OVER: u32 = 2;

struct Doorbell {
    bits: AtomicU64,
    watched: AtomicU64,
    /// Times that the socket has been used to ring.
    rings: AtomicU32,
    request: AtomicU64,
}

struct Words<'a> {
    shared: &'a Doorbell,
    left_out: LeftOut,
}

impl PostWords for Words<'_> {
    fn set_bit(&self) {
        self.shared.bits.fetch_or(1, Ordering::AcqRel);
        if self.left_out != LeftOut::Clients {
            fence(Ordering::SeqCst);
        }
    }

    fn watched(&self) -> u64 {
        self.shared.watched.load(Ordering::Relaxed)
    }

    fn set_watched(&self, watched: u64) {
        self.shared.watched.store(watched, Ordering::Relaxed);
    }

    fn fence(&self) {
        if self.left_out != LeftOut::Managers {
            fence(Ordering::SeqCst);
        }
    }

    fn is_rung(&self) -> bool {
        self.shared.bits.load(Ordering::Relaxed) != 0
    }
}

/// One client posts, while the manager, which was watching, stops for this reason. Either the manager finds the post, with its request,
/// or the client knows that it must ring, or that the session is over.
fn posts(left_out: LeftOut, reason: u64) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(move || {
        let shared = Arc::new(Doorbell {
            bits: AtomicU64::new(0),
            watched: AtomicU64::new(1),
            rings: AtomicU32::new(0),
            request: AtomicU64::new(0),
        });
        let client = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.request.store(7, Ordering::Relaxed);
                let seen = post(&Words { shared: &shared, left_out }) == 1;
                if !seen {
                    shared.rings.store(1, Ordering::Relaxed);
                }
            }
        });
        let found = stop_watching(&Words { shared: &shared, left_out }, reason);
        if found {
            // SYNC: as `take_rung`.
            assert_eq!(shared.bits.swap(0, Ordering::Acquire), 1);
            assert_eq!(shared.request.load(Ordering::Relaxed), 7, "a bit without its request");
        }
        client.join().unwrap();
        assert!(found || shared.rings.load(Ordering::Relaxed) == 1, "a post has been overlooked");
    });
}

struct Slot {
    answered: AtomicU32,
    sleeping: AtomicU32,
    reply: AtomicU64,
}

struct Half<'a> {
    slot: &'a Slot,
    left_out: LeftOut,
    is_client: bool,
}

impl AnswerWords for Half<'_> {
    fn set_answered(&self) {
        self.slot.answered.store(3, Ordering::Release);
    }

    fn is_answered(&self) -> bool {
        matches!(self.slot.answered.load(Ordering::Acquire), 3 | OVER)
    }

    fn set_sleeping(&self) {
        self.slot.sleeping.store(1, Ordering::Relaxed);
    }

    fn is_sleeping(&self) -> bool {
        self.slot.sleeping.load(Ordering::Relaxed) == 1
    }

    fn fence(&self) {
        let is_mine = if self.is_client { LeftOut::Clients } else { LeftOut::Managers };
        if self.left_out != is_mine {
            fence(Ordering::SeqCst);
        }
    }
}

/// A caller looks, then sleeps; the manager answers, and wakes it if it says that it sleeps.
fn answers(left_out: LeftOut) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(move || {
        let slot = Arc::new(Slot { answered: AtomicU32::new(0), sleeping: AtomicU32::new(0), reply: AtomicU64::new(0) });
        let caller = thread::spawn({
            let slot = slot.clone();
            move || {
                let half = Half { slot: &slot, left_out, is_client: true };
                let sleeps = !half.is_answered() && begin_sleep(&half);
                if !sleeps {
                    assert!(half.is_answered());
                    assert_eq!(slot.reply.load(Ordering::Relaxed), 9, "an answer without its reply");
                }
                sleeps
            }
        });
        slot.reply.store(9, Ordering::Relaxed);
        let wakes = answer(&Half { slot: &slot, left_out, is_client: false });
        let sleeps = caller.join().unwrap();
        assert!(wakes || !sleeps, "somebody sleeps on");
    });
}

/// A caller posts and goes to sleep while the manager ends the session: it is told so by its post, or its lane is known to be used, and
/// it is woken. The kernel looks at the word and lets the caller sleep in one step, and wakes whoever sleeps by then.
fn ends(left_out: LeftOut) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(move || {
        let slot = Slot { answered: AtomicU32::new(0), sleeping: AtomicU32::new(0), reply: AtomicU64::new(0) };
        let (bits, watched) = (AtomicU64::new(0), AtomicU64::new(1));
        let bell = Doorbell { bits, watched, rings: AtomicU32::new(0), request: AtomicU64::new(0) };
        let shared = Arc::new((bell, slot, Mutex::new(false)));
        let caller = thread::spawn({
            let shared = shared.clone();
            move || {
                let (bell, slot, asleep) = &*shared;
                if post(&Words { shared: bell, left_out }) == u64::from(OVER) {
                    return;
                }
                if begin_sleep(&Half { slot, left_out, is_client: true }) {
                    let mut asleep = asleep.lock().unwrap();
                    *asleep = slot.answered.load(Ordering::Relaxed) == 0;
                }
            }
        });
        // As `ServedLanes::end`.
        let (bell, slot, asleep) = &*shared;
        stop_watching(&Words { shared: bell, left_out }, OVER.into());
        // SYNC: as `take_rung`, which does not touch a word in which it sees no bit.
        if bell.bits.load(Ordering::Relaxed) != 0 && bell.bits.swap(0, Ordering::Acquire) == 1 {
            slot.answered.store(OVER, Ordering::Release);
            if left_out != LeftOut::WakeUp {
                *asleep.lock().unwrap() = false;
            }
        }
        caller.join().unwrap();
        assert!(!*asleep.lock().unwrap(), "somebody sleeps on");
    });
}

#[test]
fn nobody_sleeps_through_the_end_of_a_session() {
    ends(LeftOut::Nothing);
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_the_clients_fence_an_end_is_slept_through() {
    ends(LeftOut::Clients);
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_the_managers_fence_an_end_is_slept_through() {
    ends(LeftOut::Managers);
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_the_wake_up_call_an_end_is_slept_through() {
    ends(LeftOut::WakeUp);
}

#[test]
fn no_post_is_overlooked() {
    posts(LeftOut::Nothing, 0);
    posts(LeftOut::Nothing, 2);
}

#[test]
fn nobody_sleeps_through_an_answer() {
    answers(LeftOut::Nothing);
}

#[test]
#[should_panic(expected = "a post has been overlooked")]
fn canary_without_the_clients_fence_a_post_is_overlooked() {
    posts(LeftOut::Clients, 0);
}

#[test]
#[should_panic(expected = "a post has been overlooked")]
fn canary_without_the_managers_fence_a_post_is_overlooked() {
    posts(LeftOut::Managers, 0);
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_the_callers_fence_an_answer_is_slept_through() {
    answers(LeftOut::Clients);
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_the_managers_fence_an_answer_is_slept_through() {
    answers(LeftOut::Managers);
}
