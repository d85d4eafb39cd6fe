//! The ceiling for queues: crossbeam's bounded channel, between two threads of this process. Nothing is shared with anybody.
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::Result;
use crate::rows::{DEPTH, DataSet, Row, SMALL};
use crate::system::System;
use crate::workload::{Plan, touch, value};

/// Has no state: each run makes its own channel.
pub struct Crossbeam;

impl System for Crossbeam {
    fn has(&self, row: Row) -> bool {
        row.is_about_queues()
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let small: [u8; SMALL] = value(SMALL).as_slice().try_into()?;
        match (row.crowd(), row.pause_ns()) {
            (Some((SMALL, senders, receivers)), _) => pass(plan, senders, receivers, || small, |item| touch(item)),
            // A copy is made, as for who shares it.
            (Some((bytes, senders, receivers)), _) => {
                let large = value(bytes);
                pass(plan, senders, receivers, || large.clone(), |item| touch(item))
            }
            (None, Some(pause)) => there_and_back(plan.with_pauses(pause), small),
            (None, None) => Err("a channel has no containers".into()),
        }
    }
}

fn pass<T: Send>(plan: Plan, senders: usize, receivers: usize, make: impl Fn() -> T + Sync, look: impl Fn(&T) + Sync) -> Result<Vec<f64>> {
    let (sender, receiver) = crossbeam_channel::bounded(DEPTH);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..receivers {
            let (receiver, look) = (receiver.clone(), &look);
            scope.spawn(move || receiver.iter().for_each(|item| look(&item)));
        }
        for _ in 1..senders {
            let (sender, over, make) = (sender.clone(), &over, &make);
            scope.spawn(move || while !over.load(Relaxed) && sender.send(make()).is_ok() {});
        }
        for _ in 0..DEPTH {
            sender.send(make()).map_err(|_| "the receiver is gone")?;
        }
        let times = plan.time(|| sender.send(make()).map_err(|_| "the receiver is gone".into()));
        over.store(true, Relaxed);
        drop(sender);
        times
    })
}

fn there_and_back(plan: Plan, small: [u8; SMALL]) -> Result<Vec<f64>> {
    let ((sender, there), (back, receiver)) = (crossbeam_channel::bounded(DEPTH), crossbeam_channel::bounded(DEPTH));
    thread::scope(|scope| {
        scope.spawn(move || there.iter().try_for_each(|item| back.send(item)));
        let times = plan.time(|| {
            sender.send(small)?;
            touch(&receiver.recv()?);
            Ok(())
        });
        drop(sender);
        times
    })
}
