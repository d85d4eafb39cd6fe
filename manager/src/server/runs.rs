//! Which logic has been committed: for a caller that hears nothing more of its host.
//!
//! A host that is stopped, or dies, between the commit of what it was asked to run and its answer leaves its caller without a word. So its commit
//! says which run it is of (`wire::run`), and the manager remembers each line's last one; a line has one call at a time, so that is all that
//! can be asked about. Who asks ([`Call::Settle`](commonhold_ipc::wire::Call::Settle)) is to have an answer that stays true: so a run that has not been
//! committed is *barred* by the question, and its commit refused, should it still come. And a commit of logic is done under the ticket that it
//! names or not at all, so that one that was held up for long does not come between others.
//!
//! | the host is stopped or dies | of a later `Settle` the answer is | and the host, should it go on |
//! |---|---|---|
//! | before its commit is with the manager | nothing | is refused |
//! | after that, before it is done | nothing | the same |
//! | after it is done | it has | answers |
//!
//! A line is asked about by the session that was given it, and by no other: so nobody bars what somebody else has asked for. When that session is over,
//! what was committed on its lines is of no interest. What is barred is kept apart, and does not take the room of what is known; should it become too much, whatever
//! is as old as what goes, and of which nothing else is known, counts as barred.

use super::calls::Done;
use super::{Connection, Server};
use commonhold_ipc::error::{Error, ErrorKind};
use commonhold_ipc::limits::{RUN_HOSTS_ENDED_MAX, RUN_LINES_MAX};
use commonhold_ipc::wire::commit::Commit;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::run::{RunMark, Settle};
use commonhold_ipc::wire::{Head, whole};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What is known of a line. Numbers are those of its calls, from 1.
struct Line {
    /// The session that was given it.
    client: u64,
    /// The last call that was committed.
    committed: u64,
    /// When there was last something of it: so many such things of this host were before.
    at: u64,
}

/// What a host has committed.
#[derive(Default)]
pub(super) struct Runs {
    lines: HashMap<u64, Line>,
    /// By line the last call that must not be committed.
    barred: BTreeMap<u64, u64>,
    /// Up to this line, those of which nothing is known count as barred.
    barred_below: u64,
    /// Things that there were of its lines.
    events: u64,
    /// The last line that has been forgotten, for lack of room. Lines' numbers ascend, so all behind it are known.
    forgotten: u64,
}

impl Runs {
    fn forget(&mut self, line: u64) {
        self.lines.remove(&line);
        self.forgotten = self.forgotten.max(line);
    }

    /// A session is given a line, which nobody had before.
    pub(super) fn open(&mut self, line: u64, client: u64) {
        if self.lines.len() >= RUN_LINES_MAX
            && let Some(oldest) = self.lines.iter().min_by_key(|(_, line)| line.at).map(|(number, _)| *number)
        {
            self.forget(oldest);
        }
        self.events += 1;
        self.lines.insert(line, Line { client, committed: 0, at: self.events });
    }

    /// A session is over.
    pub(super) fn client_ended(&mut self, client: u64) {
        self.lines.retain(|_, line| line.client != client);
    }

    fn bar(&mut self, line: u64, number: u64) {
        let barred = self.barred.entry(line).or_default();
        *barred = number.max(*barred);
        if self.barred.len() > RUN_LINES_MAX
            && let Some((oldest, _)) = self.barred.pop_first()
        {
            self.forget(oldest);
            self.barred_below = oldest;
        }
    }

    /// Whether a call must not be committed.
    fn is_barred(&self, line: u64, number: u64) -> bool {
        let is_unknown = || line <= self.barred_below && !self.lines.contains_key(&line);
        self.barred.get(&line).is_some_and(|last| number <= *last) || is_unknown()
    }

    fn note(&mut self, line: u64, number: u64) {
        self.events += 1;
        if let Some(line) = self.lines.get_mut(&line) {
            (line.committed, line.at) = (number, self.events);
        }
    }

    /// What is to be said to a session that asks about a call.
    fn settle(&self, asking: u64, line: u64, number: u64) -> Settled {
        match self.lines.get(&line) {
            Some(Line { client, .. }) if *client != asking => Settled::Nonsense,
            Some(line) if line.committed == number => Settled::Done,
            Some(_) => Settled::Undone,
            None if line <= self.forgotten => Settled::Unknown,
            None => Settled::Nonsense,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Done,
    Undone,
    /// It has been forgotten.
    Unknown,
    /// It was not given to who asks.
    Nonsense,
}

/// Of hosts that have ended.
#[derive(Default)]
pub(super) struct Ended {
    hosts: VecDeque<(u64, Runs)>,
    /// The last one that has been forgotten. Sessions' numbers ascend.
    forgotten: u64,
}

impl Ended {
    pub(super) fn keep(&mut self, host: u64, mut runs: Runs) {
        // Of a host that is over, what was not committed never will be.
        runs.lines.retain(|_, line| line.committed > 0);
        runs.barred.clear();
        if runs.lines.is_empty() && runs.forgotten == 0 {
            return;
        }
        if self.hosts.len() >= RUN_HOSTS_ENDED_MAX
            && let Some((oldest, _)) = self.hosts.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.hosts.push_back((host, runs));
    }

    pub(super) fn client_ended(&mut self, client: u64) {
        self.hosts.iter_mut().for_each(|(_, runs)| runs.client_ended(client));
        self.hosts.retain(|(_, runs)| !runs.lines.is_empty() || runs.forgotten > 0);
    }

    fn settle(&self, asking: u64, Settle { host, line, number }: Settle) -> Settled {
        match self.hosts.iter().find(|(known, _)| *known == host) {
            Some((_, runs)) if line > runs.forgotten && !runs.lines.contains_key(&line) => Settled::Undone,
            Some((_, runs)) => runs.settle(asking, line, number),
            None if host <= self.forgotten => Settled::Unknown,
            None => Settled::Undone,
        }
    }
}

impl Server {
    /// The commit of logic: under the ticket that it names and before its caller has given it up, or not at all.
    pub(super) fn run_commit(&mut self, index: usize, head: &Head, payload: &[u8]) -> Done {
        let Some((payload, mark)) = RunMark::split(payload) else { return Done::Nonsense };
        let Some(host) = self.session_number(index) else { return Done::Nonsense };
        let Some(runs) = self.hosts.runs_mut(host) else { return Done::Nonsense };
        if runs.is_barred(mark.line, mark.number) {
            let text = "what runs beside the manager came to its commit when its caller had given it up: it has left no trace";
            return self.refuse_commit(index, payload, Done::Failed(Error::new(ErrorKind::TimedOut, text)));
        }
        if !self.tickets.has(index, mark.ticket) {
            return self.refuse_commit(index, payload, Done::Conflict);
        }
        let done = self.commit(index, head, payload);
        if let (Done::Committed(_), Some(runs)) = (&done, self.hosts.runs_mut(host)) {
            runs.note(mark.line, mark.number);
        }
        if mark.is_last {
            self.tickets.give_back(index, mark.ticket);
        }
        done
    }

    /// A commit that is not done. What it names is used up all the same, as with one that loses.
    fn refuse_commit(&mut self, index: usize, payload: &[u8], refused: Done) -> Done {
        let Ok(commit) = whole(payload, "commit", Commit::parse) else { return Done::Nonsense };
        if !commit.is_whole() {
            return Done::Nonsense;
        }
        if let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) {
            commit.uploads().for_each(|number| session.uploads().discard(number, &mut self.store.memory));
        }
        refused
    }

    /// Whether logic has been committed; if it has not, it will not be.
    pub(super) fn settle(&mut self, index: usize, payload: &[u8]) -> Done {
        let Ok(settle) = whole(payload, "question about a run", Settle::parse) else { return Done::Nonsense };
        let Some(asking) = self.session_number(index) else { return Done::Nonsense };
        let settled = match self.hosts.runs_mut(settle.host) {
            Some(runs) => {
                let settled = runs.settle(asking, settle.line, settle.number);
                if settled == Settled::Undone {
                    runs.bar(settle.line, settle.number);
                }
                settled
            }
            None => self.hosts.ended.settle(asking, settle),
        };
        match settled {
            Settled::Done => Done::Answer(vec![Outcome::Something]),
            Settled::Undone => Done::Answer(vec![Outcome::Nothing]),
            Settled::Unknown => Done::Failed(Error::new(
                ErrorKind::OutcomeUnknown,
                "the host of what runs beside the manager has said nothing more, and the manager has forgotten whether it was done: look at \
                 what it was to change before you do it again",
            )),
            Settled::Nonsense => Done::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Settled::*;

    #[test]
    fn each_lines_last_commit_is_known_to_who_was_given_it() {
        let mut runs = Runs::default();
        runs.open(1, 70);
        runs.open(2, 80);
        assert_eq!(runs.settle(70, 1, 1), Undone);
        for number in 1..=3 {
            runs.note(1, number);
            assert_eq!([runs.settle(70, 1, number), runs.settle(70, 1, number + 1), runs.settle(80, 2, number)], [Done, Undone, Undone]);
            assert_eq!([runs.settle(80, 1, number), runs.settle(70, 2, number)], [Nonsense, Nonsense]);
        }
        // A line that nobody was given, though a host says that it has committed on it.
        runs.note(3, 1);
        assert_eq!(runs.settle(70, 3, 1), Nonsense);
        runs.client_ended(70);
        assert_eq!([runs.settle(70, 1, 3), runs.settle(80, 2, 1)], [Nonsense, Undone]);
        assert_eq!(runs.lines.len(), 1);
    }

    #[test]
    fn of_too_many_lines_those_are_forgotten_that_have_rested_longest_and_said_so() {
        let mut runs = Runs::default();
        let most = RUN_LINES_MAX as u64;
        (1..=most).for_each(|line| runs.open(line, 7));
        (1..=most).for_each(|line| runs.note(line, 1));
        runs.note(1, 2);
        (most + 1..=most + 2).for_each(|line| runs.open(line, 7));
        assert_eq!(runs.lines.len(), RUN_LINES_MAX);
        let said = [1, 2, 3, 4, most, most + 1, most + 2, most + 3].map(|line| runs.settle(7, line, 1));
        assert_eq!(said, [Undone, Unknown, Unknown, Done, Done, Undone, Undone, Nonsense], "what is new is known, whatever was forgotten");
        // What comes on a line that was forgotten changes nothing of that.
        runs.note(2, 9);
        assert_eq!(runs.settle(7, 2, 9), Unknown);
    }

    #[test]
    fn what_is_barred_stays_so_and_takes_nobodys_room() {
        let mut runs = Runs::default();
        let most = RUN_LINES_MAX as u64;
        runs.open(1, 7);
        runs.open(2, 7);
        runs.note(1, 1);
        runs.note(2, 1);
        runs.bar(2, 2);
        assert!(runs.is_barred(2, 2) && runs.is_barred(2, 1) && !runs.is_barred(2, 3) && !runs.is_barred(1, 1));
        // Its session is over, and there are as many others as there may be; and once more.
        runs.client_ended(7);
        runs.open(3, 8);
        (4..most + 3).for_each(|line| runs.bar(line, 1));
        assert!(runs.is_barred(2, 2) && !runs.is_barred(1, 1) && !runs.is_barred(3, 1));
        runs.bar(most + 3, 1);
        assert_eq!((runs.barred.len(), runs.barred_below), (RUN_LINES_MAX, 2));
        assert!(runs.is_barred(2, 2) && runs.is_barred(2, 3) && runs.is_barred(1, 1), "of which nothing is known");
        assert!(!runs.is_barred(3, 1) && !runs.is_barred(most + 9, 1));
        assert_eq!(runs.settle(8, 3, 1), Undone, "the others are as known as before");
    }

    #[test]
    fn of_hosts_that_have_ended_the_last_ones_are_known_and_of_others_it_is_said_that_they_are_not() {
        let mut ended = Ended::default();
        let settle = |ended: &Ended, host| ended.settle(1, Settle { host, line: 7, number: 1 });
        let mut runs = Runs::default();
        runs.open(7, 1);
        ended.keep(1, runs);
        assert!(ended.hosts.is_empty(), "it has committed nothing");
        for host in 2..=RUN_HOSTS_ENDED_MAX as u64 + 2 {
            let mut runs = Runs::default();
            runs.open(7, 1 + host % 2);
            runs.note(7, 1);
            ended.keep(host, runs);
        }
        assert_eq!(ended.hosts.len(), RUN_HOSTS_ENDED_MAX);
        assert_eq!([1, 2, 3, 4, 1000].map(|host| settle(&ended, host)), [Unknown, Unknown, Nonsense, Done, Undone]);
        ended.client_ended(2);
        assert_eq!((ended.hosts.len(), settle(&ended, 4)), (RUN_HOSTS_ENDED_MAX / 2, Done));
    }
}
