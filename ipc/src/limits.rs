//! Every maximum, in one place, with its arithmetic. A limit that is met gives an error that names it.

/// Largest archive of one value. rkyv's relative pointers are 32 bits with a sign: 2 GiB less one block header.
pub const VALUE_BYTES_MAX: u64 = (1 << 31) - 4096;
/// Longest text in a value. Its archive keeps the length in 30 bits; longer ones go as bytes.
pub const TEXT_BYTES_MAX: usize = (1 << 30) - 1;
/// Largest block of the arena: the largest value and one header of 4096 B.
pub const BLOCK_BYTES_MAX: u64 = 1 << 31;
/// Longest arena. The manager numbers its pages of 4096 B in 31 bits, so that sums of two numbers fit in 32.
pub const ARENA_BYTES_MAX: u64 = 1 << 43;
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
/// Steps of work that one commit may be, while which nobody else is served. A step takes about 0.1 µs (an entry set: 0.1–0.3), so
/// this is one to four seconds; a frame of 64 MiB holds at most 4 Mi operations of 16 B. The largest list that can be reversed at once.
pub const COMMIT_STEPS_MAX: u64 = 1 << 24;
/// Values up to this size travel inside their request, or behind it on a lane (`wire::behind`); larger ones as uploads before it.
pub const INLINE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Uploads that one session may have open: received, but not yet used by a request.
pub const UPLOADS_PER_SESSION_MAX: usize = 4096;
/// Values of which a session has sent a part by a lane, and not the last. The room of its lanes holds two parts of 31 values at a time; and some
/// may be given up that the manager has not heard of.
pub const UPLOADS_GROWING_MAX: usize = 256;
/// Sessions of one manager. Each costs the manager three descriptors, and mappings of a session page and of lanes (2 MiB of addresses; a
/// page of memory, and one more for each lane in use).
pub const SESSIONS_MAX: usize = 4096;
/// Connections that are still in their handshake; one more ends the one that has taken longest.
pub const HANDSHAKES_MAX: usize = 256;
/// Milliseconds a handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
/// Bytes of replies that wait for a client that does not read them; past it the manager stops reading that client's requests.
pub const REPLIES_PENDING_BYTES_MAX: usize = 1 << 20;
/// Objects of one manager (28 bits of an id are its slot in the catalog).
pub const OBJECTS_MAX: u64 = 1 << 28;
/// Objects that have a segment of their own, of one manager: each costs it a mapping, of which a process has 65,530, and a descriptor.
pub const SEGMENTS_MAX: usize = 32_768;
/// The part of a manager's descriptors that segments may take, one each: the rest is for sessions (three each) and what comes between.
pub const SEGMENTS_DESCRIPTOR_SHARE: usize = 2;
/// The part of a manager's capacity that segments may take beside the arena: they come on top of it, and both together stay below
/// three quarters of the machine's memory, when the capacity is the default half.
pub const SEGMENTS_CAPACITY_SHARE: u64 = 2;
/// Largest segment: a sixteenth of the address space that a process has for mappings.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 43;
/// Of an array or block of bytes, what the manager itself puts memory behind: 64 KiB take 10 µs. Behind the rest each user does.
pub const SEGMENT_BACKED_AT_ONCE_BYTES: u64 = 64 << 10;
/// Largest element of an array: it is copied by way of the stack.
pub const ARRAY_ELEMENT_BYTES_MAX: usize = 4096;
/// Stripes of a counter: 128 B each, one for each processor; reading the sum looks at all.
pub const COUNTER_STRIPES_MAX: usize = 256;
/// Bits of a session's number: with ten thousand new sessions a second they last for three years.
pub const SESSION_NUMBER_BITS: u32 = 40;
/// Longest sleep of who waits for a lock without a look at its words, in milliseconds: what a process that was stopped between its
/// waking and its taking the lock can delay the others by, once.
pub const LOCK_LOOK_MS: u64 = 200;
/// Permits of a semaphore, held and free: 8 B each, half a megabyte.
pub const SEMAPHORE_PERMITS_MAX: usize = 65_536;
/// Permits that any semaphore without a bound may have, however few it begins with: 32 KiB.
pub const SEMAPHORE_PERMITS_ROOM: usize = 4_096;
/// Parties of a barrier: who arrives looks at all their places, 8 B each.
pub const BARRIER_PARTIES_MAX: usize = 4_096;
/// Exchanges that the manager tries on one word of a segment: they fail only while somebody else changes the word, and somebody who
/// does nothing else must not keep the manager from its work. What it did not get done, the waiters' own looks make up for.
pub const RECOVERY_ATTEMPTS_MAX: usize = 1_000;
/// After so many milliseconds of waiting for a lock, newcomers have to stand back: some thousand times what it is held for.
pub const LOCK_PATIENCE_MS: u64 = 2;
/// How long a lock is kept for whose turn it is, in milliseconds: a hundred times what a wake-up takes.
pub const LOCK_RESERVATION_MS: u64 = 5;
/// Between two looks of who waits for a lock and is awake, in nanoseconds: some ten times what it takes to get the lock's cache line from
/// another processor.
pub const LOCK_APART_NS: u64 = 1_000;
/// Between two looks of who waits for an item of a queue, in nanoseconds: the time of a few items, so that they come together.
pub const QUEUE_ITEMS_APART_NS: u64 = 200;
/// Between two looks of who waits for room in a queue, in nanoseconds for each item that the queue may have: a part of what it takes to
/// receive them all.
pub const QUEUE_SPACE_APART_NS: u64 = 10;
/// The same at the most.
pub const QUEUE_SPACE_APART_NS_MAX: u64 = 1_500;
/// The first look of who sleeps since a queue has no room, in milliseconds; each next one comes after twice as long. It is told of room only when
/// half of the queue is received, which may be never: some thousand items' time.
pub const QUEUE_SPACE_LOOK_MS: u64 = 1;
/// Items that may wait in a queue: with those in hands, what 20 bits of a cell can name.
pub const QUEUE_CAPACITY_MAX: u64 = 900_000;
/// Items of a queue that nobody made a maximum for: its cells take 5 MiB.
pub const QUEUE_UNBOUNDED_ITEMS: u64 = 131_071;
/// Largest sum of a queue's payloads: four of the largest values of every one of eight workers.
pub const QUEUE_BYTES_MAX: u64 = 64 << 30;
/// The same of a queue that nobody made a maximum for: the largest value, and as much again.
pub const QUEUE_BYTES_DEFAULT: u64 = 4 << 30;
/// Least items of a queue that may be in senders' and receivers' hands, or leased, beside those that wait.
pub const QUEUE_IN_HANDS_MIN: u64 = 64;
/// Most of them; between the two it is the queue's capacity.
pub const QUEUE_IN_HANDS_MAX: u64 = 65_536;
/// Memory of a queue goes back to the system when it was not needed for so many milliseconds: some hundred times what it would cost to
/// get a gigabyte of it again.
pub const QUEUE_NEEDED_MS: u64 = 250;
/// The same where it was needed again soon after it had been given back, at the most.
pub const QUEUE_NEEDED_MS_MAX: u64 = 64_000;
/// How much of it goes at a time: some two milliseconds in which the manager does nothing else.
pub const QUEUE_SLICE_BYTES: u64 = 16 << 20;
/// Items that may wait in each direction of a pipe that nobody made a maximum for: its cells and first items take 32 KiB.
pub const PIPE_CAPACITY_DEFAULT: u64 = 128;
/// Bytes of a thread's buffer for received items that are kept between uses: a fresh one would cost 250 ns a page at each.
pub const QUEUE_INBOX_BYTES_KEPT_MAX: usize = 4 << 20;
/// Items with handles in them that wait in all queues of a manager: some 100 bytes each of its private memory.
pub const PARCELS_MAX: usize = 1 << 20;
/// How long a writer's ticket keeps other writers waiting at the most, in milliseconds.
pub const TICKET_MS: u64 = 200;
/// How long a host keeps the writer's ticket for logic that waits already, in microseconds: some hundred short pieces of it, one after the other,
/// and others who write wait no longer than for one that is slow. So much less than [`TICKET_MS`] the last of them has.
pub const TICKET_KEPT_US: u64 = 500;
/// Conflicts of one transaction after which it asks for a writer's ticket.
pub const CONFLICTS_BEFORE_TICKET: u32 = 4;
/// Shortest and longest authkey.
pub const AUTHKEY_BYTES_MIN: usize = 8;
/// Longest authkey.
pub const AUTHKEY_BYTES_MAX: usize = 1024;
/// Longest program name a client tells the manager: a file name cut short, for messages such as "pinned by …".
pub const PROGRAM_NAME_BYTES_MAX: usize = 64;
/// Longest text of a refused handshake: two or three sentences.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 512;
/// Longest address of a local socket: `sockaddr_un` holds 108 bytes, one of them the end (or the start, if abstract).
pub const SOCKET_ADDRESS_BYTES_MAX: usize = 107;
/// Descriptors taken from one received message; the welcome sends 3 at the most, the orders of a pool's worker 6, and whatever comes
/// beyond is closed on the spot.
pub const DESCRIPTORS_PER_MESSAGE_MAX: usize = 6;
/// Descriptors that a pair of sockets for them holds, more or less. All that a user has under way, in all sockets, may be no more than one process
/// may have open: 1024 mostly, which is more than thirty pools fill.
pub const DESCRIPTORS_IN_FLIGHT: usize = 32;
/// Words of shared memory that one thread may sleep on at once, by the kernel's word (`FUTEX_WAITV_MAX`).
pub const WORDS_SLEPT_ON_MAX: usize = 128;
/// Descriptors that one call may wait for: one bit each of the answer.
pub const DESCRIPTORS_POLLED_MAX: usize = 64;
/// Room of a session's lanes for payloads that do not fit into a slot: 64 threads that send 128 KiB each, or eight that send 1 MiB. What
/// finds no room goes by the socket.
pub const LANE_ROOM_BYTES: u64 = 8 << 20;
/// Of that room, what keeps its memory however seldom it is used: seven threads that send large values at once, two parts of 132 KiB each. With use it comes to be one large page. What
/// lies beyond keeps it only while it is needed again and again.
pub const LANE_ROOM_KEPT_BYTES: u64 = 2 << 20;
/// Bytes of writes that a `Writer` collects while others are under way: some hundred small ones, which the manager does in less than a
/// spin lasts, so that neither side falls asleep meanwhile.
pub const WRITER_BYTES: usize = 16 << 10;
/// Large values that it sends ahead for one such group.
pub const WRITER_UPLOADS_MAX: usize = 16;
/// Failures that it remembers until it is asked for them, of the first writes that failed.
pub const WRITER_FAILURES_MAX: usize = 4096;
/// Failures after which the manager answers a series before its end: their texts go into one reply.
pub const SERIES_FAILURES_MAX: usize = 64;
/// Sessions whose doorbells the manager looks at while it is awake: a cache line each. Others ring by the socket.
pub const SESSIONS_WATCHED_MAX: usize = 64;
/// Longest spin before a sleep, in nanoseconds: about what the sleep and the wake-up it saves would cost.
pub const SPIN_NS_MAX: u64 = 50_000;
/// The same for who has just woken the one that is waited for: a wake-up longer.
pub const SPIN_WAKING_NS_MAX: u64 = 2 * SPIN_NS_MAX;
/// Longest sleep without a look at the manager's alive word, in milliseconds: the backstop of a wake-up that got lost (see `liveness`).
pub const SLEEP_SLICE_MS: u64 = 10_000;
/// The same where the kernel has no `futex_waitv`, so that the manager's death wakes nobody.
pub const SLEEP_SLICE_WITHOUT_WAITV_MS: u64 = 20;
/// Names that are listed in one runtime directory.
pub const NAMES_LISTED_MAX: usize = 65_536;
/// Bytes of a thread's serialising buffer that are kept between uses; one that grew past it is given back.
pub const SCRATCH_BYTES_KEPT_MAX: usize = 1 << 20;
/// Bytes that a streamed value gathers before they are handed to its sink; longer runs go to the sink as they are.
pub const STREAM_CHUNK_BYTES: usize = 64 << 10;
/// Bytes of an argument or result of a process, and as many of what goes with it, that travel through its socket; more goes into a
/// memory file. Two such parts and a header fit into a socket of the usual 208 KiB without a reader.
pub const PROCESS_INLINE_BYTES_MAX: usize = 32 << 10;
/// Longest head of a message between parent and child: 16 B for each of the most handles, and as much again for their managers, name,
/// directory and settings.
pub const PROCESS_HEAD_BYTES_MAX: usize = 32 * HANDLES_PER_VALUE_MAX;
/// Longest message of a panic, and longest backtrace, that a parent is told, cut there: both fit into the head of a message.
pub const PROCESS_PANIC_BYTES_MAX: usize = 256 << 10;
/// A daemonic child that has failed, and whose parent wants nothing of it, waits this long for the parent's end before it tells: it may have
/// failed because all that it lives on is ending. Longer than programs take to end on a busy machine.
pub const PROCESS_DAEMON_TELLS_MS: u64 = 5_000;
/// Workers of a pool at once: a line of memory each, and three descriptors of the owner's.
pub const POOL_WORKERS_MAX: usize = 256;
/// Tasks of a pool that are handed out at a time, each with 128 KiB of room that takes memory when it is used: 32 MiB. What is more waits
/// in the owner's private memory.
pub const POOL_SLOTS: usize = 256;
/// Room in a pool's memory file for the large arguments that are on their way, and as much for the large results of each worker: that
/// of a queue.
pub const POOL_FILE_BYTES: u64 = QUEUE_BYTES_MAX;
/// An argument or result above this does not go through the memory that is mapped: fifteen fit into a task's 64 KiB.
pub const POOL_LARGE_BYTES: usize = 4 << 10;
/// When to ask for large pages takes longer than this, in milliseconds, they are left out for a while: it waits for something.
pub const LARGE_PAGES_MS_MAX: u64 = 10;
/// What each of them may take more. (On a virtual machine one is some milliseconds if its host has to find the memory first.)
pub const LARGE_PAGE_MS_MAX: u64 = 5;
/// How often they are left out, at the most, before they are asked for again.
pub const LARGE_PAGES_PAUSE_MAX: u32 = 256;
/// A result of so many bytes, for which the pool's file has no warm memory, goes in a sealed file of its own, which the pool's owner does not
/// copy. Smaller ones are copied faster than a file is made, mapped and cleared away: measured, see the decisions in docs/ARCHITECTURE.md.
pub const POOL_SEALED_BYTES: u64 = 512 << 10;
/// A result of so many bytes goes in such a file however warm the pool's own is, if the file has large pages: it mostly comes in less than half the time then,
/// and half of the first one is used. Measured as well.
pub const POOL_LARGE_PAGES_BYTES: u64 = 1 << 20;
/// Results that a worker brings by the pool's file before it tries again, when a file has got no large page, or could not be sent: that takes time for nothing.
pub const POOL_LARGE_PAGES_AGAIN: u32 = 32;
/// Such results of one worker that its owner has not taken; others go through the pool's own file. As many as the socket holds that their
/// descriptors pass: whoever takes one takes all that are there, and keeps those of the others.
pub const POOL_PASSED_MAX: usize = DESCRIPTORS_IN_FLIGHT;
/// Messages on that socket that an owner passes over while it looks for one. More than the socket can hold: what is in front of a file that was
/// counted was there before it. Only so that no sender who is faster than the owner holds it up.
pub const POOL_MESSAGES_MAX: usize = 1 << 16;
/// Sealed files of other processes that this one has mapped at once; what is more is copied. A quarter of the mappings that a process may have
/// (`vm.max_map_count`), which everything else needs, too.
pub const SEALED_MAPPINGS_MAX: usize = 16_384;
/// Of the memory for large arguments, or large results, what is kept when nothing is on its way; more is given back.
pub const POOL_FILE_KEPT_BYTES: u64 = 16 << 20;
/// Bytes of large arguments that a map or an iterator has on their way before it waits for results.
pub const POOL_AHEAD_BYTES: u64 = 64 << 20;
/// Workers in a row that may die before they look for a task, or cannot be started, until the pool gives up.
pub const POOL_START_TRIES: u32 = 3;
/// Workers in a row that may die while they have no task, until the pool gives up: nobody kills so many by hand.
pub const POOL_IDLE_DEATHS_MAX: u32 = 64;
/// Longest sleep of a worker, or of who waits for results, without a look, in milliseconds: what a process that was stopped with a
/// wake-up in its hands can delay the others by, once.
pub const POOL_LOOK_MS: u64 = LOCK_LOOK_MS;
/// Largest frame on a line to a host: the arguments of one call, or its result, and as much as [`HANDLES_PER_VALUE_MAX`] handles need.
pub const REMOTE_FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX as usize + 16 * HANDLES_PER_VALUE_MAX;
/// Bytes of each of the two rings in a line's memory, all of it there from the beginning: most calls fit whole, some dozens of small ones
/// made ahead, and larger ones go through in parts. With the page of its words a line has 36 KiB.
pub const LINE_RING_BYTES: usize = 16 << 10;
/// Lines of one host: each costs it a thread, a descriptor, and a mapping with 36 KiB of memory while it is open (all together 144 MiB).
pub const REMOTE_LINES_MAX: usize = 4096;
/// Of these, lines for logic that one thread of the host reads, which looks at all of them: further ones have their own. As many as are waited
/// for at once ([`DESCRIPTORS_POLLED_MAX`]), one of which wakes that thread.
pub const LOGIC_LINES_MAX: usize = DESCRIPTORS_POLLED_MAX - 1;
/// Lines without a call that a client keeps to a host, for the next calls.
pub const REMOTE_LINES_KEPT_MAX: usize = 64;
/// Threads by which a host serves one line of calls ahead: so many methods may block at once that were called ahead by one process.
pub const REMOTE_AHEAD_THREADS_MAX: usize = 1024;
/// Of these, threads that are kept though they have nothing to do.
pub const REMOTE_AHEAD_SPARE_MAX: usize = 4;
/// Bytes of calls ahead that wait in a host for a method of their object that blocks; past it that line is not read.
pub const REMOTE_AHEAD_BYTES_MAX: usize = 16 << 20;
/// Calls within calls: each is a thread of a host that waits.
pub const REMOTE_DEPTH_MAX: usize = 64;
/// Processes that were given handles of one manager and have not begun: each costs the manager a descriptor.
pub const LUGGAGE_MAX: usize = 4096;
/// Hosts of one manager.
pub const HOSTS_MAX: usize = 64;
/// Types that a manager remembers of one host, for messages.
pub const HOST_TYPES_MAX: usize = 256;
/// Bytes that wait for a host that does not read them; past it no new lines are made to it. A line costs 16, an object that is gone 8.
pub const HOST_PENDING_BYTES_MAX: usize = 1 << 20;
/// How long a host may take to end in an orderly way after its manager has ended, in milliseconds: time for the objects' `Drop`.
pub const HOST_END_MS: u64 = 5_000;
/// Objects that one answer of the manager lists: with the most sessions a million lookups, some 20 ms in which it does nothing else.
pub const OBJECTS_LISTED_MAX: usize = 256;
/// Lines of one host of whose last commit of logic the manager knows, for a caller that asks whether it has been done: as many as there can be at a
/// time. And of those that must not be committed, since their caller has given them up.
pub const RUN_LINES_MAX: usize = REMOTE_LINES_MAX;
/// Hosts that have ended of which it still does.
pub const RUN_HOSTS_ENDED_MAX: usize = HOSTS_MAX;
/// How much longer a caller waits for logic beside the manager than that may take, in milliseconds: for a machine that is busy.
pub const RUN_GRACE_MS: u64 = 2_000;
