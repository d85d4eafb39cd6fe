//! A web server that forks its workers before there is anything to do, on plain std: they share one listening socket, one rate limit
//! and one configuration, which is changed while they run.
//!
//! `cargo run --example web_server`, `-- --kill` to have a worker killed in between, `-- --stay` to try it with a browser
//!
//! The configuration is a `Value`: a worker reads it in place for each request, so a new one holds from the next request on. The rate
//! limit is a token bucket in another `Value`, which each request updates: all workers together give no more than the configuration
//! says, and one that is killed has taken its token or has not. A supervisor starts another worker then.

use clap::Parser;
use commonhold::{ChildSpec, Dict, Manager, RestartStrategy, Shared, Supervisor, SupervisorEvent, Value, current_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Serves pages from several processes that share what they know.
#[derive(Parser)]
#[command(name = "web_server", version)]
struct Cli {
    /// Worker processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Kill a worker while it answers a request
    #[arg(long)]
    kill: bool,
    /// Serve until interrupted, instead of asking for a few pages oneself
    #[arg(long)]
    stay: bool,
}

#[derive(Shared, Debug)]
struct Config {
    greeting: String,
    /// Pages that may be asked for at once, after a time of rest.
    burst: f64,
    /// Pages that may be asked for in the long run.
    per_second: f64,
}

/// A token for each page that may be asked for now.
#[derive(Shared, Debug)]
struct Bucket {
    tokens: f64,
    /// When they were counted, by the only clock of std's that means the same in all processes.
    counted: Duration,
}

impl Bucket {
    /// Takes a token, if there is one; else says how long it takes until there is.
    fn take(&mut self, burst: f64, per_second: f64) -> Result<(), Duration> {
        let now = now();
        // A clock that was put back gives nothing for once, and goes on from there.
        self.tokens = burst.min(self.tokens + now.saturating_sub(self.counted).as_secs_f64() * per_second);
        self.counted = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

const SERVED: &str = "200 OK";
const REFUSED: &str = "429 Too Many Requests";

/// What all workers share, as one argument.
#[derive(Shared, Clone)]
struct Site {
    config: Value<Config>,
    bucket: Value<Bucket>,
    /// Pages by how they were answered.
    answered: Dict<String, u64>,
}

impl Site {
    /// Pages that were answered like this.
    fn pages(&self, status: &str) -> commonhold::Result<u64> {
        Ok(self.answered.get(status)?.map_or(0, |pages| *pages))
    }
}

/// A worker. The listening socket is its standard input, as it was for the programs of inetd.
fn serve(site: Site) -> commonhold::Result<()> {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().map_err(commonhold::Error::other)?;
    let listener = TcpListener::from(socket);
    for stream in listener.incoming().flatten() {
        // A client that has gone is no reason to stop.
        let _ = answer(&site, &stream)?;
    }
    Ok(())
}

/// Answers one request. The inner result is the client's.
fn answer(site: &Site, mut stream: &TcpStream) -> commonhold::Result<std::io::Result<()>> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return Ok(Ok(())) };
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    // The rest of the head.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let config = site.config.get()?;
    let mut token = Ok(());
    // Done again if another worker's came first: the last result counts.
    site.bucket.update(|bucket| token = bucket.take(config.burst.into(), config.per_second.into()))?;
    if let Err(wait) = token {
        site.answered.add(REFUSED, 1)?;
        let seconds = wait.as_secs_f64().ceil();
        return Ok(write!(stream, "HTTP/1.1 {REFUSED}\r\nRetry-After: {seconds}\r\nConnection: close\r\n\r\nin {seconds} s"));
    }
    if path == "/die" {
        std::process::abort(); // as a fault in a C library would; others are served all the same
    }
    site.answered.add(SERVED, 1)?;
    let name = current_process().name();
    Ok(write!(stream, "HTTP/1.1 {SERVED}\r\nConnection: close\r\n\r\n{} from {name}", config.greeting))
}

/// Asks for a page, as a browser would. Status and body; both empty if the worker died over it.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            let status = head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ");
            Ok((status.to_owned(), body.to_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(Default::default()),
        Err(error) => Err(error),
    }
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    // By itself it asks for more pages than it may, so that a slow rate is what it wants to see.
    let (burst, per_second) = if cli.stay { (100.0, 10.0) } else { (20.0, 1.0 / 3600.0) };
    let site = Site {
        config: manager.value(Config { greeting: "Hello".into(), burst, per_second })?,
        bucket: manager.value(Bucket { tokens: burst, counted: now() })?,
        answered: manager.dict([])?,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(commonhold::Error::other)?;
    let address = listener.local_addr().map_err(commonhold::Error::other)?;
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(10, Duration::from_secs(60));
    for number in 1..=cli.workers {
        let socket = listener.try_clone().map_err(commonhold::Error::other)?;
        let spec = ChildSpec::new(format!("worker-{number}"), serve, site.clone());
        supervisor.add(spec.configure(move |builder| builder.stdin(socket.try_clone().expect("a descriptor is left"))))?;
    }
    println!("{} workers at http://{address}", cli.workers);
    if cli.stay {
        return supervisor.run(|event| println!("{event}"));
    }
    let page = |path| ask(address, path).map_err(commonhold::Error::other);
    println!("{}", without_name(&page("/")?.1));
    if cli.kill {
        assert_eq!(page("/die")?, Default::default());
        // Until there is another one in its place.
        while let Some(event) = supervisor.step(Duration::from_secs(30))? {
            match event {
                SupervisorEvent::Ended { why: Some(why), .. } => println!("a worker died: {:?}", why.kind()),
                SupervisorEvent::Restarted { .. } => break,
                _ => {}
            }
        }
    }
    let refused = loop {
        match page("/")? {
            (status, _) if status == SERVED => {}
            refused => break refused,
        }
    };
    println!("{} pages served, then {}: {}", site.pages(SERVED)?, refused.0, refused.1);
    site.config.update(|config| *config = Config { greeting: "Good evening".into(), burst: 50.0, per_second: 1_000_000.0 })?;
    println!("{}", without_name(&page("/")?.1));
    for _ in 0..48 {
        page("/")?;
    }
    println!("{} pages served, {} refused", site.pages(SERVED)?, site.pages(REFUSED)?);
    Ok(())
}

/// Which worker is first to take a connection is up to the system.
fn without_name(body: &str) -> &str {
    body.split(" from ").next().unwrap_or(body)
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web_server: {error}");
            ExitCode::FAILURE
        }
    }
}
