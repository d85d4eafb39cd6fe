//! Handles for child processes: a token is one line of text, in an argument or in the environment.
//!
//! `cargo run --example children`
//!
//! The program starts itself again as three children. Each gets the token of a dict in its environment and a line of text as its
//! argument, makes a handle of the token and adds its words. The token names the manager and the object and holds no secret: the
//! manager lets in who runs as the same user.

use commonhold::{Dict, Manager, Token};
use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

/// Where a child finds the token of the totals.
const TOTALS: &str = "TOTALS";

const LINES: [&str; 3] = ["the cat and the dog", "the dog sleeps", "the end"];

fn main() -> ExitCode {
    commonhold::init();
    let done = match std::env::var(TOTALS) {
        Ok(token) => child(&token),
        Err(_) => parent(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("children: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent() -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let totals = manager.dict::<String, u64>([])?;
    let (program, token) = (std::env::current_exe()?, totals.token()?.to_string());
    let start = |line| Command::new(&program).arg(line).env(TOTALS, &token).spawn();
    let children: Vec<_> = LINES.iter().map(start).collect();
    for child in children {
        let mut child = child?;
        let status = child.wait()?;
        if !status.success() {
            return Err(commonhold::Error::other(format!("a child ended with {status}")));
        }
    }
    // In the order of the alphabet: the order of insertion is that of who was quicker.
    let sorted: BTreeMap<String, u64> = totals.to_owned()?.into_iter().collect();
    println!("{sorted:?}");
    println!("{} words of {} lines", totals.values()?.sum::<u64>(), LINES.len());
    Ok(())
}

fn child(token: &str) -> commonhold::Result<()> {
    let token: Token = token.parse()?;
    // Connects to the manager that the token names. `add` is atomic: no word is lost, whoever adds at the same time.
    let totals: Dict<String, u64> = token.open()?;
    for line in std::env::args().skip(1) {
        for word in line.split(' ') {
            totals.add(word, 1)?;
        }
    }
    Ok(())
}
