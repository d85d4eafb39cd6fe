//! What was said to be done, against what is there.

use crate::actor::{Entry, House, PERMITS, SUM, Said};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Books {
    moved: BTreeSet<Entry>,
    unmoved: BTreeSet<Entry>,
    perhaps: BTreeSet<Entry>,
    sent: BTreeSet<u64>,
    piped: BTreeSet<Entry>,
    /// What came out of the pipe: of each actor in the order in which it was sent.
    received: BTreeMap<u64, Vec<u64>>,
    counted: u64,
    marked: u64,
    /// By generation of the tally.
    added: BTreeMap<u64, u64>,
    /// Of actors: the last deed of each may be done and not said.
    pub deaths: u64,
}

impl Books {
    pub fn enter(&mut self, said: Said) {
        match said {
            Said::Moved(entry) => assert!(self.moved.insert(entry), "{entry:?} is said twice"),
            Said::HasNotMoved(entry) => assert!(self.unmoved.insert(entry), "{entry:?} is said twice"),
            Said::MayHaveMoved(entry) => assert!(self.perhaps.insert(entry), "{entry:?} is said twice"),
            Said::Sent(job) => assert!(self.sent.insert(job), "job {job} is said twice"),
            Said::Piped(entry) => assert!(self.piped.insert(entry), "{entry:?} is said twice"),
            Said::Counted => self.counted += 1,
            Said::Marked => self.marked += 1,
            Said::Added(generation) => *self.added.entry(generation).or_default() += 1,
        }
    }

    pub fn receive(&mut self, (actor, serial): Entry) {
        let of_actor = self.received.entry(actor).or_default();
        assert!(of_actor.last().is_none_or(|last| *last < serial), "{serial} of actor {actor} after {of_actor:?}");
        of_actor.push(serial);
    }

    /// What is there is what was said; beyond it, the last deeds of the dead.
    #[track_caller]
    fn check(&self, what: &str, there: u64, said: u64) -> u64 {
        assert!((said..=said + self.deaths).contains(&there), "{what}: {said} were said, {there} are there, {} have died", self.deaths);
        there - said
    }

    pub fn balance(&self, house: &House) {
        let snapshot = house.journal.session().unwrap().snapshot().unwrap();
        assert_eq!(house.sum(&snapshot), SUM);
        let journal = house.journal.to_owned().unwrap();
        let entries: BTreeSet<Entry> = journal.iter().copied().collect();
        assert_eq!(entries.len(), journal.len(), "an entry is there twice");
        assert!(self.moved.is_subset(&entries), "lost: {:?}", self.moved.difference(&entries).collect::<Vec<_>>());
        assert!(
            self.unmoved.is_disjoint(&entries),
            "done though it was said not to be: {:?}",
            self.unmoved.intersection(&entries).collect::<Vec<_>>()
        );
        let unsaid = entries.iter().filter(|entry| !self.moved.contains(entry) && !self.perhaps.contains(entry)).count() as u64;

        let done = house.done.to_owned().unwrap();
        let jobs: BTreeSet<u64> = done.keys().copied().collect();
        assert!(done.values().all(|times| *times == 1));
        assert!(self.sent.is_subset(&jobs), "lost: {:?}", self.sent.difference(&jobs).collect::<Vec<_>>());
        assert_eq!((house.jobs.len().unwrap(), house.jobs.in_use().unwrap()), (0, (0, 0)));

        let received: BTreeSet<Entry> = self.received.iter().flat_map(|(actor, serials)| serials.iter().map(|it| (*actor, *it))).collect();
        assert!(self.piped.is_subset(&received), "lost: {:?}", self.piped.difference(&received).collect::<Vec<_>>());

        let mut beyond = unsaid + (jobs.len() - self.sent.len() + received.len() - self.piped.len()) as u64;
        // Who dies between the two counters has counted once, not twice.
        let (striped, steps) = (house.striped.get().unwrap() as u64, house.steps.get().unwrap() as u64);
        assert!(steps <= striped);
        beyond += self.check("counted", striped, self.counted);
        self.check("steps", steps, self.counted);
        let marks = house.marks.to_vec().unwrap();
        beyond += self.check("marks", marks[0], self.marked);
        assert!((0..=1).contains(&(marks[0] - marks[1])), "{marks:?}");
        let (generation, tally) = house.tally.get().unwrap().to_owned();
        beyond += self.check("the tally", tally.total().unwrap(), self.added.get(&generation).copied().unwrap_or(0));
        assert!(beyond <= self.deaths, "{beyond} deeds that nobody has said, by {} dead", self.deaths);
        assert_eq!(house.permits.available().unwrap(), PERMITS);
        println!(
            "{} moves ({} said to be undone), {} jobs, {} marks, {} piped, {striped} counted, {} tallies; {} deaths of actors, {beyond} deeds in dying hands",
            journal.len(),
            self.unmoved.len(),
            jobs.len(),
            marks[0],
            received.len(),
            generation + 1,
            self.deaths,
        );
    }
}
