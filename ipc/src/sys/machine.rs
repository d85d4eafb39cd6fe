//! What this machine, this user and this process have: processors, memory, limits, names. Nothing here changes shared state.
//!
//! The budget of a manager must lie below the memory cgroup's limit: past that the kernel kills instead of failing. So the limits of
//! all cgroups above this process are read, of both versions, wherever they are mounted; what cannot be read does not limit.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limits::PROGRAM_NAME_BYTES_MAX;

/// Processors that this thread may run on now (its affinity mask): at least 1.
pub fn allowed_cpus() -> usize {
    match sched_getaffinity(None) {
        Ok(set) => (set.count() as usize).max(1),
        // More processors than the mask has bits.
        Err(_) => std::thread::available_parallelism().map_or(1, |n| n.get()),
    }
}

/// The numbers of the processors that this thread may run on.
pub fn own_cpus() -> Vec<u32> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u32).collect()
}

/// Processors that this machine may ever have: their numbers are below that. At least 1.
pub fn possible_cpus() -> usize {
    // "0-7", or "0,2-3"
    let listed = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = listed.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or_else(allowed_cpus, |last| last.saturating_add(1))
}

/// Whether this kernel copies out of a large page of a memory file in one piece: from Linux 6.13 on; before, page by page.
pub fn copies_large_pages_whole() -> bool {
    is_release_from(&rustix::system::uname().release().to_string_lossy(), (6, 13))
}

/// Whether a kernel's release ("6.18.44-generic") is this version or later.
fn is_release_from(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

/// The number of the processor that this thread runs on just now.
pub fn current_cpu() -> u32 {
    rustix::thread::sched_getcpu() as u32
}

/// Moves this thread off its processor to another that it may run on, by forbidding it the one for a moment. Whether there was another.
///
/// Its affinity mask is then what it was before, unless somebody else changes the mask at that very moment: that change is lost. And it is a
/// mask that has been asked for: processors that the machine or the control group gets later are not in it.
pub fn leave_cpu() -> bool {
    let Ok(allowed) = sched_getaffinity(None) else { return false };
    let mut others = allowed;
    others.unset(current_cpu() as usize);
    others.count() > 0 && sched_setaffinity(None, &others).is_ok() && sched_setaffinity(None, &allowed).is_ok()
}

/// How much memory a manager uses at the most unless told otherwise: half of what the machine or the cgroup has, in bytes.
pub fn memory_budget_default() -> u64 {
    let info = rustix::system::sysinfo();
    let physical = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let limits = memory_limit_files(&cgroups, &mounts).into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.fold(physical, u64::min) / 2
}

/// The files that hold the memory limits of a process's cgroups and of those above them.
fn memory_limit_files(cgroups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        // "4:memory:/some/group" (version 1) or "0::/some/group" (version 2)
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (v2, file) = match controllers {
            "" => (true, "memory.max"),
            list if list.split(',').any(|c| c == "memory") => (false, "memory.limit_in_bytes"),
            _ => continue,
        };
        for (root, mount_point) in mounts.lines().filter_map(|mount| cgroup_mount(mount, v2)) {
            // In a container the mount may show a part of the tree only.
            let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(group.trim_start_matches('/')));
            files.extend(below.ancestors().map(|group| Path::new(mount_point).join(group).join(file)));
        }
    }
    files
}

/// Root and mount point of a line of mountinfo, if it is a cgroup tree that can limit memory.
fn cgroup_mount(line: &str, v2: bool) -> Option<(&str, &str)> {
    // "36 35 0:31 /root /mount/point rw,nosuid shared:9 - cgroup cgroup rw,memory"
    let (before, after) = line.split_once(" - ")?;
    let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
    let (root, mount_point) = (before.next()?, before.next()?);
    let found = match after.next()? {
        "cgroup2" => v2,
        "cgroup" => !v2 && after.nth(1)?.split(',').any(|option| option == "memory"),
        _ => false,
    };
    found.then_some((root, mount_point))
}

/// The limit on this process's address space (RLIMIT_AS), in bytes; `None` if there is none.
pub fn address_space_limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// Raises the limit on open descriptors to what this process may have, and returns it: a manager needs three per session.
pub fn raise_nofile_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        // Without a maximum the kernel's own (fs.nr_open) may still refuse: what was there stays.
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Descriptors that this process may have open.
pub fn nofile_limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

/// The file name of this program, cut to [`PROGRAM_NAME_BYTES_MAX`] bytes.
pub fn process_name() -> String {
    let executable = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = executable.or_else(|| fs::read_to_string("/proc/self/comm").ok()).unwrap_or_else(|| "unknown".into());
    cut_short(name.trim_end(), PROGRAM_NAME_BYTES_MAX).to_owned()
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and cuts no character.
pub(crate) fn cut_short(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Whether this is the user id that the kernel shows for users it cannot name here (another user namespace): it may be anybody.
pub fn is_overflow_uid(uid: u32) -> bool {
    static OVERFLOW_UID: OnceLock<u32> = OnceLock::new();
    let overflow = OVERFLOW_UID.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        text.trim().parse().unwrap_or(65_534)
    });
    uid == *overflow
}

/// The user this process acts as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_first_two_numbers() {
        let from = |release| is_release_from(release, (6, 13));
        assert!(["6.13.0", "6.13-rc1", "6.18.44-fc-v857", "7.0.1", "10.2"].into_iter().all(from));
        assert!(["6.12.99", "6.1.0-44-amd64", "5.15.0-1", "4.4", "6", "", "strange"].into_iter().all(|release| !from(release)));
    }

    #[test]
    fn version_2_limits_are_found_up_to_the_root() {
        let mounts = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n22 1 8:1 / / rw - ext4 /dev/sda rw";
        let files = memory_limit_files("0::/user.slice/app", mounts);
        let expected = ["user.slice/app/", "user.slice/", ""].map(|g| PathBuf::from(format!("/sys/fs/cgroup/{g}memory.max")));
        assert_eq!(files, expected);
    }

    #[test]
    fn version_1_limits_are_found_inside_of_a_container() {
        let mounts = "36 35 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n37 35 0:32 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu";
        let files = memory_limit_files("5:cpu:/docker/abc\n4:memory:/docker/abc/job\n0::/", mounts);
        let expected = ["job/", ""].map(|g| PathBuf::from(format!("/sys/fs/cgroup/memory/{g}memory.limit_in_bytes")));
        assert_eq!(files, expected);
    }

    #[test]
    fn nonsense_limits_nothing() {
        assert!(memory_limit_files("", "").is_empty());
        assert!(memory_limit_files("x\n::\n:memory", "- - - \n a - cgroup2").is_empty());
    }

    #[test]
    fn this_machine_has_something() {
        assert!(allowed_cpus() >= 1);
        assert!(memory_budget_default() > 1 << 20);
        assert!(raise_nofile_limit() >= 3);
        let name = process_name();
        assert!(!name.is_empty() && name.len() <= PROGRAM_NAME_BYTES_MAX, "{name}");
        assert_eq!(address_space_limit(), getrlimit(Resource::As).current);
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut_short("aäöü", 4), "aä");
        assert_eq!(cut_short("abc", 64), "abc");
    }
}
