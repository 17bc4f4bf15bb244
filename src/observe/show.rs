//! Observations rendered as replies to PROXY and SLOWLOG and as JSON for the admin listener.

use serde_json::{Value, json};

use super::slowlog::{SLOW_LOG_OFF, SlowEntry, SlowLog};
use super::{BigKey, HALF_LIFE, HotKey, HotKeyReport, KeyName};
use crate::cluster::{Snapshot, View};
use crate::command::{CommandId, CommandTable};
use crate::resp::{Protocol, write};

/// Renders hot and big keys with the names of commands and the nodes of slots.
#[derive(Debug, Clone, Copy)]
pub struct Renderer<'a> {
    /// Names of commands.
    pub commands: &'a CommandTable,
    /// Nodes of slots.
    pub snapshot: &'a Snapshot,
    /// What clients see of the upstreams.
    pub view: &'a View,
}

/// Escapes bytes as redis-cli does, without the quotes around them. Printable UTF-8 stays as it is.
pub fn escaped(bytes: &[u8]) -> String {
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(plain)
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for &b in bytes {
        match b {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b'"' | b'\\' => out.extend(['\\', char::from(b)]),
            b' '..=b'~' => out.push(char::from(b)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

impl Renderer<'_> {
    fn command(&self, id: u16) -> &str {
        &self.commands.get(CommandId(id)).name
    }

    /// The node of a key of the clients of the routes. Which upstream a client of another one means
    /// is not known any more.
    fn node(&self, key: &KeyName) -> Option<String> {
        let slot = self.view.space_of(&key.bytes).slot(key.slot.0);
        self.snapshot.primary_of(slot).map(|node| node.addr.to_string())
    }

    /// The body of `/hotkeys`; `sample` is `observe.sample`, 0 if hot keys are switched off.
    pub fn hot_json(&self, hottest: &HotKeyReport, sample: u32, count: usize) -> Value {
        let key = |key: &HotKey| {
            json!({
                "key": escaped(&key.name.bytes),
                "truncated": key.name.truncated,
                "slot": key.name.slot.0,
                "node": self.node(&key.name),
                "per_second": rounded(key.rate),
                "error_per_second": rounded(key.error),
                "reads_per_second": rounded(key.rate - key.writes),
                "writes_per_second": rounded(key.writes),
                "command": self.command(key.command),
            })
        };
        json!({
            "enabled": sample > 0,
            "sample": sample,
            "half_life_seconds": HALF_LIFE / 1_000_000,
            "commands_per_second": rounded(hottest.rate),
            "keys": hottest.keys.iter().take(count).map(key).collect::<Vec<_>>(),
        })
    }

    /// The body of `/bigkeys`.
    pub fn big_json(&self, keys: &[BigKey], enabled: bool, count: usize) -> Value {
        let key = |key: &BigKey| {
            json!({
                "key": escaped(&key.name.bytes),
                "truncated": key.name.truncated,
                "slot": key.name.slot.0,
                "node": self.node(&key.name),
                "bytes": key.bytes,
                "command": self.command(key.command),
                "direction": direction(key),
                "seen_seconds_ago": rounded(key.seen as f64 / 1e6),
            })
        };
        json!({
            "enabled": enabled,
            "keys": keys.iter().take(count).map(key).collect::<Vec<_>>(),
        })
    }

    /// Writes the reply to PROXY HOTKEYS.
    pub fn hot_reply(&self, keys: &[HotKey], protocol: Protocol, out: &mut Vec<u8>) {
        write::array_header(out, keys.len());
        for key in keys {
            write::map_header(out, protocol, 7);
            write::bulk(out, b"key");
            write::bulk(out, &key.name.bytes);
            for (name, rate) in [
                ("per-second", key.rate),
                ("error-per-second", key.error),
                ("reads-per-second", key.rate - key.writes),
                ("writes-per-second", key.writes),
            ] {
                write::bulk(out, name.as_bytes());
                write::double(out, protocol, rounded(rate));
            }
            self.command_and_node(key.command, &key.name, out);
        }
    }

    /// Writes the reply to PROXY BIGKEYS.
    pub fn big_reply(&self, keys: &[BigKey], protocol: Protocol, out: &mut Vec<u8>) {
        write::array_header(out, keys.len());
        for key in keys {
            write::map_header(out, protocol, 6);
            write::bulk(out, b"key");
            write::bulk(out, &key.name.bytes);
            write::bulk(out, b"bytes");
            write::integer(out, key.bytes as i64);
            write::bulk(out, b"direction");
            write::bulk(out, direction(key).as_bytes());
            write::bulk(out, b"seen-seconds-ago");
            write::integer(out, (key.seen / 1_000_000) as i64);
            self.command_and_node(key.command, &key.name, out);
        }
    }

    fn command_and_node(&self, command: u16, key: &KeyName, out: &mut Vec<u8>) {
        write::bulk(out, b"command");
        write::bulk(out, self.command(command).as_bytes());
        write::bulk(out, b"node");
        write::bulk(out, self.node(key).unwrap_or_default().as_bytes());
    }
}

fn direction(key: &BigKey) -> &'static str {
    if key.reply { "reply" } else { "request" }
}

fn arguments(out: &mut Vec<u8>, args: &[Vec<u8>]) {
    write::array_header(out, args.len());
    args.iter().for_each(|arg| write::bulk(out, arg));
}

/// Writes the reply to SLOWLOG GET in the form of a Redis server, or with `more` the reply to PROXY
/// SLOWLOG GET, which has the parts of each duration.
///
/// <https://redis.io/docs/latest/commands/slowlog-get/>
pub fn slow_reply(entries: &[SlowEntry], more: Option<Protocol>, out: &mut Vec<u8>) {
    write::array_header(out, entries.len());
    for entry in entries {
        let took = &entry.took;
        let Some(protocol) = more else {
            write::array_header(out, 6);
            for n in [entry.id, entry.time, took.total] {
                write::integer(out, n as i64);
            }
            arguments(out, &entry.args);
            write::bulk(out, entry.client.as_bytes());
            write::bulk(out, &entry.client_name);
            continue;
        };
        write::map_header(out, protocol, 11);
        for (name, n) in [
            ("id", entry.id),
            ("time", entry.time),
            ("duration", took.total),
            ("queue", took.queue),
            ("node-time", took.node),
            ("client-time", took.client),
            ("tries", u64::from(entry.tries)),
        ] {
            write::bulk(out, name.as_bytes());
            write::integer(out, n as i64);
        }
        write::bulk(out, b"args");
        arguments(out, &entry.args);
        for (name, text) in [
            ("node", entry.node.as_bytes()),
            ("client", entry.client.as_bytes()),
            ("client-name", &entry.client_name),
        ] {
            write::bulk(out, name.as_bytes());
            write::bulk(out, text);
        }
    }
}

impl SlowLog {
    /// The body of `/slowlog`.
    pub fn json(&self, count: usize) -> Value {
        let entry = |entry: &SlowEntry| {
            json!({
                "id": entry.id,
                "time": entry.time,
                "duration_micros": entry.took.total,
                "queue_micros": entry.took.queue,
                "node_micros": entry.took.node,
                "client_micros": entry.took.client,
                "node": entry.node,
                "tries": entry.tries,
                "command": entry.command,
                "args": entry.args.iter().map(|arg| escaped(arg)).collect::<Vec<_>>(),
                "client": entry.client,
                "client_name": escaped(&entry.client_name),
            })
        };
        let slower_than = match self.slower_than() {
            SLOW_LOG_OFF => -1,
            micros => i64::try_from(micros).unwrap_or(i64::MAX),
        };
        json!({
            "slower_than_micros": slower_than,
            "max_len": self.max_len(),
            "len": self.len(),
            "total": self.total(),
            "entries": self.newest(count).iter().map(entry).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_redis_cli_shows_them() {
        assert_eq!(escaped("user:1 ä".as_bytes()), "user:1 ä");
        assert_eq!(escaped(b"a\0b\n\"\\\xff"), "a\\x00b\\n\\\"\\\\\\xff");
        assert_eq!(escaped("ä\n".as_bytes()), "\\xc3\\xa4\\n");
    }

    #[test]
    fn slow_entries_in_redis_s_form_and_in_ours() {
        let entry = SlowEntry {
            id: 7,
            time: 8,
            took: super::super::TimeBreakdown { queue: 1, node: 2, client: 3, total: 6 },
            node: "n:1".into(),
            args: vec![b"GET".to_vec()],
            client: "c:2".into(),
            ..SlowEntry::default()
        };
        let mut out = Vec::new();
        slow_reply(std::slice::from_ref(&entry), None, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "*1\r\n*6\r\n:7\r\n:8\r\n:6\r\n*1\r\n$3\r\nGET\r\n$3\r\nc:2\r\n$0\r\n\r\n"
        );
        let mut out = Vec::new();
        slow_reply(&[entry], Some(Protocol::Resp3), &mut out);
        assert!(out.starts_with(b"*1\r\n%11\r\n$2\r\nid\r\n:7\r\n"));
        let whole = crate::resp::tree::decode_whole(&out).expect("a reply");
        let node = whole.items()[0].field("node").and_then(|n| n.text().map(str::to_owned));
        assert_eq!(node.as_deref(), Some("n:1"));
    }
}
