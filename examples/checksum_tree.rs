//! The checksums of all files below a directory, worked out by several processes, some of which may be killed on the way.
//!
//! `cargo run --release --example checksum_tree -- DIRECTORY`, `--kill-some` to have workers killed, `--alone` to do without workers
//!
//! The pool takes paths as it needs them, and gives results in the order in which they are done. A killed worker is replaced, and
//! the file that it was reading is read again by another, so the result is the same as without. `--verify` works it out once more
//! without workers, and compares.

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use commonhold::{Pool, Shared};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// SHA-256 of every file below a directory, by worker processes.
#[derive(Parser)]
#[command(name = "checksum_tree", version, max_term_width = 100)]
struct Cli {
    /// The directory
    directory: PathBuf,
    /// Worker processes (1 to 64); by default one for each processor, at least 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Kill N workers on the way; 3 if N is not given
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3", default_value = "0", hide_default_value = true)]
    kill_some: u32,
    /// Do it in this process alone
    #[arg(long, conflicts_with_all = ["workers", "kill_some", "verify"])]
    alone: bool,
    /// Do it once more in this process alone, and compare
    #[arg(long)]
    verify: bool,
}

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A file's length and checksum; or why it cannot be read.
#[derive(Shared, Clone, Debug, PartialEq)]
struct Read256 {
    /// Its path, as the system has it: not all are UTF-8.
    path: Vec<u8>,
    outcome: Result<(u64, [u8; 32]), String>,
}

fn main() -> ExitCode {
    commonhold::init();
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("checksum_tree: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Outcome<bool> {
    // An error here, rather than none for a directory that is not there.
    std::fs::read_dir(&cli.directory).map_err(|error| format!("cannot read {}: {error}", cli.directory.display()))?;
    let (files, note) = if cli.alone { (alone(&cli.directory), String::new()) } else { by_workers(cli)? };
    let whole = show(&cli.directory, &files)?;
    if !note.is_empty() {
        writeln!(io::stdout(), "{note}")?;
    }
    if cli.verify {
        let same = alone(&cli.directory) == files;
        writeln!(io::stdout(), "{}", if same { "one process alone finds the same" } else { "one process alone finds something else" })?;
        return Ok(whole && same);
    }
    Ok(whole)
}

// ---- Reading ----

/// What one task is: reads a file to its end.
fn read(path: Vec<u8>) -> Read256 {
    let outcome = checksum(Path::new(&OsString::from_vec(path.clone()))).map_err(|error| error.to_string());
    Read256 { path, outcome }
}

fn checksum(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let (mut file, mut sum, mut bytes) = (std::fs::File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, sum.finalize().into())),
            count => {
                sum.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

/// The paths of all files below a directory, as they are found. Links are not followed; a directory that cannot be read is given as
/// itself, so that reading it says why.
fn walk(directory: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    let mut open = vec![directory.to_owned()];
    let mut found: Vec<PathBuf> = Vec::new();
    std::iter::from_fn(move || {
        while found.is_empty() {
            let directory = open.pop()?;
            match std::fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Err(_) => found.push(directory),
                Ok(entries) => {
                    for entry in entries {
                        match entry.file_type() {
                            Ok(kind) if kind.is_dir() => open.push(entry.path()),
                            Ok(kind) if kind.is_file() => found.push(entry.path()),
                            _ => {}
                        }
                    }
                }
            }
        }
        found.pop().map(|path| path.into_os_string().into_vec())
    })
}

type Files = BTreeMap<Vec<u8>, Read256>;

fn alone(directory: &Path) -> Files {
    walk(directory).map(|path| (path.clone(), read(path))).collect()
}

fn by_workers(cli: &Cli) -> Outcome<(Files, String)> {
    let workers = cli.workers.map_or(commonhold::cpu_count().max(2), usize::from);
    // One file may meet every kill.
    let pool = Pool::builder().workers(workers).retries(cli.kill_some).build()?;
    let paths: Vec<Vec<u8>> = walk(&cli.directory).collect();
    let bar = ProgressBar::new(paths.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} files, {msg}")?);
    let (total, kills, mut bytes) = (paths.len() as u64, u64::from(cli.kill_some), 0);
    let (mut files, mut killed) = (Files::new(), Vec::new());
    // In whatever order they are done; more are given out as results come.
    for (number, done) in (0u64..).zip(pool.imap_unordered(read, paths)?) {
        // The next kill, evenly over the files.
        if (killed.len() as u64) < kills && number >= killed.len() as u64 * total / kills {
            killed.extend(pool.pids().into_iter().find(|pid| !killed.contains(pid) && kill(*pid)));
        }
        let done = done?;
        bytes += done.outcome.as_ref().map_or(0, |(bytes, _)| *bytes);
        bar.set_message(HumanBytes(bytes).to_string());
        bar.inc(1);
        files.insert(done.path.clone(), done);
    }
    bar.finish_and_clear();
    pool.close()?;
    pool.join()?;
    Ok((files, format!("{workers} workers, {} killed on the way", killed.len())))
}

/// Whether there was one to be killed.
fn kill(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
}

// ---- The result ----

/// The sums of what lies in one entry of the directory.
#[derive(Default)]
struct Sums {
    files: u64,
    bytes: u64,
    sum: Sha256,
}

impl Sums {
    fn add(&mut self, path: &[u8], bytes: u64, sum: &[u8]) {
        self.files += 1;
        self.bytes += bytes;
        // Length first, so that no two trees give the same bytes.
        self.sum.update((path.len() as u64).to_le_bytes());
        self.sum.update(path);
        self.sum.update(sum);
    }

    fn row(self, name: &str) -> [String; 4] {
        let sum: String = self.sum.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        [name.to_owned(), self.files.to_string(), self.bytes.to_string(), sum]
    }
}

/// Prints a table. Whether all files could be read.
fn show(directory: &Path, files: &Files) -> Outcome<bool> {
    let (mut entries, mut all) = (BTreeMap::<String, Sums>::new(), Sums::default());
    let mut whole = true;
    for (path, read) in files {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let below = path.strip_prefix(directory).unwrap_or(path);
        match &read.outcome {
            Ok((bytes, sum)) => {
                let entry = below.iter().next().unwrap_or_default().to_string_lossy().into_owned();
                entries.entry(entry).or_default().add(below.as_os_str().as_bytes(), *bytes, sum);
                all.add(below.as_os_str().as_bytes(), *bytes, sum);
            }
            Err(why) => {
                eprintln!("checksum_tree: {}: {why}", path.display());
                whole = false;
            }
        }
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["entry", "files", "bytes", "checksum"]);
    for (name, sums) in entries {
        table.add_row(sums.row(&name));
    }
    table.add_row(all.row("all"));
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(io::stdout(), "{}", table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))?;
    Ok(whole)
}
