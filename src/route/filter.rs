//! Removal of secrets from nodes' replies.
//!
//! A secret setting is omitted, not shown as empty: an empty `requirepass` would mean that there is
//! no password. The reply is that of a server without the setting.

use crate::command::{REDACTED, is_secret_setting};
use crate::errors::Failure;
use crate::resp::reply::{elements, text};
use crate::resp::{Args, write};

/// The reply to filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// CONFIG GET: omits secret settings.
    ConfigGet,
    /// ACL LIST: redacts password hashes.
    AclList,
    /// ACL GETUSER: redacts password hashes.
    AclGetUser,
    /// MODULE LIST: omits the modules' arguments.
    ModuleList,
}

impl Filter {
    /// The filter for a command's reply, if there is one.
    pub fn of(args: &Args) -> Option<Filter> {
        let is = |name: &str, sub: &str| args.is(0, name) && args.is(1, sub);
        match () {
            () if is("config", "get") => Some(Filter::ConfigGet),
            () if is("acl", "list") => Some(Filter::AclList),
            () if is("acl", "getuser") => Some(Filter::AclGetUser),
            () if is("module", "list") => Some(Filter::ModuleList),
            () => None,
        }
    }

    /// Whether it also applies to users of the cluster, whatever their rights at the nodes.
    pub fn holds_for_cluster_users(self) -> bool {
        matches!(self, Filter::ConfigGet | Filter::ModuleList)
    }

    /// Appends the reply `frame`, not an error, without its secrets; a malformed one is an error.
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        let kind = frame.first().copied().unwrap_or_default();
        match (self, kind) {
            (Filter::AclGetUser, _) if matches!(frame, b"_\r\n" | b"$-1\r\n" | b"*-1\r\n") => {
                out.extend_from_slice(frame);
            }
            (Filter::ConfigGet, b'*' | b'%') => {
                let kept: Vec<(&[u8], &[u8])> = pairs(frame)
                    .filter(|(name, _)| text(name).is_some_and(|name| !is_secret_setting(name)))
                    .collect();
                write::header(out, kind, if kind == b'%' { kept.len() } else { 2 * kept.len() });
                for (name, value) in kept {
                    out.extend_from_slice(name);
                    out.extend_from_slice(value);
                }
            }
            (Filter::AclList, b'*' | b'~') => {
                write::header(out, kind, elements(frame).count());
                for line in elements(frame) {
                    let line = text(line).unwrap_or_default();
                    write::bulk(out, &without_hashes(line));
                }
            }
            (Filter::AclGetUser, b'*' | b'%') => {
                with_field(frame, b"passwords", out, |hashes, out| {
                    write::array_header(out, elements(hashes).count());
                    elements(hashes).for_each(|_| write::bulk(out, REDACTED.as_bytes()));
                });
            }
            (Filter::ModuleList, b'*' | b'~') => {
                write::header(out, kind, elements(frame).count());
                for module in elements(frame) {
                    with_field(module, b"args", out, |_, out| write::array_header(out, 0));
                }
            }
            _ => Failure::NotFiltered.write(out),
        }
    }
}

/// The pairs of a map, or of the flat array that RESP2 uses instead.
fn pairs(frame: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = elements(frame);
    std::iter::from_fn(move || rest.next().zip(rest.next()))
}

/// Appends a map with another value for the field `name`.
fn with_field(
    frame: &[u8],
    name: &[u8],
    out: &mut Vec<u8>,
    mut value: impl FnMut(&[u8], &mut Vec<u8>),
) {
    let kind = frame.first().copied().filter(|kind| *kind == b'%').unwrap_or(b'*');
    let count = pairs(frame).count();
    write::header(out, kind, if kind == b'%' { count } else { 2 * count });
    for (key, old) in pairs(frame) {
        out.extend_from_slice(key);
        match text(key) == Some(name) {
            true => value(old, out),
            false => out.extend_from_slice(old),
        }
    }
}

/// A line of ACL LIST with `#(redacted)` for each hash.
fn without_hashes(line: &[u8]) -> Vec<u8> {
    let words = line.split(|byte| *byte == b' ').map(|word| match word.first() {
        Some(b'#') => format!("#{REDACTED}").into_bytes(),
        _ => word.to_vec(),
    });
    words.collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(filter: Filter, frame: &str) -> String {
        let mut out = Vec::new();
        filter.write(frame.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secret_settings_are_omitted() {
        let pairs = "$11\r\nrequirepass\r\n$2\r\npw\r\n$3\r\ndir\r\n$1\r\n/\r\n";
        let left = "$3\r\ndir\r\n$1\r\n/\r\n";
        let (two, three) = (format!("*4\r\n{pairs}"), format!("%2\r\n{pairs}"));
        assert_eq!(filtered(Filter::ConfigGet, &two), format!("*2\r\n{left}"));
        assert_eq!(filtered(Filter::ConfigGet, &three), format!("%1\r\n{left}"));
        assert_eq!(filtered(Filter::ConfigGet, "%0\r\n"), "%0\r\n");
    }

    #[test]
    fn hashes_and_arguments_are_redacted() {
        let line = "user a on #0123 ~* +@all";
        let list = format!("*1\r\n${}\r\n{line}\r\n", line.len());
        assert!(filtered(Filter::AclList, &list).contains("user a on #(redacted) ~* +@all\r\n"));
        let user = "%2\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$9\r\npasswords\r\n*1\r\n$4\r\n0123\r\n";
        let told = filtered(Filter::AclGetUser, user);
        assert_eq!(told, user.replace("$4\r\n0123", "$10\r\n(redacted)"));
        for null in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
            assert_eq!(filtered(Filter::AclGetUser, null), null);
        }
        let module = "*1\r\n%2\r\n$4\r\nname\r\n$1\r\nm\r\n$4\r\nargs\r\n*1\r\n$2\r\npw\r\n";
        assert_eq!(
            filtered(Filter::ModuleList, module),
            module.replace("*1\r\n$2\r\npw\r\n", "*0\r\n")
        );
    }

    /// A node may send anything.
    #[test]
    fn unexpected_replies_are_not_passed_on() {
        let all = [Filter::ConfigGet, Filter::AclList, Filter::AclGetUser, Filter::ModuleList];
        for filter in all {
            for frame in ["$2\r\npw\r\n", "+pw\r\n", ":1\r\n", "=6\r\ntxt:pw\r\n"] {
                assert!(filtered(filter, frame).starts_with("-ERR"), "{filter:?} {frame:?}");
            }
            for frame in ["*1\r\n*0\r\n", "*1\r\n$-1\r\n", "*-1\r\n", "%1\r\n:1\r\n:2\r\n"] {
                filtered(filter, frame);
            }
        }
    }
}
