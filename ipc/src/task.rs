//! Which function a child process is to run: a name that means the same in two processes of one program, and in no other.
//!
//! A function that is started in another process is a type without size: an `fn` item, or a closure that captures nothing. So a
//! value of it can be had anywhere, and what must travel is which type it is. Each such type has an [`Entry`], a constant that the
//! compiler lays into the executable: 16 bytes by which it is known, the type's name, and the code that runs the function. The
//! name that travels is the entry's distance from where the executable was loaded. Not the code's: what is found at a distance can be
//! recognised as an entry before anything is called, and an address of code can not.
//!
//! | who | looks that |
//! |---|---|
//! | the sender | the entry lies in the main executable: a library that was loaded into it may lie elsewhere in the other process |
//! | the receiver | both are the same [`Build`]; the distance leads into the main executable, to an entry, of a type of the same name |
//!
//! INV-18. *An entry's address is only ever followed in a program of the same build that was told it by its parent over a private
//! socket, to a place that holds the mark.* So what is called is code that the sender's compiler has made for a type that the
//! sender had a value of.
#![allow(unsafe_code)] // Reads the loaded executable's headers and an entry in it, and makes a value of a type without size.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rapidhash::v3::rapidhash_v3;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::NewHost;

/// What entries begin with: random bytes that stand nowhere else in an executable.
const MARK: [u64; 2] = [0x8d1f_5e37_c02a_94b6, 0x63e9_0b7d_21fc_a85f];

/// How a function of type `F` is run: what the arguments are and where the result goes is the runner's business.
pub trait Runner<F> {
    /// Runs the function with what `passage` brings, and leaves its result there.
    fn run(function: F, passage: &mut dyn Any);
}

/// A function that another process of this program can be told to run.
#[repr(C, align(16))]
pub struct Entry {
    mark: [u64; 2],
    name: fn() -> &'static str,
    run: fn(&mut dyn Any),
}

const _: () = assert!(size_of::<Entry>() == 32 && align_of::<Entry>() == 16);

/// Carries the constant of a function and its runner.
struct Of<F, R>(PhantomData<(F, R)>);

impl<F: Copy + 'static, R: Runner<F> + 'static> Of<F, R> {
    const ENTRY: &'static Entry = &Entry { mark: MARK, name: std::any::type_name::<F>, run: run::<F, R> };
}

fn run<F: Copy + 'static, R: Runner<F>>(passage: &mut dyn Any) {
    assert_without_size::<F>();
    // SAFETY: no bytes are read, and any aligned place will do for none. A value of this type exists: an entry is made of one
    // (`Entry::of`), in this process or in the parent's, which runs the same program (INV-18). The type is `Copy`, so there may
    // be any number of it.
    let function = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    R::run(function, passage);
}

/// The compiler decides it, though not with an error: that is for whoever has the user's line to show.
fn assert_without_size<F>() {
    assert!(size_of::<F>() == 0, "only a function without captures can be named to another process");
}

impl Entry {
    /// The entry of a function. The value itself is a witness that its type has one.
    pub fn of<F: Copy + 'static, R: Runner<F> + 'static>(_witness: F) -> &'static Entry {
        assert_without_size::<F>();
        Of::<F, R>::ENTRY
    }

    /// The function's type, as the compiler calls it.
    pub fn name(&self) -> &'static str {
        (self.name)()
    }

    /// Runs the function.
    pub fn run(&self, passage: &mut dyn Any) {
        (self.run)(passage);
    }

    /// How far it lies from where the executable was loaded.
    ///
    /// # Errors
    /// `System` if it does not lie in the main executable.
    pub fn offset(&'static self) -> Result<u64> {
        let (image, address) = (image(), std::ptr::from_ref(self) as usize);
        if !image.holds(address) {
            let text = format!(
                "`{}` is in a library that was loaded into this program, where a child process may not find it: let a function of \
                 the main executable call it",
                self.name()
            );
            return Err(Error::new(ErrorKind::System, text));
        }
        Ok(address.wrapping_sub(image.base) as u64)
    }

    /// The entry at a distance that a process of the same build has told, of a function of this name.
    ///
    /// # Errors
    /// `Corrupt` if there is none.
    pub fn at(offset: u64, name: &str) -> Result<&'static Entry> {
        Self::find(offset).filter(|entry| entry.name() == name).ok_or_else(|| no_function(offset, name))
    }

    /// The same of a function whose name has this [hash](Self::name_hash): where there is no room for the name.
    ///
    /// # Errors
    /// `Corrupt` if there is none.
    pub fn at_hash(offset: u64, hash: u64) -> Result<&'static Entry> {
        Self::find(offset).filter(|entry| entry.name_hash() == hash).ok_or_else(|| no_function(offset, "…"))
    }

    /// A hash of the function's name.
    pub fn name_hash(&self) -> u64 {
        rapidhash_v3(self.name().as_bytes())
    }

    fn find(offset: u64) -> Option<&'static Entry> {
        let image = image();
        let address = image.base.wrapping_add(offset as usize);
        if !image.holds(address) {
            return None;
        }
        let place = std::ptr::with_exposed_provenance::<[u64; 2]>(address);
        // SAFETY: the 32 bytes lie in a readable segment of the main executable (`holds`), which is never unmapped, and are
        // aligned. That a segment might be written meanwhile concerns no entry: those are constants, and others fail the mark (INV-18).
        if unsafe { place.read_volatile() } != MARK {
            return None;
        }
        // SAFETY: what has the mark is a constant of type `Entry`, of this build's compiler (INV-18).
        Some(unsafe { &*place.cast::<Entry>() })
    }
}

#[cold]
fn no_function(offset: u64, name: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("at {offset:#x} there is no function `{name}` that a process could run: start the very same executable"),
    )
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<function {}>", self.name())
    }
}

// ---------------------------------------------------------------------------------------------------------------- the executable

/// What tells one build of a program from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// A hash of the executable's program headers: where its segments lie and how long they are.
    pub headers: u64,
    /// The linker's build id; empty if it has written none.
    pub id: Vec<u8>,
    /// Device, inode, size in bytes and time of its last writing in nanoseconds of the executable's file.
    pub file: [u64; 4],
}

impl Build {
    /// This program's.
    pub fn own() -> &'static Build {
        &image().build
    }

    /// As it travels.
    pub fn to_wire(&self, invited: bool) -> NewHost<'_> {
        NewHost { invited, headers: self.headers, file: self.file, id: &self.id }
    }

    /// As it came.
    pub fn of_wire(wire: &NewHost<'_>) -> Build {
        Build { headers: wire.headers, id: wire.id.to_vec(), file: wire.file }
    }

    /// Whether two processes with these run the same program, instruction by instruction. Without a build id only the very same
    /// file is believed to be.
    pub fn is_same(&self, other: &Build) -> bool {
        let by_id = if self.id.is_empty() { self.file == other.file } else { self.id == other.id };
        self.headers == other.headers && by_id
    }
}

/// The main executable as it was loaded.
struct Image {
    /// What is added to the addresses in its file.
    base: usize,
    /// Its readable segments.
    segments: Vec<Range<usize>>,
    build: Build,
}

impl Image {
    fn holds(&self, address: usize) -> bool {
        let within = |segment: &Range<usize>| address >= segment.start && segment.end.saturating_sub(address) >= size_of::<Entry>();
        address.is_multiple_of(align_of::<Entry>()) && self.segments.iter().any(within)
    }
}

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut found: Option<Image> = None;
        // SAFETY: the callback has the signature that is asked for, and `data` points to the local above, which it outlives (INV-34).
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
        found.unwrap_or(Image { base: 0, segments: Vec::new(), build: Build { headers: 0, id: Vec::new(), file: [0; 4] } })
    })
}

/// Called with the main executable first, and with nothing after it.
unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: libc::size_t, data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the loader gives a valid structure and its headers for the length of this call (INV-34).
    let (info, headers) = unsafe {
        let info = &*info;
        (info, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let base = info.dlpi_addr as usize;
    let span = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        start..start.saturating_add(header.p_memsz as usize)
    };
    let loaded = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_R != 0;
    let segments: Vec<_> = headers.iter().filter(loaded).map(span).collect();
    let inside = |notes: &Range<usize>| segments.iter().any(|segment| segment.start <= notes.start && notes.end <= segment.end);
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE).map(|header| (span(header), header.p_align));
    let id = notes.filter(|(notes, _)| inside(notes)).find_map(|(notes, align)| {
        let start = std::ptr::with_exposed_provenance::<u8>(notes.start);
        // SAFETY: the notes lie in a readable segment of the executable, which stays as it is (INV-18).
        build_id(unsafe { std::slice::from_raw_parts(start, notes.len()) }, align as usize)
    });
    let mut text = Vec::new();
    for header in headers {
        let words = [u64::from(header.p_type), u64::from(header.p_flags), header.p_offset, header.p_vaddr, header.p_filesz, header.p_memsz];
        words.iter().for_each(|word| text.extend_from_slice(&word.to_le_bytes()));
    }
    let file = std::fs::metadata("/proc/self/exe").map_or([0; 4], |file| {
        [file.dev(), file.ino(), file.size(), (file.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(file.mtime_nsec() as u64)]
    });
    let build = Build { headers: rapidhash_v3(&text), id: id.unwrap_or_default().to_vec(), file };
    // SAFETY: what `image` has passed (INV-34).
    unsafe { *data.cast::<Option<Image>>() = Some(Image { base, segments, build }) };
    1
}

/// The linker's build id among an executable's notes.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (name_len, len) = (word(0) as usize, word(4) as usize);
        let (name, rest) = rest.split_at_checked(name_len.next_multiple_of(4))?;
        let body = rest.get(..len)?;
        if word(8) == NT_GNU_BUILD_ID && name.starts_with(b"GNU\0") && !body.is_empty() {
            return Some(body);
        }
        notes = rest.get(len.next_multiple_of(align)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Add;

    impl<F: Fn(u64) -> u64> Runner<F> for Add {
        fn run(function: F, passage: &mut dyn Any) {
            let number = passage.downcast_mut::<u64>().unwrap();
            *number = function(*number);
        }
    }

    fn double(n: u64) -> u64 {
        n * 2
    }

    fn same<T: Into<u64> + TryFrom<u64>>(n: u64) -> u64 {
        T::try_from(n).map_or(0, Into::into)
    }

    #[test]
    fn a_function_is_found_again() {
        let entries = [Entry::of::<_, Add>(double), Entry::of::<_, Add>(same::<u8>), Entry::of::<_, Add>(|n: u64| n + 1)];
        for (entry, expected) in entries.into_iter().zip([80, 40, 41]) {
            let found = Entry::at(entry.offset().unwrap(), entry.name()).unwrap();
            let mut number = 40u64;
            found.run(&mut number);
            assert_eq!(number, expected, "{found:?}");
        }
    }

    #[test]
    fn nothing_else_is_found() {
        let entry = Entry::of::<_, Add>(double);
        let offset = entry.offset().unwrap();
        for wrong in [offset + 16, offset + 1, offset.wrapping_sub(16), 0, u64::MAX, u64::MAX / 2, 1 << 40] {
            let error = Entry::at(wrong, entry.name()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{wrong:#x}");
            let expected =
                format!("at {wrong:#x} there is no function `{}` that a process could run: start the very same executable", entry.name());
            assert_eq!(error.to_string(), expected);
        }
        assert!(Entry::at(offset, "another").is_err());
    }

    #[test]
    fn an_entry_outside_of_the_executable_has_no_offset() {
        let entry: &'static Entry =
            Box::leak(Box::new(Entry { mark: MARK, name: std::any::type_name::<Add>, run: run::<fn_type::F, Add> }));
        let error = entry.offset().unwrap_err();
        let expected = "` is in a library that was loaded into this program, where a child process may not find it: let a function of the main \
                        executable call it";
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    /// A function's type has no name of its own.
    mod fn_type {
        #[derive(Clone, Copy)]
        pub struct F;
    }

    impl Runner<fn_type::F> for Add {
        fn run(_: fn_type::F, _: &mut dyn Any) {}
    }

    #[test]
    fn builds_are_told_apart() {
        let own = Build::own();
        assert!(own.is_same(own) && own.headers != 0 && own.file[1] != 0);
        assert!(!own.is_same(&Build { headers: own.headers ^ 1, ..own.clone() }));
        let other_file = Build { file: [1, 2, 3, 4], ..own.clone() };
        let with_id = |build: &Build, id: &[u8]| Build { id: id.to_vec(), ..build.clone() };
        assert!(with_id(own, b"a").is_same(&with_id(&other_file, b"a")), "the same build in another file");
        assert!(!with_id(own, b"a").is_same(&with_id(own, b"b")));
        assert!(!with_id(own, b"").is_same(&with_id(&other_file, b"")), "without an id only the file itself");
    }

    #[test]
    fn build_ids_are_found_among_notes() {
        let note = |kind: u32, name: &[u8], body: &[u8]| {
            let mut note: Vec<u8> = [name.len() as u32, body.len() as u32, kind].iter().flat_map(|word| word.to_le_bytes()).collect();
            note.extend_from_slice(name);
            note.resize(note.len().next_multiple_of(4), 0);
            note.extend_from_slice(body);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes = [note(1, b"GNU\0", &[9; 16]), note(3, b"Go\0\0", b"no"), note(3, b"GNU\0", b"abcdefg")].concat();
        assert_eq!(build_id(&notes, 4), Some(&b"abcdefg"[..]));
        for len in 0..notes.len() - 1 {
            assert_eq!(build_id(&notes[..len], 4), None, "cut at {len}");
        }
        assert_eq!(build_id(&[0xff; 64], 4), None);
    }
}
