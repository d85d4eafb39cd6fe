//! The ceiling for queues: crossbeam's bounded channel, between two threads of this process. Nothing is shared with anybody.
use std::thread;

use crate::Result;
use crate::rows::{DEPTH, DataSet, Row, SMALL};
use crate::systems::System;
use crate::workload::{Plan, touch, value};

/// Has no state: each run makes its own channel.
pub struct Crossbeam;

impl System for Crossbeam {
    fn has(&self, row: Row) -> bool {
        row.item_bytes().is_some()
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        match row.item_bytes() {
            Some(SMALL) => {
                let small: [u8; SMALL] = value(SMALL).as_slice().try_into()?;
                pass(plan, || small, |item| touch(item))
            }
            // A copy is made, as for who shares it.
            Some(bytes) => {
                let large = value(bytes);
                pass(plan, || large.clone(), |item| touch(item))
            }
            None => Err("a channel has no containers".into()),
        }
    }
}

fn pass<T: Send>(plan: Plan, make: impl Fn() -> T, look: impl Fn(&T) + Send) -> Result<Vec<f64>> {
    let (sender, receiver) = crossbeam_channel::bounded(DEPTH);
    thread::scope(|scope| {
        scope.spawn(move || receiver.iter().for_each(|item| look(&item)));
        for _ in 0..DEPTH {
            sender.send(make()).map_err(|_| "the receiver is gone")?;
        }
        let times = plan.time(|| sender.send(make()).map_err(|_| "the receiver is gone".into()));
        drop(sender);
        times
    })
}
