//! The commands about the connection that slotway answers itself.

use super::cluster::{self, AnnouncedNode};
use super::databases::{DatabaseTarget, Databases};
use super::session::{Session, SessionModes, Switches};
use super::tracking::{caching, tracking, tracking_info};
use crate::cluster::Identity;
use crate::config::AnnounceMode;
use crate::errors::Failure;
use crate::resp::{Args, Protocol, strict_i64, write};
use crate::route::Local;
use crate::users::{MAX_DATABASES, OWN_REALM};

/// The properties of the proxy that local commands need.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Identity of the upstreams' servers.
    pub identity: &'a Identity,
    /// The databases that are another upstream.
    pub databases: &'a Databases,
    /// The node that cluster clients see.
    pub announced: &'a AnnouncedNode,
    /// The mode that HELLO reports.
    pub announce_mode: AnnounceMode,
}

/// What happens to the connection after the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterReply {
    /// The next command is read.
    Continue,
    /// The connection is closed when the reply is written.
    Close,
}

/// Appends the reply to `out`, with the texts of a standalone Redis 7.0 server.
pub fn answer(
    local: Local,
    args: &Args,
    session: &mut Session,
    context: Context<'_>,
    out: &mut Vec<u8>,
) -> AfterReply {
    match local {
        // The arity in the command table was checked before, and allows this.
        Local::Ping if args.len() > 2 => {
            Failure::WrongArity { command: "ping".into() }.write(out);
        }
        // Subscribers in RESP2 get the reply as a message.
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
            return AfterReply::Close;
        }
        Local::Select => select(args, session, context, out),
        Local::Hello => hello(args, session, context, out),
        // If there are users it was answered before.
        Local::Auth => auth(args, out),
        Local::Reset => {
            session.protocol = Protocol::Resp2;
            session.name = None;
            session.reset_database();
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
            Err(failure) => failure.write(out),
        },
        Local::ClientSetInfo => client_setinfo(args, session, out),
        Local::ClientCapa => {
            // Servers ignore unknown capabilities. They know `redirect`, for replies with
            // redirections from replicas, which slotway never sends.
            if args.iter().skip(2).any(|capability| capability.eq_ignore_ascii_case(b"redirect")) {
                session.library.get_or_insert_default().takes_redirects = true;
            }
            write::simple(out, "OK");
        }
        Local::ClientSwitch => {
            // Slotway evicts no clients, and the nodes cannot tell clients apart: the switch only
            // changes a letter in CLIENT LIST.
            let on = args.is(2, "on");
            if !on && !args.is(2, "off") {
                Failure::Syntax.write(out);
                return AfterReply::Continue;
            }
            let switch = match args.is(1, "no-evict") {
                true => Switches::NO_EVICT,
                false => Switches::NO_TOUCH,
            };
            session.switches.set(switch, on);
            write::simple(out, "OK");
        }
        Local::Cluster => cluster::answer(args, session.protocol, context.announced, out),
        Local::ClusterMyShardId => write::bulk(out, context.announced.shard_id().as_bytes()),
        Local::ReadOnly => {
            session.modes.insert(SessionModes::READONLY);
            write::simple(out, "OK");
        }
        Local::ReadWrite => {
            session.read_write();
            write::simple(out, "OK");
        }
        // The one node that clients see never migrates a slot.
        Local::Asking => write::simple(out, "OK"),
        Local::ClientTracking => tracking(args, out),
        Local::ClientTrackingInfo => tracking_info(session.protocol, out),
        Local::ClientCaching => caching(out),
        Local::ClientGetRedir => write::integer(out, -1),
        // Answered by the worker, as they concern more than this session.
        Local::ClientInfo | Local::ClientReply | Local::ClientEveryone => {}
        Local::SlowLog | Local::Proxy => {}
    }
    AfterReply::Continue
}

/// Whether the client is subscribed and uses RESP2, which has no pushes.
fn is_subscriber(session: &Session) -> bool {
    session.modes.contains(SessionModes::SUBSCRIBED) && session.protocol == Protocol::Resp2
}

fn select(args: &Args, session: &mut Session, context: Context<'_>, out: &mut Vec<u8>) {
    let of_user = session.account.as_ref().is_some_and(|account| account.realm != OWN_REALM);
    match args.get(1).and_then(strict_i64) {
        None => Failure::NotAnInteger.write(out),
        Some(number) if i32::try_from(number).is_err() => Failure::NotAnInt32.write(out),
        Some(number) => {
            let target = u16::try_from(number).ok().map(|n| context.databases.target(session, n));
            let databases =
                |target: &DatabaseTarget| context.identity.databases_of(target.upstream);
            let exists =
                |target: &DatabaseTarget| target.database < databases(target).min(MAX_DATABASES);
            match target {
                Some(target) if exists(&target) && target.database != 0 && of_user => {
                    Failure::DatabaseOfUser.write(out);
                }
                Some(target) if exists(&target) => {
                    session.view = context.databases.view(session, target);
                    session.database = target.database;
                    write::simple(out, "OK");
                }
                Some(target) if databases(&target) == 1 && number < 16 => {
                    Failure::OnlyDatabase0.write(out);
                }
                _ => Failure::NoSuchDatabase.write(out),
            }
        }
    }
}

/// Without users, slotway behaves like a server whose default user has no password.
fn auth(args: &Args, out: &mut Vec<u8>) {
    match args.len() {
        2 => Failure::NoPasswordExpected.write(out),
        3 if args.get(1) == Some(b"default") => write::simple(out, "OK"),
        3 => Failure::WrongPassword.write(out),
        _ => Failure::Syntax.write(out),
    }
}

/// <https://redis.io/docs/latest/commands/hello/>
fn hello(args: &Args, session: &mut Session, context: Context<'_>, out: &mut Vec<u8>) {
    let mut protocol = session.protocol;
    let mut at = 1;
    if let Some(version) = args.get(1) {
        protocol = match strict_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Failure::NoSuchProtocol.write(out),
            None => return Failure::ProtocolNotAnInteger.write(out),
        };
        at = 2;
    }
    while at < args.len() {
        let more = args.len() - 1 - at;
        if args.is(at, "auth") && more >= 2 {
            // If there are users it was checked before.
            if session.account.is_none() && args.get(at + 1) != Some(b"default") {
                return Failure::WrongPassword.write(out);
            }
            at += 3;
        } else if args.is(at, "setname") && more >= 1 {
            match valid_name(args.get(at + 1).unwrap_or_default()) {
                // As in Redis, the name stays even if a later option is wrong.
                Ok(valid) => session.name = valid.map(|name| Box::new(name.into_vec())),
                Err(failure) => return failure.write(out),
            }
            at += 2;
        } else {
            let option = String::from_utf8_lossy(args.get(at).unwrap_or_default()).into();
            return Failure::HelloOption { option }.write(out);
        }
    }
    if session.account.as_ref().is_some_and(|account| !account.is_authenticated()) {
        return Failure::LogInWithHello.write(out);
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

/// Maximum length of a name in bytes. Unlike in Redis it is limited, as names are kept while the
/// client is connected and shown in every CLIENT LIST.
const MAX_NAME: usize = 4096;

/// Validates a client's name; an empty one removes the name.
fn valid_name(name: &[u8]) -> Result<Option<Box<[u8]>>, Failure> {
    if name.len() > MAX_NAME {
        return Err(Failure::ClientNameTooLong);
    }
    if !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Err(Failure::ClientNameInvalid);
    }
    Ok(if name.is_empty() { None } else { Some(name.into()) })
}

/// <https://redis.io/docs/latest/commands/client-setinfo/>: newer than Redis 7.0, but every client
/// library sends it.
fn client_setinfo(args: &Args, session: &mut Session, out: &mut Vec<u8>) {
    let value = args.get(3).unwrap_or_default();
    let option = args.get(2).unwrap_or_default();
    if !value.iter().all(|b| (b'!'..=b'~').contains(b)) {
        let option = String::from_utf8_lossy(option).into();
        return Failure::ClientInfoInvalid { option }.write(out);
    }
    if value.len() > MAX_NAME {
        return Failure::LibNameTooLong.write(out);
    }
    let library = session.library.get_or_insert_default();
    if args.is(2, "lib-name") {
        library.name = value.to_vec();
    } else if args.is(2, "lib-ver") {
        library.version = value.to_vec();
    } else {
        let option = String::from_utf8_lossy(option).into();
        return Failure::UnknownOption { option }.write(out);
    }
    write::simple(out, "OK");
}
