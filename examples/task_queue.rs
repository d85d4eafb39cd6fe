//! Eight tasks in a queue, three processes that take them, a queue for their log, and a lock around printing.
//!
//! `cargo run --example task_queue`

use commonhold::{Lock, Manager, Process, Queue, current_process};

fn do_job(tasks: Queue<String>, done: Queue<String>, printing: Lock) -> commonhold::Result<()> {
    // None: closed and empty.
    while let Some(task) = tasks.recv()? {
        printing.with(|| println!("{task}"))?;
        done.send(format!("{task} is done by {}", current_process().name()))?;
    }
    Ok(())
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let tasks = manager.queue::<String>(8)?;
    let done = manager.queue_unbounded::<String>()?;
    let printing = manager.lock()?;
    for number in 0..8 {
        tasks.send(format!("Task no {number}"))?;
    }
    tasks.close()?;
    let start = |_| Process::spawn(do_job, (tasks.clone(), done.clone(), printing.clone()));
    let workers: Vec<_> = (0..3).map(start).collect::<commonhold::Result<_>>()?;
    for worker in workers {
        worker.join()??;
    }
    done.close()?;
    for line in &done {
        println!("{}", line?);
    }
    Ok(())
}
