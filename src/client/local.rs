//! The commands that slotway answers itself: those about the connection.

use super::cluster::{self, Announced};
use super::session::{Session, mode};
use super::tracking::{caching, tracking, tracking_info};
use crate::cluster::Identity;
use crate::config::AnnounceMode;
use crate::resp::{Args, Protocol, strict_i64, write};
use crate::route::Local;
use crate::users::WRONG_PASSWORD;

/// What a local command needs to know of the proxy.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What the cluster's servers are.
    pub identity: &'a Identity,
    /// What cluster clients are told.
    pub announced: &'a Announced,
    /// The mode that clients are told.
    pub announce_mode: AnnounceMode,
}

/// What happens after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next command.
    Go,
    /// The connection closes when the answer is written.
    Close,
}

/// Appends the answer to `out`. The texts are those of a standalone Redis 7.0 server.
pub fn answer(
    local: Local,
    args: &Args,
    session: &mut Session,
    context: Context<'_>,
    out: &mut Vec<u8>,
) -> After {
    match local {
        // The table's arity was looked at before, and leaves this open.
        Local::Ping if args.len() > 2 => {
            write::error(out, "ERR wrong number of arguments for 'ping' command");
        }
        // What a subscriber reads are messages: this looks like one.
        Local::Ping if is_subscriber(session) => {
            write::array_header(out, 2);
            write::bulk(out, b"pong");
            write::bulk(out, args.get(1).unwrap_or_default());
        }
        Local::Ping => match args.get(1) {
            Some(text) => write::bulk(out, text),
            None => write::simple(out, "PONG"),
        },
        Local::Echo => write::bulk(out, args.get(1).unwrap_or_default()),
        Local::Quit => {
            write::simple(out, "OK");
            return After::Close;
        }
        Local::Select => select(args, out),
        Local::Hello => hello(args, session, context, out),
        // With users it was answered before.
        Local::Auth => auth(args, out),
        Local::Reset => {
            session.protocol = Protocol::Resp2;
            session.name = None;
            session.reset_modes();
            write::simple(out, "RESET");
        }
        Local::ClientId => write::integer(out, session.id as i64),
        Local::ClientGetName => match &session.name {
            Some(name) => write::bulk(out, name),
            None => write::null(out, session.protocol),
        },
        Local::ClientSetName => match valid_name(args.get(2).unwrap_or_default()) {
            Ok(name) => {
                session.name = name.map(|name| Box::new(name.into_vec()));
                write::simple(out, "OK");
            }
            Err(text) => write::error(out, text),
        },
        Local::ClientSetInfo => client_setinfo(args, session, out),
        Local::ClientCapa => {
            // What a server does not know it ignores. Redirections of a replica are what it knows,
            // and slotway never answers with one.
            if args.iter().skip(2).any(|capability| capability.eq_ignore_ascii_case(b"redirect")) {
                session.library.get_or_insert_default().takes_redirects = true;
            }
            write::simple(out, "OK");
        }
        Local::ClientSwitch => {
            // Slotway evicts no clients, and the nodes cannot tell whose commands they are: all that
            // is switched is a letter in CLIENT LIST.
            let on = args.is(2, "on");
            if !on && !args.is(2, "off") {
                write::error(out, "ERR syntax error");
                return After::Go;
            }
            if args.is(1, "no-evict") {
                session.no_evict = on;
            } else {
                session.no_touch = on;
            }
            write::simple(out, "OK");
        }
        Local::Cluster => cluster::answer(args, session.protocol, context.announced, out),
        Local::ClusterMyShardId => write::bulk(out, context.announced.shard_id().as_bytes()),
        Local::ReadOnly => {
            session.modes |= mode::READONLY;
            write::simple(out, "OK");
        }
        Local::ReadWrite => {
            session.read_write();
            write::simple(out, "OK");
        }
        // No slot of the one node that clients see is ever on its way to another.
        Local::Asking => write::simple(out, "OK"),
        Local::ClientTracking => tracking(args, out),
        Local::ClientTrackingInfo => tracking_info(session.protocol, out),
        Local::ClientCaching => caching(out),
        Local::ClientGetRedir => write::integer(out, -1),
        // They are about more than this session: the worker's.
        Local::ClientInfo | Local::ClientReply | Local::ClientEveryone => {}
        Local::SlowLog | Local::Proxy => {}
    }
    After::Go
}

/// It is subscribed, and in the protocol that knows no pushes.
fn is_subscriber(session: &Session) -> bool {
    session.modes & mode::SUBSCRIBED != 0 && session.protocol == Protocol::Resp2
}

fn select(args: &Args, out: &mut Vec<u8>) {
    match args.get(1).and_then(strict_i64) {
        None => write::error(out, "ERR value is not an integer or out of range"),
        Some(0) => write::simple(out, "OK"),
        Some(1..16) => write::error(
            out,
            "ERR SELECT is not allowed in cluster mode (the Redis Cluster behind slotway has only \
             database 0)",
        ),
        Some(number) if i32::try_from(number).is_err() => write::error(
            out,
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ),
        Some(_) => write::error(out, "ERR DB index is out of range"),
    }
}

/// Without users of its own slotway is a server whose default user has no password.
fn auth(args: &Args, out: &mut Vec<u8>) {
    match args.len() {
        2 => write::error(
            out,
            "ERR AUTH <password> called without any password configured for the default user. Are \
             you sure your configuration is correct?",
        ),
        3 if args.get(1) == Some(b"default") => write::simple(out, "OK"),
        3 => write::error(out, WRONG_PASSWORD),
        _ => write::error(out, "ERR syntax error"),
    }
}

const LOG_IN_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, \
                            otherwise the HELLO AUTH <user> <pass> option can be used to \
                            authenticate the client and select the RESP protocol version at the \
                            same time";

/// <https://redis.io/docs/latest/commands/hello/>
fn hello(args: &Args, session: &mut Session, context: Context<'_>, out: &mut Vec<u8>) {
    let mut protocol = session.protocol;
    let mut at = 1;
    if let Some(version) = args.get(1) {
        protocol = match strict_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return write::error(out, "NOPROTO unsupported protocol version"),
            None => {
                let text = "ERR Protocol version is not an integer or out of range";
                return write::error(out, text);
            }
        };
        at = 2;
    }
    while at < args.len() {
        let more = args.len() - 1 - at;
        if args.is(at, "auth") && more >= 2 {
            // With users it was looked at before.
            if session.account.is_none() && args.get(at + 1) != Some(b"default") {
                return write::error(out, WRONG_PASSWORD);
            }
            at += 3;
        } else if args.is(at, "setname") && more >= 1 {
            match valid_name(args.get(at + 1).unwrap_or_default()) {
                // As in Redis it stays, whatever comes behind it.
                Ok(valid) => session.name = valid.map(|name| Box::new(name.into_vec())),
                Err(text) => return write::error(out, text),
            }
            at += 2;
        } else {
            let option = String::from_utf8_lossy(args.get(at).unwrap_or_default()).into_owned();
            return write::error(out, &format!("ERR Syntax error in HELLO option '{option}'"));
        }
    }
    if session.account.as_ref().is_some_and(|account| !account.is_in()) {
        return write::error(out, LOG_IN_FIRST);
    }
    session.protocol = protocol;
    write::map_header(out, protocol, 7);
    let mut pair = |key: &str, value: &str| {
        write::bulk(out, key.as_bytes());
        write::bulk(out, value.as_bytes());
    };
    pair("server", &context.identity.hello_server);
    pair("version", &context.identity.hello_version);
    write::bulk(out, b"proto");
    write::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    write::bulk(out, b"id");
    write::integer(out, session.id as i64);
    let mut pair = |key: &str, value: &str| {
        write::bulk(out, key.as_bytes());
        write::bulk(out, value.as_bytes());
    };
    pair(
        "mode",
        match context.announce_mode {
            AnnounceMode::Standalone => "standalone",
            AnnounceMode::Cluster => "cluster",
        },
    );
    pair("role", "master");
    write::bulk(out, b"modules");
    context.identity.write_modules(protocol, out);
}

/// What a client says of itself is kept while it is connected, and shown in every CLIENT LIST:
/// bounded, unlike Redis's.
const LONGEST_NAME: usize = 4096;

/// A client's name; an empty one takes the name away.
fn valid_name(name: &[u8]) -> Result<Option<Box<[u8]>>, &'static str> {
    if name.len() > LONGEST_NAME {
        return Err("ERR Client names may have at most 4096 bytes behind slotway.");
    }
    if !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    Ok(if name.is_empty() { None } else { Some(name.into()) })
}

/// <https://redis.io/docs/latest/commands/client-setinfo/>, which 7.0 does not have; every client
/// library sends it.
fn client_setinfo(args: &Args, session: &mut Session, out: &mut Vec<u8>) {
    let value = args.get(3).unwrap_or_default();
    let option = args.get(2).unwrap_or_default();
    if !value.iter().all(|b| (b'!'..=b'~').contains(b)) {
        let option = String::from_utf8_lossy(option).into_owned();
        let text = format!("ERR {option} cannot contain spaces, newlines or special characters.");
        return write::error(out, &text);
    }
    if value.len() > LONGEST_NAME {
        let text = "ERR lib-name and lib-ver may have at most 4096 bytes behind slotway.";
        return write::error(out, text);
    }
    let library = session.library.get_or_insert_default();
    if args.is(2, "lib-name") {
        library.name = value.to_vec();
    } else if args.is(2, "lib-ver") {
        library.version = value.to_vec();
    } else {
        let option = String::from_utf8_lossy(option).into_owned();
        return write::error(out, &format!("ERR Unrecognized option '{option}'"));
    }
    write::simple(out, "OK");
}
