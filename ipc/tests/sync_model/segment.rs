//! The model of a segment: loom's atomics, words whose owner has stored something that nobody else sees yet, and a futex.
use commonhold_ipc::error::Result;
use commonhold_ipc::liveness::Slept;
use commonhold_ipc::sync::{Claim, Half, Memory, Waiting, Word};
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};

/// A word, and what its owner has stored there without a fence and nobody else sees yet.
pub struct Word64(AtomicU64, Option<Mutex<Option<u64>>>);

impl Word64 {
    pub fn drain(&self) {
        let Some(buffer) = &self.1 else { return };
        let mut buffer = buffer.lock().unwrap();
        if let Some(stored) = buffer.take() {
            self.0.swap(stored, Ordering::SeqCst);
        }
    }
}

impl Word for Word64 {
    fn load(&self) -> u64 {
        self.0.fetch_or(0, Ordering::SeqCst)
    }

    fn swap(&self, new: u64) -> u64 {
        self.0.swap(new, Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }

    fn store(&self, new: u64) {
        self.0.swap(new, Ordering::SeqCst);
    }

    fn set_relying(&self, new: u64) {
        let buffer = self.1.as_ref().expect("a word of a model about stores without fences");
        *buffer.lock().unwrap() = Some(new);
    }
}

pub struct Word32(usize, AtomicU32);

impl Half for Word32 {
    fn load(&self) -> u32 {
        self.1.fetch_or(0, Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        self.1.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

#[derive(Default)]
pub struct Sleepers {
    /// Word and number of each, in the order in which they fell asleep.
    pub asleep: Vec<(usize, u64)>,
    pub next: u64,
}

/// A segment of loom's, with the words that a model uses.
pub struct Segment {
    words: Vec<(usize, Word64)>,
    halves: Vec<(usize, Word32)>,
    pub sleepers: Mutex<Sleepers>,
    pub wakes: Condvar,
}

impl Segment {
    pub fn new(words: &[usize], halves: &[usize]) -> Arc<Segment> {
        Arc::new(Segment {
            words: words.iter().map(|at| (*at, Word64(AtomicU64::new(0), None))).collect(),
            halves: halves.iter().map(|at| (*at, Word32(*at, AtomicU32::new(0)))).collect(),
            sleepers: Mutex::new(Sleepers::default()),
            wakes: Condvar::new(),
        })
    }

    /// The first word is one that is stored to without a fence.
    pub fn with_buffer(words: &[usize], halves: &[usize]) -> Arc<Segment> {
        let Ok(mut segment) = Arc::try_unwrap(Self::new(words, halves)) else { unreachable!("nobody else has it yet") };
        segment.words[0].1.1 = Some(Mutex::new(None));
        Arc::new(segment)
    }

    /// What was stored without a fence is there for all to see.
    pub fn drain(&self) {
        self.words[0].1.drain();
    }
}

impl Memory for Segment {
    type Word = Word64;
    type Half = Word32;

    fn word(&self, at: usize) -> &Word64 {
        &self.words.iter().find(|(here, _)| *here == at).unwrap_or_else(|| panic!("the model has no word at {at}")).1
    }

    fn half(&self, at: usize) -> &Word32 {
        &self.halves.iter().find(|(here, _)| *here == at).unwrap_or_else(|| panic!("the model has no half word at {at}")).1
    }

    fn wake(&self, word: &Word32, count: u32) -> usize {
        let mut sleepers = self.sleepers.lock().unwrap();
        let mut left = count as usize;
        let before = sleepers.asleep.len();
        sleepers.asleep.retain(|(at, _)| {
            let woken = *at == word.0 && left > 0;
            left -= usize::from(woken);
            !woken
        });
        let woken = before - sleepers.asleep.len();
        drop(sleepers);
        if woken > 0 {
            self.wakes.notify_all();
        }
        woken
    }
}

/// One whose process dies before it can wake anybody.
pub struct Dying<'s>(pub &'s Segment);

impl Memory for Dying<'_> {
    type Word = Word64;
    type Half = Word32;

    fn word(&self, at: usize) -> &Word64 {
        self.0.word(at)
    }

    fn half(&self, at: usize) -> &Word32 {
        self.0.half(at)
    }

    fn wake(&self, _: &Word32, _: u32) -> usize {
        1
    }
}

/// A caller whose patience is over at once, or never.
pub struct Patience<'s> {
    pub segment: &'s Segment,
    pub is_long: bool,
}

/// The same, without the barrier that others rely on.
pub struct Careless<'s>(pub Patience<'s>);

impl Waiting<Segment> for Careless<'_> {
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool {
        self.0.spin(ready)
    }

    fn sleep(&self, word: &Word32, expected: u32, most_ms: u64) -> Result<Slept> {
        self.0.sleep(word, expected, most_ms)
    }

    fn is_over(&self) -> bool {
        self.0.is_over()
    }

    fn is_long(&self) -> bool {
        self.0.is_long()
    }

    fn knows(&self, claim: Claim) -> Result<Option<bool>> {
        self.0.knows(claim)
    }
}

impl Waiting<Segment> for Patience<'_> {
    fn spin(&self, _: &mut dyn FnMut() -> bool) -> bool {
        false
    }

    fn sleep(&self, word: &Word32, expected: u32, _: u64) -> Result<Slept> {
        let mut sleepers = self.segment.sleepers.lock().unwrap();
        if word.load() != expected {
            return Ok(Slept::Woken);
        }
        let number = sleepers.next;
        sleepers.next += 1;
        sleepers.asleep.push((word.0, number));
        while sleepers.asleep.contains(&(word.0, number)) {
            sleepers = self.segment.wakes.wait(sleepers).unwrap();
        }
        Ok(Slept::Woken)
    }

    /// What the kernel's barrier does: whatever each processor has stored by then is there for all to see, and whatever it loads then is
    /// what others have stored before.
    fn fence_others(&self) -> bool {
        self.segment.drain();
        true
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_long(&self) -> bool {
        self.is_long
    }

    fn knows(&self, _: Claim) -> Result<Option<bool>> {
        Ok(Some(true))
    }
}
