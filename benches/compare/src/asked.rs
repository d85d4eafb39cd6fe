//! A program that measures itself as asked: one JSON object a line on its input, one a line on its output.
//!
//! It must never hang us: every answer is waited for with a deadline, and the program's whole process group dies with the guard.
use std::io::Write;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::child::{Helper, Lines};
use crate::rows::Row;
use crate::workload::Plan;

/// How long one answer may take. The longest, filling 100,000 entries in Python, takes less than a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to clear up before it is killed.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// Such a program at work.
pub struct Asked {
    name: &'static str,
    stdin: ChildStdin,
    answers: Lines,
    helper: Helper,
}

impl Asked {
    /// Starts it, and returns when it says that it is ready. `None`: there is no such program.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Option<Self>> {
        let Some((helper, stdin, answers)) = Helper::spawn(command)? else {
            return Ok(None);
        };
        let mut asked = Asked { name, stdin, answers, helper };
        asked.answer()?;
        Ok(Some(asked))
    }

    /// Asks something, and waits for the answer.
    pub fn ask(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.stdin, "{question}")?;
        self.stdin.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let name = self.name;
        let line = self.answers.next_line(PATIENCE).map_err(|error| format!("{name}: {error}"))?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{name} printed {line:?}: {error}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("{name}: {error}").into()),
            None => Ok(answer),
        }
    }

    /// Nanoseconds per group of a row, as planned.
    pub fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let name = self.name;
        let question = json!({ "row": row.name(), "groups": plan.groups, "operations": plan.operations, "think_ns": plan.think_ns });
        let answer = self.ask(&question)?;
        let times = answer.get("ns").and_then(Value::as_array).ok_or_else(|| format!("{name} answered without figures"))?;
        times.iter().map(|time| time.as_f64().ok_or_else(|| format!("{name} answered something else than a number").into())).collect()
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.helper.process()
    }
}

impl Drop for Asked {
    /// Lets it clear up; whatever does not work out is left to the guard, which kills.
    fn drop(&mut self) {
        if writeln!(self.stdin, "{}", json!({ "end": true })).is_ok() {
            let _ = self.answers.next_line(PATIENCE_AT_END);
        }
    }
}
