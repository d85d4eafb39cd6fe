//! Inputs: consumed as results are asked for, and no further.

use super::square;
use commonhold::{Manager, Pool};
use std::cell::Cell;

#[test]
fn iterators_take_no_more_than_the_look_ahead() {
    for (ahead, chunk) in [(1, 1), (5, 1), (64, 1), (40, 8), (3, 8)] {
        let pool = Pool::builder().workers(2).look_ahead(ahead).chunk_size(chunk).build().unwrap();
        for ordered in [true, false] {
            let taken = Cell::new(0u64);
            let input = (0i64..).inspect(|_| taken.set(taken.get() + 1));
            let mut results = if ordered { pool.imap(square, input) } else { pool.imap_unordered(square, input) }.unwrap();
            assert!(taken.get() <= ahead);
            for given in 1..200 {
                results.next().unwrap().unwrap();
                assert!(taken.get() < given + ahead, "{} taken, {given} given, look-ahead {ahead}", taken.get());
            }
        }
    }
    // As it is by default.
    let pool = Pool::new(2).unwrap();
    let taken = Cell::new(0u64);
    let mut results = pool.imap(square, (0i64..).inspect(|_| taken.set(taken.get() + 1))).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    assert!(taken.get() <= 64);
}

#[test]
fn maps_take_their_input_as_workers_get_on() {
    let manager = Manager::start().unwrap();
    let done = manager.counter(0).unwrap();
    let pool = Pool::builder().workers(2).chunk_size(1).build().unwrap();
    let furthest = Cell::new(0);
    let input = (0..400i64).map(|n| {
        // 256 tasks, and one that is being made.
        let ahead = n - done.get().unwrap();
        furthest.set(furthest.get().max(ahead));
        done.clone()
    });
    pool.for_each(|done: commonhold::Counter| drop(done.add(1)), input).unwrap();
    assert!(furthest.get() <= 257, "{}", furthest.get());
    assert_eq!(done.get().unwrap(), 400);
}

/// An input that begins again behind its end.
struct Relapsing(u32);

impl Iterator for Relapsing {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.0 += 1;
        (!self.0.is_multiple_of(4)).then_some(7)
    }
}

#[test]
fn iterators_asked_behind_their_end_give_nothing() {
    let pool = Pool::new(2).unwrap();
    for ordered in [true, false] {
        let mut results = if ordered { pool.imap(square, Relapsing(0)) } else { pool.imap_unordered(square, Relapsing(0)) }.unwrap();
        assert_eq!(results.by_ref().map(Result::unwrap).collect::<Vec<_>>(), [49; 3]);
        assert!((0..3).all(|_| results.next().is_none()));
        let ending = Pool::new(1).unwrap();
        let mut cut = if ordered { ending.imap(square, 0..) } else { ending.imap_unordered(square, 0..) }.unwrap();
        ending.terminate().unwrap();
        // Those that were under way, and one that it was too late for.
        let errors = cut.by_ref().filter(Result::is_err).count();
        assert!((1..=64 + 1).contains(&errors), "{errors}");
        assert!((0..3).all(|_| cut.next().is_none()));
    }
}

#[test]
fn an_input_without_end_ends_with_the_first_error() {
    let pool = Pool::new(2).unwrap();
    let error = pool.for_each(|n: u64| assert!(n < 1000, "enough"), 0..).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("enough"), "{error}");
    assert!(pool.map(|n: u64| assert!(n < 1000, "enough"), 0..).unwrap_err().is_panic());
}

#[test]
fn an_item_that_cannot_be_passed_on_is_an_error_of_its_own() {
    #[derive(commonhold::Shared, Clone, Debug)]
    struct Nest(Option<Box<Nest>>);
    fn nest(depth: u64) -> Nest {
        (0..depth).fold(Nest(None), |inner, _| Nest(Some(Box::new(inner))))
    }
    fn depth(nest: Nest) -> u64 {
        nest.0.map_or(0, |inner| 1 + depth(*inner))
    }
    let pool = Pool::builder().workers(2).chunk_size(2).build().unwrap();
    let input = || [3, 1000, 2, 1, 1000].map(nest);
    let results: Vec<_> = pool.imap(depth, input()).unwrap().collect();
    let depths: Vec<Option<u64>> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(depths, [Some(3), None, Some(2), Some(1), None]);
    assert!(results[1].as_ref().unwrap_err().to_string().contains("nested deeper"));
    assert!(pool.map(depth, input()).is_err() && pool.map_async(depth, input()).is_err() && pool.apply(depth, nest(1000)).is_err());
    // A result, too.
    let error = pool.apply(nest, 1000).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
    assert_eq!(pool.apply(depth, nest(5)).unwrap(), 5);
}

#[test]
fn an_input_may_use_the_pool_itself() {
    let pool = Pool::new(2).unwrap();
    let inner = (0..20).map(|n| pool.apply(square, n).unwrap());
    assert_eq!(pool.map(square, inner).unwrap(), (0..20).map(|n| n * n * n * n).collect::<Vec<_>>());
    let mut outer = pool.imap(square, pool.imap(square, 0..).unwrap().map(Result::unwrap)).unwrap();
    assert_eq!(outer.nth(9).unwrap().unwrap(), 9 * 9 * 9 * 9);
}
