//! Names of objects: in the manager's private memory, since they are looked up by call, and rarely.

use super::Store;
use commonhold_ipc::error::{Error, ErrorKind, Result};

impl Store {
    /// Gives an object a name.
    pub fn name(&mut self, name: &str, id: u64, replace: bool) -> Result<()> {
        if let Some(bearer) = self.names.get(name)
            && !replace
        {
            let text = format!(
                "the name {name:?} is taken by object {bearer}: open it, unpublish it first, replace it by `publish_over`, or choose another name"
            );
            return Err(Error::new(ErrorKind::AlreadyExists, text));
        }
        self.objects.hold(id)?;
        if let Some(bearer) = self.names.insert(name.to_owned(), id) {
            self.objects.unhold(bearer);
        }
        Ok(())
    }

    /// The object with a name, held by a session from now on.
    pub fn lookup(&mut self, name: &str) -> Option<u64> {
        let id = *self.names.get(name)?;
        self.objects.hold(id).ok()?;
        Some(id)
    }

    /// Takes a name away; whether there was one.
    pub fn unname(&mut self, name: &str) -> bool {
        let bearer = self.names.remove(name);
        if let Some(id) = bearer {
            self.objects.unhold(id);
        }
        bearer.is_some()
    }

    /// The names and their bearers.
    pub fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id))
    }
}
