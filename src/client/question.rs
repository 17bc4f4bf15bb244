//! Questions about all clients: CLIENT LIST, KILL, PAUSE, UNPAUSE and UNBLOCK. A request is parsed
//! into a [`Question`], or the error of a Redis 7.0 server. Not here: the clients
//! ([`crate::worker`]).

use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listing::Line;
use crate::cluster::{Identity, Product};
use crate::errors::Failure;
use crate::resp::{Args, strict_i64};

/// A request to all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// CLIENT LIST: return the lines of clients.
    List(Selection),
    /// CLIENT KILL: close the clients that match.
    Kill {
        /// The filter.
        filter: Filter,
        /// `CLIENT KILL addr:port`, whose reply is OK instead of a number.
        old_form: bool,
    },
    /// CLIENT PAUSE.
    Pause(Pause),
    /// Send a line to clients in MONITOR mode; there is no reply.
    Show {
        /// The line.
        line: Arc<[u8]>,
        /// The requesting client's next command waits until all workers have it.
        waits: bool,
    },
    /// CLIENT UNPAUSE.
    Unpause,
    /// PROXY HOTKEYS and PROXY BIGKEYS.
    Seen {
        /// Which statistics.
        what: crate::observe::KeyReport,
        /// Maximum number of entries.
        count: usize,
        /// Reset the statistics afterwards.
        reset: bool,
    },
    /// CLIENT UNBLOCK: end a blocking command.
    Unblock {
        /// ID of the client.
        id: u64,
        /// With an error instead of a timeout.
        error: bool,
    },
}

/// The syntax of CLIENT LIST and CLIENT KILL that the cluster's servers accept, in ascending order.
/// <https://redis.io/docs/latest/commands/client-kill/>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grammar {
    /// LIST with TYPE or ID, KILL with one ID and a few filters.
    Redis70,
    /// KILL with MAXAGE.
    Redis74,
    /// And the client type `primary`.
    Valkey80,
    /// And KILL with several IDs, LIST with the filters of KILL.
    Valkey81,
    /// And more filters, and their negations.
    Valkey90,
}

impl Grammar {
    /// The syntax of servers with this identity.
    pub fn of(identity: &Identity) -> Grammar {
        match (identity.product, identity.version) {
            (Product::Valkey, (9.., _)) => Grammar::Valkey90,
            (Product::Valkey, (8, 1..)) => Grammar::Valkey81,
            (Product::Valkey, (8.., _)) => Grammar::Valkey80,
            (Product::Redis, (8.., _) | (7, 4..)) => Grammar::Redis74,
            _ => Grammar::Redis70,
        }
    }
}

/// The clients that CLIENT LIST shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those that match the filter.
    Matching(Filter),
    /// Those with these IDs, in this order, repeated as named.
    Ids(Ids),
}

/// Client IDs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    asked: Vec<u64>,
    /// The IDs, sorted for lookup: a request may name a million.
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

/// The type of a client in CLIENT commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClientKind {
    Normal,
    PubSub,
    /// Never matches in slotway.
    Master,
    /// Never matches in slotway.
    Replica,
}

/// A filter for CLIENT KILL and CLIENT LIST: clients that meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    conditions: Vec<Condition>,
    /// The requesting client, which SKIPME excludes.
    skip: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// The client must fail the test.
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Ids(Ids),
    Kind(ClientKind),
    User(Vec<u8>),
    Addr(Vec<u8>),
    LocalAddr(Vec<u8>),
    Ip(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    /// Minimum age of the connection in seconds.
    Age(u64),
    /// Minimum idle time in seconds.
    Idle(u64),
    /// All of these letters are among the client's flags.
    Flags(Vec<u8>),
    /// All of these letters are among the client's capabilities.
    Capa(Vec<u8>),
    /// Database 0, which all clients use.
    Db,
}

/// A pause of commands: <https://redis.io/docs/latest/commands/client-pause/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it ends.
    pub until: Instant,
    /// Pauses all commands, not only those that may change data.
    pub all: bool,
}

impl Pause {
    /// Combines the pause with `other` if that is active: the later end and the stricter mode.
    pub fn joined(self, other: Option<Pause>) -> Pause {
        match other.filter(|o| o.until > Instant::now()) {
            Some(o) => Pause { until: self.until.max(o.until), all: self.all || o.all },
            None => self,
        }
    }
}

/// Maximum duration of a pause: 136 years, which clock arithmetic can represent.
const MAX_PAUSE: Duration = Duration::from_secs(u32::MAX as u64);

impl Question {
    /// Parses CLIENT LIST, KILL, PAUSE, UNPAUSE or UNBLOCK of client `me`. `known`: whether there
    /// may be a user with this name.
    ///
    /// # Errors
    /// The error reply.
    pub fn parse(
        args: &Args,
        grammar: Grammar,
        me: u64,
        known: impl Fn(&[u8]) -> bool,
    ) -> Result<Question, Failure> {
        match args.get(1).unwrap_or_default() {
            sub if sub.eq_ignore_ascii_case(b"list") => list(args, grammar, me, known),
            sub if sub.eq_ignore_ascii_case(b"kill") => kill(args, grammar, me, known),
            sub if sub.eq_ignore_ascii_case(b"pause") => pause(args),
            sub if sub.eq_ignore_ascii_case(b"unblock") => unblock(args),
            _ => Ok(Question::Unpause),
        }
    }
}

fn list(
    args: &Args,
    grammar: Grammar,
    me: u64,
    known: impl Fn(&[u8]) -> bool,
) -> Result<Question, Failure> {
    let selection = if grammar >= Grammar::Valkey81 {
        let mut filter = Filter::default();
        filter.parse(args, grammar, me, known)?;
        Selection::Matching(filter)
    } else if args.len() == 4 && args.is(2, "type") {
        let kind = ClientKind::parse(args.get(3).unwrap_or_default(), grammar)?;
        let mut filter = Filter::default();
        filter.set(false, Test::Kind(kind));
        Selection::Matching(filter)
    } else if args.len() > 3 && args.is(2, "id") {
        let id = |word: &[u8]| strict_i64(word).ok_or(Failure::InvalidClientId);
        // An impossible ID is accepted and matches no client.
        let ids = args.iter().skip(3).map(|w| id(w).map(|n| u64::try_from(n).unwrap_or(0)));
        Selection::Ids(Ids::new(ids.collect::<Result<_, _>>()?))
    } else if args.len() == 2 {
        Selection::Matching(Filter::default())
    } else {
        return Err(Failure::Syntax);
    };
    Ok(Question::List(selection))
}

fn kill(
    args: &Args,
    grammar: Grammar,
    me: u64,
    known: impl Fn(&[u8]) -> bool,
) -> Result<Question, Failure> {
    if args.len() == 3 {
        let addr = args.get(2).unwrap_or_default().to_vec();
        let mut filter = Filter::default();
        filter.set(false, Test::Addr(addr));
        return Ok(Question::Kill { filter, old_form: true });
    }
    let mut filter = Filter { skip: Some(me), ..Filter::default() };
    filter.parse(args, grammar, me, known)?;
    Ok(Question::Kill { filter, old_form: false })
}

impl Filter {
    /// Parses the options from the third argument on.
    fn parse(
        &mut self,
        args: &Args,
        grammar: Grammar,
        me: u64,
        known: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let mut at = 2;
        while let Some(option) = args.get(at) {
            at += 1;
            let option = option.to_ascii_lowercase();
            let positive = option.strip_prefix(b"not-").filter(|_| grammar >= Grammar::Valkey90);
            let (negated, name) = (positive.is_some(), positive.unwrap_or(&option));
            if name == b"id" && grammar >= Grammar::Valkey81 {
                at = self.parse_ids(args, at, negated)?;
                continue;
            }
            let Some(value) = args.get(at) else { return Err(Failure::Syntax) };
            at += 1;
            if name == b"skipme" && !negated {
                self.skip = match () {
                    () if value.eq_ignore_ascii_case(b"yes") => Some(me),
                    () if value.eq_ignore_ascii_case(b"no") => None,
                    () => return Err(Failure::Syntax),
                };
                continue;
            }
            self.set(negated, Test::parse(name, value, negated, grammar, &known)?);
        }
        Ok(())
    }

    /// Parses the numbers behind ID, up to the first argument that is none; returns its index.
    fn parse_ids(&mut self, args: &Args, mut at: usize, negated: bool) -> Result<usize, Failure> {
        if args.get(at).is_none() {
            return Err(Failure::Syntax);
        }
        let mut ids = Vec::new();
        while let Some(id) = args.get(at).and_then(strict_i64) {
            ids.push(valid_id(id)?);
            at += 1;
        }
        let same = |c: &&mut Condition| c.negated == negated && matches!(c.test, Test::Ids(_));
        if let Some(Condition { test: Test::Ids(before), .. }) =
            self.conditions.iter_mut().find(same)
        {
            ids.append(&mut before.asked);
        }
        self.set(negated, Test::Ids(Ids::new(ids)));
        Ok(at)
    }

    /// Sets a condition, replacing one of the same kind.
    fn set(&mut self, negated: bool, test: Test) {
        let kind = discriminant(&test);
        self.conditions.retain(|c| c.negated != negated || discriminant(&c.test) != kind);
        self.conditions.push(Condition { negated, test });
    }
}

fn valid_id(id: i64) -> Result<u64, Failure> {
    let id = u64::try_from(id).ok().filter(|&n| n > 0);
    id.ok_or(Failure::ClientIdNotPositive)
}

/// Letters for the flags of a client.
const FLAGS: &[u8] = b"OSMPxbtRBdcuAUreTIN";
/// Letters for the capabilities of a client.
const CAPABILITIES: &[u8] = b"r";

impl Test {
    fn parse(
        name: &[u8],
        value: &[u8],
        negated: bool,
        grammar: Grammar,
        known: impl Fn(&[u8]) -> bool,
    ) -> Result<Test, Failure> {
        let shown = || Box::from(String::from_utf8_lossy(value));
        let letters = |what: &'static str, all: &[u8]| match value.iter().all(|b| all.contains(b)) {
            true => Ok(value.to_vec()),
            false if negated => {
                let filter = what.to_ascii_uppercase().into();
                Err(Failure::NotInNegatedFilter { what, filter, value: shown() })
            }
            false => Err(Failure::NotInFilter { what, value: shown() }),
        };
        let seconds = |name: &'static str| match strict_i64(value) {
            None => Err(Failure::FieldNotAnInteger { name }),
            Some(n) => match u64::try_from(n) {
                Ok(n @ 1..) => Ok(n),
                _ => Err(Failure::FieldNotPositive { name }),
            },
        };
        let newest = grammar >= Grammar::Valkey90;
        Ok(match name {
            b"id" => {
                let id = strict_i64(value).unwrap_or(0);
                Test::Ids(Ids::new(vec![valid_id(id)?]))
            }
            b"type" => Test::Kind(ClientKind::parse(value, grammar)?),
            b"addr" => Test::Addr(value.to_vec()),
            b"laddr" => Test::LocalAddr(value.to_vec()),
            b"user" if known(value) => Test::User(value.to_vec()),
            b"user" => return Err(Failure::NoSuchUser { user: shown() }),
            b"maxage" if !negated && grammar >= Grammar::Redis74 => Test::Age(seconds("maxage")?),
            b"idle" if !negated && newest => Test::Idle(seconds("idle")?),
            b"name" if newest => Test::Name(value.to_vec()),
            b"lib-name" if newest => Test::LibName(value.to_vec()),
            b"lib-ver" if newest => Test::LibVer(value.to_vec()),
            b"ip" if newest => Test::Ip(value.to_vec()),
            b"flags" if newest => Test::Flags(letters("flags", FLAGS)?),
            b"capa" if newest => Test::Capa(letters("capa", CAPABILITIES)?),
            b"db" if newest => match strict_i64(value).map(i32::try_from) {
                Some(Ok(0)) => Test::Db,
                Some(Ok(_)) if negated => {
                    return Err(Failure::NotInDatabases { name: "NOT-DB" });
                }
                Some(Ok(_)) => return Err(Failure::NotInDatabases { name: "DB" }),
                _ => return Err(Failure::FieldNotAnInteger { name: "DB" }),
            },
            _ => return Err(Failure::Syntax),
        })
    }

    fn is_met_by(&self, line: &Line) -> bool {
        let has_all = |letters: &[u8], of: &str| letters.iter().all(|l| of.as_bytes().contains(l));
        match self {
            Test::Ids(ids) => ids.has(line.id),
            Test::Kind(kind) => kind.is(line),
            Test::User(user) => *user == line.user.as_bytes(),
            Test::Addr(addr) => *addr == line.addr.as_bytes(),
            Test::LocalAddr(addr) => *addr == line.laddr.as_bytes(),
            Test::Ip(ip) => line.addr.rsplit_once(':').is_some_and(|(host, port)| {
                let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
                port != "0" && *ip == host.as_bytes()
            }),
            Test::Name(name) => !line.name.is_empty() && *name == line.name,
            Test::LibName(name) => !line.lib_name.is_empty() && *name == line.lib_name,
            Test::LibVer(version) => !line.lib_ver.is_empty() && *version == line.lib_ver,
            Test::Age(least) => line.age >= *least,
            Test::Idle(least) => line.idle >= *least,
            Test::Flags(letters) => has_all(letters, &line.flags),
            Test::Capa(letters) => has_all(letters, line.capa),
            Test::Db => true,
        }
    }
}

fn pause(args: &Args) -> Result<Question, Failure> {
    if args.len() > 4 {
        return Err(wrong_number(args));
    }
    let all = match args.get(3) {
        None => true,
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => true,
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => false,
        Some(_) => return Err(Failure::PauseMode),
    };
    let timeout = args.get(2).and_then(strict_i64);
    let timeout = timeout.ok_or(Failure::FieldNotAnInteger { name: "timeout" })?;
    let timeout = u64::try_from(timeout).map_err(|_| Failure::NegativeTimeout)?;
    let until = Instant::now() + Duration::from_millis(timeout).min(MAX_PAUSE);
    Ok(Question::Pause(Pause { until, all }))
}

fn unblock(args: &Args) -> Result<Question, Failure> {
    let error = match args.get(3) {
        _ if args.len() > 4 => return Err(wrong_number(args)),
        None => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"timeout") => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"error") => true,
        Some(_) => return Err(Failure::UnblockReason),
    };
    let id = args.get(2).and_then(strict_i64).ok_or(Failure::NotAnInteger)?;
    Ok(Question::Unblock { id: u64::try_from(id).unwrap_or(0), error })
}

fn wrong_number(args: &Args) -> Failure {
    let name = String::from_utf8_lossy(args.get(1).unwrap_or_default()).into();
    Failure::UnknownSubcommandOrArity { name, container: "CLIENT".into() }
}

impl ClientKind {
    fn parse(word: &[u8], grammar: Grammar) -> Result<ClientKind, Failure> {
        const WORDS: [(&str, ClientKind); 6] = [
            ("normal", ClientKind::Normal),
            ("pubsub", ClientKind::PubSub),
            ("master", ClientKind::Master),
            ("replica", ClientKind::Replica),
            ("slave", ClientKind::Replica),
            ("primary", ClientKind::Master),
        ];
        let known = if grammar >= Grammar::Valkey80 { 6 } else { 5 };
        let mut words = WORDS.iter().take(known);
        let found = words.find(|(w, _)| word.eq_ignore_ascii_case(w.as_bytes()));
        let unknown = || Failure::UnknownClientType { name: String::from_utf8_lossy(word).into() };
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
    /// Whether the client may be selected, judging by its ID: building its line takes system calls.
    pub fn may_want(&self, id: u64) -> bool {
        match self {
            Selection::Matching(filter) => filter.may_match(id),
            Selection::Ids(ids) => ids.has(id),
        }
    }

    /// Whether the client is selected.
    pub fn wants(&self, line: &Line) -> bool {
        match self {
            Selection::Matching(filter) => filter.matches(line),
            Selection::Ids(ids) => ids.has(line.id),
        }
    }

    /// Joins the lines: ordered by ID, which is the order of connecting, or as named and repeated.
    pub fn ordered(&self, mut lines: Vec<(u64, Vec<u8>)>) -> Vec<u8> {
        lines.sort_unstable_by_key(|(id, _)| *id);
        match self {
            Selection::Matching(_) => lines.into_iter().flat_map(|(_, line)| line).collect(),
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
    /// Whether the client may match, judging by its ID.
    pub fn may_match(&self, id: u64) -> bool {
        let by_id = |c: &Condition| match &c.test {
            Test::Ids(ids) => ids.has(id) != c.negated,
            _ => true,
        };
        self.skip != Some(id) && self.conditions.iter().all(by_id)
    }

    /// Whether the client meets all conditions.
    pub fn matches(&self, line: &Line) -> bool {
        self.may_match(line.id)
            && self.conditions.iter().all(|c| c.test.is_met_by(line) != c.negated)
    }
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
