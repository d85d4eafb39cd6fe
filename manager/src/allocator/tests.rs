//! The allocator against a model, over a backing that keeps books, checks every call and can refuse.
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
/// The arena's header in these tests.
const HEADER: u64 = 2 * PAGE_BYTES;

/// A backing that only notes what is backed, and what of it was touched.
#[derive(Default)]
struct Ledger {
    /// Of each page.
    states: Vec<(bool, bool)>,
    /// Bytes of each call of `back` that was granted.
    granted: Vec<u64>,
    punches: usize,
    /// How many of the next calls are refused.
    refuse_next: u32,
    /// Calls for more pages than this are refused.
    pages_at_once: Option<u64>,
}

impl Ledger {
    /// Sets the state of these pages, each of which must be in a state that `allowed` tells.
    fn set(&mut self, range: Range<u64>, state: (bool, bool), allowed: impl Fn((bool, bool)) -> bool) {
        assert!(range.start < range.end && range.start >= HEADER, "an empty range, or the header's page");
        assert!(range.start.is_multiple_of(PAGE_BYTES) && range.end.is_multiple_of(PAGE_BYTES));
        let pages = (range.start / PAGE_BYTES) as usize..(range.end / PAGE_BYTES) as usize;
        if self.states.len() < pages.end {
            self.states.resize(pages.end, (false, false));
        }
        assert!(self.states[pages.clone()].iter().all(|&was| allowed(was)), "some of the pages {pages:?} are not in a state for that");
        self.states[pages].fill(state);
    }

    fn state(&self, page: u32) -> (bool, bool) {
        self.states.get(page as usize).copied().unwrap_or_default()
    }
}

impl Backing for Ledger {
    fn back(&mut self, range: Range<u64>) -> Result<(), Error> {
        if self.refuse_next > 0 || self.pages_at_once.is_some_and(|most| (range.end - range.start) / PAGE_BYTES > most) {
            self.refuse_next = self.refuse_next.saturating_sub(1);
            return Err(Error::new(ErrorKind::System, "no memory today"));
        }
        self.granted.push(range.end - range.start);
        self.set(range, (true, false), |(backed, _)| !backed);
        Ok(())
    }

    fn populate(&mut self, range: Range<u64>) {
        self.set(range, (true, true), |was| was == (true, false));
    }

    fn punch(&mut self, range: Range<u64>) {
        self.punches += 1;
        self.set(range, (false, false), |(backed, _)| backed);
    }
}

fn allocator(length: u64, budget: u64) -> Allocator<Ledger> {
    Allocator::new(Ledger::default(), HEADER..HEADER + length, budget)
}

/// The size of a block of this length, from the definition of the classes.
fn rounded(len: u64) -> u64 {
    let step = match len {
        0..=16 => 16,
        17..=128 => 8,
        8193.. => PAGE_BYTES,
        _ => (1 << (len - 1).ilog2()) / 8,
    };
    len.next_multiple_of(step).max(16)
}

/// Everything that must hold between two calls.
fn verify(allocator: &Allocator<Ledger>) {
    allocator.check().unwrap();
    let usage = allocator.usage();
    assert!(usage.backed_bytes <= usage.budget_bytes);
    let mut backed = 0;
    for page in allocator.pages.usable() {
        let state = allocator.pages.backing.state(page);
        assert_eq!(allocator.pages.state(page), state, "page {page}: whether it is backed, whether it was touched");
        assert!(!allocator.pages.is_used(page) || state.1, "page {page} is in use, and was never touched");
        backed += u64::from(state.0) * PAGE_BYTES;
    }
    assert_eq!(usage.backed_bytes, backed);
}

/// What was allocated: offset → (length asked for, version).
#[derive(Default)]
struct Model {
    blocks: BTreeMap<u64, (u64, u64)>,
    /// Of each size, the blocks that are set aside, with the version that they were born in.
    aside: BTreeMap<u64, Vec<(u64, u64)>>,
}

impl Model {
    fn add(&mut self, allocator: &Allocator<Ledger>, offset: u64, len: u64, version: u64) {
        let size = rounded(len);
        if let Some((aside, _)) = self.aside.get_mut(&size).and_then(Vec::pop) {
            assert_eq!(offset, aside, "another block than the one that was set aside last");
        }
        assert_eq!(allocator.size_of(offset), size);
        assert_eq!(allocator.born(offset), version);
        assert!(allocator.is_block(offset) && !allocator.is_block(offset + 8) && !allocator.is_block(offset + size - 1));
        assert!(offset.is_multiple_of(if size.is_multiple_of(16) { 16 } else { 8 }));
        assert!(offset >= HEADER && (offset + size) / PAGE_BYTES <= u64::from(allocator.pages.usable().end));
        if let Some((&before, &(its_len, _))) = self.blocks.range(..=offset).next_back() {
            assert!(before + rounded(its_len) <= offset, "overlaps the block before");
        }
        if let Some((&after, _)) = self.blocks.range(offset..).next() {
            assert!(offset + size <= after, "overlaps the block after");
        }
        self.blocks.insert(offset, (len, version));
    }

    fn compare(&self, allocator: &Allocator<Ledger>) {
        let aside = self.aside.iter().flat_map(|(&size, blocks)| blocks.iter().map(move |&(offset, version)| (offset, size, version)));
        let used = self.blocks.iter().map(|(&offset, &(len, version))| (offset, rounded(len), version));
        let mut expected: Vec<_> = used.chain(aside).collect();
        expected.sort_unstable();
        assert_eq!(allocator.blocks().collect::<Vec<_>>(), expected);
        let usage = allocator.usage();
        assert_eq!(usage.blocks, expected.len() as u64);
        assert_eq!(usage.allocated_bytes, expected.iter().map(|&(_, size, _)| size).sum::<u64>());
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Allocate { len: u64, count: usize },
    Release { at: prop::sample::Index, count: usize },
    SetAside { at: prop::sample::Index, count: usize },
    ReleaseSetAside,
    Trim { keep_bytes: u64 },
    Reserve { bytes: u64, series: Vec<u64> },
    RefuseNext(u32),
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..256_u64, 4 => 0..8193_u64, 3 => 8193..200_000_u64, 1 => 200_000..3 * MIB]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (length(), 1..40_usize).prop_map(|(len, count)| Operation::Allocate { len, count }),
        6 => (any::<prop::sample::Index>(), 1..60_usize).prop_map(|(at, count)| Operation::Release { at, count }),
        4 => (any::<prop::sample::Index>(), 1..60_usize).prop_map(|(at, count)| Operation::SetAside { at, count }),
        1 => Just(Operation::ReleaseSetAside),
        1 => (0..4 * MIB).prop_map(|keep_bytes| Operation::Trim { keep_bytes }),
        2 => (0..4 * MIB, vec(length(), 1..30)).prop_map(|(bytes, series)| Operation::Reserve { bytes, series }),
        1 => (1..4_u32).prop_map(Operation::RefuseNext),
    ]
}

fn apply(allocator: &mut Allocator<Ledger>, model: &mut Model, version: u64, operation: &Operation) {
    match *operation {
        Operation::Allocate { len, count } => {
            for _ in 0..count {
                match allocator.allocate(len, version) {
                    Ok(offset) => model.add(allocator, offset, len, version),
                    Err(error) => {
                        let pages = if len <= SMALL_BYTES_MAX { SLAB_PAGES } else { len.div_ceil(PAGE_BYTES) as u32 };
                        let no_budget = allocator.pages.used() + pages > allocator.pages.budget();
                        let no_length = allocator.pages.longest_free() < pages;
                        assert_eq!(error.kind() == ErrorKind::Full, no_budget || no_length, "{error}");
                        break;
                    }
                }
            }
        }
        Operation::Release { ref at, count } => {
            for _ in 0..count.min(model.blocks.len()) {
                let &offset = model.blocks.keys().nth(at.index(model.blocks.len())).unwrap();
                allocator.release(offset);
                assert!(!allocator.is_block(offset));
                model.blocks.remove(&offset);
            }
        }
        Operation::SetAside { ref at, count } => {
            for _ in 0..count.min(model.blocks.len()) {
                let &offset = model.blocks.keys().nth(at.index(model.blocks.len())).unwrap();
                allocator.set_aside(allocator.look(offset).0);
                let (len, version) = model.blocks.remove(&offset).unwrap();
                assert_eq!(allocator.is_block(offset), len <= SMALL_BYTES_MAX, "blocks of whole pages are freed at once");
                if len <= SMALL_BYTES_MAX {
                    model.aside.entry(rounded(len)).or_default().push((offset, version));
                }
            }
        }
        Operation::ReleaseSetAside => {
            allocator.release_set_aside();
            model.aside.clear();
        }
        Operation::Trim { keep_bytes } => {
            allocator.trim(keep_bytes);
            assert!(allocator.usage().free_backed_bytes <= keep_bytes);
        }
        Operation::Reserve { bytes, ref series } => {
            if allocator.reserve(bytes).is_ok() {
                keep_promise(allocator, model, version, bytes, series);
            }
        }
        Operation::RefuseNext(calls) => allocator.pages.backing.refuse_next = calls,
    }
}

/// Allocates as much as was reserved, in the classes of `series`, while the system refuses everything.
fn keep_promise(allocator: &mut Allocator<Ledger>, model: &mut Model, version: u64, bytes: u64, series: &[u64]) {
    let refused_before = std::mem::replace(&mut allocator.pages.backing.refuse_next, u32::MAX);
    let mut left = bytes;
    let mut lens = series.iter().cycle().take(2000).copied().collect::<Vec<_>>();
    // What is left after these: one block.
    lens.push(u64::MAX);
    for len in lens {
        let len = len.min(left / PAGE_BYTES * PAGE_BYTES);
        if rounded(len) <= left && len > 0 {
            left -= rounded(len);
            let offset = allocator.allocate(len, version).expect("it was reserved");
            model.add(allocator, offset, len, version);
        }
    }
    assert_eq!(allocator.pages.backing.refuse_next, u32::MAX, "the system was asked after all");
    allocator.pages.backing.refuse_next = refused_before;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behaves_as_the_model(operations in vec(operation(), 1..40), length in 6..16_u64, budget in 4..16_u64) {
        let mut allocator = allocator(length * MIB, budget * MIB);
        let mut model = Model::default();
        for (at, operation) in operations.iter().enumerate() {
            apply(&mut allocator, &mut model, at as u64 + 1, operation);
            verify(&allocator);
            model.compare(&allocator);
        }
        for &offset in model.blocks.keys() {
            allocator.release(offset);
        }
        allocator.release_set_aside();
        allocator.trim(0);
        verify(&allocator);
        let expected = Usage { budget_bytes: budget * MIB, metadata_bytes: allocator.usage().metadata_bytes, ..Usage::default() };
        prop_assert_eq!(allocator.usage(), expected);
        prop_assert_eq!(allocator.slab_heap_bytes, 0);
    }

    #[test]
    fn what_was_reserved_can_be_allocated_in_any_mix(
        bytes in 0..6 * MIB,
        holes in vec((length(), any::<bool>()), 0..60),
        series in vec(length(), 1..30),
    ) {
        let mut allocator = allocator(64 * MIB, 48 * MIB);
        let mut model = Model::default();
        for (len, stays) in holes {
            let len = len.min(MIB / 2);
            let offset = allocator.allocate(len, 1).unwrap();
            if stays {
                model.add(&allocator, offset, len, 1);
            } else {
                allocator.release(offset);
            }
        }
        allocator.reserve(bytes).unwrap();
        keep_promise(&mut allocator, &mut model, 2, bytes, &series);
        verify(&allocator);
    }
}

#[test]
fn the_worst_mix_fits_into_what_was_reserved() {
    let bytes = 20 * MIB;
    let mut allocator = allocator(32 * MIB, 32 * MIB);
    allocator.reserve(bytes).unwrap();
    allocator.pages.backing.refuse_next = u32::MAX;
    // One block of each of 31 classes, and all the rest in the class that wastes most of its slabs.
    let mut left = bytes;
    for len in (1..32).map(|class| 16 + 8 * class).map(rounded).collect::<std::collections::BTreeSet<_>>() {
        allocator.allocate(len, 1).unwrap();
        left -= len;
    }
    for _ in 0..left / 6656 {
        allocator.allocate(6656, 1).unwrap();
    }
    allocator.check().unwrap();
}

#[test]
fn a_reservation_that_is_satisfied_asks_nobody() {
    let mut allocator = allocator(64 * MIB, 64 * MIB);
    allocator.reserve(MIB).unwrap();
    let granted = allocator.pages.backing.granted.len();
    for _ in 0..1000 {
        allocator.reserve(MIB).unwrap();
        allocator.reserve(10).unwrap();
    }
    assert_eq!(allocator.pages.backing.granted.len(), granted);
    // One block of all of it.
    allocator.pages.backing.refuse_next = u32::MAX;
    allocator.allocate(MIB, 1).unwrap();
}

#[test]
fn consecutive_allocations_are_adjacent() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    for at in 0..2000 {
        assert_eq!(allocator.allocate(72, 1).unwrap(), HEADER + at / 910 * 65536 + at % 910 * 72);
    }
}

#[test]
fn one_block_to_and_fro_moves_no_pages() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    let offset = allocator.allocate(64, 1).unwrap();
    let used = allocator.pages.used();
    for version in 2..100 {
        allocator.release(offset);
        assert_eq!(allocator.pages.used(), used);
        assert_eq!(allocator.allocate(64, version).unwrap(), offset);
        assert_eq!(allocator.born(offset), version);
    }
    assert_eq!((allocator.pages.backing.granted.len(), allocator.pages.backing.punches), (1, 0));
}

#[test]
fn what_is_taken_from_aside_moves_nothing() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    let offsets: Vec<u64> = (0..5_000).map(|_| allocator.allocate(64, 1).unwrap()).collect();
    let usage = allocator.usage();
    allocator.pages.backing.refuse_next = u32::MAX;
    for version in 2..6 {
        offsets.iter().for_each(|&offset| allocator.set_aside(allocator.look(offset).0));
        // The last one comes first.
        for &offset in offsets.iter().rev() {
            assert_eq!(allocator.allocate(60, version).unwrap(), offset);
            assert_eq!(allocator.born(offset), version);
        }
        assert_eq!(Usage { metadata_bytes: usage.metadata_bytes, ..allocator.usage() }, usage);
    }
    verify(&allocator);
}

#[test]
fn the_check_sees_a_block_that_is_set_aside_twice() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    let offset = allocator.allocate(64, 1).unwrap();
    let number = allocator.look(offset).0;
    allocator.set_aside(number);
    allocator.check().unwrap();
    allocator.set_aside(number);
    assert!(allocator.check().unwrap_err().contains("twice"));
}

#[test]
fn a_class_keeps_one_empty_slab_at_the_most() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    let offsets: Vec<u64> = (0..40).map(|_| allocator.allocate(8192, 1).unwrap()).collect();
    assert_eq!(allocator.pages.used(), 5 * SLAB_PAGES);
    offsets.iter().for_each(|&offset| allocator.release(offset));
    assert_eq!(allocator.pages.used(), SLAB_PAGES);
    verify(&allocator);
    allocator.trim(100_000);
    assert_eq!((allocator.usage().backed_bytes, allocator.usage().free_backed_bytes), (24 * PAGE_BYTES, 24 * PAGE_BYTES));
    verify(&allocator);
}

#[test]
fn chunks_double_up_to_a_large_page_then_are_one_each_and_never_pass_the_budget() {
    let mut allocator = allocator(64 * MIB, 21 * MIB);
    while allocator.allocate(65536, 1).is_ok() {}
    let granted = &allocator.pages.backing.granted;
    let doubling: Vec<u64> = (0..5).map(|power| 65536 << power).collect();
    assert_eq!(granted[..5], doubling);
    // What is left of the large page that these have begun, with the next one; then wholes, as long as there is budget for them.
    let begun = HEADER + doubling.iter().sum::<u64>();
    assert_eq!(granted[5], 4 * MIB - begun);
    assert_eq!(granted[6..14], [2 * MIB; 8]);
    assert!(granted[14..].iter().sum::<u64>() < 2 * MIB, "{granted:?}");
    assert_eq!(granted.iter().sum::<u64>(), 21 * MIB);
    assert_eq!(allocator.usage().allocated_bytes, 21 * MIB);
    verify(&allocator);
}

#[test]
fn a_full_arena_says_so_and_goes_on() {
    let mut by_budget = allocator(64 * MIB, MIB);
    by_budget.allocate(MIB - 65536, 1).unwrap();
    by_budget.allocate(16, 1).unwrap();
    let before = by_budget.usage();
    let error = by_budget.allocate(5000, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let text = error.to_string();
    let full = "are not to be had: 1048576 B of the capacity of 1048576 B are used; raise `capacity`, remove entries";
    assert!(text.starts_with(&format!("65536 B in one piece, for a block of 5000 B, {full}")), "{text}");
    assert_eq!(by_budget.usage(), before);
    let error = by_budget.reserve(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let full = "are not to be had: 1048576 B of the capacity of 1048576 B are used, and it is more than the capacity; raise `capacity`";
    assert_eq!(error.to_string(), format!("2101248 B in one piece, for blocks of 1 B in all, {full}"));
    by_budget.allocate(16, 1).unwrap();
    verify(&by_budget);

    let mut by_length = allocator(MIB, 64 * MIB);
    let error = by_length.allocate(2 * MIB, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("longest free piece has 1048576 B"), "{error}");
    assert_eq!(by_length.reserve(u64::MAX).unwrap_err().kind(), ErrorKind::Full);
    by_length.allocate(MIB, 1).unwrap();
    verify(&by_length);
}

#[test]
fn short_backed_runs_make_room_for_a_long_one() {
    let mut allocator = allocator(64 * MIB, 2 * MIB);
    let offsets: Vec<u64> = (0..32).map(|_| allocator.allocate(65536, 1).unwrap()).collect();
    offsets.iter().step_by(2).for_each(|&offset| allocator.release(offset));
    assert_eq!(allocator.usage().free_backed_bytes, MIB);
    // Half of the budget is free, but in pieces of 64 KiB.
    let offset = allocator.allocate(MIB, 2).unwrap();
    assert_eq!(offset, HEADER + 2 * MIB);
    assert_eq!((allocator.usage().backed_bytes, allocator.usage().free_backed_bytes), (2 * MIB, 0));
    verify(&allocator);
}

#[test]
fn pages_of_empty_slabs_serve_other_classes_when_there_are_no_others() {
    let mut allocator = allocator(MIB, 2 * 65536);
    for len in [16, 32] {
        let offset = allocator.allocate(len, 1).unwrap();
        allocator.release(offset);
    }
    assert_eq!(allocator.pages.used(), 2 * SLAB_PAGES);
    allocator.allocate(2 * 65536, 1).unwrap();
    verify(&allocator);
}

#[test]
fn a_refusal_of_more_than_needed_is_no_failure() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    allocator.pages.backing.pages_at_once = Some(u64::from(SLAB_PAGES));
    for _ in 0..20 {
        allocator.allocate(65536, 1).unwrap();
    }
    assert_eq!(allocator.pages.backing.granted, [65536; 20]);
    let before = allocator.usage();
    let error = allocator.allocate(2 * 65536, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(allocator.usage(), before);
    verify(&allocator);
}

#[test]
fn a_refusal_between_two_gaps_keeps_the_books_right() {
    let mut allocator = allocator(MIB, MIB);
    let offsets: Vec<u64> = (0..16).map(|_| allocator.allocate(65536, 1).unwrap()).collect();
    // Backed and punched pieces in turn, then all of it free.
    for parity in [0, 1] {
        offsets.iter().skip(parity).step_by(2).for_each(|&offset| allocator.release(offset));
        if parity == 0 {
            allocator.trim(0);
        }
    }
    for most in [SLAB_PAGES - 1, SLAB_PAGES] {
        allocator.pages.backing.pages_at_once = Some(u64::from(most));
        assert_eq!(allocator.allocate(MIB, 2).is_ok(), most == SLAB_PAGES);
        verify(&allocator);
    }
    let offset = allocator.blocks().next().unwrap().0;
    allocator.release(offset);
    let mut again = allocator;
    again.trim(0);
    again.pages.backing.pages_at_once = None;
    again.pages.backing.refuse_next = 1;
    assert!(again.allocate(MIB, 3).is_err());
    verify(&again);
    again.allocate(MIB, 3).unwrap();
    verify(&again);
}

#[test]
fn the_largest_block_fits_and_a_larger_one_is_refused() {
    let mut allocator = allocator(2 * BLOCK_BYTES_MAX, 2 * BLOCK_BYTES_MAX);
    let offset = allocator.allocate(BLOCK_BYTES_MAX, 9).unwrap();
    assert_eq!((allocator.size_of(offset), allocator.born(offset)), (BLOCK_BYTES_MAX, 9));
    assert!(!allocator.is_block(offset + PAGE_BYTES) && !allocator.is_block(u64::MAX) && !allocator.is_block(0));
    assert_eq!(allocator.allocate(BLOCK_BYTES_MAX + 1, 9).unwrap_err().kind(), ErrorKind::TooLarge);
    let another = allocator.allocate(BLOCK_BYTES_MAX - 5000, 10).unwrap();
    allocator.release(offset);
    assert_eq!(allocator.blocks().collect::<Vec<_>>(), [(another, BLOCK_BYTES_MAX - 4096, 10)]);
    allocator.check().unwrap();
}

#[test]
fn births_survive_jumps_of_versions() {
    let mut allocator = allocator(16 * MIB, 16 * MIB);
    let first = allocator.allocate(64, 10).unwrap();
    let second = allocator.allocate(64, 1 << 33).unwrap();
    let third = allocator.allocate(64, (1 << 33) + 1).unwrap();
    assert_eq!([first, second, third].map(|offset| allocator.born(offset)), [0, 1 << 33, (1 << 33) + 1]);
    let large = allocator.allocate(MIB, u64::MAX).unwrap();
    assert_eq!(allocator.born(large), u64::MAX);
}

#[test]
fn a_damaged_table_is_found() {
    let damages: [fn(&mut Allocator<Ledger>); 5] = [
        |allocator| allocator.blocks += 1,
        |allocator| allocator.slab_of_page.swap(2, 30),
        |allocator| allocator.slabs[0].used += 1,
        |allocator| allocator.classes[class_of(64) as usize].first = NONE,
        |allocator| allocator.pages.give(2, 1),
    ];
    for damage in damages {
        let mut allocator = allocator(MIB, MIB);
        for len in [64, 128, 100_000] {
            allocator.allocate(len, 1).unwrap();
        }
        allocator.check().unwrap();
        damage(&mut allocator);
        allocator.check().unwrap_err();
    }
}

#[test]
#[should_panic(expected = "freed twice")]
fn a_second_release_is_a_bug() {
    let mut allocator = allocator(MIB, MIB);
    let offset = allocator.allocate(64, 1).unwrap();
    allocator.release(offset);
    allocator.release(offset);
}
