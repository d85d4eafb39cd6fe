//! A simulation at 60 ticks per second in one process, and others that look at it whenever they like, each on a frame that is whole.
//!
//! `cargo run --example simulation`, `-- --kill` to have a viewer killed in between
//!
//! A tick is one batch: all bodies move at once or not at all. A viewer takes a snapshot, which costs nothing and holds up nobody; the
//! sum of all momenta, which the physics keeps, shows that what it sees belongs together.

use clap::Parser;
use commonhold::{Event, List, Manager, Process, Shared, Value};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// Moves bodies in a box, with viewers in processes of their own.
#[derive(Parser)]
#[command(name = "simulation", version)]
struct Cli {
    /// Ticks, 60 in a second
    #[arg(long, default_value_t = 60)]
    ticks: u64,
    /// Bodies
    #[arg(long, default_value_t = 200)]
    bodies: usize,
    /// Viewers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    viewers: u16,
    /// Kill a viewer half-way
    #[arg(long)]
    kill: bool,
}

/// In whole numbers, so that sums are exact.
#[derive(Shared, Debug, Clone)]
struct Body {
    position: [i64; 2],
    velocity: [i64; 2],
}

#[derive(Shared, Clone)]
struct World {
    tick: Value<u64>,
    bodies: List<Body>,
    over: Event,
}

/// Bodies meet in pairs and change their velocities with each other: what one loses, the other gains.
fn advance(bodies: &mut [Body], tick: u64) {
    let half = bodies.len() / 2;
    for (number, (a, b)) in bodies.iter().zip(&bodies[half..]).map(|(a, b)| (a.clone(), b.clone())).enumerate().collect::<Vec<_>>() {
        if (number as u64 + tick).is_multiple_of(5) {
            bodies[number].velocity = b.velocity;
            bodies[number + half].velocity = a.velocity;
        }
    }
    for body in bodies {
        body.position = [0, 1].map(|axis| (body.position[axis] + body.velocity[axis]).rem_euclid(10_000));
    }
}

/// A viewer: looks as often as it can. How many different ticks it saw.
fn view(world: World) -> commonhold::Result<u64> {
    let manager = commonhold::Handle::session(&world.tick)?;
    let (mut seen, mut ticks) = (0, 0);
    let mut last = None;
    while !world.over.is_set()? {
        let now = manager.snapshot()?;
        let bodies = world.bodies.at(&now);
        let momentum = [0, 1].map(|axis| bodies.iter().map(|body| i64::from(body.velocity[axis])).sum::<i64>());
        assert_eq!(momentum, [0, 0], "a frame that was torn");
        let tick = world.tick.at(&now).map(|tick| *tick);
        if tick != last {
            (ticks, last) = (ticks + 1, tick);
        }
        // Until there is another one.
        world.bodies.wait_for_change(&mut seen, TICK)?;
    }
    Ok(ticks)
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    // Velocities come in pairs that add up to nothing.
    let mut bodies: Vec<Body> = (0..cli.bodies.next_multiple_of(2) as i64)
        .map(|n| {
            let sign = 1 - 2 * (n % 2);
            Body { position: [n * 37 % 10_000, n * 91 % 10_000], velocity: [sign * (n / 2 % 17), -sign * (n / 2 % 23)] }
        })
        .collect();
    let world = World { tick: manager.value(0u64)?, bodies: manager.list(bodies.iter().cloned())?, over: manager.event()? };
    let start = |n: u16| Process::builder().name(format!("viewer-{n}")).daemon(true).spawn(view, world.clone());
    let viewers = (1..=cli.viewers).map(start).collect::<commonhold::Result<Vec<_>>>()?;
    let begin = Instant::now();
    let mut late = 0;
    for tick in 1..=cli.ticks {
        advance(&mut bodies, tick);
        manager.batch(|batch| {
            batch.set(&world.tick, tick)?;
            bodies.iter().enumerate().try_for_each(|(number, body)| batch.set_at(&world.bodies, number, body))
        })?;
        if cli.kill && tick == cli.ticks / 2 {
            viewers[0].kill()?;
        }
        let next = begin + TICK * tick as u32;
        match next.checked_duration_since(Instant::now()) {
            // Nobody ends it early; a viewer with a button could.
            Some(rest) => drop(world.over.wait_timeout(rest)?),
            None => late += 1,
        }
    }
    world.over.set()?;
    println!("{} ticks of {} bodies, {late} of them late", cli.ticks, bodies.len());
    for viewer in viewers {
        match viewer.join() {
            Ok(ticks) => println!("{}: saw {} of them, all whole", viewer.name(), ticks?),
            Err(error) => println!("{}: {:?}", viewer.name(), error.kind()),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulation: {error}");
            ExitCode::FAILURE
        }
    }
}
