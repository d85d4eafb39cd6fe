//! A web server that forks its workers before there is anything to do, on plain std: they share one listening socket, one rate limit
//! and one configuration, which is changed while they run.
//!
//! `cargo run --example web_server`, `-- --kill` to have a worker killed in between, `-- --stay` to try it with a browser
//!
//! The configuration is a `Value`: a worker reads it in place for each request, so a new one holds from the next request on. The
//! limit is a semaphore's, whose permits come back when a worker dies in the middle of a request. A supervisor starts another one then.

use clap::Parser;
use commonhold::{ChildSpec, Dict, Manager, RestartStrategy, Semaphore, Shared, Supervisor, SupervisorEvent, Value, current_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

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
    /// Answers that are being written at the same time.
    at_once: u32,
}

/// What all workers share, as one argument.
#[derive(Shared, Clone)]
struct Site {
    config: Value<Config>,
    /// As many permits as the configuration says.
    slots: Semaphore,
    /// Pages by how they were answered.
    answered: Dict<String, u64>,
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
    let Some(_slot) = site.slots.try_acquire()? else {
        site.answered.add("503 Service Unavailable", 1)?;
        return Ok(write!(stream, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\nbusy"));
    };
    if path == "/die" {
        std::process::abort(); // as a fault in a C library would; the permit comes back all the same
    }
    site.answered.add("200 OK", 1)?;
    let config = site.config.get()?;
    let name = current_process().name();
    Ok(write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{} from {name}", config.greeting))
}

/// Asks for a page, as a browser would. The body; empty if the worker died over it.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let at_once = 8;
    let site = Site {
        config: manager.value(Config { greeting: "Hello".into(), at_once })?,
        slots: manager.semaphore(at_once as usize)?,
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
    println!("{}", without_name(&page("/")?));
    if cli.kill {
        assert_eq!(page("/die")?, "");
        // Until there is another one in its place.
        while let Some(event) = supervisor.step(Duration::from_secs(30))? {
            match event {
                SupervisorEvent::Ended { why: Some(why), .. } => println!("a worker died: {:?}", why.kind()),
                SupervisorEvent::Restarted { .. } => break,
                _ => {}
            }
        }
    }
    site.config.update(|config| config.greeting = "Good evening".into())?;
    println!("{}", without_name(&page("/")?));
    for _ in 0..48 {
        page("/")?;
    }
    println!("{} pages answered, {} of {at_once} slots free", *site.answered.get("200 OK")?.expect("some"), site.slots.available()?);
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
