//! The peer iceoryx2 of the comparison, a program of its own that `compare` starts if it has been built:
//! `cargo build --release --manifest-path benches/iceoryx2/Cargo.toml`.
//!
//! It measures itself as asked, like the Python peers: one JSON object a line on standard input, `{"row": …, "groups": …, "operations": …}`
//! or `{"end": true}`; one a line on standard output, `{"ns": [nanoseconds per group, …]}`, `{"ready": true}`, `{"ended": true}` or
//! `{"error": …}`. The second process of a row is this program again: `receive NAME BYTES` or `echo NAME`, until its input ends.
//!
//! Both sides look for what comes without sleeping, as iceoryx2's users do who want its least latency; samples are copied in and out.
use std::error::Error;
use std::hint::{black_box, spin_loop};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use iceoryx2::node::Node;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{Path as IoxPath, *};
use iceoryx2::service::port_factory::publish_subscribe;
use iceoryx2::service::port_factory::request_response;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Service = ipc::Service;

/// Samples that may wait, as in the other peers' queues.
const DEPTH: usize = 128;
const SMALL: usize = 64;
type Small = [u8; SMALL];

fn main() {
    set_log_level(LogLevel::Fatal);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => answer_questions(),
        ["receive", name, bytes] => receive_for_ever(name, bytes),
        ["echo", name] => echo_for_ever(name),
        _ => Err(format!("not something to do: {arguments:?}").into()),
    };
    if let Err(error) = done {
        eprintln!("compare-iceoryx2: {error}");
        std::process::exit(1);
    }
}

fn say(answer: Value) -> std::io::Result<()> {
    println!("{answer}");
    std::io::stdout().flush()
}

/// Answers until its input ends, and leaves nothing behind, whatever happens.
fn answer_questions() -> Result<()> {
    let answered = answer_all();
    Place::ours().clear()?;
    answered?;
    Ok(say(json!({ "ended": true }))?)
}

fn answer_all() -> Result<()> {
    let node = node()?;
    say(json!({ "ready": true }))?;
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let asked: Value = serde_json::from_str(&line?)?;
        let Some(row) = asked["row"].as_str() else { break };
        let plan = Plan { groups: asked["groups"].as_u64().unwrap_or(1), operations: asked["operations"].as_u64().unwrap_or(1) };
        let name = format!("compare/{}/{number}", std::process::id());
        say(match measure(&node, row, &name, plan) {
            Ok(times) => json!({ "ns": times }),
            Err(error) => json!({ "error": error.to_string() }),
        })?;
    }
    Ok(())
}

fn measure(node: &Node<Service>, row: &str, name: &str, plan: Plan) -> Result<Vec<f64>> {
    match row {
        "queue_64" => send_small(node, name, plan),
        "queue_4k" => send_large(node, name, plan, 4 << 10),
        "queue_1m" => send_large(node, name, plan, 1 << 20),
        "method_call_64" => call(node, name, plan),
        _ => Err(format!("not a row of this peer: {row}").into()),
    }
}

/// How often an operation runs: `groups` times `operations`, each group under the clock as a whole.
#[derive(Clone, Copy)]
struct Plan {
    groups: u64,
    operations: u64,
}

impl Plan {
    fn time(self, mut operation: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let group = |_| {
            let start = Instant::now();
            (0..self.operations).try_for_each(|_| operation())?;
            Ok(start.elapsed().as_nanos() as f64)
        };
        (0..self.groups).map(group).collect()
    }
}

fn node() -> Result<Node<Service>> {
    let config = Place::ours().config()?;
    Ok(NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled).create::<Service>()?)
}

/// Tells a partner whose files are used: the process's that was started first.
const OWNER: &str = "COMPARE_ICEORYX2_OWNER";

/// Where the files of one run lie, and how they are called: iceoryx2 leaves some at the end, which nobody else's may be taken for.
struct Place {
    directory: PathBuf,
    prefix: String,
}

impl Place {
    fn ours() -> Place {
        let owner = std::env::var(OWNER).unwrap_or_else(|_| std::process::id().to_string());
        let prefix = format!("compare_iox2_{owner}_");
        Place { directory: std::env::temp_dir().join(&prefix), prefix }
    }

    fn config(&self) -> Result<Config> {
        let mut config = Config::default();
        config.global.prefix = FileName::new(self.prefix.as_bytes())?;
        config.global.set_root_path(&IoxPath::new(self.directory.as_os_str().as_encoded_bytes())?);
        Ok(config)
    }

    /// Removes what is called like this run's, and nothing else.
    fn clear(&self) -> std::io::Result<()> {
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)?;
        }
        for entry in std::fs::read_dir("/dev/shm")? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 + 1).collect()
}

fn small() -> Small {
    std::array::from_fn(|at| (at % 251) as u8 + 1)
}

fn touch(value: &[u8]) {
    black_box((value.first().copied(), value.last().copied()));
}

// ---------------------------------------------------------------------------------------------------------------- partners

/// The second process at work. It ends with this: by itself, when its input ends, so that it leaves nothing behind.
struct Partner(Child);

impl Partner {
    /// Starts one, and returns when it works.
    fn start(task: &[&str]) -> Result<Partner> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child =
            command.args(task).env(OWNER, std::process::id().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().ok_or("the partner has no output")?;
        let partner = Partner(child);
        match BufReader::new(said).lines().next() {
            Some(Ok(_)) => Ok(partner),
            _ => Err("the partner has ended at once".into()),
        }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Becomes true when nobody wants this process any more.
fn over() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let set = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read(&mut [0]);
        set.store(true, Ordering::Relaxed);
    });
    over
}

fn ready() -> Result<()> {
    println!("ready");
    Ok(std::io::stdout().flush()?)
}

// ------------------------------------------------------------------------------------------------------- publish-subscribe

/// A service of items that wait until they are received: nothing is lost, a publisher waits for room.
macro_rules! items {
    ($node:expr, $name:expr, $item:ty) => {
        $node
            .service_builder(&$name.try_into()?)
            .publish_subscribe::<$item>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size(DEPTH)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()?
    };
}

fn send_small(node: &Node<Service>, name: &str, plan: Plan) -> Result<Vec<f64>> {
    let service: publish_subscribe::PortFactory<Service, Small, ()> = items!(node, name, Small);
    let publisher: Publisher<Service, Small, ()> =
        service.publisher_builder().backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create()?;
    let _partner = Partner::start(&["receive", name, &SMALL.to_string()])?;
    let item = small();
    let send = || {
        publisher.loan_uninit()?.write_payload(item).send()?;
        Ok(())
    };
    // Full first: then each has to wait for the other's end.
    (0..DEPTH).try_for_each(|_| send())?;
    plan.time(send)
}

fn send_large(node: &Node<Service>, name: &str, plan: Plan, bytes: usize) -> Result<Vec<f64>> {
    let service = items!(node, name, [u8]);
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(bytes)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let _partner = Partner::start(&["receive", name, &bytes.to_string()])?;
    let item = value(bytes);
    let send = || {
        publisher.loan_slice_uninit(bytes)?.write_from_slice(&item).send()?;
        Ok(())
    };
    (0..DEPTH).try_for_each(|_| send())?;
    plan.time(send)
}

fn receive_for_ever(name: &str, bytes: &str) -> Result<()> {
    let (node, over) = (node()?, over());
    if bytes.parse() == Ok(SMALL) {
        let service = items!(node, name, Small);
        let subscriber: Subscriber<Service, Small, ()> = service.subscriber_builder().buffer_size(DEPTH).create()?;
        ready()?;
        while !over.load(Ordering::Relaxed) {
            match subscriber.receive()? {
                Some(sample) => {
                    let copy: Small = *sample;
                    drop(sample);
                    touch(&copy);
                }
                None => spin_loop(),
            }
        }
        return Ok(());
    }
    let service = items!(node, name, [u8]);
    let subscriber: Subscriber<Service, [u8], ()> = service.subscriber_builder().buffer_size(DEPTH).create()?;
    ready()?;
    while !over.load(Ordering::Relaxed) {
        match subscriber.receive()? {
            Some(sample) => {
                let copy = sample.to_vec();
                drop(sample);
                touch(&copy);
            }
            None => spin_loop(),
        }
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------------- request-response

fn calls(node: &Node<Service>, name: &str) -> Result<request_response::PortFactory<Service, Small, (), Small, ()>> {
    Ok(node.service_builder(&name.try_into()?).request_response::<Small, Small>().max_clients(1).max_servers(1).open_or_create()?)
}

fn call(node: &Node<Service>, name: &str, plan: Plan) -> Result<Vec<f64>> {
    let client = calls(node, name)?.client_builder().create()?;
    let _partner = Partner::start(&["echo", name])?;
    let item = small();
    plan.time(|| {
        let pending = client.loan_uninit()?.write_payload(item).send()?;
        loop {
            match pending.receive()? {
                Some(response) => {
                    touch(&response[..]);
                    return Ok(());
                }
                None => spin_loop(),
            }
        }
    })
}

fn echo_for_ever(name: &str) -> Result<()> {
    let (node, over) = (node()?, over());
    let server = calls(&node, name)?.server_builder().create()?;
    ready()?;
    while !over.load(Ordering::Relaxed) {
        match server.receive()? {
            Some(request) => {
                let echoed: Small = *request;
                request.loan_uninit()?.write_payload(echoed).send()?;
            }
            None => spin_loop(),
        }
    }
    Ok(())
}
