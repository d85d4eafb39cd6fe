//! A pipe to a child, and waiting for whatever comes first.
//!
//! `cargo run --example pipe`
//!
//! The child is asked over one pipe and answers over it; it tells of its progress over another one, for one direction. When it is killed,
//! both streams end: what it had sent before is still received.

use commonhold::{Connection, Manager, PipeOptions, PipeSender, Process, wait};

fn letters(pipe: Connection<u64, String>, log: PipeSender<String>) -> commonhold::Result<()> {
    while let Some(text) = pipe.recv()? {
        log.send(format!("counting the letters of {text:?}"))?;
        pipe.send(text.chars().count() as u64)?;
    }
    Ok(())
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    // This end sends texts and receives numbers, the other one the other way round.
    let (ours, theirs) = manager.pipe_with::<String, u64>(PipeOptions::new())?;
    let (log, reports) = manager.pipe_one_way::<String>()?;
    // Moved: from then on the child's ends are the child's alone.
    let child = Process::spawn(letters, (theirs, reports))?;
    for fruit in ["Apple", "Pomegranate", "Fig"] {
        ours.send(fruit)?;
        println!("{fruit} has {} letters", ours.recv()?.expect("the child answers"));
    }
    child.kill()?;
    // It ends at once, whatever the child was doing: `None` is the end of the stream.
    assert_eq!(ours.recv()?, None);
    assert!(ours.send("Guava").expect_err("nobody is there").is_closed());
    while wait(&[&log], None)? == [0] {
        let Some(line) = log.recv()? else { break };
        println!("{line}");
    }
    wait(&[&child], None)?;
    println!("the child was ended by signal {}", -child.exit_code().unwrap_or_default());
    Ok(())
}
