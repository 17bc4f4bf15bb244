//! What CLIENT's subcommands ask about all clients: LIST, KILL, PAUSE, UNPAUSE, UNBLOCK. The words
//! of a request become a [`Question`], or the error that a Redis 7.0 server gives.
//! Not here: the clients ([`crate::worker`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listing::Line;
use crate::resp::{Args, strict_i64};

/// What is asked of every worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// CLIENT LIST: their lines.
    List(Selection),
    /// CLIENT KILL: close those that match.
    Kill {
        /// Which ones.
        filter: Filter,
        /// `CLIENT KILL addr:port`, which answers OK rather than how many.
        old_form: bool,
    },
    /// CLIENT PAUSE.
    Pause(Pause),
    /// A line for those who MONITOR; there is nothing to answer.
    Show {
        /// The line.
        line: Arc<[u8]>,
        /// The client's next command waits until all have it.
        waits: bool,
    },
    /// CLIENT UNPAUSE.
    Unpause,
    /// PROXY HOTKEYS and BIGKEYS.
    Seen {
        /// Which.
        what: crate::seen::Kind,
        /// So many at most.
        count: usize,
        /// They are forgotten then.
        reset: bool,
    },
    /// CLIENT UNBLOCK.
    Unblock {
        /// Whose blocking command ends.
        id: u64,
        /// With an error rather than as if its time were over.
        error: bool,
    },
}

/// Which clients CLIENT LIST lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All, or those of a type.
    Kind(Option<ClientKind>),
    /// These.
    Ids(Ids),
}

/// Clients by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    asked: Vec<u64>,
    /// The same in their order: a million may be named, and each client is looked for.
    sorted: Vec<u64>,
}

impl Ids {
    fn new(asked: Vec<u64>) -> Ids {
        let mut sorted = asked.clone();
        sorted.sort_unstable();
        Ids { asked, sorted }
    }

    fn has(&self, id: u64) -> bool {
        self.sorted.binary_search(&id).is_ok()
    }
}

/// What CLIENT calls the type of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClientKind {
    Normal,
    PubSub,
    /// Slotway has none.
    Master,
    /// Slotway has none.
    Replica,
}

/// Which clients CLIENT KILL closes: those that everything given is true of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    id: Option<u64>,
    addr: Option<Vec<u8>>,
    laddr: Option<Vec<u8>>,
    kind: Option<ClientKind>,
    user: Option<Vec<u8>>,
    /// Not this one: whoever asks, unless it said SKIPME no.
    skip: Option<u64>,
}

/// Commands are held back until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// The end.
    pub until: Instant,
    /// All commands, not only those that may change data.
    pub all: bool,
}

impl Pause {
    /// One pause more while `other` is on: the longer, the stricter, as in Redis.
    pub fn joined(self, other: Option<Pause>) -> Pause {
        match other.filter(|o| o.until > Instant::now()) {
            Some(o) => Pause { until: self.until.max(o.until), all: self.all || o.all },
            None => self,
        }
    }
}

/// Longer pauses end after this: 136 years, which no clock's arithmetic minds.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

impl Question {
    /// Understands CLIENT LIST, KILL, PAUSE, UNPAUSE and UNBLOCK as sent by client `me`; `known`: there
    /// may be a user called so.
    ///
    /// # Errors
    /// The error reply.
    pub fn parse(args: &Args, me: u64, known: impl Fn(&[u8]) -> bool) -> Result<Question, String> {
        match args.get(1).unwrap_or_default() {
            sub if sub.eq_ignore_ascii_case(b"list") => list(args),
            sub if sub.eq_ignore_ascii_case(b"kill") => kill(args, me, known),
            sub if sub.eq_ignore_ascii_case(b"pause") => pause(args),
            sub if sub.eq_ignore_ascii_case(b"unblock") => unblock(args),
            _ => Ok(Question::Unpause),
        }
    }
}

fn list(args: &Args) -> Result<Question, String> {
    let selection = if args.len() == 4 && args.is(2, "type") {
        Selection::Kind(Some(ClientKind::parse(args.get(3).unwrap_or_default())?))
    } else if args.len() > 3 && args.is(2, "id") {
        let id = |word: &[u8]| strict_i64(word).ok_or("ERR Invalid client ID");
        // One that no client can have is in the list and finds none.
        let ids = args.iter().skip(3).map(|w| id(w).map(|n| u64::try_from(n).unwrap_or(0)));
        Selection::Ids(Ids::new(ids.collect::<Result<_, _>>()?))
    } else if args.len() == 2 {
        Selection::Kind(None)
    } else {
        return Err(SYNTAX.into());
    };
    Ok(Question::List(selection))
}

fn kill(args: &Args, me: u64, known: impl Fn(&[u8]) -> bool) -> Result<Question, String> {
    if args.len() == 3 {
        let addr = args.get(2).map(<[u8]>::to_vec);
        let filter = Filter { addr, ..Filter::default() };
        return Ok(Question::Kill { filter, old_form: true });
    }
    let mut filter = Filter { skip: Some(me), ..Filter::default() };
    let mut at = 2;
    while at < args.len() {
        let Some(value) = args.get(at + 1) else { return Err(SYNTAX.into()) };
        if args.is(at, "id") {
            let id = strict_i64(value).and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
            filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
        } else if args.is(at, "type") {
            filter.kind = Some(ClientKind::parse(value)?);
        } else if args.is(at, "addr") {
            filter.addr = Some(value.to_vec());
        } else if args.is(at, "laddr") {
            filter.laddr = Some(value.to_vec());
        } else if args.is(at, "user") {
            if !known(value) {
                return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value)));
            }
            filter.user = Some(value.to_vec());
        } else if args.is(at, "skipme") && value.eq_ignore_ascii_case(b"yes") {
            filter.skip = Some(me);
        } else if args.is(at, "skipme") && value.eq_ignore_ascii_case(b"no") {
            filter.skip = None;
        } else {
            return Err(SYNTAX.into());
        }
        at += 2;
    }
    Ok(Question::Kill { filter, old_form: false })
}

fn pause(args: &Args) -> Result<Question, String> {
    if args.len() > 4 {
        return Err(wrong_number(args));
    }
    let all = match args.get(3) {
        None => true,
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => true,
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => false,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    let timeout = args.get(2).and_then(strict_i64);
    let timeout = timeout.ok_or("ERR timeout is not an integer or out of range")?;
    let timeout = u64::try_from(timeout).map_err(|_| "ERR timeout is negative")?;
    let until = Instant::now() + Duration::from_millis(timeout).min(LONGEST);
    Ok(Question::Pause(Pause { until, all }))
}

fn unblock(args: &Args) -> Result<Question, String> {
    let error = match args.get(3) {
        _ if args.len() > 4 => return Err(wrong_number(args)),
        None => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"timeout") => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"error") => true,
        Some(_) => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
    };
    let id = args.get(2).and_then(strict_i64).ok_or(NOT_AN_INTEGER)?;
    Ok(Question::Unblock { id: u64::try_from(id).unwrap_or(0), error })
}

fn wrong_number(args: &Args) -> String {
    format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.",
        String::from_utf8_lossy(args.get(1).unwrap_or_default())
    )
}

impl ClientKind {
    fn parse(word: &[u8]) -> Result<ClientKind, String> {
        const WORDS: [(&str, ClientKind); 5] = [
            ("normal", ClientKind::Normal),
            ("pubsub", ClientKind::PubSub),
            ("master", ClientKind::Master),
            ("replica", ClientKind::Replica),
            ("slave", ClientKind::Replica),
        ];
        let found = WORDS.iter().find(|(w, _)| word.eq_ignore_ascii_case(w.as_bytes()));
        let unknown = || format!("ERR Unknown client type '{}'", String::from_utf8_lossy(word));
        found.map(|(_, kind)| *kind).ok_or_else(unknown)
    }

    fn is(self, line: &Line) -> bool {
        match self {
            ClientKind::Normal => !line.is_pubsub(),
            ClientKind::PubSub => line.is_pubsub(),
            ClientKind::Master | ClientKind::Replica => false,
        }
    }
}

impl Selection {
    /// As far as its number tells, the client's line is wanted: making one asks the kernel.
    pub fn may_want(&self, id: u64) -> bool {
        !matches!(self, Selection::Ids(ids) if !ids.has(id))
    }

    /// The client's line is wanted.
    pub fn wants(&self, line: &Line) -> bool {
        match self {
            Selection::Kind(kind) => kind.is_none_or(|kind| kind.is(line)),
            Selection::Ids(ids) => ids.has(line.id),
        }
    }

    /// The lines in the order that was asked for: by number, which is the order in which they
    /// came, or as named (each as often as named).
    pub fn ordered(&self, mut lines: Vec<(u64, Vec<u8>)>) -> Vec<u8> {
        lines.sort_unstable_by_key(|(id, _)| *id);
        match self {
            Selection::Kind(_) => lines.into_iter().flat_map(|(_, line)| line).collect(),
            Selection::Ids(ids) => {
                let mut text = Vec::new();
                for id in &ids.asked {
                    if let Ok(at) = lines.binary_search_by_key(id, |(id, _)| *id)
                        && let Some((_, line)) = lines.get(at)
                    {
                        text.extend_from_slice(line);
                    }
                }
                text
            }
        }
    }
}

impl Filter {
    /// As far as its number tells, the client is one of those to close.
    pub fn may_match(&self, id: u64) -> bool {
        self.skip != Some(id) && self.id.is_none_or(|wanted| wanted == id)
    }

    /// The client is one of those to close.
    pub fn matches(&self, line: &Line) -> bool {
        self.may_match(line.id)
            && self.kind.is_none_or(|kind| kind.is(line))
            && self.user.as_ref().is_none_or(|user| *user == line.user.as_bytes())
            && self.addr.as_ref().is_none_or(|addr| *addr == line.addr.as_bytes())
            && self.laddr.as_ref().is_none_or(|laddr| *laddr == line.laddr.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ArgRange;

    fn parse(line: &str) -> Result<Question, String> {
        let (mut buf, mut ranges) = (Vec::new(), Vec::new());
        for word in line.split(' ') {
            let start = buf.len() as u32;
            buf.extend_from_slice(word.as_bytes());
            ranges.push(ArgRange { start, end: buf.len() as u32 });
        }
        Question::parse(&Args::new(&buf, &ranges), 7, |user| user == b"default")
    }

    /// The texts are a Redis 7.0.15's; tests/clients.rs compares many more with a running one.
    #[test]
    fn errors() {
        for (line, text) in [
            ("CLIENT LIST TYPE", SYNTAX),
            ("CLIENT LIST TYPE x", "ERR Unknown client type 'x'"),
            ("CLIENT LIST ID 1 x", "ERR Invalid client ID"),
            ("CLIENT LIST TYPE normal ID 3", SYNTAX),
            ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 1 TYPE", SYNTAX),
            ("CLIENT KILL USER foo ID 1", "ERR No such user 'foo'"),
            ("CLIENT KILL ID 1 SKIPME x", SYNTAX),
            ("CLIENT KILL MAXAGE 1", SYNTAX),
            ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE -1", "ERR timeout is negative"),
            ("CLIENT PAUSE 1 x", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
            ("CLIENT UNBLOCK x", NOT_AN_INTEGER),
            ("CLIENT UNBLOCK 1 x", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        ] {
            assert_eq!(parse(line), Err(text.to_owned()), "{line}");
        }
        let text = parse("CLIENT Pause 1 ALL x").unwrap_err();
        let want = "unknown subcommand or wrong number of arguments for 'Pause'. Try CLIENT HELP.";
        assert_eq!(text, format!("ERR {want}"));
    }

    #[test]
    fn who_is_closed() {
        let matching = |words: &str, lines: &[Line]| -> Vec<u64> {
            let Ok(Question::Kill { filter, .. }) = parse(&format!("CLIENT KILL {words}")) else {
                panic!("{words}")
            };
            lines.iter().filter(|l| filter.matches(l)).map(|l| l.id).collect()
        };
        let lines = [6, 7, 8].map(|id| Line {
            id,
            addr: format!("127.0.0.1:{id}"),
            laddr: "127.0.0.1:6380".into(),
            user: "default".into(),
            ..Line::default()
        });
        assert_eq!(matching("TYPE normal", &lines), [6, 8]);
        assert_eq!(matching("TYPE normal SKIPME no", &lines), [6, 7, 8]);
        assert!(matching("TYPE pubsub", &lines).is_empty());
        assert!(matching("TYPE replica SKIPME no", &lines).is_empty());
        assert_eq!(matching("ID 8 ADDR 127.0.0.1:8", &lines), [8]);
        assert!(matching("ID 8 ADDR 127.0.0.1:6", &lines).is_empty());
        assert_eq!(matching("LADDR 127.0.0.1:6380 USER default", &lines), [6, 8]);
        assert!(matching("LADDR 127.0.0.1:1", &lines).is_empty());
        // The old form closes whoever it names, the asker too.
        assert_eq!(matching("127.0.0.1:7", &lines), [7]);
    }

    #[test]
    fn lines_in_the_order_asked() {
        let lines = || vec![(3, b"c".to_vec()), (1, b"a".to_vec()), (2, b"b".to_vec())];
        assert_eq!(Selection::Kind(None).ordered(lines()), b"abc");
        assert_eq!(Selection::Ids(Ids::new(vec![3, 9, 1, 3])).ordered(lines()), b"cac");
    }

    #[test]
    fn the_longer_and_stricter_pause_wins() {
        let at = |ms| Instant::now() + Duration::from_millis(ms);
        let (short, long) = (at(60_000), at(90_000));
        let strict = Pause { until: short, all: true };
        let lax = Pause { until: long, all: false };
        assert_eq!(lax.joined(Some(strict)), Pause { until: long, all: true });
        assert_eq!(strict.joined(Some(lax)), Pause { until: long, all: true });
        let over = Pause { until: Instant::now(), all: true };
        assert_eq!(lax.joined(Some(over)), lax);
        assert!(parse(&format!("CLIENT PAUSE {}", i64::MAX)).is_ok());
    }
}
