//! A tour of commonhold: several processes count the words of one text together, and one of them is killed.
//!
//! `cargo run --release --example tour`
//!
//! The text lies as pages in a shared list. Workers, which are child processes, claim a page, read it in place and add its words to a
//! shared dict, one transaction a page: the words, the note that the page is done and the event are there together, or none of them is.
//! This process meanwhile reads what they write, takes a snapshot, kills a worker in the middle of a page, gives its page to another,
//! and in the end compares with the same count done alone. Nothing is left behind, whoever is killed, this process included.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use comfy_table::{CellAlignment, Table, presets};
use commonhold::{Counter, Dict, List, Manager, Process, Session, Shared, Snapshot, Stream};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The text is repeated until it has so many bytes: enough for a second or two.
const TEXT_BYTES_MIN: usize = if cfg!(debug_assertions) { 4 << 20 } else { 24 << 20 };
/// Pages end at the first end of a line after so many bytes.
const PAGE_BYTES: usize = 16 << 10;
/// How long the reads of one word are measured while workers write.
const READING_TIME: Duration = Duration::from_millis(300);
/// Words in the table at the end.
const TOP_WORDS: usize = 10;
/// Workers that may fail by themselves before the tour gives up.
const FAILURES_MAX: usize = 8;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Counts the words of a text with several processes that share a dict, and kills one of them.
#[derive(Parser)]
#[command(name = "tour", version, max_term_width = 100)]
struct Cli {
    /// Worker processes (1 to 64); by default one for each processor, at least 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: Option<u64>,
    /// The text, in UTF-8; by default the sources and documents of this repository
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

/// Everything that the processes share. Handles are values like others: a struct of them is one argument of a worker.
#[derive(Shared, Clone)]
struct Desk {
    /// The text.
    pages: List<String>,
    /// The next page that nobody has claimed yet.
    next: Counter,
    /// Pages that a dead worker had claimed.
    again: List<u64>,
    /// Page → number of the worker that counts it.
    claims: Dict<u64, u64>,
    /// Word → how often it was seen.
    totals: Dict<String, u64>,
    /// Page → number of its words, once they are all in the totals.
    done: Dict<u64, u64>,
    /// What happened.
    events: List<Event>,
}

#[derive(Shared, Debug)]
enum Event {
    Started { worker: u64, pid: u32 },
    Counted { worker: u64, page: u64, words: u64, attempts: u64 },
    Died { worker: u64, lost: Vec<u64> },
    Ended { worker: u64, pages: u64 },
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match tour(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The words of a text: what stands between characters that are in no word, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    let pieces = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    pieces.map(|word| word.trim_matches('\'').to_lowercase()).filter(|word| word.chars().any(char::is_alphabetic))
}

fn count(text: &str, counts: &mut HashMap<String, u64>) {
    for word in words(text) {
        *counts.entry(word).or_default() += 1;
    }
}

// ---- A worker ----

/// The whole life of a worker process.
fn work(number: u64, desk: Desk) -> commonhold::Result<()> {
    let manager = desk.pages.session()?;
    desk.events.push(Event::Started { worker: number, pid: std::process::id() })?;
    let mut pages = 0;
    while let Some(page) = claim(&manager, &desk, number)? {
        let mut counts = HashMap::new();
        let position = usize::try_from(page).expect("pages are counted by positions of a list");
        if let Some(text) = desk.pages.get(position)? {
            count(text.as_str(), &mut counts);
        }
        hand_in(&manager, &desk, number, page, &counts)?;
        pages += 1;
    }
    desk.events.push(Event::Ended { worker: number, pages })
}

/// Takes the next page, if there is one. The claim and the step of the counter happen together, so no page is lost between them.
fn claim(manager: &Session, desk: &Desk, number: u64) -> commonhold::Result<Option<u64>> {
    manager.transaction(|tx| {
        let page = match tx.pop(&desk.again)? {
            Some(page) => page,
            None => {
                let next = tx.counter(&desk.next)? as u64;
                if next >= tx.len(&desk.pages)? as u64 {
                    return Ok(None);
                }
                tx.count(&desk.next, 1)?;
                next
            }
        };
        tx.insert(&desk.claims, page, number)?;
        Ok(Some(page))
    })
}

/// Adds a page's words to the totals, all or nothing. The transaction runs again when another worker has changed one of its words
/// meanwhile.
fn hand_in(manager: &Session, desk: &Desk, number: u64, page: u64, counts: &HashMap<String, u64>) -> commonhold::Result<()> {
    let mut attempts = 0;
    manager.transaction(|tx| {
        attempts += 1;
        if tx.get(&desk.claims, page)?.is_none_or(|claimant| claimant != number) {
            // We were taken for dead, and the page was given to another.
            return Ok(());
        }
        for (word, times) in counts {
            tx.add(&desk.totals, word, *times)?;
        }
        let words = counts.values().sum();
        tx.insert(&desk.done, page, words)?;
        tx.remove(&desk.claims, page)?;
        tx.push(&desk.events, Event::Counted { worker: number, page, words, attempts })
    })
}

// ---- The tour ----

/// A worker, as its parent sees it.
struct Worker {
    number: u64,
    process: Process<commonhold::Result<()>>,
}

/// The parent's side: the manager, what is shared, and the workers.
struct Crew {
    manager: Manager,
    desk: Desk,
    workers: Vec<Worker>,
    hired: u64,
    failures: usize,
}

impl Crew {
    fn new(manager: Manager, pages: &[String]) -> commonhold::Result<Crew> {
        let desk = Desk {
            pages: manager.list(pages.iter().cloned())?,
            next: manager.counter(0)?,
            again: manager.list([])?,
            claims: manager.dict([])?,
            totals: manager.dict([])?,
            done: manager.dict([])?,
            events: manager.list([])?,
        };
        Ok(Crew { manager, desk, workers: Vec::new(), hired: 0, failures: 0 })
    }

    /// Starts one more worker, which ends with this process at the latest.
    fn hire(&mut self) -> Outcome {
        self.hired += 1;
        let worker = Process::builder().daemon(true).stdin(Stream::Null).stdout(Stream::Null);
        let process = worker.spawn(work, (self.hired, self.desk.clone()))?;
        self.workers.push(Worker { number: self.hired, process });
        Ok(())
    }

    /// A worker is dead: the pages that it had claimed are for others. What it had not handed in never happened.
    fn bury(&self, worker: u64) -> commonhold::Result<Vec<u64>> {
        self.manager.transaction(|tx| {
            let claims = tx.entries(&self.desk.claims)?;
            let lost: Vec<u64> = claims.into_iter().filter(|(_, claimant)| *claimant == worker).map(|(page, _)| page).collect();
            for page in &lost {
                tx.remove(&self.desk.claims, page)?;
                tx.push(&self.desk.again, page)?;
            }
            tx.push(&self.desk.events, Event::Died { worker, lost: lost.clone() })?;
            Ok(lost)
        })
    }

    /// Looks after workers that have ended. `false`: all have.
    fn look_after(&mut self) -> Outcome<bool> {
        let mut position = 0;
        while position < self.workers.len() {
            if self.workers[position].process.is_alive() {
                position += 1;
                continue;
            }
            let worker = self.workers.swap_remove(position);
            // It may have been killed, or its work may have failed.
            if let Err(error) = worker.process.join().and_then(|done| done) {
                self.failures += 1;
                if self.failures > FAILURES_MAX {
                    return Err(format!("{FAILURES_MAX} workers have failed; the last: {error}").into());
                }
                self.bury(worker.number)?;
                self.hire()?;
            }
        }
        Ok(!self.workers.is_empty())
    }

    /// Sleeps until more pages are done than there were, and looks after the workers.
    fn watch(&mut self, seen: &mut u64, bar: &ProgressBar) -> Outcome<bool> {
        self.desk.done.wait_for_change(seen, Duration::from_millis(50))?;
        bar.set_position(self.desk.done.len()? as u64);
        self.look_after()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &self.workers {
            let _ = worker.process.kill();
        }
    }
}

/// Prints a line; unlike `println!`, an error if nobody reads it any more.
fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn tour(cli: &Cli) -> Outcome {
    let text = read_text(cli)?;
    let pages = paginate(&text);
    let (alone, alone_took) = count_alone(&pages);
    say(format!("text      {:.1} MB, {} pages, {} words", megabytes(text.len()), pages.len(), grouped(alone.values().sum())))?;

    let begin = Instant::now();
    let manager = Manager::start()?;
    say(format!("manager   a process of its own, ready after {:.1} ms, at {}", millis(begin.elapsed()), manager.address()))?;
    let begin = Instant::now();
    let mut crew = Crew::new(manager, &pages)?;
    say(format!("shared    the pages are in shared memory after {:.1} ms", millis(begin.elapsed())))?;

    let workers = cli.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get() as u64).clamp(2, 64));
    let bar = ProgressBar::new(pages.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} pages  {per_sec}")?);
    let begin = Instant::now();
    for _ in 0..workers {
        crew.hire()?;
    }
    let mut seen = 0;
    while crew.desk.done.len()? == 0 && crew.watch(&mut seen, &bar)? {}
    bar.suspend(|| {
        say(format!("workers   {workers}, each a process of its own; the first page was done after {:.1} ms", millis(begin.elapsed())))
    })?;

    let reads = read_meanwhile(&crew)?;
    bar.suspend(|| say(reads))?;
    let snapshot = crew.manager.snapshot()?;
    let frozen = check_balance(&crew.desk, &snapshot)?;
    bar.suspend(|| say(frozen.line(&snapshot)))?;
    let report = kill_one(&mut crew)?;
    bar.suspend(|| say(report))?;

    while crew.watch(&mut seen, &bar)? {}
    bar.finish_and_clear();
    let took = begin.elapsed();
    if crew.desk.done.len()? != pages.len() {
        return Err(format!("only {} of {} pages were counted", crew.desk.done.len()?, pages.len()).into());
    }
    let again = check_balance(&crew.desk, &snapshot)?;
    if again != frozen {
        return Err("the snapshot has changed".into());
    }
    let now = crew.manager.snapshot()?;
    say(format!("snapshot  of version {}: still the same; by now there are {} versions", snapshot.version(), now.version()))?;
    conclude(&crew, &now, &alone, took, alone_took)
}

/// How often the most frequent word can be read while the workers write, and whether it ever went backwards.
fn read_meanwhile(crew: &Crew) -> Outcome<String> {
    let (begin, version, mut reads, mut last) = (Instant::now(), crew.manager.version(), 0u64, 0);
    while begin.elapsed() < READING_TIME {
        for _ in 0..256 {
            let times = crew.desk.totals.get("the")?.map_or(0, |times| *times);
            if times < last {
                return Err(format!("the count of `the` went from {last} to {times}").into());
            }
            (last, reads) = (times, reads + 1);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let versions = crew.manager.version() - version;
    Ok(format!(
        "reads     {:.1} million a second in this process, while the workers made {} versions a second",
        reads as f64 / seconds / 1e6,
        grouped((versions as f64 / seconds) as u64)
    ))
}

/// What one version of two containers says about the same thing.
#[derive(PartialEq)]
struct Balance {
    pages: usize,
    words: u64,
}

impl Balance {
    fn line(&self, snapshot: &Snapshot) -> String {
        format!(
            "snapshot  of version {}: {} pages done, and their {} words are in the totals",
            snapshot.version(),
            self.pages,
            grouped(self.words)
        )
    }
}

/// In every version, the words in the totals are those of the pages that are done: no part of a transaction ever shows.
fn check_balance(desk: &Desk, at: &Snapshot) -> Outcome<Balance> {
    let words: u64 = desk.done.at(at).values().sum();
    let totals: u64 = desk.totals.at(at).values().sum();
    if words != totals {
        return Err(format!("pages with {words} words are done, but {totals} are in the totals").into());
    }
    Ok(Balance { pages: desk.done.at(at).len(), words })
}

/// Kills a worker as soon as it is seen to begin a page, and gives its page to others.
fn kill_one(crew: &mut Crew) -> Outcome<String> {
    let Some(victim) = crew.workers.first().map(|worker| worker.number) else {
        return Ok("killed    nobody: all pages were done already; give a longer text".to_owned());
    };
    let claimed = |crew: &Crew| -> commonhold::Result<Option<u64>> {
        Ok(crew.desk.claims.iter()?.find(|(_, claimant)| *claimant == victim).map(|(page, _)| *page))
    };
    // From a page to the next one: the beginning of that is the moment.
    let (first, mut seen) = (claimed(crew)?, crew.desk.claims.version()?);
    while crew.workers[0].process.is_alive() && (claimed(crew)? == first || claimed(crew)?.is_none()) {
        crew.desk.claims.wait_for_change(&mut seen, Duration::from_millis(50))?;
    }
    let worker = crew.workers.swap_remove(0);
    if !worker.process.is_alive() {
        return Ok(format!("killed    nobody: worker {victim} has ended already; give a longer text"));
    }
    worker.process.kill()?;
    worker.process.wait(None)?;
    let code = worker.process.exit_code().map_or("unknown".to_owned(), |code| code.to_string());
    let lost = crew.bury(victim)?;
    let now = crew.manager.snapshot()?;
    let balance = check_balance(&crew.desk, &now)?;
    crew.hire()?;
    let what = match lost.first() {
        Some(page) => format!("in the middle of page {page}, of which nothing shows; another will count it"),
        None => "just between two pages".to_owned(),
    };
    Ok(format!("killed    worker {victim} (exit code {code}), {what} ({} pages done, {} words)", balance.pages, grouped(balance.words)))
}

/// Compares with the count done alone, and shows what there is to see.
fn conclude(crew: &Crew, now: &Snapshot, alone: &HashMap<String, u64>, took: Duration, alone_took: Duration) -> Outcome {
    let totals = crew.desk.totals.at(now);
    let wrong = totals.iter().find(|(word, times)| alone.get(word.as_str()) != Some(&**times));
    if let Some((word, times)) = wrong {
        return Err(format!("{word:?} was counted {} times, but it stands there {:?} times", *times, alone.get(word.as_str())).into());
    }
    if totals.len() != alone.len() {
        return Err(format!("{} words were found, but there are {}", totals.len(), alone.len()).into());
    }
    crew.manager.audit()?;
    let mut top: Vec<(&str, u64)> = alone.iter().map(|(word, times)| (word.as_str(), *times)).collect();
    top.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    let longest = top.first().map_or(1, |(_, times)| *times);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["word", "times", ""]);
    for (word, times) in top.into_iter().take(TOP_WORDS) {
        let bar = "█".repeat(usize::try_from((times * 40).div_ceil(longest))?);
        table.add_row([word.to_owned(), grouped(times), bar]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say(format!("\n{table}\n"))?;
    let (mut transactions, mut attempts, mut killed) = (0, 0, 0);
    for event in crew.desk.events.iter()? {
        match event.to_owned() {
            Event::Counted { attempts: needed, .. } => (transactions, attempts) = (transactions + 1, attempts + needed),
            Event::Died { .. } => killed += 1,
            Event::Started { .. } | Event::Ended { .. } => {}
        }
    }
    let stats = crew.manager.stats()?;
    say(format!("together  {:.0} ms: {transactions} transactions ({attempts} attempts), {killed} killed", millis(took)))?;
    say(format!("alone     {:.0} ms: one process, one private table", millis(alone_took)))?;
    say(format!("memory    {:.1} MB in {} blocks", megabytes(usize::try_from(stats.live_bytes)?), grouped(stats.blocks)))?;
    say(format!("equal     all {} different words, each counted exactly as often as alone", grouped(totals.len() as u64)))?;
    Ok(())
}

// ---- The text ----

fn read_text(cli: &Cli) -> Outcome<String> {
    let text = match &cli.text {
        Some(path) => {
            std::fs::read_to_string(path).unwrap_or_else(|error| refuse(&format!("cannot read the text from {}: {error}", path.display())))
        }
        None => {
            let directory = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
            let mut paths = Vec::new();
            collect(&directory, &mut paths).unwrap_or_else(|error| {
                let directory = directory.display();
                refuse(&format!("the sources in {directory} cannot be read ({error}): give another text with --text FILE"))
            });
            paths.sort();
            paths.iter().map(std::fs::read_to_string).collect::<Result<String, _>>()?
        }
    };
    if words(&text).next().is_none() {
        refuse("there are no words in this text: give another one with --text FILE");
    }
    Ok(text.repeat(TEXT_BYTES_MIN.div_ceil(text.len())))
}

/// Ends the program as other wrong arguments do: a message, a hint, exit code 2.
fn refuse(message: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, message).exit()
}

/// The sources and documents below a directory.
fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Cuts the text at ends of lines.
fn paginate(text: &str) -> Vec<String> {
    let mut pages = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let last = pages.last_mut().expect("there is a first page");
        last.push_str(line);
        if last.len() >= PAGE_BYTES {
            pages.push(String::new());
        }
    }
    pages.retain(|page| !page.is_empty());
    pages
}

fn count_alone(pages: &[String]) -> (HashMap<String, u64>, Duration) {
    let begin = Instant::now();
    let mut counts = HashMap::new();
    pages.iter().for_each(|page| count(page, &mut counts));
    (counts, begin.elapsed())
}

// ---- Figures for people ----

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
