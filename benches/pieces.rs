//! What each piece of a command's way costs, alone: scanning, routing, queueing, merging.
//! `make bench-pieces` runs it in less than a minute; figures and method are in benches/README.md.
//! Not here: sockets, and anything that needs a server (that is `make bench`).

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use slotway::buf::{Pool, SendQueue};
use slotway::client::Replies;
use slotway::cluster::{SlotCount, SlotMap, UpstreamId, ViewId, Views, slot_of};
use slotway::command::CommandTable;
use slotway::resp::{
    ArgRange, Args, Protocol, ReplyProgress, ReplyScan, Request, RequestLimits, RequestProgress,
    inline_to_array, scan_request, write,
};
use slotway::route::{Gather, Merge, Router};

/// How much one read of a socket brings.
const PIECE: usize = 64 << 10;
const VALUE: [u8; 64] = [b'v'; 64];
const KEY: &[u8] = b"user:0000012345";

fn main() {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    request_scan(&mut c);
    inline(&mut c);
    reply_scan(&mut c);
    reply_scan_is_linear(&mut c);
    slot(&mut c);
    plan(&mut c);
    routes(&mut c);
    send_queue(&mut c);
    replies(&mut c);
    gather(&mut c);
    c.final_summary();
}

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, args);
    out
}

fn mget(keys: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..keys).map(|i| format!("user:{i:010}")).collect();
    let args: Vec<&[u8]> =
        std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    request(&args)
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::bulk(&mut out, bytes);
    out
}

/// Scans all requests of `buf`, as a worker does with what it has read.
fn scan_all(buf: &[u8], limits: &RequestLimits, ranges: &mut Vec<ArgRange>) -> usize {
    let mut pos = 0;
    while let Some(rest) = buf.get(pos..).filter(|rest| !rest.is_empty()) {
        match scan_request(rest, limits, &mut RequestProgress::default(), ranges) {
            Ok(Request::Array { len } | Request::Inline { len, .. }) => pos += len,
            other => panic!("the bench's own request is {other:?}"),
        }
        black_box(&*ranges);
    }
    pos
}

fn request_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("request scan");
    let limits = RequestLimits::default();
    let mut ranges = Vec::new();
    let get = request(&[b"GET", KEY]);
    for (name, buf) in [
        ("GET", get.clone()),
        ("SET of 64 bytes", request(&[b"SET", KEY, &VALUE])),
        ("64 GETs pipelined", get.repeat(64)),
        ("MGET of 100 keys", mget(100)),
    ] {
        group.throughput(Throughput::Bytes(buf.len() as u64));
        group.bench_function(name, |b| b.iter(|| scan_all(black_box(&buf), &limits, &mut ranges)));
    }

    let large = request(&[b"SET", KEY, &vec![b'v'; 1 << 20]]);
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("SET of 1 MiB in 64 KiB pieces", |b| {
        b.iter(|| {
            let mut progress = RequestProgress::default();
            let mut here = 0;
            loop {
                here = (here + PIECE).min(large.len());
                let buf = black_box(large.get(..here).unwrap_or_default());
                match scan_request(buf, &limits, &mut progress, &mut ranges) {
                    Ok(Request::Incomplete { .. }) if here < large.len() => {}
                    done => return done,
                }
            }
        });
    });
    group.finish();
}

fn inline(c: &mut Criterion) {
    let mut group = c.benchmark_group("inline");
    let limits = RequestLimits::default();
    let (mut ranges, mut out) = (Vec::new(), Vec::new());
    for (name, line) in [
        ("PING", &b"PING\r\n"[..]),
        ("SET key value", b"SET user:0000012345 some-value\r\n"),
        ("SET key \"quoted value\"", b"SET user:0000012345 \"a \\x41 \\n value\"\r\n"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let buf = black_box(line);
                let found =
                    scan_request(buf, &limits, &mut RequestProgress::default(), &mut ranges);
                let Ok(Request::Inline { line, .. }) = found else { panic!("{found:?}") };
                inline_to_array(buf.get(..line).unwrap_or_default(), &mut out)
            });
        });
    }
    group.finish();
}

/// Scans `buf` as it arrives in pieces; gives the number of replies.
fn scan_replies(buf: &[u8], piece: usize) -> usize {
    let (mut scan, mut pos, mut found) = (ReplyScan::default(), 0, 0);
    let mut here = 0;
    while here < buf.len() {
        here = (here + piece).min(buf.len());
        while let Some(rest) = buf.get(pos..here).filter(|rest| !rest.is_empty()) {
            match scan.advance(black_box(rest)) {
                Ok(ReplyProgress::Complete(n)) => {
                    pos += n;
                    found += 1;
                }
                Ok(ReplyProgress::Partial(n)) => {
                    pos += n;
                    break;
                }
                Err(error) => panic!("the bench's own reply: {error}"),
            }
        }
    }
    found
}

fn reply_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply scan");
    let one = bulk(&VALUE);
    let mut fields = Vec::new();
    write::array_header(&mut fields, 20);
    fields.extend(bulk(b"field-name").repeat(20));
    for (name, buf) in [
        ("+OK", b"+OK\r\n".to_vec()),
        ("integer", b":12345\r\n".to_vec()),
        ("bulk of 64 bytes", one.clone()),
        ("64 bulks of 64 bytes", one.repeat(64)),
        ("64 +OK", b"+OK\r\n".repeat(64)),
        ("array of 20", fields),
    ] {
        group.throughput(Throughput::Bytes(buf.len() as u64));
        group.bench_function(name, |b| b.iter(|| scan_replies(&buf, PIECE)));
    }
    group.finish();
}

/// The time per element must not depend on the number of elements.
fn reply_scan_is_linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply scan, array in 64 KiB pieces");
    group.sampling_mode(SamplingMode::Flat);
    for count in [500_000, 1_000_000, 2_000_000] {
        let mut buf = Vec::new();
        write::array_header(&mut buf, count);
        buf.extend(bulk(b"0123456789").repeat(count));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| scan_replies(&buf, PIECE));
        });
    }
    group.finish();
}

fn slot(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot of a key");
    for len in [16, 200] {
        let plain = vec![b'k'; len];
        // The tag is the first eight bytes, whatever the length.
        let mut tagged = b"{user:12}".to_vec();
        tagged.resize(len, b'k');
        group.bench_function(format!("{len} bytes"), |b| b.iter(|| slot_of(black_box(&plain))));
        group.bench_function(format!("{len} bytes with hash tag"), |b| {
            b.iter(|| slot_of(black_box(&tagged)));
        });
    }
    group.finish();
}

fn plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan of a command");
    let router = Router::new(Arc::new(CommandTable::builtin()));
    let mut keys = Vec::new();
    for (name, buf) in [
        ("GET", request(&[b"GET", KEY])),
        ("get", request(&[b"get", KEY])),
        ("SET", request(&[b"SET", KEY, &VALUE])),
        ("MGET of 10 keys", mget(10)),
        ("EVAL", request(&[b"EVAL", b"return redis.call('GET', KEYS[1])", b"1", KEY])),
        ("PING", request(&[b"PING"])),
        ("CLIENT SETINFO", request(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis-py"])),
        ("an unknown name", request(&[b"NOSUCHCMD", KEY])),
    ] {
        let mut ranges = Vec::new();
        scan_all(&buf, &RequestLimits::default(), &mut ranges);
        group.bench_function(name, |b| {
            b.iter(|| {
                let args = black_box(Args::new(&buf, &ranges));
                router.plan(ViewId::ROUTED, router.command(&args), &args, &mut keys)
            });
        });
    }
    group.finish();
}

/// The slot of a key where keys go by their prefix, by the number of routes.
fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot of a key with routes");
    for count in [0, 1, 10, 1000] {
        let map = SlotMap::new(&[SlotCount::Cluster, SlotCount::One]).unwrap();
        let prefixes: Vec<String> = (0..count).map(|i| format!("application-{i}:")).collect();
        let routes = prefixes.iter().map(|prefix| (prefix.as_bytes(), UpstreamId(1)));
        let views = Views::new(map, &["main", "other"], routes, []);
        let view = views.get(ViewId::ROUTED);
        for (name, key) in [("no route", KEY), ("a route", b"application-0:job:1".as_slice())] {
            group.bench_function(format!("{count} routes, {name}"), |b| {
                b.iter(|| view.slot_of(black_box(key)));
            });
        }
    }
    group.finish();
}

fn send_queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("send queue");
    let (mut pool, mut queue) = (Pool::default(), SendQueue::default());
    for (name, frame) in [("64 bytes", bulk(&VALUE)), ("16 KiB", vec![b'v'; 16 << 10])] {
        group.throughput(Throughput::Elements(64));
        group.bench_function(format!("push, write and release 64 frames of {name}"), |b| {
            b.iter(|| {
                for _ in 0..64 {
                    queue.push(black_box(&frame), &mut pool);
                }
                let wrote = queue.write_to(&mut io::sink());
                for _ in 0..64 {
                    queue.release(frame.len(), &mut pool);
                }
                wrote
            });
        });
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("client replies");
    let (mut pool, mut owed) = (Pool::default(), Replies::default());
    let frame = bulk(&VALUE);
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 in order", |b| {
        b.iter(|| {
            (0..64).for_each(|_| {
                owed.expect();
            });
            let gone: u32 = (0..64).map(|_| owed.complete(0, black_box(&frame), &mut pool)).sum();
            owed.out.release(owed.out.len(), &mut pool);
            gone
        });
    });
    group.bench_function("64, the first one last", |b| {
        b.iter(|| {
            (0..64).for_each(|_| {
                owed.expect();
            });
            let gone: u32 =
                (0..64).rev().map(|at| owed.complete(at, black_box(&frame), &mut pool)).sum();
            owed.out.release(owed.out.len(), &mut pool);
            gone
        });
    });
    group.finish();
}

fn gather(c: &mut Criterion) {
    let mut group = c.benchmark_group("gather");
    let (mut gather, mut out) = (Gather::default(), Vec::new());
    let mut part = Vec::new();
    write::array_header(&mut part, 1);
    part.extend(bulk(&VALUE));
    for (name, merge, part) in [
        ("10 parts of MGET", Merge::Array, &part[..]),
        ("10 parts of DEL", Merge::Sum, b":1\r\n"),
        ("10 parts of MSET", Merge::AllSucceeded, b"+OK\r\n"),
    ] {
        group.throughput(Throughput::Elements(10));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                gather.start(merge, Protocol::Resp2);
                for position in 0..10 {
                    if merge == Merge::Array {
                        gather.expect_key(position);
                    }
                    gather.expect();
                }
                for first in 0..10 {
                    gather.add(first, black_box(part));
                }
                gather.finish(&mut out, "")
            });
        });
    }
    group.finish();
}
