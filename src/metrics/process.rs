//! The `process_` metrics: CPU, memory and descriptors of this process, from `/proc`.

/// USER_HZ, the unit of CPU time in `/proc`: 100 on all architectures that Linux supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of this process, read from `/proc/self`; 0 if they cannot be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessStats {
    /// User and system CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Number of open file descriptors.
    pub(super) open_fds: u64,
    /// Soft limit on open file descriptors.
    pub(super) max_fds: u64,
    /// Size of virtual memory.
    pub(super) virtual_bytes: u64,
    /// Size of resident memory.
    pub resident_bytes: u64,
    /// Number of threads.
    pub threads: u64,
    /// Start time of the process, in seconds since 1970.
    pub(super) start_seconds: f64,
}

/// The figures that are read every second: without those that are expensive to read, such as the
/// number of open files.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessUsage {
    /// User and system CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Size of resident memory.
    pub resident_bytes: u64,
}

impl ProcessUsage {
    /// Reads `/proc/self`.
    pub fn read() -> ProcessUsage {
        let stat = stat();
        ProcessUsage {
            cpu_seconds: (ticks(&stat, 14) + ticks(&stat, 15)) / TICKS_PER_SECOND,
            resident_bytes: first_number(&text("/proc/self/status"), "VmRSS:") * 1024,
        }
    }
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `/proc/self/stat` from field 3 on. Field 2, the command in parentheses, may contain spaces and
/// parentheses itself.
fn stat() -> String {
    text("/proc/self/stat").rsplit(')').next().unwrap_or_default().to_owned()
}

/// Field `n` of [`stat`], numbered as in proc_pid_stat(5).
fn ticks(stat: &str, n: usize) -> f64 {
    stat.split(' ').nth(n - 2).and_then(|f| f.parse().ok()).unwrap_or_default()
}

impl ProcessStats {
    /// Reads `/proc/self`.
    pub fn read() -> ProcessStats {
        let stat = stat();
        let ticks = |n: usize| ticks(&stat, n);
        let status = text("/proc/self/status");
        let status = |name: &str| first_number(&status, name);
        let kernel = text("/proc/stat");
        ProcessStats {
            cpu_seconds: (ticks(14) + ticks(15)) / TICKS_PER_SECOND,
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
            max_fds: first_number(&text("/proc/self/limits"), "Max open files"),
            virtual_bytes: status("VmSize:") * 1024,
            resident_bytes: status("VmRSS:") * 1024,
            threads: status("Threads:"),
            start_seconds: first_number(&kernel, "btime ") as f64 + ticks(22) / TICKS_PER_SECOND,
        }
    }
}

/// The first number after `name` in the first line that begins with `name`; 0 if there is none.
fn first_number(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = ProcessStats::read();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(process.open_fds >= 3 && process.open_fds < process.max_fds);
        assert!(process.resident_bytes > 100_000);
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads >= 1);
        assert!((0.0..100_000.0).contains(&process.cpu_seconds));
        assert!(process.start_seconds <= now + 2.0, "{process:?}");
        assert!(process.start_seconds > now - 86_400.0, "{process:?}");
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes > 100_000 && usage.cpu_seconds >= process.cpu_seconds);
    }
}
