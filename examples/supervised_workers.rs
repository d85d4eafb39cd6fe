//! Workers that are started again when they die, and a supervisor that knows when to stop trying.
//!
//! `cargo run --example supervised_workers`
//!
//! Three workers lease tasks from a queue. Two of the twelve tasks crash whoever does them first; the supervisor says who has died and
//! why, and starts a new worker; the task comes back by itself, since its lease ended with its holder. Then another worker, which cannot
//! live at all: after three restarts the supervisor gives up, and says why.

use commonhold::{ChildSpec, Dict, Manager, Queue, Restart, RestartStrategy, Supervisor, SupervisorEvent};
use std::time::Duration;

fn work(tasks: Queue<u64>, done: Dict<u64, u64>) -> commonhold::Result<()> {
    // None: closed, empty, and nothing is leased any more.
    while let Some(task) = tasks.lease()? {
        if *task % 5 == 4 && task.attempt() == 1 {
            std::process::abort();
        }
        done.insert(*task, *task * *task)?;
        task.ack()?;
    }
    Ok(())
}

fn stumble() -> Result<(), String> {
    Err("there is no configuration".into())
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let tasks = manager.queue::<u64>(12)?;
    let done = manager.dict::<u64, u64>([])?;
    tasks.send_many(0..12)?;
    tasks.close()?;

    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(3, Duration::from_secs(60));
    for number in 1..=3 {
        let spec = ChildSpec::new(format!("worker-{number}"), work, (tasks.clone(), done.clone()));
        // Again if it dies, not if it returns: then there is nothing left to do. No core files.
        supervisor.add(spec.restart(Restart::Transient).configure(|builder| builder.limit(commonhold::ResourceLimit::Core, 0)))?;
    }
    supervisor.run(|event| println!("{event}"))?;
    println!("{} tasks are done: {} in all", done.len()?, done.values()?.sum::<u64>());

    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(3, Duration::from_secs(60));
    supervisor.add(ChildSpec::new("stumbler", stumble, ()))?;
    let outcome = supervisor.run(|event| {
        if let SupervisorEvent::Restarted { name, restarts, .. } = event {
            println!("{name} gets chance {}", restarts + 1);
        }
    });
    println!("{}", outcome.expect_err("it cannot live"));
    Ok(())
}
