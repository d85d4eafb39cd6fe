//! A token bucket that several processes share, as in a web server that forks its workers: together they get no more than it gives.
use commonhold::{Manager, Process};
use std::time::{Duration, Instant};

struct Bucket {
    tokens: f64,
    size: f64,
    per_second: f64,
    filled: Instant,
}

#[commonhold::remote]
impl Bucket {
    pub fn new(size: f64, per_second: f64) -> Self {
        Bucket { tokens: size, size, per_second, filled: Instant::now() }
    }

    /// Takes a token if there is one; else how long to wait for the next.
    pub fn take(&mut self) -> Result<(), Duration> {
        let now = Instant::now();
        self.tokens = self.size.min(self.tokens + (now - self.filled).as_secs_f64() * self.per_second);
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// A worker: answers requests as long as the bucket lets it.
fn work(bucket: BucketProxy, requests: u64) -> commonhold::Result<(u64, u64)> {
    let (mut served, mut refused) = (0, 0);
    for _ in 0..requests {
        match bucket.take()? {
            Ok(()) => served += 1,
            Err(_wait) => refused += 1,
        }
    }
    Ok((served, refused))
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    // 100 at once, then one an hour.
    let bucket = manager.create(Bucket::new, (100.0, 1.0 / 3600.0))?;
    let workers = (0..4).map(|_| Process::spawn(work, (bucket.clone(), 50u64))).collect::<commonhold::Result<Vec<_>>>()?;
    let (mut served, mut refused) = (0, 0);
    for worker in workers {
        let (some, others) = worker.join()??;
        served += some;
        refused += others;
    }
    println!("{served} requests served, {refused} refused");
    let wait = bucket.take()?.unwrap_err();
    println!("the next one in less than an hour: {}", wait <= Duration::from_secs(3600));
    Ok(())
}
