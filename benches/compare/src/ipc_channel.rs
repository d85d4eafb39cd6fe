//! ipc-channel, the crate: bytes over a local socket, through shared memory where they are many. Channels have one receiver, and no bound but
//! the socket's.
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};

use crate::Result;
use crate::partner::Partner;
use crate::rows::{DataSet, Row, SMALL};
use crate::system::System;
use crate::workload::{Plan, touch, value};

/// Has no state: each run makes its own channels.
pub struct IpcChannel;

impl System for IpcChannel {
    fn has(&self, row: Row) -> bool {
        there_and_back_pause(row).is_some() || row.crowd().is_some_and(|(_, _, receivers)| receivers == 1)
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        if let Some(pause) = there_and_back_pause(row) {
            let (_partner, (there, back)) = meet::<(IpcBytesSender, IpcBytesReceiver)>("ipc_channel_echo")?;
            let small = value(SMALL);
            return plan.with_pauses(pause).time(|| {
                there.send(&small)?;
                touch(&back.recv().map_err(|error| format!("{error:?}"))?);
                Ok(())
            });
        }
        let (bytes, senders, _) = row.crowd().ok_or("not a row about queues")?;
        let (_receiver, sender) = meet::<IpcBytesSender>("ipc_channel_receiver")?;
        let mut others = Vec::new();
        for _ in 1..senders {
            let (partner, other) = meet::<IpcSender<IpcBytesSender>>("ipc_channel_sender")?;
            other.send(sender.clone())?;
            others.push(partner);
        }
        let item = value(bytes);
        plan.time(|| Ok(sender.send(&item)?))
    }
}

/// Of a row in which bytes go there and back: the pauses between two. A call is that and no more here.
fn there_and_back_pause(row: Row) -> Option<u64> {
    if row == Row::MethodCall64 { Some(0) } else { row.pause_ns() }
}

/// Starts a partner, and gets from it what it wants to be reached by.
fn meet<E: for<'e> serde::Deserialize<'e> + serde::Serialize>(role: &str) -> Result<(Partner, E)> {
    let (server, name) = IpcOneShotServer::<E>::new()?;
    let partner = Partner::start(&[role.to_owned(), name])?;
    let (_, ends) = server.accept().map_err(|error| format!("{error:?}"))?;
    Ok((partner, ends))
}

/// A partner's life: receives what comes.
pub fn receive_for_ever(server: &str, ready: impl FnOnce()) -> Result<()> {
    let (sender, receiver) = bytes_channel()?;
    IpcSender::connect(server.to_owned())?.send(sender)?;
    ready();
    while let Ok(item) = receiver.recv() {
        touch(&item);
    }
    Ok(())
}

/// A partner's life: sends.
pub fn send_for_ever(server: &str, ready: impl FnOnce()) -> Result<()> {
    let (sender, receiver) = ipc_channel::ipc::channel::<IpcBytesSender>()?;
    IpcSender::connect(server.to_owned())?.send(sender)?;
    ready();
    let there = receiver.recv().map_err(|error| format!("{error:?}"))?;
    let small = value(SMALL);
    while there.send(&small).is_ok() {}
    Ok(())
}

/// A partner's life: sends back what comes.
pub fn echo_for_ever(server: &str, ready: impl FnOnce()) -> Result<()> {
    let ((there, incoming), (outgoing, back)) = (bytes_channel()?, bytes_channel()?);
    IpcSender::connect(server.to_owned())?.send((there, back))?;
    ready();
    while let Ok(item) = incoming.recv() {
        outgoing.send(&item)?;
    }
    Ok(())
}
