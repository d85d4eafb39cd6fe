//! Throws damaged examples at everything that reads foreign bytes, for some seconds.
//!
//! `cargo run --release -p fuzz -- [--seconds 5] [--seed 1] [--target commit]`. What happens follows from the seed (but for the
//! random numbers in the example of a handle). A panic is reported with its round and the bytes; what kills the process (a
//! stack that overflows) is narrowed down by running again with every round shown from the last one on: `--seed … --from …`.

use fuzz::{Target, targets};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longest input: long enough for a length field to point anywhere in it.
const INPUT_BYTES_MAX: usize = 1 << 16;
/// Damages of one input, at the most.
const DAMAGES_MAX: u64 = 8;
/// Damaged inputs that a target still read are kept, so many, and damaged further.
const KEPT_MAX: usize = 256;

/// A small random number generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Numbers at which lengths, counts and offsets go wrong.
const NUMBERS: [u64; 12] = [0, 1, 2, 7, 8, 16, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];

fn damage(input: &mut Vec<u8>, examples: &[Vec<u8>], random: &mut Random) {
    let len = input.len();
    let at = random.below(len);
    match random.below(9) {
        0 if len > 0 => input[at] ^= 1 << random.below(8),
        1 if len > 0 => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => {
            let (number, width) = (*random.pick(&NUMBERS), *random.pick(&[1, 2, 4, 8]));
            let at = at / width * width;
            if at + width <= len {
                input[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
        }
        4 if len >= at + 4 => {
            // A length or a relative offset, a little off.
            let number = u32::from_le_bytes(input[at..at + 4].try_into().expect("4 bytes"));
            let off = number.wrapping_add(random.below(33) as u32).wrapping_sub(16);
            input[at..at + 4].copy_from_slice(&off.to_le_bytes());
        }
        5 => {
            let many = random.below(32);
            input.splice(at..at, (0..many).map(|_| random.next() as u8).collect::<Vec<_>>());
        }
        6 => drop(input.drain(at..at + random.below(len - at))),
        7 => {
            let part = input[at..at + random.below(len - at)].to_vec();
            let to = random.below(len);
            input.splice(to..to, part);
        }
        _ => {
            let other = random.pick(examples);
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

struct Options {
    seconds: u64,
    seed: u64,
    from: u64,
    target: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seconds: 5, seed: 1, from: 0, target: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} needs a number, not {value:?}"));
        match word.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--from" => options.from = number()?,
            "--target" => options.target = Some(value),
            _ => return Err(format!("there is no option {word}: --seconds, --seed, --from, --target")),
        }
    }
    Ok(options)
}

/// One target's inputs: its examples, and damaged ones that it still reads.
struct Corpus {
    target: Target,
    kept: Vec<Vec<u8>>,
    read: u64,
}

impl Corpus {
    /// One round. The bytes that it was about, if it failed.
    fn round(&mut self, random: &mut Random) -> Result<(), Vec<u8>> {
        let mut input = random.pick(&self.kept).clone();
        for _ in 0..=random.next() % DAMAGES_MAX {
            damage(&mut input, &self.target.examples, random);
        }
        match catch_unwind(AssertUnwindSafe(|| (self.target.read)(&input))) {
            Ok(false) => {}
            Ok(true) => {
                self.read += 1;
                // Small ones: each is damaged many times.
                if input.len() < 4096 {
                    if self.kept.len() < KEPT_MAX {
                        self.kept.push(input);
                    } else {
                        let place = self.target.examples.len() + random.below(KEPT_MAX - self.target.examples.len());
                        self.kept[place] = input;
                    }
                }
            }
            Err(_) => return Err(input),
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    commonhold::init();
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let wanted = |target: &Target| options.target.as_ref().is_none_or(|name| name == target.name);
    let mut corpora: Vec<Corpus> =
        targets().into_iter().filter(wanted).map(|target| Corpus { kept: target.examples.clone(), target, read: 0 }).collect();
    for Corpus { target, .. } in &corpora {
        for example in &target.examples {
            assert!((target.read)(example), "{} does not read its own example", target.name);
        }
    }
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut shown = Instant::now();
    let mut round = 0;
    while Instant::now() < until && !corpora.is_empty() {
        for corpus in &mut corpora {
            for _ in 0..64 {
                let mut random = Random(options.seed.wrapping_mul(0x0100_0000_01b3) ^ round);
                round += 1;
                // Kept inputs depend on the rounds before, so these run as well, up to the one that is looked for.
                if let Err(input) = corpus.round(&mut random) {
                    let mut bytes = String::new();
                    input.iter().for_each(|byte| write!(bytes, "{byte:02x}").expect("a string takes what is written to it"));
                    eprintln!("{} failed in round {round} of seed {}, on {} bytes: {bytes}", corpus.target.name, options.seed, input.len());
                    return ExitCode::FAILURE;
                }
            }
        }
        if round >= options.from && (options.from > 0 || shown.elapsed() > Duration::from_secs(1)) {
            shown = Instant::now();
            println!("round {round} of seed {}", options.seed);
        }
    }
    for Corpus { target, read, .. } in &corpora {
        println!("{:>12}: read {read} damaged inputs", target.name);
    }
    println!("{round} rounds of seed {}, nothing failed", options.seed);
    ExitCode::SUCCESS
}
