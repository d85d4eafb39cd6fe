//! Python's `multiprocessing.Manager()`, measured by Python itself (`manager.py`) in the process that started the manager, row by row as asked;
//! and its processes (`processes.py`).
//!
//! It must never hang us: every answer is waited for with a deadline, and the interpreter's whole process group dies with the guard.
use std::io::Write;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::child::{Helper, Lines};
use crate::commonhold::{EACH, TOGETHER};
use crate::rows::{BATCH, DEPTH, DataSet, ELEMENTS, Row};
use crate::systems::System;
use crate::workload::Plan;

const MANAGER: &str = include_str!("manager.py");
const PROCESSES: &str = include_str!("processes.py");
/// How long one answer may take. The longest, filling 100,000 entries, takes less than a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the manager may take to shut down before it is killed.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// What an interpreter is started for.
#[derive(Clone, Copy)]
enum Measures {
    /// What a manager has.
    Everything,
    /// Locks and their kin, without a manager.
    Locks,
    /// Starting processes.
    Processes,
    /// The same, and pools of them.
    Pools,
}

/// The interpreter.
pub struct Python {
    stdin: ChildStdin,
    answers: Lines,
    interpreter: Helper,
    measures: Measures,
}

impl Python {
    /// Starts the interpreter and its manager. `None`: there is no python3 on this machine.
    pub fn start() -> Result<Option<Self>> {
        Self::run_manager_script(Measures::Everything)
    }

    /// Starts an interpreter for the locks that `multiprocessing` has without a manager.
    pub fn start_locks() -> Result<Option<Self>> {
        Self::run_manager_script(Measures::Locks)
    }

    /// Starts an interpreter that starts processes by a method.
    pub fn start_processes(method: &str) -> Result<Option<Self>> {
        let measures = if method == "fork" { Measures::Pools } else { Measures::Processes };
        Self::run_script(PROCESSES, method, measures)
    }

    fn run_manager_script(measures: Measures) -> Result<Option<Self>> {
        let without_manager = matches!(measures, Measures::Locks);
        let sizes: serde_json::Map<String, Value> = [DataSet::Dict64, DataSet::Dict1k, DataSet::Dict1m, DataSet::List64]
            .map(|data| (data.name().to_owned(), json!(data.shape())))
            .into_iter()
            .chain([
                ("batch".to_owned(), json!(BATCH)),
                ("depth".to_owned(), json!(DEPTH)),
                ("together_s".to_owned(), json!(TOGETHER.as_secs_f64())),
                ("each".to_owned(), json!(EACH)),
                ("elements".to_owned(), json!(ELEMENTS)),
                ("without_manager".to_owned(), json!(without_manager)),
            ])
            .collect();
        Self::run_script(MANAGER, &Value::Object(sizes).to_string(), measures)
    }

    fn run_script(script: &str, argument: &str, measures: Measures) -> Result<Option<Self>> {
        let mut command = Command::new("python3");
        command.args(["-c", script, argument]);
        let Some((interpreter, stdin, answers)) = Helper::spawn(&mut command)? else {
            return Ok(None);
        };
        let mut python = Python { stdin, answers, interpreter, measures };
        python.answer()?;
        Ok(Some(python))
    }

    fn ask(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.stdin, "{question}")?;
        self.stdin.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let line = self.answers.next_line(PATIENCE).map_err(|error| format!("python3: {error}"))?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("python3 printed {line:?}: {error}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("python3: {error}").into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Python {
    /// Lets Python shut its manager down and reap it; whatever does not work out is left to the guard, which kills.
    fn drop(&mut self) {
        if writeln!(self.stdin, "{}", json!({ "end": true })).is_ok() {
            let _ = self.answers.next_line(PATIENCE_AT_END);
        }
    }
}

impl System for Python {
    fn has(&self, row: Row) -> bool {
        match self.measures {
            Measures::Everything => {
                let process = matches!(row, Row::ProcessSpawnJoin | Row::UpdateRun | Row::UpdateTransaction);
                let stream = matches!(row, Row::DictSet64Stream | Row::ListPush64Stream);
                !process && !stream && !row.is_about_pools()
            }
            Measures::Locks => row.is_about_locks() || row.is_about_memory() || row.is_about_queues(),
            Measures::Processes => row == Row::ProcessSpawnJoin,
            // What its workers do in the other rows is Python, and so another work.
            Measures::Pools => row == Row::ProcessSpawnJoin || row.is_about_pools() && !matches!(row, Row::PoolWork | Row::PoolWorkOne),
        }
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        self.ask(&json!({ "prepare": data.name() })).map(|_| ())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let answer =
            self.ask(&json!({ "row": row.name(), "groups": plan.groups, "operations": plan.operations, "think_ns": plan.think_ns }))?;
        let times = answer.get("ns").and_then(Value::as_array).ok_or("python3 answered without figures")?;
        times.iter().map(|time| time.as_f64().ok_or_else(|| "python3 answered something else than a number".into())).collect()
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.interpreter.process()]
    }
}
