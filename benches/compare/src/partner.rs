//! The second process of the rows about locks and queues: this program again, doing the other half of a row (`tasks`) until it is killed.
use std::process::{ChildStdin, Command};
use std::time::Duration;

use crate::Result;
use crate::child::{Helper, Lines};

/// Tells a process that it is a partner: what it does, then with what.
const VARIABLE: &str = "COMPARE_PARTNER";
const PATIENCE: Duration = Duration::from_secs(30);

/// A partner at work. It ends with this.
pub struct Partner {
    helper: Helper,
    _stdin: ChildStdin,
    _lines: Lines,
}

impl Partner {
    /// Starts one, and returns when it works.
    pub fn start(task: &[String]) -> Result<Partner> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, task.join(" "));
        let (helper, stdin, mut lines) = Helper::spawn(&mut command)?.ok_or("this program is not where it was")?;
        lines.next_line(PATIENCE)?;
        Ok(Partner { helper, _stdin: stdin, _lines: lines })
    }
}

impl Partner {
    /// Its process.
    pub fn process(&self) -> u32 {
        self.helper.process()
    }
}

/// In a process that was started as a partner: what it is to do.
pub fn own_task() -> Option<String> {
    std::env::var(VARIABLE).ok()
}
