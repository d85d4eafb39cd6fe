//! What there is, for people and programs that ask: objects and sessions, as text.
//!
//! An object is a line of words, `<id> <kind> <length> <bytes> <references> <inside> <host>`, then its holders as `<session>:<count>` with
//! commas between, or `-`; then each of its names, and its type, with their length in bytes before them. (Of a named block of memory, its name
//! in the system belongs to its type.) A session is a line
//! `<number> <pid> <objects> <references> <host> <program>`.

use super::{Connection, Server};
use commonhold_ipc::catalog::{Kind, descriptor, slot_of};
use commonhold_ipc::limits::OBJECTS_LISTED_MAX;
use std::collections::HashMap;
use std::fmt::Write;

impl Server {
    /// The published names.
    pub(super) fn names(&self) -> String {
        self.store.names().map(|(name, id)| format!("{id} {} {name}\n", name.len())).collect()
    }

    /// The objects from a slot on, as many as one answer has.
    pub(super) fn objects(&mut self, from: u64) -> String {
        self.store.publish();
        let mut names: HashMap<u64, Vec<&str>> = HashMap::new();
        self.store.names().for_each(|(name, id)| names.entry(id).or_default().push(name));
        let sessions: Vec<_> = self
            .connections
            .iter()
            .flatten()
            .filter_map(|connection| match connection {
                Connection::Session(session) => Some(&**session),
                Connection::Greeting { .. } | Connection::Lingering(_) | Connection::Luggage(_) => None,
            })
            .collect();
        let mut text = String::new();
        for object in self.store.objects.iter().filter(|object| slot_of(object.record.id) >= from).take(OBJECTS_LISTED_MAX) {
            let (id, record) = (object.record.id, &object.record);
            let held =
                |session: &&super::session::Session| Some((session.number(), session.held_times(id))).filter(|(_, times)| *times > 0);
            let holders: Vec<_> = sessions.iter().filter_map(held).map(|(number, times)| format!("{number}:{times}")).collect();
            let holders = if holders.is_empty() { "-".to_owned() } else { holders.join(",") };
            let host = if record.kind == Kind::Remote && self.hosts.is_host(record.root) { record.root } else { 0 };
            // A string takes what is written to it.
            let (kind, len, bytes) = (record.kind.name(), record.len, self.store.segments.backed(id));
            let _ = write!(text, "{id} {kind} {len} {bytes} {} {} {host} {holders}", object.held(), object.inside());
            let own = names.get(&id).map_or(&[][..], Vec::as_slice);
            let _ = write!(text, " {}", own.len());
            own.iter().for_each(|name| text.push_str(&format!(" {} {name}", name.len())));
            let mut kind = descriptor(self.store.reader(), record).map_or("?", |descriptor| descriptor.text).to_owned();
            if let Some(name) = self.store.segments.block_name(id) {
                let _ = write!(kind, " {name:?}");
            }
            let _ = writeln!(text, " {} {kind}", kind.len());
        }
        text
    }

    /// The sessions.
    pub(super) fn session_lines(&self) -> String {
        let mut text = String::new();
        for connection in self.connections.iter().flatten() {
            let Connection::Session(session) = connection else { continue };
            let (number, (pid, program)) = (session.number(), session.who());
            let (objects, references) = session.holdings();
            let host = u8::from(self.hosts.is_host(number));
            let _ = writeln!(text, "{number} {pid} {objects} {references} {host} {program}");
        }
        text
    }
}
