//! Python's `multiprocessing.Manager()`, measured by Python itself (`manager.py`) in the process that started the manager, row by row as asked;
//! and its processes (`processes.py`).
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::asked::Asked;
use crate::rows::{BATCH, DEPTH, DataSet, EACH, ELEMENTS, Row, TOGETHER};
use crate::system::System;
use crate::workload::Plan;

const MANAGER: &str = include_str!("manager.py");
const PROCESSES: &str = include_str!("processes.py");
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
    interpreter: Asked,
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
        Ok(Asked::start("python3", &mut command)?.map(|interpreter| Python { interpreter, measures }))
    }
}

impl System for Python {
    fn has(&self, row: Row) -> bool {
        match self.measures {
            Measures::Everything => {
                let process = matches!(row, Row::ProcessSpawnJoin | Row::PipeRoundTrip | Row::UpdateRun | Row::UpdateTransaction);
                let stream = matches!(row, Row::DictSet64Stream | Row::ListPush64Stream);
                !process && !stream && !row.is_about_pools()
            }
            Measures::Locks => row.is_about_locks() || row.is_about_memory() || row.is_about_queues() || row == Row::PipeRoundTrip,
            Measures::Processes => row == Row::ProcessSpawnJoin,
            // What its workers do in the other rows is Python, and so another work.
            Measures::Pools => row == Row::ProcessSpawnJoin || row.is_about_pools() && !matches!(row, Row::PoolWork | Row::PoolWorkOne),
        }
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        self.interpreter.ask(&json!({ "prepare": data.name() })).map(|_| ())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        self.interpreter.run(row, plan)
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.interpreter.process()]
    }
}
