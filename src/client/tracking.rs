//! CLIENT TRACKING and related commands: <https://redis.io/docs/latest/commands/client-tracking/>.
//! Tracking is always off.

use crate::errors::Failure;
use crate::resp::{Args, Protocol, strict_i64, write};

/// CLIENT TRACKING: OFF succeeds, ON is refused. A node tracks the keys read by a connection, but
/// slotway's connections to nodes are shared by many clients.
pub(super) fn tracking(args: &Args, out: &mut Vec<u8>) {
    match options(args) {
        Ok(false) => write::simple(out, "OK"),
        Ok(true) => Failure::TrackingNotSupported.write(out),
        Err(failure) => failure.write(out),
    }
}

/// Whether tracking is requested. Options are checked first, as in Redis.
fn options(args: &Args) -> Result<bool, Failure> {
    let mut at = 3;
    while at < args.len() {
        let more = at + 1 < args.len();
        if args.is(at, "redirect") && more {
            at += 1;
            let id = args.get(at).and_then(strict_i64);
            id.ok_or(Failure::NotAnInteger)?;
        } else if args.is(at, "prefix") && more {
            at += 1;
        } else if !["bcast", "optin", "optout", "noloop"].iter().any(|word| args.is(at, word)) {
            return Err(Failure::Syntax);
        }
        at += 1;
    }
    match args {
        _ if args.is(2, "on") => Ok(true),
        _ if args.is(2, "off") => Ok(false),
        _ => Err(Failure::Syntax),
    }
}

/// CLIENT TRACKINGINFO.
pub(super) fn tracking_info(protocol: Protocol, out: &mut Vec<u8>) {
    write::map_header(out, protocol, 3);
    write::bulk(out, b"flags");
    write::header(out, if protocol == Protocol::Resp3 { b'~' } else { b'*' }, 1);
    write::bulk(out, b"off");
    write::bulk(out, b"redirect");
    write::integer(out, -1);
    write::bulk(out, b"prefixes");
    write::array_header(out, 0);
}

/// CLIENT CACHING.
pub(super) fn caching(out: &mut Vec<u8>) {
    Failure::CachingWithoutTracking.write(out);
}
