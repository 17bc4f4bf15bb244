//! A client's line in CLIENT LIST, in Redis's format.
//!
//! <https://redis.io/docs/latest/commands/client-list/>

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use super::session::Switches;
use super::{Client, Paused, SessionModes};
use crate::cluster::ClientFields;
use crate::resp::Protocol;

/// The fields of a line. Numbers without a counterpart in slotway are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// `CLIENT ID`.
    pub id: u64,
    /// Address of the client.
    pub addr: String,
    /// Address that the client has connected to.
    pub laddr: String,
    /// File descriptor.
    pub fd: i32,
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// Seconds since it connected.
    pub age: u64,
    /// Seconds since it last sent something.
    pub idle: u64,
    /// Flags, one letter each; `N` for none.
    pub flags: String,
    /// SELECT.
    pub database: u16,
    /// Numbers of subscriptions to channels, patterns and shard channels.
    pub subscriptions: [usize; 3],
    /// Number of commands queued after MULTI; `None` outside of a transaction.
    pub queued: Option<usize>,
    /// Memory of those, in bytes.
    pub(super) multi_mem: usize,
    /// Number of bytes of the unfinished request, or of requests that wait while it is not read
    /// from.
    pub(super) qbuf: usize,
    /// Unused capacity of that buffer, in bytes.
    pub(super) qbuf_free: usize,
    /// Number of outstanding replies.
    pub(super) oll: usize,
    /// Number of bytes of replies not taken.
    pub omem: usize,
    /// Total memory, in bytes.
    pub(super) tot_mem: usize,
    /// The socket is watched for writing.
    pub writing: bool,
    /// The last command.
    pub cmd: String,
    /// The user.
    pub user: String,
    /// The client uses RESP3.
    pub resp3: bool,
    /// `CLIENT SETINFO LIB-NAME`.
    pub(super) lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub(super) lib_ver: Vec<u8>,
    /// `CLIENT CAPA`, one letter each.
    pub capa: &'static str,
    /// Number of watched keys.
    pub watched: usize,
    /// Traffic of the connection.
    pub traffic: Traffic,
}

/// Traffic of a client's connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of bytes received from the client.
    pub bytes_in: u64,
    /// Number of bytes sent to the client.
    pub bytes_out: u64,
    /// Number of commands received.
    pub commands: u64,
}

impl Line {
    /// The line of `client` at `now`, in microseconds of its worker's clock. `database`: as the
    /// client calls it; `cmd`: name of its last command.
    pub fn of(client: &Client, database: u16, now: u64, cmd: &str, traffic: Traffic) -> Line {
        let session = &client.session;
        let (addr, laddr) = client.addresses();
        let library = session.library.as_deref().cloned().unwrap_or_default();
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
            database,
            subscriptions: client
                .subscriptions
                .as_ref()
                .map_or([0; 3], |s| s.counts.map(|n| n as usize)),
            queued: client.multi.as_ref().map(|m| m.queue.len()),
            multi_mem: client.multi.as_ref().map_or(0, |m| m.memory()),
            qbuf: client.tail.len(),
            qbuf_free: client.tail.capacity() - client.tail.len(),
            oll: client.replies.as_ref().map_or(0, |r| r.waiting()),
            omem: client.output(),
            tot_mem: size_of::<Client>() + client.memory(),
            writing: client.watching,
            cmd: cmd.to_owned(),
            user: session.account.as_ref().map_or("default", |a| a.name()).to_owned(),
            resp3: session.protocol == Protocol::Resp3,
            lib_name: library.name,
            lib_ver: library.version,
            capa: if library.takes_redirects { "r" } else { "" },
            watched: client.lent.as_ref().map_or(0, |l| l.watched()),
            traffic,
        }
    }

    /// Whether the client has subscriptions.
    pub(super) fn is_pubsub(&self) -> bool {
        self.subscriptions != [0; 3]
    }

    /// Appends the line and a line end, with the optional `fields` that the cluster's servers have.
    pub fn write(&self, fields: ClientFields, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "id={} addr={} laddr={} fd={} name=",
            self.id, self.addr, self.laddr, self.fd
        );
        out.extend_from_slice(&self.name);
        let [sub, psub, ssub] = self.subscriptions;
        let multi = self.queued.map_or(-1, |n| n as i64);
        let _ = write!(out, " age={} idle={} flags={}", self.age, self.idle, self.flags);
        if fields.capa {
            let _ = write!(out, " capa={}", self.capa);
        }
        let db = self.database;
        let _ = write!(out, " db={db} sub={sub} psub={psub} ssub={ssub} multi={multi}");
        if fields.watch {
            let _ = write!(out, " watch={}", self.watched);
        }
        let _ = write!(
            out,
            " qbuf={} qbuf-free={} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll={} omem={} \
             tot-mem={} events={} cmd={} user={} redir=-1 resp={} lib-name=",
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
        if fields.io_thread {
            out.extend_from_slice(b" io-thread=0");
        }
        if fields.traffic {
            let Traffic { bytes_in, bytes_out, commands } = self.traffic;
            let _ =
                write!(out, " tot-net-in={bytes_in} tot-net-out={bytes_out} tot-cmds={commands}");
        }
        out.push(b'\n');
    }
}

fn flags(client: &Client) -> String {
    let session = &client.session;
    let lent = client.lent.as_ref();
    let errand = lent.and_then(|l| l.errand.as_ref());
    let blocked = client.paused == Paused::Suspended || errand.is_some_and(|e| e.is_blocking());
    // In the order of Redis.
    let all = [
        (lent.is_some_and(|l| l.monitor), 'O'),
        (session.modes.contains(SessionModes::SUBSCRIBED), 'P'),
        (session.modes.contains(SessionModes::MULTI), 'x'),
        (blocked, 'b'),
        (client.paused.is_final(), 'c'),
        (matches!(client.stream, crate::stream::Stream::Unix(_)), 'U'),
        (session.modes.contains(SessionModes::READONLY), 'r'),
        (session.switches.contains(Switches::NO_EVICT), 'e'),
        (session.switches.contains(Switches::NO_TOUCH), 'T'),
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
            database: 0,
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
        line.write(ClientFields::default(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id=3 addr=127.0.0.1:47308 laddr=127.0.0.1:6380 fd=8 name=me age=9 idle=1 flags=N \
             db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=13 qbuf-free=5 argv-mem=0 multi-mem=0 rbs=0 \
             rbp=0 obl=0 oll=0 omem=0 tot-mem=400 events=r cmd=client|list user=default redir=-1 \
             resp=3 lib-name=redis-py lib-ver=\n"
        );
        let traffic = Traffic { bytes_in: 5, bytes_out: 6, commands: 7 };
        let line = Line { capa: "r", watched: 2, traffic, ..line };
        let all = ClientFields { capa: true, watch: true, io_thread: true, traffic: true };
        let mut out = Vec::new();
        line.write(all, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(" flags=N capa=r db=0 "), "{text}");
        assert!(text.contains(" multi=-1 watch=2 qbuf="), "{text}");
        let end = " lib-ver= io-thread=0 tot-net-in=5 tot-net-out=6 tot-cmds=7\n";
        assert!(text.ends_with(end), "{text}");
    }
}
