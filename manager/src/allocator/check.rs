//! Whether the allocator's books agree with each other.

use super::slab::{LARGE, NONE};
use super::{Allocator, Backing};

impl<B: Backing> Allocator<B> {
    /// Verifies every invariant of the allocator, in time linear to its pages and blocks.
    ///
    /// # Errors
    ///
    /// The first one that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        self.pages.check()?;
        self.check_tiling()?;
        self.check_lookup()?;
        self.check_lists()?;
        self.check_set_aside()?;
        let (mut bytes, mut blocks, mut heap_bytes) = (0, 0, 0);
        for slab in &self.slabs {
            slab.check()?;
            blocks += u64::from(slab.used);
            bytes += u64::from(slab.used) * u64::from(slab.size);
            heap_bytes += slab.heap_bytes();
        }
        if (bytes, blocks, heap_bytes) != (self.allocated_bytes, self.blocks, self.slab_heap_bytes) {
            return Err(format!("slabs hold {blocks} blocks of {bytes} B, counted are {} of {}", self.blocks, self.allocated_bytes));
        }
        Ok(())
    }

    /// What is set aside are allocated blocks of its class, each once.
    fn check_set_aside(&self) -> Result<(), String> {
        for (class, numbers) in self.aside.iter().enumerate() {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("block {:#x} of class {class} is set aside twice", pair[0]));
            }
            let is_one = |number: &u64| {
                let slab = self.slabs.get((number >> 32) as usize);
                slab.is_some_and(|slab| slab.class as usize == class && slab.has(*number as u32))
            };
            if let Some(number) = sorted.into_iter().find(|number| !is_one(number)) {
                return Err(format!("block {number:#x} is set aside in class {class}, and is no allocated block of it"));
            }
        }
        Ok(())
    }

    /// Slabs and free runs cover the usable pages, each exactly once.
    fn check_tiling(&self) -> Result<(), String> {
        let in_use = self.slabs.iter().filter(|slab| slab.pages > 0).map(|slab| (slab.first_page, slab.pages));
        let mut runs: Vec<(u32, u32)> = in_use.chain(self.pages.free_runs()).collect();
        runs.sort_unstable();
        let usable = self.pages.usable();
        let mut end = usable.start;
        for (start, length) in runs {
            if start != end {
                return Err(format!("a slab or free run starts at page {start}, but the one before it ends at {end}"));
            }
            end = start + length;
        }
        if end == usable.end { Ok(()) } else { Err(format!("slabs and free runs end at page {end} of {usable:?}")) }
    }

    /// Every page leads to the slab that it is part of, and every other page to none.
    fn check_lookup(&self) -> Result<(), String> {
        let mut expected = vec![NONE; self.slab_of_page.len()];
        let mut vacant = 0;
        for (at, slab) in self.slabs.iter().enumerate() {
            if slab.pages == 0 {
                vacant += 1;
                continue;
            }
            let pages = slab.first_page as usize..(slab.first_page + slab.lookup_pages()) as usize;
            let entries = expected.get_mut(pages).ok_or_else(|| format!("slab {at} lies past the look-up"))?;
            entries.fill(at as u32);
        }
        if let Some(page) = (0..expected.len()).find(|&page| expected[page] != self.slab_of_page[page]) {
            return Err(format!("page {page} leads to slab {}, but belongs to {}", self.slab_of_page[page], expected[page]));
        }
        if vacant != self.vacant.len() {
            return Err(format!("{vacant} slabs have no pages, {} are noted as vacant", self.vacant.len()));
        }
        Ok(())
    }

    /// Every small slab with a free block is in its class's list, once, and the empty one is noted.
    fn check_lists(&self) -> Result<(), String> {
        let mut listed = 0;
        for (number, class) in self.classes.iter().enumerate() {
            let (mut before, mut at, mut empty) = (NONE, class.first, NONE);
            while at != NONE {
                let slab = self.slabs.get(at as usize).ok_or_else(|| format!("class {number} lists slab {at}, which does not exist"))?;
                if slab.class as usize != number || slab.is_full() || slab.before != before || (slab.used == 0 && empty != NONE) {
                    return Err(format!("slab {at} of class {} with {} blocks is in the list of class {number}", slab.class, slab.used));
                }
                if slab.used == 0 {
                    empty = at;
                }
                listed += 1;
                (before, at) = (at, slab.after);
            }
            if class.last != before || class.empty != empty {
                return Err(format!(
                    "class {number} ends with slab {before} and keeps {empty} empty, noted are {} and {}",
                    class.last, class.empty
                ));
            }
        }
        let expected = self.slabs.iter().filter(|slab| slab.class != LARGE && !slab.is_full()).count();
        if listed == expected { Ok(()) } else { Err(format!("{expected} slabs have free blocks, {listed} are in lists")) }
    }
}
