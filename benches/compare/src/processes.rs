//! procspawn: functions of this program in processes of their own, with arguments and results over ipc-channel. Measured with processes only.
use crate::Result;
use crate::rows::{DataSet, Row};
use crate::system::System;
use crate::workload::{Plan, answer};

/// procspawn, which needs no server.
pub struct Procspawn;

impl System for Procspawn {
    fn has(&self, row: Row) -> bool {
        matches!(row, Row::ProcessSpawnJoin | Row::PoolTask | Row::PoolStart)
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        if row.is_about_pools() {
            return crate::pools::run_procspawn(row, plan);
        }
        plan.time(|| {
            let answered = ::procspawn::spawn(41, answer).join()?;
            if answered == 42 { Ok(()) } else { Err("procspawn brought another result".into()) }
        })
    }
}
