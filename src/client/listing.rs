//! A client's line in CLIENT LIST, field by field as Redis writes it.
//!
//! <https://redis.io/docs/latest/commands/client-list/>

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use super::{Client, Kind, Paused, mode};
use crate::resp::Protocol;

/// What the line tells. Numbers that slotway has no counterpart of are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// `CLIENT ID`.
    pub id: u64,
    /// The client's end.
    pub addr: String,
    /// Slotway's end.
    pub laddr: String,
    /// File descriptor.
    pub fd: i32,
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// Seconds since it connected.
    pub age: u64,
    /// Seconds since it last sent something.
    pub idle: u64,
    /// One letter each; `N` for none.
    pub flags: String,
    /// Channels, patterns and shard channels that it listens to.
    pub subscriptions: [usize; 3],
    /// Commands queued behind MULTI; none outside of one.
    pub queued: Option<usize>,
    /// Bytes of them.
    pub multi_mem: usize,
    /// Bytes of its unfinished request, or of what waits while it is not read from.
    pub qbuf: usize,
    /// Room behind them.
    pub qbuf_free: usize,
    /// Replies that wait behind others.
    pub oll: usize,
    /// Bytes of replies that it has not taken.
    pub omem: usize,
    /// All that it occupies.
    pub tot_mem: usize,
    /// The socket is watched for writing.
    pub writing: bool,
    /// Its last command.
    pub cmd: String,
    /// Who it is.
    pub user: String,
    /// RESP3.
    pub resp3: bool,
    /// `CLIENT SETINFO`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO`.
    pub lib_ver: Vec<u8>,
}

impl Line {
    /// What is known of `client` at `now`, microseconds of its worker's clock; `cmd` is the name of
    /// its last command.
    pub fn of(client: &Client, now: u64, cmd: &str) -> Line {
        let session = &client.session;
        let (addr, laddr) = client.addresses();
        let (lib_name, lib_ver) = session.library.as_deref().cloned().unwrap_or_default();
        let seconds = |since: u64| now.saturating_sub(since) / 1_000_000;
        Line {
            id: session.id,
            addr,
            laddr,
            fd: client.stream.as_fd().as_raw_fd(),
            name: session.name.as_deref().cloned().unwrap_or_default(),
            age: seconds(client.created),
            idle: seconds(client.active),
            flags: flags(client),
            subscriptions: client
                .subscriptions
                .as_ref()
                .map_or([0; 3], |s| s.counts.map(|n| n as usize)),
            queued: client.multi.as_ref().map(|m| m.queue.len()),
            multi_mem: client.multi.as_ref().map_or(0, |m| m.held()),
            qbuf: client.tail.len(),
            qbuf_free: client.tail.capacity() - client.tail.len(),
            oll: client.replies.as_ref().map_or(0, |r| r.waiting()),
            omem: client.output(),
            tot_mem: size_of::<Client>() + client.held(),
            writing: client.watching,
            cmd: cmd.to_owned(),
            user: session.account.as_ref().map_or("default", |a| a.name()).to_owned(),
            resp3: session.protocol == Protocol::Resp3,
            lib_name,
            lib_ver,
        }
    }

    /// It listens to channels.
    pub fn is_pubsub(&self) -> bool {
        self.subscriptions != [0; 3]
    }

    /// Appends the line with its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "id={} addr={} laddr={} fd={} name=",
            self.id, self.addr, self.laddr, self.fd
        );
        out.extend_from_slice(&self.name);
        let [sub, psub, ssub] = self.subscriptions;
        let multi = self.queued.map_or(-1, |n| n as i64);
        let _ = write!(
            out,
            " age={} idle={} flags={} db=0 sub={sub} psub={psub} ssub={ssub} multi={multi} \
             qbuf={} qbuf-free={} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll={} omem={} \
             tot-mem={} events={} cmd={} user={} redir=-1 resp={} lib-name=",
            self.age,
            self.idle,
            self.flags,
            self.qbuf,
            self.qbuf_free,
            self.multi_mem,
            self.oll,
            self.omem,
            self.tot_mem,
            if self.writing { "rw" } else { "r" },
            self.cmd,
            self.user,
            if self.resp3 { 3 } else { 2 },
        );
        out.extend_from_slice(&self.lib_name);
        out.extend_from_slice(b" lib-ver=");
        out.extend_from_slice(&self.lib_ver);
        out.push(b'\n');
    }
}

fn flags(client: &Client) -> String {
    let session = &client.session;
    let lent = client.lent.as_ref();
    let errand = lent.and_then(|l| l.errand.as_ref());
    let blocked = client.paused == Paused::Suspended || errand.is_some_and(|e| e.is_blocking());
    // In Redis's order.
    let all = [
        (lent.is_some_and(|l| l.monitor), 'O'),
        (session.modes & mode::SUBSCRIBED != 0, 'P'),
        (session.modes & mode::MULTI != 0, 'x'),
        (blocked, 'b'),
        (client.paused.is_final(), 'c'),
        (matches!(client.stream, crate::stream::Stream::Unix(_)), 'U'),
        (session.modes & mode::READONLY != 0, 'r'),
        (session.no_evict, 'e'),
        (session.no_touch, 'T'),
    ];
    let set: String = all.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_in_redis_order() {
        let line = Line {
            id: 3,
            addr: "127.0.0.1:47308".into(),
            laddr: "127.0.0.1:6380".into(),
            fd: 8,
            name: b"me".to_vec(),
            age: 9,
            idle: 1,
            flags: "N".into(),
            qbuf: 13,
            qbuf_free: 5,
            tot_mem: 400,
            cmd: "client|list".into(),
            user: "default".into(),
            resp3: true,
            lib_name: b"redis-py".to_vec(),
            ..Line::default()
        };
        let mut out = Vec::new();
        line.write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id=3 addr=127.0.0.1:47308 laddr=127.0.0.1:6380 fd=8 name=me age=9 idle=1 flags=N \
             db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=13 qbuf-free=5 argv-mem=0 multi-mem=0 rbs=0 \
             rbp=0 obl=0 oll=0 omem=0 tot-mem=400 events=r cmd=client|list user=default redir=-1 \
             resp=3 lib-name=redis-py lib-ver=\n"
        );
    }
}
