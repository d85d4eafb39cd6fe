//! Every maximum, in one place, with its arithmetic. A limit that is met gives an error that names it.

/// Largest archive of one value. rkyv's relative pointers are 32 bits with a sign: 2 GiB less one block header.
pub const VALUE_BYTES_MAX: u64 = (1 << 31) - 4096;
/// Largest archive of one key. Keys are compared byte by byte and rewritten with every new value of their entry.
pub const KEY_BYTES_MAX: u64 = 1 << 20;
/// Longest name of an object or a manager, in bytes of UTF-8 (a file name of 255 bytes less the suffix `.lock`, and room).
pub const NAME_BYTES_MAX: usize = 200;
/// Longest text of a type (see `value::Schema`), sent once when a container is made.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of an archive, its root included. The checker recurses once a level: at most 192 KiB of stack in a debug build.
pub const ARCHIVE_DEPTH_MAX: u32 = 128;
/// Handles inside one value (8 B each in its block).
pub const HANDLES_PER_VALUE_MAX: usize = 65_536;
/// Largest frame that a manager takes into private memory. Values above [`INLINE_VALUE_BYTES_MAX`] do not count: they stream into the arena.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Values up to this size travel inside their request; larger ones as uploads before it.
pub const INLINE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Uploads that one session may have open: received, but not yet used by a request.
pub const UPLOADS_PER_SESSION_MAX: usize = 4096;
/// Sessions of one manager. Each costs the manager two descriptors and one mapping of a session page.
pub const SESSIONS_MAX: usize = 4096;
/// Connections that are still in their handshake, and how long one may take.
pub const HANDSHAKES_MAX: usize = 256;
/// Milliseconds a handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
/// Bytes of replies that wait for a client that does not read them; past it the manager stops reading that client's requests.
pub const REPLIES_PENDING_BYTES_MAX: usize = 1 << 20;
/// Objects of one manager (28 bits of an id are its slot in the catalog).
pub const OBJECTS_MAX: u64 = 1 << 28;
/// How long a writer's ticket keeps other writers waiting at the most, in milliseconds.
pub const TICKET_MS: u64 = 200;
/// Conflicts of one transaction after which it asks for a writer's ticket.
pub const CONFLICTS_BEFORE_TICKET: u32 = 4;
/// Shortest and longest authkey.
pub const AUTHKEY_BYTES_MIN: usize = 8;
/// Longest authkey.
pub const AUTHKEY_BYTES_MAX: usize = 1024;
/// Bytes of a thread's serialising buffer that are kept between uses; one that grew past it is given back.
pub const SCRATCH_BYTES_KEPT_MAX: usize = 1 << 20;
/// Bytes that a streamed value gathers before they are handed to its sink; longer runs go to the sink as they are.
pub const STREAM_CHUNK_BYTES: usize = 64 << 10;
