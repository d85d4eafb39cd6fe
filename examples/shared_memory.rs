//! A block of memory that another program opens by its name: Python if it is there, else whoever can read a file.
//!
//! `cargo run --features shared-memory --example shared_memory`

use commonhold::{Error, Manager};
use std::process::{Command, Stdio};

const PYTHON: &str = r#"
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
block = SharedMemory(sys.argv[1])
resource_tracker.unregister(block._name, "shared_memory")    # before 3.13 Python would unlink it at its end
block.buf[10] = sum(block.buf[:10])
block.close()
"#;

/// Has another program put the sum of the first ten bytes behind them. Which one that was.
fn sum_elsewhere(name: &str) -> std::io::Result<&'static str> {
    let python = Command::new("python3").args(["-c", PYTHON, name]).stderr(Stdio::null()).status();
    if python.is_ok_and(|status| status.success()) {
        return Ok("Python");
    }
    let script = "dd if=$0 bs=1 count=10 2>/dev/null | od -An -tu1 | tr -s ' ' '\\n' | awk '{s += $1} END {printf \"%c\", s}' \
                  | dd of=$0 bs=1 seek=10 conv=notrunc 2>/dev/null";
    Command::new("sh").args(["-c", script, &format!("/dev/shm/{name}")]).status()?;
    Ok("a shell")
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let name = format!("commonhold-numbers-{}", std::process::id());
    let block = manager.shared_memory(&name, 4096)?; // all of its memory is there: a small /dev/shm is an error here
    block.write_at(0, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])?;
    let who = sum_elsewhere(&name).map_err(|error| Error::other(error.to_string()))?;
    println!("the sum is {}, says {who}", block.read(10..11)?[0]);
    println!("its name is there: {}", std::path::Path::new("/dev/shm").join(&name).exists());
    block.unlink()?;
    println!("its name is there: {}, its bytes are: {:?}", std::path::Path::new("/dev/shm").join(&name).exists(), block.read(8..11)?);
    Ok(()) // without `unlink` the name goes with the last handle
}
