//! What partners do: their half of each row that takes two processes.
use ::commonhold::{Barrier, Connection, Counter, Dict, Event, Lock, Queue, StripedCounter, Token};

use crate::Result;
use crate::dicts::{Small, small, update_by_run, update_by_transaction};
use crate::partner::own_task;
use crate::workload::touch;
use crate::{ipc_channel, rawlocks, redis, unix_stream};

/// In a process that was started as a partner: its whole life.
pub fn be_partner() -> Option<Result<()>> {
    let task = own_task()?;
    Some(work(&task.split(' ').collect::<Vec<_>>()))
}

fn update_on_and_on(token: &str, update: fn(&Dict<u64, u64>) -> ::commonhold::Result<u64>) -> Result<()> {
    let dict: Dict<u64, u64> = token.parse::<Token>()?.open()?;
    println!("ready");
    loop {
        update(&dict)?;
    }
}

fn work(task: &[&str]) -> Result<()> {
    let ready = || println!("ready");
    match task {
        ["lock", token] => {
            let lock: Lock = token.parse::<Token>()?.open()?;
            ready();
            loop {
                drop(lock.lock()?.into_guard());
            }
        }
        ["count", token] => {
            let counter: StripedCounter = token.parse::<Token>()?.open()?;
            ready();
            loop {
                counter.add(1)?;
            }
        }
        ["events", ping, pong] => {
            let (ping, pong): (Event, Event) = (ping.parse::<Token>()?.open()?, pong.parse::<Token>()?.open()?);
            ready();
            loop {
                ping.wait()?;
                ping.clear()?;
                pong.set()?;
            }
        }
        ["barrier", token] => {
            let barrier: Barrier = token.parse::<Token>()?.open()?;
            ready();
            loop {
                barrier.wait()?;
            }
        }
        ["update_run", token] => update_on_and_on(token, update_by_run),
        ["update_transaction", token] => update_on_and_on(token, update_by_transaction),
        ["queue_small", token] => {
            let queue: Queue<Small> = token.parse::<Token>()?.open()?;
            ready();
            queue.iter().try_for_each(|item| item.map(|item| touch(&item)))?;
            Ok(())
        }
        ["queue_large", token] => {
            let queue: Queue<Vec<u8>> = token.parse::<Token>()?.open()?;
            ready();
            queue.iter().try_for_each(|item| item.map(|item| touch(&item)))?;
            Ok(())
        }
        ["session", token] => be_there(token),
        ["queue_sender", token] => {
            let queue: Queue<Small> = token.parse::<Token>()?.open()?;
            let small = small()?;
            ready();
            loop {
                queue.send(small)?;
            }
        }
        ["queue_echo", there, back] => {
            let (there, back): (Queue<Small>, Queue<Small>) = (there.parse::<Token>()?.open()?, back.parse::<Token>()?.open()?);
            ready();
            for item in there.iter() {
                back.send(item?)?;
            }
            Ok(())
        }
        ["pipe_echo", token] => echo_pipe(token),
        _ => work_elsewhere(task, ready),
    }
}

/// The same for the peers.
fn work_elsewhere(task: &[&str], ready: impl Fn()) -> Result<()> {
    match task {
        ["redis_receiver", socket] => redis::receive_for_ever(socket.as_ref(), ready),
        ["redis_sender", socket] => redis::send_for_ever(socket.as_ref(), ready),
        ["redis_echo", socket] => redis::echo_for_ever(socket.as_ref(), ready),
        ["ipc_channel_receiver", server] => ipc_channel::receive_for_ever(server, ready),
        ["ipc_channel_sender", server] => ipc_channel::send_for_ever(server, ready),
        ["ipc_channel_echo", server] => ipc_channel::echo_for_ever(server, ready),
        ["unix_stream_echo", path] => unix_stream::echo_for_ever(path.as_ref(), ready),
        ["raw_lock", kind, file] => {
            let lock = rawlocks::existing(kind, file.as_ref())?;
            ready();
            loop {
                lock.pass()?;
            }
        }
        ["raw_events", file] => {
            let (ping, pong) = rawlocks::existing_events(file.as_ref())?;
            ready();
            loop {
                ping.wait()?;
                pong.set()?;
            }
        }
        _ => Err(format!("not a partner's task: {task:?}").into()),
    }
}

/// Sends back what comes through a pipe.
fn echo_pipe(token: &str) -> Result<()> {
    let pipe: Connection<Small> = token.parse::<Token>()?.open()?;
    println!("ready");
    while let Some(item) = pipe.recv()? {
        pipe.send(item)?;
    }
    Ok(())
}

/// Has a session that has made a call, and does nothing more.
fn be_there(token: &str) -> Result<()> {
    let counter: Counter = token.parse::<Token>()?.open()?;
    counter.add(1)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}
