//! A library that has processes and pools of its own: it knows nothing of the program that it is a part of.

use commonhold::{AsyncResult, Dict, List, Pool, Process, Result, Shared, Task};
use std::sync::OnceLock;

/// A picture, as this library knows it.
#[derive(Shared, Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its name.
    pub name: String,
    /// Its pixels.
    pub pixels: Vec<u8>,
}

/// For the program to start.
pub fn inverted(picture: Picture) -> Picture {
    let pixels = picture.pixels.iter().map(|pixel| 255 - pixel).collect();
    Picture { name: format!("inverted {}", picture.name), pixels }
}

/// For the program to start with types that are not known here.
pub fn largest<T: Shared + Ord>(items: Vec<T>) -> Option<T> {
    items.into_iter().max()
}

mod hidden {
    use super::{Dict, List};

    pub fn count(words: List<String>, counts: Dict<String, u64>) -> u64 {
        let words = words.to_owned().expect("the list is there");
        for word in &words {
            counts.add(word, 1).expect("the dict is there");
        }
        words.len() as u64
    }
}

/// Counts words in a process that runs what nobody outside of this library can name.
pub fn count_elsewhere(words: &List<String>, counts: &Dict<String, u64>) -> Result<u64> {
    Process::spawn(hidden::count, (words.clone(), counts.clone()))?.join()
}

/// Runs a function of whoever calls in a process that this library starts, and makes text of its result.
pub fn told<F, A, M>(function: F, arguments: A) -> Result<String>
where
    F: Task<A, M>,
    F::Output: Shared + std::fmt::Debug,
    A: Shared,
    M: 'static,
{
    Ok(format!("{:?}", Process::builder().name("told").spawn(function, arguments)?.join()?))
}

/// What the workers of [`Darkroom`] are told before anything else.
static LIGHT: OnceLock<u8> = OnceLock::new();

fn dim(light: u8) {
    LIGHT.set(light).expect("once for each worker");
}

/// A pool of this library's.
pub struct Darkroom {
    pool: Pool,
}

impl Darkroom {
    /// With so many workers, which all know how much light there is.
    pub fn new(workers: usize, light: u8) -> Result<Darkroom> {
        Ok(Darkroom { pool: Pool::builder().name("darkroom").initializer(dim, light).workers(workers).build()? })
    }

    /// Develops pictures, in their order.
    pub fn develop(&self, pictures: Vec<Picture>) -> Result<Vec<Picture>> {
        let expose = |mut picture: Picture| {
            let light = *LIGHT.get().expect("the initializer has run");
            picture.pixels.iter_mut().for_each(|pixel| *pixel = pixel.saturating_add(light));
            picture
        };
        self.pool.map(expose, pictures)
    }

    /// Has a worker do something of the caller's.
    pub fn lend<F, A, M>(&self, function: F, arguments: A) -> Result<AsyncResult<F::Output>>
    where
        F: Task<A, M>,
        F::Output: Shared,
        A: Shared,
        M: 'static,
    {
        self.pool.apply_async(function, arguments)
    }
}

/// The one pool of all who call this: nothing ever drops it.
pub fn squares(numbers: Vec<u64>) -> Result<Vec<u64>> {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = match POOL.get() {
        Some(pool) => pool,
        None => {
            let pool = Pool::new(2)?;
            POOL.get_or_init(|| pool)
        }
    };
    pool.map(|number: u64| number * number, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    commonhold::init_in_tests!();

    #[test]
    fn a_librarys_own_tests_start_its_processes() {
        let picture = Picture { name: "moon".into(), pixels: vec![0, 255] };
        assert_eq!(Process::spawn(inverted, picture).unwrap().join().unwrap().pixels, [255, 0]);
        assert_eq!(squares(vec![2, 3]).unwrap(), [4, 9]);
    }
}
