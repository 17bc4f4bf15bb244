//! `limits.memory`: the memory available to the process, and the share of it that "auto" gives to
//! buffers.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Memory of the process beside its buffers, in bytes: code, memory kept for reuse, short-lived
/// copies. Resident memory is bounded by `limits.memory` plus this.
pub(super) const OVERHEAD: usize = 64 << 20;
/// The least that "auto" stands for, in bytes.
const MIN_SHARE: usize = 16 << 20;

/// `limits.memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A share of the container's or the machine's memory.
    Auto,
    /// A number of bytes.
    Bytes(usize),
}

impl Memory {
    /// The limit of all buffers together on this machine, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Memory::Auto => available().share(),
            Memory::Bytes(bytes) => bytes,
        }
    }

    /// A warning for the operator if the process may exceed the memory available to it.
    pub fn warning(self) -> Option<String> {
        self.warning_beside(available())
    }

    fn warning_beside(self, available: Available) -> Option<String> {
        let bytes = match self {
            Memory::Auto => available.share(),
            Memory::Bytes(bytes) => bytes,
        };
        if bytes.saturating_add(OVERHEAD) <= available.bytes {
            return None;
        }
        let whose = if available.limited { "the container's memory limit" } else { "the memory" };
        let way_out = match available.bytes.saturating_sub(OVERHEAD) >> 20 {
            0 => "allow more memory".into(),
            most => format!("set limits.memory to {most}MiB or less, or allow more memory"),
        };
        Some(format!(
            "limits.memory = {} and the {} that slotway takes beside it exceed {whose}, {}: the \
             kernel may kill the process; {way_out}",
            in_mib(bytes),
            in_mib(OVERHEAD),
            in_mib(available.bytes),
        ))
    }

    /// A comment line for `slotway check`: the value of "auto" on this machine.
    pub fn describe(self) -> String {
        match self {
            Memory::Auto => {
                let available = available();
                let whose = if available.limited { "container" } else { "machine" };
                let (share, all) = (in_mib(available.share()), in_mib(available.bytes));
                format!("# limits.memory: \"auto\" is {share} here; the {whose} has {all}\n")
            }
            Memory::Bytes(_) => String::new(),
        }
    }
}

fn in_mib(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The memory available to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Available {
    /// Bytes.
    pub bytes: usize,
    /// Whether it is the limit of a cgroup (a container, a systemd unit); otherwise it is the
    /// machine's memory.
    pub limited: bool,
}

impl Available {
    /// The value of "auto": three quarters of a cgroup's limit less [`OVERHEAD`], which leaves the
    /// rest to the kernel's socket buffers, as these count against the limit; half of the machine's
    /// memory less [`OVERHEAD`], as other processes share it.
    pub fn share(self) -> usize {
        let left = self.bytes.saturating_sub(OVERHEAD);
        let share = if self.limited { left / 4 * 3 } else { left / 2 };
        share.max(MIN_SHARE)
    }
}

/// The memory available to this process; detected at the first call.
pub(super) fn available() -> Available {
    static AVAILABLE: OnceLock<Available> = OnceLock::new();
    *AVAILABLE.get_or_init(|| detect(Path::new("/")))
}

/// Detects the available memory from the file system at `root`.
fn detect(root: &Path) -> Available {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = machine(&read("proc/meminfo")).unwrap_or(4 << 30);
    let limit = cgroup(root, &read("proc/self/cgroup"), &read("proc/self/mountinfo"));
    match limit {
        Some(bytes) if bytes < machine => Available { bytes, limited: true },
        _ => Available { bytes: machine, limited: false },
    }
}

/// The machine's memory in bytes, from /proc/meminfo.
fn machine(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1 << 10)
}

/// The lowest memory limit of the process's cgroups and their ancestors, version 1 or 2.
fn cgroup(root: &Path, cgroups: &str, mounts: &str) -> Option<usize> {
    let mut lowest = None;
    for (mount_root, mount, v2) in mounts.lines().filter_map(mount) {
        let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        let of_mount = |line: &&str| {
            let controllers = line.split(':').nth(1).unwrap_or_default();
            if v2 { controllers.is_empty() } else { controllers.split(',').any(|c| c == "memory") }
        };
        let path = cgroups.lines().find(of_mount).and_then(|line| line.splitn(3, ':').nth(2));
        let path = path.unwrap_or("/");
        // Without a cgroup namespace a container sees the host's path, of which only `mount_root`
        // is mounted.
        let path = path.strip_prefix(mount_root).unwrap_or(path);
        let base = root.join(mount.trim_start_matches('/'));
        let own: PathBuf = base.join(path.trim_start_matches('/'));
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&base)) {
            let limit = std::fs::read_to_string(folder.join(file));
            let limit = limit.ok().and_then(|text| text.trim().parse::<usize>().ok());
            lowest = lowest.into_iter().chain(limit).min();
        }
    }
    lowest
}

/// Parses a line of mountinfo: the mounted part of the hierarchy, the mount point, and whether it
/// is version 2. `None` if it is no cgroup hierarchy with memory limits.
fn mount(line: &str) -> Option<(&str, &str, bool)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (mount_root, at) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let name = kind.next()?;
    let v2 = name == "cgroup2";
    let v1 = name == "cgroup" && kind.nth(1)?.split(',').any(|option| option == "memory");
    let mount_root = if mount_root == "/" { "" } else { mount_root };
    (v1 || v2).then_some((mount_root, at, v2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const MEMINFO: &str = "MemTotal:       8388608 kB\nMemFree:        1 kB\n";

    fn machine_with(files: &[(&str, &str)]) -> Available {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [("proc/meminfo", MEMINFO)].iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        detect(root.path())
    }

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 32 0:29 ROOT /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                      34 32 0:30 ROOT /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";

    #[test]
    fn a_containers_limit_counts() {
        let limited = |mib: usize| Available { bytes: mib * MIB, limited: true };
        let found = machine_with(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(found, limited(512), "version 2, in a namespace of its own");
        assert_eq!(found.share(), 336 * MIB);
        let found = machine_with(&[
            ("proc/self/cgroup", "0::/system.slice/slotway.service\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/system.slice/slotway.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
        ]);
        assert_eq!(found, limited(1024), "a systemd unit in a slice that has the limit");
        let found = machine_with(&[
            ("proc/self/cgroup", "4:cpu:/docker/abc\n3:memory:/docker/abc\n"),
            ("proc/self/mountinfo", &V1.replace("ROOT", "/docker/abc")),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(found, limited(128), "version 1, in a container");
        assert_eq!(found.share(), 48 * MIB);
        let found = machine_with(&[
            ("proc/self/cgroup", "3:cpu,memory:/user/me\n"),
            ("proc/self/mountinfo", &V1.replace("ROOT", "/")),
            ("sys/fs/cgroup/memory/user/me/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ]);
        assert_eq!(found, limited(256), "version 1, the group around it");
    }

    #[test]
    fn without_a_limit_it_is_half_of_the_machine() {
        let machine = Available { bytes: 8192 * MIB, limited: false };
        assert_eq!(machine.share(), (8192 - 64) / 2 * MIB);
        assert_eq!(machine_with(&[]), machine);
        let unlimited = machine_with(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(unlimited, machine);
        let more = machine_with(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "1099511627776\n"),
        ]);
        assert_eq!(more, machine, "a limit above the machine's memory is none");
        assert_eq!(Available { bytes: 32 * MIB, limited: true }.share(), MIN_SHARE);
    }

    #[test]
    fn a_limit_that_does_not_fit_is_warned_of() {
        let container = Available { bytes: 512 * MIB, limited: true };
        let warning = |memory: Memory, available| memory.warning_beside(available);
        assert_eq!(warning(Memory::Auto, container), None);
        assert_eq!(warning(Memory::Bytes(448 * MIB), container), None);
        assert_eq!(
            warning(Memory::Bytes(449 * MIB), container).unwrap(),
            "limits.memory = 449 MiB and the 64 MiB that slotway takes beside it exceed the \
             container's memory limit, 512 MiB: the kernel may kill the process; set limits.memory \
             to 448MiB or less, or allow more memory"
        );
        // Smaller than MIN_SHARE and OVERHEAD.
        let tiny = Available { bytes: 64 * MIB, limited: true };
        let told = warning(Memory::Auto, tiny).unwrap();
        assert!(told.starts_with("limits.memory = 16 MiB and"), "{told}");
        assert!(told.ends_with("kill the process; allow more memory"), "{told}");
        let machine = Available { bytes: 4096 * MIB, limited: false };
        let told = warning(Memory::Bytes(4096 * MIB), machine).unwrap();
        assert!(told.contains("exceed the memory, 4096 MiB: "), "{told}");
    }

    #[test]
    fn this_machine_is_read() {
        assert!(available().bytes > 64 * MIB, "{:?}", available());
        assert_eq!(Memory::Auto.bytes(), available().share());
        assert_eq!(Memory::Bytes(5).bytes(), 5);
    }
}
