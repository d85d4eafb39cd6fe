//! Where a manager listens, as a value and as one word of text.
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SOCKET_ADDRESS_BYTES_MAX;

/// The address of a local socket. As text it is one word: `@name` for the abstract namespace, else a path; blanks, control
/// characters, `%` and what is not UTF-8 stand as `%` and two hexadecimal digits a byte.
///
/// ```
/// # use commonhold_ipc as commonhold;
/// use commonhold::socket::Address;
/// let address = Address::Path("/run/my sockets/weather.sock".into());
/// assert_eq!(address.to_string(), "/run/my%20sockets/weather.sock");
/// assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name in the kernel's abstract namespace: nothing in the file system, gone with its last descriptor.
    Abstract(String),
    /// A socket in the file system. In a token it should be absolute: another program has another working directory.
    Path(PathBuf),
}

impl Address {
    /// An abstract address that nobody can guess: 128 random bits.
    pub fn random() -> Result<Address> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::caused(ErrorKind::System, "the system has no random numbers for an address", error))?;
        Ok(Address::Abstract(format!("commonhold-{:032x}", u128::from_ne_bytes(bits))))
    }

    /// Whether a socket can have this address at all.
    pub(super) fn check(&self) -> Result<()> {
        let bytes = self.bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(Error::new(ErrorKind::OutOfRange, format!("{self:?} is not an address: it is empty or holds a zero byte")));
        }
        if bytes.len() > SOCKET_ADDRESS_BYTES_MAX {
            let what = format!("the address {self} has {} bytes, and a local socket's has at most {SOCKET_ADDRESS_BYTES_MAX}", bytes.len());
            return Err(Error::new(ErrorKind::TooLarge, format!("{what}: use a shorter directory or name")));
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Address::Abstract(name) => name.as_bytes(),
            Address::Path(path) => path.as_os_str().as_bytes(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes();
        match self {
            Address::Abstract(_) => f.write_str("@")?,
            Address::Path(_) => {
                if let Some(rest) = bytes.strip_prefix(b"@") {
                    f.write_str("%40")?;
                    bytes = rest;
                }
            }
        }
        let escape = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|byte| write!(f, "%{byte:02X}"));
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_whitespace() || character.is_control() || character == '%' {
                    escape(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                } else {
                    fmt::Write::write_char(f, character)?;
                }
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address> {
        let wrong = |why: &str| Error::new(ErrorKind::Corrupt, format!("{text:?} is not the address of a manager: {why}"));
        let (is_abstract, escaped) = match text.strip_prefix('@') {
            Some(name) => (true, name),
            None => (false, text),
        };
        if escaped.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("it holds blanks"));
        }
        let bytes = unescape(escaped).ok_or_else(|| wrong("a % is not followed by two hexadecimal digits"))?;
        if is_abstract {
            let name = String::from_utf8(bytes).map_err(|_| wrong("its name is not UTF-8"))?;
            return Ok(Address::Abstract(name));
        }
        Ok(Address::Path(PathBuf::from(std::ffi::OsString::from_vec(bytes))))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |n: usize| char::from(digits[n]).to_digit(16);
        bytes.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = after;
    }
    Some(bytes)
}

impl AsRef<OsStr> for Address {
    fn as_ref(&self) -> &OsStr {
        OsStr::from_bytes(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_path_round_trips_as_one_word(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let address = Address::Path(PathBuf::from(std::ffi::OsString::from_vec(bytes)));
            let text = address.to_string();
            prop_assert_eq!(text.split_whitespace().count(), 1);
            prop_assert_eq!(text.parse::<Address>().unwrap(), address);
        }

        #[test]
        fn every_abstract_name_round_trips_as_one_word(name in any::<String>().prop_filter("not empty", |name| !name.is_empty())) {
            let address = Address::Abstract(name);
            let text = address.to_string();
            prop_assert_eq!(text.split_whitespace().count(), 1);
            prop_assert_eq!(text.parse::<Address>().unwrap(), address);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }

    #[test]
    fn addresses_that_no_socket_can_have_are_refused() {
        for text in ["", "@", "a b", "%4", "%zz", "%+1", "@%FF"] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        }
        assert!(Address::Path("x".repeat(SOCKET_ADDRESS_BYTES_MAX).into()).check().is_ok());
        assert!(Address::Path("x".repeat(SOCKET_ADDRESS_BYTES_MAX + 1).into()).check().is_err());
        assert!(Address::Abstract("a\0b".into()).check().is_err());
        assert!(Address::Abstract(String::new()).check().is_err());
    }

    #[test]
    fn random_addresses_differ() {
        let (a, b) = (Address::random().unwrap(), Address::random().unwrap());
        assert_ne!(a, b);
        assert!(a.to_string().starts_with("@commonhold-"));
        a.check().unwrap();
    }
}
