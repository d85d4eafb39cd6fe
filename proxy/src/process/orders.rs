//! What a parent tells its child to be and to do.

use super::message::malformed;
use super::parcel::{Label, unpack};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::sys::{ResourceLimit, run_on};
use commonhold_ipc::task::{Build, Entry};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The orders as a shared value: function, build, who, daemon, settings, label of the arguments.
pub(super) type Wire = ((u64, String), (u64, Vec<u8>, [u64; 4]), (String, String, String), bool, WireSettings, Label);
type WireSettings = (Option<Vec<u8>>, Vec<(u8, u64)>, Option<Vec<u32>>);

/// What a child is to do, and as whom.
pub(super) struct Orders {
    /// Where the function's entry lies.
    pub(super) offset: u64,
    /// Its type, as the compiler calls it.
    pub(super) function: String,
    /// The parent's build.
    pub(super) build: Build,
    /// The child's name.
    pub(super) name: String,
    /// The child's place among its parent's children, and theirs: `1:2` is the second child of the first.
    pub(super) place: String,
    /// The parent's name.
    pub(super) parent: String,
    /// Whether it ends with its parent.
    pub(super) daemon: bool,
    pub(super) settings: Settings,
    pub(super) label: Label,
}

impl Orders {
    pub(super) fn into_wire(self) -> Wire {
        let Settings { current_dir, limits, cpus } = self.settings;
        let code = |limit| ResourceLimit::ALL.iter().position(|known| *known == limit).map_or(u8::MAX, |at| at as u8);
        let limits = limits.into_iter().map(|(limit, most)| (code(limit), most)).collect();
        let build = (self.build.headers, self.build.id, self.build.file);
        ((self.offset, self.function), build, (self.name, self.place, self.parent), self.daemon, (current_dir, limits, cpus), self.label)
    }

    pub(super) fn read(head: &[u8]) -> Result<Orders> {
        let (function, build, who, daemon, (current_dir, limits, cpus), label) = unpack::<Wire>(head)?;
        let limit = |(code, most)| Some((*ResourceLimit::ALL.get(usize::from(code))?, most));
        let limits = limits.into_iter().map(limit).collect::<Option<_>>().ok_or_else(malformed)?;
        Ok(Orders {
            offset: function.0,
            function: function.1,
            build: Build { headers: build.0, id: build.1, file: build.2 },
            name: who.0,
            place: who.1,
            parent: who.2,
            daemon,
            settings: Settings { current_dir, limits, cpus },
            label,
        })
    }

    /// The function, in this process.
    ///
    /// # Errors
    /// `Refused` if this is another build than the parent's.
    pub(super) fn entry(&self) -> Result<&'static Entry> {
        if !Build::own().is_same(&self.build) {
            let text = format!(
                "this executable is another program, or another build, than the one whose function `{}` it is to run: start the very \
                 same executable",
                self.function
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        Entry::at(self.offset, &self.function)
    }
}

/// What a child changes about itself before it begins.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) current_dir: Option<Vec<u8>>,
    pub(super) limits: Vec<(ResourceLimit, u64)>,
    pub(super) cpus: Option<Vec<u32>>,
}

impl Settings {
    pub(super) fn apply(&self) -> Result<()> {
        if let Some(directory) = &self.current_dir {
            let directory = OsStr::from_bytes(directory);
            std::env::set_current_dir(directory)
                .map_err(|error| Error::system(format!("cannot make {} the current directory", directory.display()), error))?;
        }
        if let Some(cpus) = &self.cpus {
            run_on(cpus)?;
        }
        self.limits.iter().try_for_each(|(limit, most)| limit.set(*most))
    }
}
