//! Which logic has been committed: for a caller that hears nothing more of its host.
//!
//! A host that is stopped, or dies, between the commit of what it was asked to run and its answer leaves its caller without a word. So its commit
//! says which run it is of (`wire::run`), and the manager remembers each line's last one; a line has one call at a time, so that is all that
//! can be asked about. Who asks ([`Call::Settle`](commonhold_ipc::wire::Call::Settle)) is to have an answer that stays true: so the ticket is taken
//! from that host with it, and a commit of logic under a ticket that is gone is not done. Either it has come before, or it never will.
//!
//! | the host is stopped or dies | of a later `Settle` the answer is | and the host, should it go on |
//! |---|---|---|
//! | before its commit is with the manager | nothing | is told of a conflict: its time is over |
//! | after that, before it is done | nothing; the ticket of the commit is gone | the same |
//! | after it is done | it has | answers |
//!
//! The other runs of that host that are under way then lose their ticket too: they have a conflict, and run once more.

use super::calls::Done;
use super::{Connection, Server};
use commonhold_ipc::error::{Error, ErrorKind};
use commonhold_ipc::limits::{RUN_HOSTS_ENDED_MAX, RUN_LINES_MAX};
use commonhold_ipc::wire::commit::Commit;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::run::{RunMark, Settle};
use commonhold_ipc::wire::{Head, whole};
use std::collections::{HashMap, VecDeque};

/// The last commit on a line.
struct Last {
    /// The call's number on it.
    number: u64,
    /// When: so many commits of this host were before it.
    at: u64,
}

/// What a host has committed.
#[derive(Default)]
pub(super) struct Runs {
    lines: HashMap<u64, Last>,
    commits: u64,
    /// Whether a line has been forgotten for lack of room.
    has_forgotten: bool,
}

impl Runs {
    fn note(&mut self, line: u64, number: u64) {
        if self.lines.len() >= RUN_LINES_MAX && !self.lines.contains_key(&line) {
            let oldest = self.lines.iter().min_by_key(|(_, last)| last.at).map(|(line, _)| *line);
            oldest.map(|line| self.lines.remove(&line));
            self.has_forgotten = true;
        }
        self.lines.insert(line, Last { number, at: self.commits });
        self.commits += 1;
    }

    /// Whether a call has been committed. `None`: it is not known any more.
    fn has_done(&self, line: u64, number: u64) -> Option<bool> {
        match self.lines.get(&line) {
            Some(last) => Some(last.number == number),
            None if self.has_forgotten => None,
            None => Some(false),
        }
    }
}

/// Of hosts that have ended.
#[derive(Default)]
pub(super) struct Ended(VecDeque<(u64, Runs)>);

impl Ended {
    pub(super) fn keep(&mut self, host: u64, runs: Runs) {
        if runs.lines.is_empty() {
            return;
        }
        if self.0.len() >= RUN_HOSTS_ENDED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((host, runs));
    }

    pub(super) fn of(&self, host: u64) -> Option<&Runs> {
        self.0.iter().find(|(number, _)| *number == host).map(|(_, runs)| runs)
    }
}

impl Server {
    /// The commit of logic: under the ticket that it names, or not at all.
    pub(super) fn run_commit(&mut self, index: usize, head: &Head, payload: &[u8]) -> Done {
        let Some((payload, mark)) = RunMark::split(payload) else { return Done::Nonsense };
        let Some(host) = self.session_number(index).filter(|number| self.hosts.is_host(*number)) else { return Done::Nonsense };
        if !self.tickets.has(index, mark.ticket) {
            return self.refuse_commit(index, payload);
        }
        let done = self.commit(index, head, payload);
        if let (Done::Committed(_), Some(runs)) = (&done, self.hosts.runs_mut(host)) {
            runs.note(mark.line, mark.number);
        }
        if mark.is_last {
            self.take_ticket_back(index);
        }
        done
    }

    /// A commit that is not done. What it names is used up all the same, as with one that loses.
    fn refuse_commit(&mut self, index: usize, payload: &[u8]) -> Done {
        let Ok(commit) = whole(payload, "commit", Commit::parse) else { return Done::Nonsense };
        if !commit.is_whole() {
            return Done::Nonsense;
        }
        if let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) {
            commit.uploads().for_each(|number| session.uploads().discard(number, &mut self.store.memory));
        }
        Done::Conflict
    }

    /// Whether logic has been committed; if it has not, it will not be.
    pub(super) fn settle(&mut self, payload: &[u8]) -> Done {
        let Ok(Settle { host, line, number }) = whole(payload, "question about a run", Settle::parse) else { return Done::Nonsense };
        if let Some(index) = self.tickets.holder().filter(|index| self.session_number(*index) == Some(host)) {
            self.take_ticket_back(index);
        }
        // What is done is to be seen by who hears of it.
        self.store.publish();
        match self.hosts.runs(host).map_or(Some(false), |runs| runs.has_done(line, number)) {
            Some(true) => Done::Answer(vec![Outcome::Something]),
            Some(false) => Done::Answer(vec![Outcome::Nothing]),
            None => Done::Failed(Error::new(
                ErrorKind::OutcomeUnknown,
                "the host of what runs beside the manager has said nothing more, and the manager has forgotten whether it was done: look at \
                 what it was to change before you do it again",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lines_last_commit_is_known() {
        let mut runs = Runs::default();
        assert_eq!(runs.has_done(1, 1), Some(false));
        for number in 1..=3 {
            runs.note(1, number);
            runs.note(2, 2 * number);
            assert_eq!([1, 2, 3].map(|line| runs.has_done(line, number)), [Some(true), Some(number == 0), Some(false)]);
            assert_eq!(runs.has_done(1, number + 1), Some(false));
        }
    }

    #[test]
    fn of_too_many_lines_those_are_forgotten_that_have_rested_longest_and_said_so() {
        let mut runs = Runs::default();
        let most = RUN_LINES_MAX as u64;
        (0..most).for_each(|line| runs.note(line, 1));
        runs.note(0, 2);
        assert_eq!(runs.has_done(most, 1), Some(false), "all are known so far");
        runs.note(most, 1);
        runs.note(most + 1, 1);
        assert_eq!(runs.lines.len(), RUN_LINES_MAX);
        assert_eq!(
            [0, 1, 2, 3, most, most + 1].map(|line| runs.has_done(line, 1)),
            [Some(false), None, None, Some(true), Some(true), Some(true)]
        );
    }

    #[test]
    fn of_hosts_that_have_ended_the_last_ones_are_known() {
        let mut ended = Ended::default();
        ended.keep(1, Runs::default());
        assert!(ended.of(1).is_none(), "it has committed nothing");
        for host in 0..=RUN_HOSTS_ENDED_MAX as u64 {
            let mut runs = Runs::default();
            runs.note(7, host);
            ended.keep(host, runs);
        }
        assert!(ended.of(0).is_none());
        assert_eq!(ended.of(1).unwrap().has_done(7, 1), Some(true));
        assert_eq!(ended.0.len(), RUN_HOSTS_ENDED_MAX);
    }
}
