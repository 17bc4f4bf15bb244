//! Connections to the two sides that are compared.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::frame::{self, Reader};
use super::grammar::Command;

/// No reply in this time means that none will come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct End {
    name: String,
    stream: TcpStream,
    replies: Reader,
}

impl End {
    pub fn open(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let replies = Reader::new(stream.try_clone().unwrap());
        End { name: addr.to_string(), stream, replies }
    }

    /// The same, in this protocol.
    pub fn speaking(protocol: u8, addr: &str) -> Self {
        let mut end = End::open(addr);
        if protocol != 2 {
            let hello = end.ask(&Command::words(&["HELLO", &protocol.to_string()]));
            assert_eq!(frame::shape(&hello).get(..1), Some("%"), "HELLO: {}", frame::show(&hello));
        }
        end
    }

    pub fn send(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// The next reply, or why there is none.
    pub fn receive(&mut self) -> Result<Vec<u8>, String> {
        self.replies.next().map_err(|e| format!("{}: {e}", self.name))
    }

    pub fn reply(&mut self, to: &Command, batch: &[Command]) -> Vec<u8> {
        self.receive().unwrap_or_else(|e| {
            let all: Vec<String> = batch.iter().map(Command::show).collect();
            panic!("{e}\nwaiting for the reply to {}\nof\n{}", to.show(), all.join("\n"))
        })
    }

    pub fn ask(&mut self, c: &Command) -> Vec<u8> {
        let mut wire = Vec::new();
        c.wire(&mut wire);
        self.send(&wire);
        self.reply(c, &[])
    }
}

/// The same protocol spoken to both sides.
pub struct Pair {
    /// How this pair differs from others.
    pub name: String,
    pub reference: End,
    through: End,
    /// Commands that were queued by a MULTI and wait for their EXEC.
    pub queued: Vec<Command>,
    /// Whether a transaction may have keys of several slots.
    pub any_slots: bool,
}

impl Pair {
    pub fn open(protocol: u8, reference: &str, through: &str, any_slots: bool) -> Self {
        let name = format!("RESP{protocol}{}", if any_slots { ", split" } else { "" });
        Pair {
            name,
            reference: End::speaking(protocol, reference),
            through: End::speaking(protocol, through),
            queued: Vec::new(),
            any_slots,
        }
    }

    /// The replies to a pipeline, from both sides. `inline` says which are sent as text.
    pub fn both(
        &mut self,
        commands: &[Command],
        inline: impl Fn(usize) -> bool,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut wire = Vec::new();
        for (i, c) in commands.iter().enumerate() {
            if inline(i) { c.inline(&mut wire) } else { c.wire(&mut wire) }
        }
        self.reference.send(&wire);
        self.through.send(&wire);
        let pairs = commands
            .iter()
            .map(|c| (self.reference.reply(c, commands), self.through.reply(c, commands)));
        pairs.collect()
    }

    /// Lets keys expire on both sides: they are over, though perhaps not removed yet.
    pub fn expire(&mut self, keys: &[Vec<u8>]) {
        let expire = keys.iter().map(|key| {
            let mut c = Command::words(&["PEXPIRE", "", "1"]);
            c.args[1] = key.clone();
            c
        });
        let all: Vec<Command> = expire.collect();
        self.both(&all, |_| false);
        std::thread::sleep(Duration::from_millis(5));
    }
}
