//! The interface that every measured system has.
use crate::Result;
use crate::rows::{DataSet, Row};
use crate::workload::Plan;

/// One system under measurement.
pub trait System {
    /// Whether it has a counterpart of this row.
    fn has(&self, row: Row) -> bool;

    /// Fills in what `data` describes. Called once for each data set, before the first row that works on it.
    fn prepare(&mut self, data: DataSet) -> Result<()>;

    /// Runs a row's [`work`](Row::work) as planned. Returns nanoseconds per group; for rows of [one figure](Row::is_one_figure) that, in the
    /// row's unit, whatever the plan.
    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>>;

    /// Its server's processes.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }
}
