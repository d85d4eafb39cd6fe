//! Somebody writes over a pool's board: whoever waits gets a result or an error, and nobody else notices.

use super::square;
use super::support::PATIENCE;
use commonhold::{Pool, Process};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// The memory file of the only pool of this process.
fn board() -> File {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains("commonhold-pool")) {
            return OpenOptions::new().read(true).write(true).open(path).unwrap();
        }
    }
    panic!("a pool has a memory file");
}

/// Words of the board, and what is written there.
fn places() -> Vec<(u64, u64)> {
    let slot = |number: u64, at: u64| 24576 + 512 * number + at;
    let words = [0, 64, 128, 136, 192, 256, 512, 520, 8192, 8200, 8256];
    let places =
        words.into_iter().chain((0..48).step_by(8).map(|at| slot(0, at))).chain([slot(0, 64), slot(0, 72), slot(1, 0), slot(1, 8)]);
    places.flat_map(|at| [0, 1, 2, 3, 0xff, u64::MAX, 0x0123_4567_89ab_cdef].map(|word| (at, word))).collect()
}

/// Does work while one word is written over again and again; in a process of its own, which must neither die nor hang.
fn scribble(first: u32, step: u32) -> (u32, u32) {
    let (mut whole, mut failed) = (0, 0);
    for (at, word) in places().into_iter().skip(first as usize).step_by(step as usize) {
        let pool = Pool::builder().workers(2).chunk_size(2).build().unwrap();
        let board = board();
        pool.map(square, 0..4).unwrap();
        let pending = pool.map_async(square, 0..40).unwrap();
        board.write_all_at(&word.to_le_bytes(), at).unwrap();
        let one = pool.apply(square, 5);
        board.write_all_at(&word.to_le_bytes(), at).unwrap();
        let start = Instant::now();
        match (one, pending.get()) {
            (Ok(25), Ok(all)) if all == (0..40).map(square).collect::<Vec<_>>() => whole += 1,
            // A wrong number is what one gets who writes over an argument.
            _ => failed += 1,
        }
        assert!(start.elapsed() < PATIENCE, "{word:#x} at {at}");
    }
    (whole, failed)
}

#[test]
fn a_board_that_was_written_over_is_an_error_and_no_hang() {
    let parts: Vec<_> = (0..3u32).map(|part| Process::spawn(scribble, (part * 5, 15)).unwrap()).collect();
    let (mut whole, mut failed) = (0, 0);
    for part in parts {
        let (fine, not) = part.join_timeout(PATIENCE).unwrap().expect("it hangs");
        (whole, failed) = (whole + fine, failed + not);
    }
    assert!(whole > 0 && failed > 0, "{whole} {failed}");
}
