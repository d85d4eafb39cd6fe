//! The writer's ticket: whoever has it commits alone, for a while. It is asked for by who has lost too often, and by logic beside the data.
//!
//! It is a session's, and ends with it or after its time. Who asks while another session has it waits in a queue, and is answered where it has
//! asked: on its lane or its socket. It is given back by a word, or with the commit of logic (`runs`), which names it by its number.

use super::Server;
use super::calls::Done;
use commonhold_ipc::lane::Request;
use commonhold_ipc::limits::TICKET_MS;
use commonhold_ipc::pin::BLOCKS;
use commonhold_ipc::wire::Head;
use commonhold_ipc::wire::reply::Outcome;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Whose commits alone are done, and until when.
struct Ticket {
    session: usize,
    /// Tells it from all others.
    number: u64,
    until: Instant,
}

/// Who waits for the ticket: its session, and its call.
struct Waiting {
    session: usize,
    head: Head,
    /// If it was made on a lane.
    on_lane: Option<Request>,
}

/// The ticket, and who waits for it.
#[derive(Default)]
pub struct Tickets {
    ticket: Option<Ticket>,
    /// Given so far.
    given: u64,
    queue: VecDeque<Waiting>,
    /// Whether there may be sessions whose commit waits for the ticket.
    somebody_waits: bool,
    /// Whether those who have waited have this round to themselves: nobody is given a ticket in it.
    their_turn: bool,
}

impl Tickets {
    /// A session is over.
    pub fn forget(&mut self, session: usize) {
        self.queue.retain(|waiting| waiting.session != session);
        if self.holder() == Some(session) {
            self.ticket = None;
        }
    }

    /// A session gives the ticket of this number back, if it still has it.
    pub fn give_back(&mut self, session: usize, number: u64) {
        if self.ticket.as_ref().is_some_and(|ticket| (ticket.session, ticket.number) == (session, number)) {
            self.ticket = None;
        }
    }

    /// Gives it to a session; its number.
    fn give(&mut self, session: usize) -> u64 {
        self.given += 1;
        self.ticket = Some(Ticket { session, number: self.given, until: Instant::now() + Duration::from_millis(TICKET_MS) });
        self.given
    }

    /// Whether a session has the ticket of this number, in time.
    pub fn has(&self, session: usize, number: u64) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| (ticket.session, ticket.number) == (session, number) && Instant::now() < ticket.until)
    }

    /// The session that has one.
    fn holder(&self) -> Option<usize> {
        self.ticket.as_ref().map(|ticket| ticket.session)
    }

    /// A commit waits for the ticket.
    pub fn note_who_waits(&mut self) {
        self.somebody_waits = true;
    }

    /// When the ticket's time is over.
    pub fn until(&self) -> Option<Instant> {
        self.ticket.as_ref().map(|ticket| ticket.until)
    }
}

/// The answer to who asked for it.
fn given(number: u64) -> Done {
    Done::Answer(vec![Outcome::Number(number)])
}

impl Server {
    /// Whether another session has the writer's ticket.
    pub(super) fn waits_for_ticket(&self, index: usize) -> bool {
        self.tickets.ticket.as_ref().is_some_and(|ticket| ticket.session != index && Instant::now() < ticket.until)
    }

    /// Gives a session the ticket, or has it wait for it.
    pub(super) fn take_ticket(&mut self, index: usize, head: &Head, on_lane: Option<Request>) -> Done {
        let tickets = &mut self.tickets;
        // Who has just given one back does not have the next one before those whose turn it is, or is about to be.
        let is_free = tickets.ticket.is_none() && tickets.queue.is_empty();
        if is_free && !tickets.somebody_waits && !tickets.their_turn {
            return given(tickets.give(index));
        }
        // A lane has one call at a time, so no client of ours asks for more.
        if tickets.queue.iter().filter(|waiting| waiting.session == index).count() >= BLOCKS {
            return Done::Nonsense;
        }
        tickets.queue.push_back(Waiting { session: index, head: *head, on_lane });
        Done::NoAnswer
    }

    /// A ticket that is given back, or over its time, goes to the next who waits for one. Between two tickets everybody who
    /// was kept waiting has a turn: so who asks for one ticket after the other delays the others, and no more.
    #[inline]
    pub(super) fn pass_ticket_on(&mut self) {
        self.tickets.their_turn = false;
        let Tickets { ticket, queue, somebody_waits, .. } = &self.tickets;
        if ticket.is_some() || *somebody_waits || !queue.is_empty() {
            self.pass_ticket();
        }
    }

    fn pass_ticket(&mut self) {
        if self.tickets.until().is_some_and(|until| until <= Instant::now()) {
            self.tickets.ticket = None;
        }
        if self.tickets.ticket.is_none() && self.wake_who_waits(None) {
            self.tickets.their_turn = true;
        } else {
            while self.tickets.ticket.is_none()
                && let Some(Waiting { session, head, on_lane }) = self.tickets.queue.pop_front()
            {
                let done = given(self.tickets.give(session));
                match on_lane {
                    Some(request) => {
                        self.answer_lane(session, &request, done);
                        self.answer_lanes();
                    }
                    None => self.answer(session, &head, done),
                }
                // If that client turns out to be gone, so is its ticket, and the next one's turn has come.
                self.flush_all();
            }
        }
        if let Some(holder) = self.tickets.holder() {
            self.wake_who_waits(Some(holder));
        }
    }

    /// Lets the sessions (or this one) whose commit waits for the ticket go on in the next round. Whether there were any.
    fn wake_who_waits(&mut self, only: Option<usize>) -> bool {
        if !self.tickets.somebody_waits {
            return false;
        }
        self.tickets.somebody_waits = only.is_some();
        let before = self.unfinished.len();
        let mut lanes = false;
        for index in 0..self.connections.len() {
            if only.is_none_or(|only| only == index) && self.lanes_wait(index) {
                lanes = true;
                self.wake_lanes(index);
            }
            if let Some(Some(super::Connection::Session(session))) = self.connections.get_mut(index)
                && session.waits_for_ticket
                && only.is_none_or(|only| only == index)
            {
                session.waits_for_ticket = false;
                self.put_off(index);
            }
        }
        lanes || self.unfinished.len() > before
    }
}
