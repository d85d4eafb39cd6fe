//! What a session that is over has left in a queue.

use super::item::{self, State};
use super::plan::{DEAD, MAIN, RETURNED};
use super::{Queue, Room};
use crate::sync::{Claim, Word};
use std::collections::HashSet;

impl<M: Room + ?Sized> Queue<'_, M> {
    /// Takes back what a session that is over had in its hands, and wakes all sleepers. Nothing of that session writes here any more;
    /// all others may.
    pub fn recover(&self, session: u64) {
        let mut thrown_away = HashSet::new();
        for index in 0..self.backed_items() {
            let word = self.state(index).load();
            match State::of(word) {
                State::Busy(claim) if claim.session() == session => drop(thrown_away.insert(index)),
                State::Leased(claim) if claim.session() == session && self.is_delivered(index) => drop(thrown_away.insert(index)),
                State::Taken(claim) | State::Leased(claim) if claim.session() == session => {
                    self.unmark_delivered(index);
                    // Words that make no sense: the item stays where it is, and is nobody's.
                    let _ = self.give_back(claim, index);
                }
                State::Published(which, position) => {
                    if let Some(owner) = self.lost(session, index, which, position)
                        && self.state(index).compare_exchange(word, owner.word()).is_ok()
                    {
                        if which == MAIN {
                            thrown_away.insert(index);
                        } else {
                            let _ = self.give_back(owner, index);
                        }
                    }
                }
                _ => {}
            }
        }
        if !thrown_away.is_empty() {
            self.free_all_units_of(|index| thrown_away.contains(&index));
            for index in thrown_away {
                self.state(index).swap(item::FREE);
            }
        }
        self.items().recover();
        self.space().recover();
        self.any_room().recover();
        self.dead_letters().recover();
        self.finish().recover();
    }

    /// Whose an item is that says it was published, by this session, where no cell says so.
    fn lost(&self, session: u64, index: u32, which: usize, position: u64) -> Option<Claim> {
        let owner = Claim::of(self.owner(index).load()).filter(|owner| owner.session() == session)?;
        let is_lost = matches!(which, MAIN | RETURNED | DEAD) && !self.ring(which).holds(position, index);
        is_lost.then_some(owner)
    }

    /// The tickets of items that are not free.
    pub fn tickets(&self) -> HashSet<u64> {
        let items = (0..self.backed_items()).filter(|index| self.is_in_use(*index));
        items.map(|index| self.ticket(index)).filter(|ticket| *ticket != 0).collect()
    }

    /// Items that are not free.
    pub fn items_in_use(&self) -> u64 {
        (0..self.backed_items()).filter(|index| self.is_in_use(*index)).count() as u64
    }

    fn is_in_use(&self, index: u32) -> bool {
        State::of(self.state(index).load()) != State::Free
    }
}
