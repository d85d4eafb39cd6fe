//! Pools of processes: ours, procspawn's, and rayon's threads as the ceiling. Each row has a pool of its own, which is up before the clock runs.
use ::commonhold::{Pool, cpu_count};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::Result;
use crate::rows::{DataSet, Row};
use crate::system::System;
use crate::workload::{Plan, answer, touch, value};

/// Numbers of a map.
const NUMBERS: u64 = 10_000;
/// Pieces of real work.
const PIECES: u64 = 64;

fn answer_large(_: u64) -> Vec<u8> {
    value(1 << 20)
}

/// A piece of real work: whether so many numbers have short or long ways to 1.
fn work(piece: u64) -> u64 {
    let steps = |mut n: u64| {
        let mut steps = 0;
        while n > 1 {
            n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        steps
    };
    (piece * 1_000..(piece + 1) * 1_000).map(steps).sum()
}

fn check(all: &[u64]) -> Result<()> {
    let whole = all.len() as u64 == NUMBERS && all.last() == Some(&NUMBERS);
    if whole { Ok(()) } else { Err("a map has brought other results".into()) }
}

/// A row on our own pool.
pub fn run(row: Row, plan: Plan) -> Result<Vec<f64>> {
    let workers = if row == Row::PoolWorkOne { 1 } else { cpu_count() };
    if row == Row::PoolStart {
        return plan.time_starts(|| {
            let pool = Pool::new(workers)?;
            pool.apply(answer, 41)?;
            Ok(pool)
        });
    }
    let mut builder = Pool::builder().workers(workers);
    if row == Row::PoolMap10kChunk1 {
        builder = builder.chunk_size(1);
    }
    let pool = builder.build()?;
    pool.map(answer, 0..NUMBERS)?;
    match row {
        Row::PoolTask => plan.time(|| if pool.apply(answer, 41)? == 42 { Ok(()) } else { Err("another result".into()) }),
        Row::PoolTask1m => plan.time(|| {
            touch(&pool.apply(answer_large, 1)?);
            Ok(())
        }),
        Row::PoolMap10k | Row::PoolMap10kChunk1 => plan.time(|| check(&pool.map(answer, 0..NUMBERS)?)),
        _ => plan.time(|| {
            std::hint::black_box(pool.map(work, 0..PIECES)?);
            Ok(())
        }),
    }
}

/// A row on a pool of procspawn's.
pub fn run_procspawn(row: Row, plan: Plan) -> Result<Vec<f64>> {
    let start = || -> Result<::procspawn::Pool> {
        let pool = ::procspawn::Pool::new(cpu_count())?;
        let answered = pool.spawn(41, answer).join()?;
        if answered == 42 { Ok(pool) } else { Err("procspawn brought another result".into()) }
    };
    if row == Row::PoolStart {
        return plan.time_starts(start);
    }
    let pool = start()?;
    plan.time(|| {
        std::hint::black_box(pool.spawn(41, answer).join()?);
        Ok(())
    })
}

/// Threads of this process.
pub struct Rayon;

impl System for Rayon {
    fn has(&self, row: Row) -> bool {
        row.is_about_pools()
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let threads = if row == Row::PoolWorkOne { 1 } else { cpu_count() };
        let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        if row == Row::PoolStart {
            return plan.time_starts(|| {
                let pool = start()?;
                std::hint::black_box(pool.install(|| answer(41)));
                Ok(pool)
            });
        }
        let pool = start()?;
        match row {
            Row::PoolTask => plan.time(|| if pool.install(|| answer(41)) == 42 { Ok(()) } else { Err("another result".into()) }),
            Row::PoolTask1m => plan.time(|| {
                touch(&pool.install(|| answer_large(1)));
                Ok(())
            }),
            Row::PoolMap10k => plan.time(|| check(&pool.install(|| (0..NUMBERS).into_par_iter().map(answer).collect::<Vec<_>>()))),
            Row::PoolMap10kChunk1 => {
                use rayon::iter::IndexedParallelIterator;
                plan.time(|| {
                    check(
                        &pool.install(|| {
                            (0..NUMBERS as usize).into_par_iter().with_max_len(1).map(|n| answer(n as u64)).collect::<Vec<_>>()
                        }),
                    )
                })
            }
            _ => plan.time(|| {
                std::hint::black_box(pool.install(|| (0..PIECES).into_par_iter().map(work).collect::<Vec<_>>()));
                Ok(())
            }),
        }
    }
}
