//! Who sleeps at a queue, and who wakes them.
//!
//! Five eventcounts, for those who wait for items, for room (two), for dead letters and for the end of all work. Whoever changes what they wait
//! for looks at their bits behind it; whoever dies in between has woken them by being recovered.
//!
//! **Who sleeps because there is no room is told when half of the queue is empty**, one of them, and again one when half of the rest is. Told of
//! each item that goes, all would be woken for one, and its receiver be held up by them: a change of processes for every item, where there
//! are more of them than processors. Until then there may be room that nobody tells of, which harms nobody who receives. Should they stop
//! receiving, a sender looks by itself, after [`QUEUE_SPACE_LOOK_MS`] first, then ever more seldom: so it comes late by no more than it has
//! waited already. Who awaits room in a task, beside other things, is told of any, and looks by itself as seldom as who waits for items.

use super::{Queue, Room, plan};
use crate::error::Result;
use crate::limits::{LOCK_LOOK_MS, QUEUE_ITEMS_APART_NS, QUEUE_SPACE_APART_NS, QUEUE_SPACE_APART_NS_MAX, QUEUE_SPACE_LOOK_MS};
use crate::liveness::{Slept, disconnected};
use crate::sync::{Eventcount, Waiting, Word};

/// Longest sleep without a look at the queue's words, in milliseconds: the backstop of a wake-up that went to a process that was stopped.
const LOOK_MS: u64 = LOCK_LOOK_MS;

impl<'m, M: Room + ?Sized> Queue<'m, M> {
    /// Who waits for items.
    #[inline(always)]
    pub fn items(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, plan::EVENTS)
    }

    /// Who waits for room, and looks by itself: one is told when there is much.
    #[inline(always)]
    pub fn space(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, plan::EVENTS + 4)
    }

    /// Who waits for room, and seldom looks by itself: told of any.
    #[inline(always)]
    pub fn any_room(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, plan::ANY_ROOM)
    }

    /// Who waits for dead letters.
    #[inline(always)]
    pub fn dead_letters(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, plan::EVENTS + 12)
    }

    /// Who waits for the end of all work.
    #[inline(always)]
    pub fn finish(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, plan::EVENTS + 8)
    }

    pub(super) fn tell_closed(&self) {
        self.memory.word(plan::CLOSED).swap(1);
        self.items().notify_all();
        self.tell_all_room();
        self.finish().notify_all();
    }

    /// There is more room than before, of which nothing is known.
    pub(super) fn tell_all_room(&self) {
        self.any_room().notify_all();
        self.space().notify_all();
    }

    /// An item has made room. Whoever takes the last item finds that nothing is left, and so does not keep it to itself; that of two
    /// who take at the same time neither finds some other number does not matter.
    #[inline(always)]
    pub(super) fn tell_room(&self) {
        self.any_room().notify_all();
        if self.space().is_awaited() && self.is_much_room() {
            self.space().notify_one();
        }
    }

    fn is_much_room(&self) -> bool {
        let len = self.ring(plan::MAIN).len();
        len <= self.plan.capacity().div_ceil(2) && (len == 0 || len.is_power_of_two())
    }

    #[inline(always)]
    pub(super) fn tell_gone(&self) {
        self.tell_room();
        self.finish().notify_all();
        if self.memory.word(plan::CLOSED).load() != 0 {
            self.items().notify_all();
        }
    }

    /// Tries until it comes to something, the deadline passes (`None`), or the manager is gone.
    pub fn wait<R>(
        &self,
        events: &Eventcount<'_, M>,
        waiting: &impl Waiting<M>,
        attempt: impl FnMut() -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        self.wait_looking(events, QUEUE_ITEMS_APART_NS, LOOK_MS, waiting, attempt)
    }

    /// The same for room.
    pub fn wait_for_room<R>(&self, waiting: &impl Waiting<M>, attempt: impl FnMut() -> Result<Option<R>>) -> Result<Option<R>> {
        let apart_ns = (self.plan.capacity() * QUEUE_SPACE_APART_NS).clamp(QUEUE_ITEMS_APART_NS, QUEUE_SPACE_APART_NS_MAX);
        self.wait_looking(&self.space(), apart_ns, QUEUE_SPACE_LOOK_MS, waiting, attempt)
    }

    /// While it is awake it looks every so many nanoseconds, while it sleeps first after so many milliseconds.
    fn wait_looking<R>(
        &self,
        events: &Eventcount<'_, M>,
        apart_ns: u64,
        mut look_ms: u64,
        waiting: &impl Waiting<M>,
        mut attempt: impl FnMut() -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        let mut early = Ok(None);
        let ready = waiting.spin_apart(apart_ns, &mut || {
            early = attempt();
            !matches!(early, Ok(None))
        });
        if ready {
            return early;
        }
        loop {
            let prepared = events.prepare();
            if let Some(result) = attempt()? {
                return Ok(Some(result));
            }
            if waiting.is_over() {
                // Somebody may have been woken for what this one leaves.
                events.notify_one();
                return Ok(None);
            }
            if events.sleep(prepared, waiting, look_ms)? == Slept::ManagerDied {
                return Err(disconnected());
            }
            look_ms = (2 * look_ms).min(LOOK_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;
    use crate::map::Segment;
    use crate::queue::{Begun, Filling, How, Parameters, Plan, Region, Sent, Took};
    use crate::segment;
    use crate::sync::{Claim, Half};

    #[test]
    fn who_waits_for_room_is_told_when_half_is_empty_or_of_any() {
        let me = Claim::new(1, 1);
        for capacity in 1..20 {
            let plan = Plan::new(Parameters { capacity, bytes_max: 0, attempts_max: 0, joinable: false }.words()).unwrap();
            let segment = segment::make(1, Kind::Queue, &plan.shape()).unwrap().1;
            let queue = Queue::new(&segment, &plan);
            for _ in 0..capacity {
                assert_eq!(queue.send_short(me, &[7], 0).unwrap(), Sent::Done);
            }
            assert_eq!(queue.send_short(me, &[7], 0).unwrap(), Sent::Full);
            for left in (0..capacity).rev() {
                let (space, any) = (queue.space().prepare(), queue.any_room().prepare());
                let Took::Item(index) = queue.take(me, How::Receive).unwrap() else { panic!("an item") };
                assert_eq!(Half::load(queue.any_room().word()), any, "a free cell is no room yet");
                queue.deliver_short(me, index).unwrap();
                let told = |eventcount: Eventcount<'_, _>, prepared| Half::load(eventcount.word()) != prepared;
                assert!(told(queue.any_room(), any));
                let much = [0, 1, 2, 4, 8, 16].contains(&left) && left <= capacity.div_ceil(2);
                assert_eq!(told(queue.space(), space), much, "{left} of {capacity} are left");
            }
        }
    }

    /// What becomes of who waits for room, of either kind, while `then` does something: whether they are told.
    fn told(queue: &Queue<'_, Segment>, then: impl FnOnce()) -> [bool; 2] {
        let events = [queue.space(), queue.any_room()];
        let prepared = events.each_ref().map(Eventcount::prepare);
        then();
        [0, 1].map(|at| Half::load(events[at].word()) != prepared[at])
    }

    /// A queue of two items and four units, all of them there.
    fn small() -> (Segment, Plan) {
        let plan = Plan::new(Parameters { capacity: 2, bytes_max: 4 << 10, attempts_max: 0, joinable: false }.words()).unwrap();
        let segment = segment::make(1, Kind::Queue, &plan.shape()).unwrap().1;
        Queue::new(&segment, &plan).back(Region::Units, 0, 4);
        (segment, plan)
    }

    fn begin(queue: &Queue<'_, Segment>, bytes: usize) -> std::result::Result<Filling, Sent> {
        match queue.begin(Claim::new(1, 1), bytes).unwrap() {
            Begun::Filling(mut filling) => {
                queue.fill(&mut filling, &vec![7; bytes]).unwrap();
                Ok(filling)
            }
            Begun::Not(sent) => Err(sent),
        }
    }

    #[test]
    fn who_finds_too_little_room_wakes_nobody() {
        let (segment, plan) = small();
        let queue = Queue::new(&segment, &plan);
        let draft = begin(&queue, 2 << 10).unwrap();
        // Two of the three that it asks for are free. It would wake itself, and others who wait as it does would wake it, for ever.
        assert_eq!(told(&queue, || assert_eq!(begin(&queue, 3 << 10).unwrap_err(), Sent::Full)), [false; 2]);
        queue.cancel(draft).unwrap();
        begin(&queue, 3 << 10).unwrap();
    }

    #[test]
    fn who_gives_units_back_tells_of_it() {
        let (segment, plan) = small();
        let queue = Queue::new(&segment, &plan);
        let draft = begin(&queue, 2 << 10).unwrap();
        assert_eq!(told(&queue, || queue.cancel(draft).unwrap()), [true; 2]);
        // There is no place any more for what is ready to be sent.
        let (draft, me) = (begin(&queue, 2 << 10).unwrap(), Claim::new(1, 1));
        (0..2).for_each(|_| assert_eq!(queue.send_short(me, &[7], 0).unwrap(), Sent::Done));
        assert_eq!(told(&queue, || assert_eq!(queue.publish(me, draft).unwrap(), Sent::Full)), [true; 2]);
        // What has claimed none has none to tell of.
        assert_eq!(told(&queue, || assert_eq!(begin(&queue, 2 << 10).unwrap_err(), Sent::Full)), [false; 2]);
    }
}
