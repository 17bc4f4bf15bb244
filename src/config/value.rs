//! Types of single values, and their text form.
//!
//! `parse_*` reads what `show_*` writes back to the same value. Errors continue a sentence that has
//! begun with origin and key, and end with what to write instead.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// A host and a port; the host is an IP address (without brackets) or a DNS name.
///
/// Resolve it with `(address.host.as_str(), address.port)`, which is a `ToSocketAddrs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// IP address or DNS name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An address for clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address; a DNS name stands for all its addresses.
    Tcp(Address),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per core that this process may use.
    Auto,
    /// A fixed number.
    Count(NonZeroUsize),
}

impl Workers {
    /// The number of workers on this machine.
    pub fn count(self) -> usize {
        match self {
            Workers::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Workers::Count(count) => count.get(),
        }
    }
}

/// Text that is never shown, not even by `{:?}`. Clones share it, and see it replaced.
#[derive(Clone, Default)]
pub struct Secret(Arc<RwLock<Arc<str>>>);

impl Secret {
    /// A secret with the text `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Secret(Arc::new(RwLock::new(text.into())))
    }

    /// The text.
    pub fn reveal(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the text, here and in all clones.
    pub fn replace(&self, text: impl Into<Arc<str>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// Whether the text is empty, which means that there is no secret.
    pub fn is_empty(&self) -> bool {
        self.reveal().is_empty()
    }

    /// Stars in place of the text; empty if there is no secret.
    pub(super) fn masked(&self) -> &'static str {
        if self.is_empty() { "" } else { "***" }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        *self.reveal() == *other.reveal()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.masked())
    }
}

/// A value that is written as one of several words.
pub(super) trait Choice {
    /// All words, at least two.
    fn words(&self) -> &'static [&'static str];
    /// The word of the current value.
    fn word(&self) -> &'static str;
    /// Sets the value by its word. `false` if there is no such word.
    fn choose(&mut self, word: &str) -> bool;
}

/// Declares an enum that is a [`Choice`], with the word of each variant.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl Choice for $name {
            fn words(&self) -> &'static [&'static str] {
                &[$($word),*]
            }
            fn word(&self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
            fn choose(&mut self, word: &str) -> bool {
                *self = match word {
                    $($word => $name::$variant,)*
                    _ => return false,
                };
                true
            }
        }
    };
}

choice! {
    /// Whether another slotway may take over the listening addresses.
    HandOver {
        /// Addresses are exclusive: one that is taken is an error.
        Off = "off",
        /// Addresses may be shared with a slotway that takes over.
        On = "on",
    }
}

choice! {
    /// The format of log lines.
    LogFormat {
        /// Lines for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

choice! {
    /// The treatment of transactions whose keys are in several slots.
    CrossSlot {
        /// Refused with CROSSSLOT.
        Reject = "reject",
        /// Split into one transaction per slot.
        Split = "split",
    }
}

choice! {
    /// The treatment of commands whose keys are in several slots.
    CrossSlotCommand {
        /// Refused with CROSSSLOT.
        Reject = "reject",
        /// Emulated by several commands, each for one slot.
        Emulate = "emulate",
    }
}

choice! {
    /// What is behind slotway.
    UpstreamKind {
        /// A Redis Cluster.
        Cluster = "cluster",
        /// One server, which Sentinels watch.
        Sentinel = "sentinel",
        /// One server, and its replicas.
        Standalone = "standalone",
    }
}

choice! {
    /// The server mode that INFO and HELLO report.
    AnnounceMode {
        /// A server without a cluster.
        Standalone = "standalone",
        /// A node of a cluster.
        Cluster = "cluster",
    }
}

choice! {
    /// The reply to a command whose outcome is unknown.
    OnOutcomeUnknown {
        /// An error with the code OUTCOMEUNKNOWN.
        Error = "error",
        /// None: the client's connection is closed.
        Disconnect = "disconnect",
    }
}

choice! {
    /// The treatment of subscribers that may have missed messages.
    OnGap {
        /// Stay connected.
        Keep = "keep",
        /// Are disconnected, which tells them.
        Disconnect = "disconnect",
    }
}

choice! {
    /// The nodes that answer commands that only read.
    ReadFrom {
        /// The slot's primary.
        Primary = "primary",
        /// A replica, or the primary if no replica can be used.
        PreferReplica = "prefer_replica",
        /// Any node of the shard, all equally likely.
        Any = "any",
        /// The nodes of the shard with the lowest latency.
        LowestLatency = "lowest_latency",
        /// The nodes in slotway's own zone first.
        Zone = "zone",
    }
}

choice! {
    /// The users that clients may log in as.
    Auth {
        /// Slotway's own users; if there are none, no login is required.
        Own = "own",
        /// Slotway's own users, and those of the cluster.
        Passthrough = "passthrough",
    }
}

choice! {
    /// The treatment of reads while their slot's primary is not reached.
    InFailover {
        /// Wait for the primary or its successor.
        Wait = "wait",
        /// Are answered by a replica.
        Read = "read",
    }
}

choice! {
    /// Whether clients present a certificate.
    ClientAuth {
        /// Certificates are not requested.
        None = "none",
        /// A certificate is optional, but has to be valid.
        Optional = "optional",
        /// A valid certificate is required.
        Required = "required",
    }
}

choice! {
    /// The field of a client's certificate that holds the user name.
    UserFrom {
        /// None: certificates do not log clients in.
        None = "none",
        /// The subject's common name.
        Cn = "cn",
        /// The first subject alternative name.
        San = "san",
    }
}

choice! {
    /// The oldest TLS version accepted.
    TlsVersion {
        /// TLS 1.2 and 1.3.
        Tls12 = "1.2",
        /// TLS 1.3 only.
        Tls13 = "1.3",
    }
}

choice! {
    /// The verification of nodes' certificates.
    Verify {
        /// The chain up to a CA, and the node's name.
        Full = "full",
        /// The chain up to a CA.
        Chain = "chain",
        /// No verification.
        None = "none",
    }
}

/// A network: the addresses that share their first `prefix` bits with `ip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address of the network; never an IPv4-mapped IPv6 address.
    ip: IpAddr,
    /// Length of the prefix in bits.
    prefix: u8,
}

impl Network {
    /// Whether `ip` is in the network. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let differ = network.to_bits() ^ ip.to_bits();
                differ.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let differ = network.to_bits() ^ ip.to_bits();
                differ.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// Parses `ip/prefix`, or an IP address, which is a network of one address.
pub(super) fn parse_network(text: &str) -> Result<Network, String> {
    let wanted = "write a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or an IP address";
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| format!("\"{ip}\" is no IP address; {wanted}"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let fits = digits.parse().ok().filter(|prefix| *prefix <= most);
            fits.ok_or(format!("\"/{digits}\" is too long for \"{ip}\"; write /0 to /{most}"))?
        }
        Some(other) => return Err(format!("\"/{other}\" is no length of a prefix; {wanted}")),
    };
    if ip != ip.to_canonical() {
        return Err(format!(
            "\"{ip}\" is an IPv4 address in IPv6; write \"{}\"",
            ip.to_canonical()
        ));
    }
    Ok(Network { ip, prefix })
}

/// Longest path of a Unix socket in bytes (`sun_path` has 108, one of them for the final zero).
const UNIX_PATH_MAX: usize = 107;

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        return parse_address(text, 0).map(Listen::Tcp).map_err(|reason| {
            if text.starts_with('/') { format!("{reason}, or \"unix:{text}\"") } else { reason }
        });
    };
    if path.is_empty() {
        return Err("\"unix:\" has no path; write \"unix:/path/to.sock\"".into());
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "\"{text}\" is too long: the path of a Unix socket has at most {UNIX_PATH_MAX} bytes, \
             this one has {}",
            path.len()
        ));
    }
    Ok(Listen::Unix(path.into()))
}

/// Parses `host:port` or `[v6]:port`, with `least` as the lowest port (0 is valid for listeners
/// only).
pub(super) fn parse_address(text: &str, least: u16) -> Result<Address, String> {
    let wanted = "write \"host:port\" or \"[IPv6 address]:port\"";
    // Does not quote a URL, which may contain a password.
    if text.contains("://") || text.contains('@') {
        let elsewhere = "user and password belong into keys of their own (upstream.user, \
                         upstream.password), TLS into tls";
        return Err(format!("is a URL, or has a user in it; {wanted}; {elsewhere}"));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("\"{text}\" has no port; write \"[{text}]:port\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("\"{text}\" has no port; {wanted}"));
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(format!("\"{text}\" has no IPv6 address in its brackets; {wanted}")),
        None if host.contains(':') => {
            return Err(format!("\"{text}\" is ambiguous; {wanted}, such as \"[::1]:6379\""));
        }
        None => host,
    };
    if host.is_empty() {
        return Err(format!("\"{text}\" has no host; for every address write \"0.0.0.0{text}\""));
    }
    if host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
        return Err(format!("\"{host}\" is neither an IP address nor a DNS name; {wanted}"));
    }
    match port.parse::<u16>() {
        Ok(port) if port >= least => Ok(Address { host: host.into(), port }),
        _ => Err(format!("\"{port}\" is no port; write a number from {least} to 65535")),
    }
}

/// Whether `host` may be a DNS name. Lenient (underscores, a final dot), because DNS decides, but
/// not for misspelt IPv4 addresses: `10.0.0.256` would only fail at run time, as a name that does
/// not resolve.
pub(super) fn is_dns_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let only_numbers = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= 253
        && !only_numbers
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Splits `5s` into 5 and `s`. `Err`: the text does not start with a whole number that fits.
///
/// No crate: `humantime` also takes "5M" (months) and writes 90s as "1m 30s"; `bytesize` also takes
/// "64MB" (64,000,000), "1.5GiB" and "5", and rounds what it writes. To keep a slip an error, and
/// `show_*` readable by `parse_*`, each would need a check as long as this parser.
fn number_and_unit(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("\"{text}\" does not start with a number"));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!("\"{text}\" is not a whole number; use a smaller unit"));
    }
    let number = number.parse().map_err(|_| format!("\"{text}\" is too large"))?;
    Ok((number, unit.trim_start()))
}

const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "write a duration such as \"500ms\", \"5s\", \"2m\" or \"1h\"";
    let (number, unit) = number_and_unit(text).map_err(|reason| format!("{reason}; {WANTED}"))?;
    if number == 0 && unit.is_empty() {
        return Ok(Duration::ZERO);
    }
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit; {WANTED}"));
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("\"{unit}\" is not a unit of time; {WANTED}"));
    };
    let millis = number.checked_mul(*factor).ok_or(format!("\"{text}\" is too long"))?;
    Ok(Duration::from_millis(millis))
}

pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0".into();
    }
    largest_unit(millis, &DURATION_UNITS)
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    const WANTED: &str = "write a size such as \"100B\", \"512KiB\", \"64MiB\" or \"1GiB\"";
    let (number, unit) = number_and_unit(text).map_err(|reason| format!("{reason}; {WANTED}"))?;
    if unit.is_empty() && number == 0 {
        return Ok(0);
    }
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit; {WANTED}"));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_bytes().first() {
            Some(b'g') => "GiB",
            Some(b'm') => "MiB",
            Some(b'k') => "KiB",
            Some(b'b') => "B",
            _ => return Err(format!("\"{unit}\" is not a unit of size; {WANTED}")),
        };
        return Err(format!(
            "\"{unit}\" is not a unit of size; the nearest is \"{meant}\" (\"{number}{meant}\")"
        ));
    };
    number
        .checked_mul(*factor)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or(format!("\"{text}\" is too large"))
}

pub(super) fn show_size(bytes: usize) -> String {
    largest_unit(bytes as u64, &SIZE_UNITS)
}

/// `value` in the largest unit that divides it, so that it reads back to the same value.
fn largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .or(units.last())
        .map_or(String::new(), |(name, factor)| format!("{}{name}", value / factor))
}

pub(super) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Parses a level, or a comma-separated list of levels and `module=level`.
///
/// Checked here because `tracing_subscriber`'s filter takes a misspelt level for a module's name.
pub(super) fn parse_level(text: &str) -> Result<String, String> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let (module, level) = match directive.rsplit_once('=') {
            Some((module, level)) => (Some(module), level),
            None => (None, *directive),
        };
        if !LEVELS.contains(&level) {
            let nearest = super::problem::nearest(level, LEVELS.into_iter());
            let hint =
                nearest.map_or(String::new(), |level| format!("; the nearest is \"{level}\""));
            return Err(format!("\"{level}\" is not a level ({}){hint}", LEVELS.join(", ")));
        }
        let named = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        if module.is_some_and(|module| module.is_empty() || !module.bytes().all(named)) {
            return Err(format!(
                "\"{directive}\" does not name a module; write for example \
                 \"info,slotway::upstream=debug\""
            ));
        }
    }
    Ok(directives.join(","))
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
