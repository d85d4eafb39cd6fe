//! The frontier of a crawler: workers lease pages, and no page is lost, whoever is killed over it.
//!
//! `cargo run --example crawler_frontier`, `-- --kill` to have some pages kill their workers
//!
//! A leased page comes back at once when its worker dies. Links are sent before the page is acknowledged, so a worker that is killed
//! anywhere leaves at worst something that is done twice; `visited` sees to it that it counts once.

use clap::Parser;
use commonhold::{Dict, Manager, Process, Queue};
use std::process::ExitCode;
use std::time::Duration;

/// Goes through a small web of pages that link to each other, by several processes.
#[derive(Parser)]
#[command(name = "crawler_frontier", version)]
struct Cli {
    /// Have some pages kill the first worker that takes them
    #[arg(long)]
    kill: bool,
}

/// Pages of this web: each links to two others.
const PAGES: u64 = 63;

fn links(page: u64) -> impl Iterator<Item = u64> {
    [2 * page, 2 * page + 1].into_iter().filter(|link| *link <= PAGES)
}

fn crawl(frontier: Queue<u64>, visited: Dict<u64, u64>, kill: bool) -> commonhold::Result<()> {
    while let Some(page) = frontier.lease()? {
        if kill && *page % 10 == 7 && page.attempt() == 1 {
            std::process::abort(); // in the middle of the work, without a word
        }
        for link in links(*page) {
            frontier.send(link)?;
        }
        visited.insert(*page, u64::from(page.attempt()))?;
        page.ack()?;
    }
    Ok(())
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let frontier = manager.queue::<u64>(1000)?;
    let visited = manager.dict::<u64, u64>([])?;
    let start = || Process::spawn(crawl, (frontier.clone(), visited.clone(), cli.kill));
    frontier.send(1)?;
    let mut workers = vec![start()?, start()?, start()?];
    let mut deaths = 0;
    // Finished: nothing waits, and nobody has leased anything.
    while !frontier.join_timeout(Duration::from_millis(10))? {
        for worker in &mut workers {
            if !worker.is_alive() {
                deaths += usize::from(std::mem::replace(worker, start()?).join().is_err());
            }
        }
    }
    frontier.close()?;
    deaths += workers.into_iter().filter(|worker| worker.join().is_err()).count();
    let twice = visited.iter()?.filter(|(_, attempts)| **attempts > 1).count();
    println!("{} of {PAGES} pages visited, {twice} of them by a second worker; {deaths} workers died", visited.len()?);
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crawler_frontier: {error}");
            ExitCode::FAILURE
        }
    }
}
