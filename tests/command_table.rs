//! The command table against the truth: a real redis-server's COMMAND and COMMAND GETKEYS.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common;
use slotway::command::{CommandSpec, CommandTable, Flags, key_positions};
use slotway::resp::{ArgRange, Args};
use slotway::route::behaviour_of;

/// A redis-server of its own, gone with the test.
struct Server {
    process: Child,
    stream: BufReader<TcpStream>,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Server {
        Self::start_program("redis-server")
    }

    fn start_program(program: impl AsRef<OsStr>) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server is installed");
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > deadline => {
                    let _ = process.kill();
                    panic!("the server does not start: {e}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Server { process, stream: BufReader::new(stream), _folder: folder }
    }

    fn send(&mut self, request: &[Vec<u8>]) {
        let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
        for arg in request {
            bytes.extend(format!("${}\r\n", arg.len()).bytes());
            bytes.extend(arg);
            bytes.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).unwrap();
    }

    /// The next reply's bytes, and the strings in it (an error's text, too).
    fn reply(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut raw, mut strings, mut expected) = (Vec::new(), Vec::new(), 1);
        while expected > 0 {
            expected -= 1;
            let start = raw.len();
            self.stream.read_until(b'\n', &mut raw).unwrap();
            let line = raw[start..].strip_suffix(b"\r\n").expect("a whole line").to_vec();
            let len = || std::str::from_utf8(&line[1..]).unwrap().parse::<i64>().unwrap();
            match line[0] {
                b'*' | b'~' => expected += len().max(0),
                b'%' => expected += len() * 2,
                b'$' => {
                    let mut text = vec![0; len() as usize + 2];
                    self.stream.read_exact(&mut text).unwrap();
                    raw.extend(&text);
                    text.truncate(text.len() - 2);
                    strings.push(text);
                }
                _ => strings.push(line),
            }
        }
        (raw, strings)
    }

    fn ask(&mut self, request: &str) -> Vec<u8> {
        self.send(&words(request));
        self.reply().0
    }

    /// What the server says of the keys of each request: the keys, or its error as text.
    fn get_keys(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<Result<Vec<Vec<u8>>, String>> {
        let mut answers = Vec::new();
        for some in requests.chunks(200) {
            for request in some {
                let mut whole = words("COMMAND GETKEYS");
                whole.extend(request.iter().cloned());
                self.send(&whole);
            }
            answers.extend(some.iter().map(|_| match self.reply() {
                (raw, mut text) if raw[0] == b'-' => {
                    Err(String::from_utf8(text.remove(0)).unwrap())
                }
                (_, keys) => Ok(keys),
            }));
        }
        answers
    }
}

/// `''` is an empty argument.
fn words(line: &str) -> Vec<Vec<u8>> {
    let unquote = |word| if word == "''" { "" } else { word };
    line.split_whitespace().map(|word| unquote(word).as_bytes().to_vec()).collect()
}

fn with_args<T>(request: &[Vec<u8>], f: impl FnOnce(&Args) -> T) -> T {
    let (mut buf, mut ranges) = (Vec::new(), Vec::new());
    for arg in request {
        let start = buf.len() as u32;
        buf.extend(arg);
        ranges.push(ArgRange { start, end: buf.len() as u32 });
    }
    f(&Args::new(&buf, &ranges))
}

/// Our answer to the same question; the error as text.
fn our_keys(table: &CommandTable, request: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    with_args(request, |args| {
        let spec = table.get(table.resolve(args).ok_or("not in the table")?);
        let mut out = vec![77]; // a former request's
        key_positions(spec, args, &mut out).map_err(|e| e.to_string())?;
        Ok(out.iter().map(|i| args.get(*i as usize).unwrap().to_vec()).collect())
    })
}

fn show(request: &[Vec<u8>]) -> String {
    request.iter().map(|a| String::from_utf8_lossy(a)).collect::<Vec<_>>().join(" ")
}

fn by_name(table: &CommandTable) -> BTreeMap<String, CommandSpec> {
    table.iter().map(|(_, spec)| (spec.name.to_string(), spec.clone())).collect()
}

#[test]
fn the_builtin_table_is_what_the_server_says() {
    let mut server = Server::start();
    let builtin = CommandTable::builtin();
    for hello in ["HELLO 2", "HELLO 3"] {
        server.ask(hello);
        let live = builtin.overlay(&server.ask("COMMAND")).unwrap();
        assert_eq!(by_name(&live), by_name(&builtin), "after {hello}");
        let count = String::from_utf8(server.ask("COMMAND COUNT")).unwrap();
        // PROXY is slotway's own.
        let theirs = |spec: &CommandSpec| !spec.name.contains('|') && &*spec.name != "proxy";
        let commands = live.iter().filter(|(_, s)| theirs(s)).count();
        assert_eq!(count, format!(":{commands}\r\n"));
    }
}

/// What docs/commands.md is written from, and what slotway routes by in front of such servers.
#[test]
fn the_tables_of_newer_servers_are_what_they_say() {
    let builtin = CommandTable::builtin();
    let known = by_name(&builtin);
    for ((name, ours), program) in builtin.of_newer_servers().into_iter().zip(["redis", "valkey"]) {
        let mut server = Server::start_program(common::newer(program));
        let hello = server.ask("HELLO");
        let version = name.split(' ').next_back().expect("a version");
        let hello = String::from_utf8_lossy(&hello);
        assert!(hello.contains(&format!("\n{version}.")), "{name}: {hello}");
        let live = by_name(&builtin.overlay(&server.ask("COMMAND")).unwrap());
        let of = |table: &BTreeMap<String, CommandSpec>| -> BTreeMap<String, CommandSpec> {
            let newer = table.iter().filter(|(name, _)| !known.contains_key(*name));
            newer.map(|(name, spec)| (name.clone(), spec.clone())).collect()
        };
        assert_eq!(of(&by_name(&ours)), of(&live), "{name}");
        // A command that both have is routed alike, so that its line in the tables of 7.0 is true.
        let changed = known.iter().filter(|(name, spec)| {
            live.get(*name).is_none_or(|live| behaviour_of(live) != behaviour_of(spec))
        });
        let changed: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
        assert_eq!(changed, [""; 0], "{name}");
    }
}

#[test]
fn commands_whose_keys_move() {
    let table = CommandTable::builtin();
    let requests: Vec<_> = "
        SORT k
        SORT k BY w_* LIMIT 0 5 GET p_* GET # ASC ALPHA STORE d
        SORT k STORE a STORE b
        SORT k BY store GET store
        SORT k BY store STORE d
        SORT k LIMIT store 1
        SORT k STORE
        SORT k STORE store
        sort k store STORE d
        SORT_RO k BY a GET b
        SORT_RO k BY store
        MIGRATE h 1 k 0 10
        MIGRATE h 1 k 0 10 COPY REPLACE AUTH keys
        MIGRATE h 1 '' 0 10 KEYS a b c
        MIGRATE h 1 '' 0 10 COPY AUTH2 keys keys KEYS a
        MIGRATE h 1 '' 0 10 AUTH keys keys a b
        migrate h 1 KEYS 0 10
        EVAL s 0
        EVAL s 0 a b
        EVAL s 1 k
        EVAL s 2 k1 k2 a
        EVAL_RO s 2 k1 k2 a
        EVALSHA s 3 k1 k2 k3
        EVALSHA_RO s 1 k a
        FCALL f 2 k1 k2 a
        FCALL_RO f 1 k
        XREAD STREAMS a 0
        XREAD COUNT 1 BLOCK 0 streams a b c 0 1 $
        XREADGROUP GROUP g c STREAMS a >
        XREADGROUP group streams c count 1 noack Streams a b > >
        XREADGROUP GROUP g streams STREAMS a >
        GEORADIUS k 1 2 3 m
        GEORADIUS k 1 2 3 m WITHDIST STORE d
        GEORADIUS k 1 2 3 m storedist d ASC
        GEORADIUS_RO k 1 2 3 m
        GEORADIUSBYMEMBER k m 3 km COUNT 1 STOREDIST d
        GEORADIUSBYMEMBER_RO k m 3 km
        GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m
        ZUNIONSTORE d 1 a
        ZUNIONSTORE d 3 a b c WEIGHTS 1 2 3 AGGREGATE MAX
        ZINTERSTORE d 2 a b
        ZDIFFSTORE d 2 a b
        ZUNION 2 a b WITHSCORES
        ZINTER 2 a b
        ZDIFF 2 a b
        ZINTERCARD 2 a b LIMIT 3
        SINTERCARD 2 a b LIMIT 3
        ZRANGESTORE d s 0 -1
        LMPOP 2 a b LEFT COUNT 3
        BLMPOP 0 2 a b RIGHT
        ZMPOP 1 a MIN
        BZMPOP 0.5 3 a b c MAX COUNT 1
        BLPOP a b 0
        BZPOPMIN a 0
        OBJECT ENCODING k
        object freq k
        MEMORY USAGE k SAMPLES 3
        XINFO STREAM k FULL COUNT 1
        XINFO CONSUMERS k g
        XGROUP CREATE k g $ MKSTREAM
        XGROUP SETID k g 0
        PFDEBUG ENCODING k
        PFCOUNT a b
        PFMERGE d a b
        BITOP AND d a b
        SINTERSTORE d a b
        MSET a 1 b 2
        MSETNX a 1
        MGET a b c
        DEL a b
        LCS a b LEN
        COPY a b REPLACE
        LMOVE a b LEFT RIGHT
        RENAME a b
        WATCH a b
        SMOVE a b m
        STRALGO a b
    "
    .lines()
    .map(words)
    .filter(|request| !request.is_empty())
    .collect();
    let mut differences = Vec::new();
    let theirs = Server::start().get_keys(&requests);
    for (request, theirs) in requests.iter().zip(theirs) {
        let ours = our_keys(&table, request);
        // Some requests have no keys, which GETKEYS words in two ways, and STRALGO is no more.
        let same = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            (Ok(ours), Err(e)) => ours.is_empty() && e.contains("no key arguments"),
            (Err(e), Err(_)) => e == "not in the table",
            (Err(_), Ok(_)) => false,
        };
        if !same {
            differences.push(format!("{}: ours {ours:?}, theirs {theirs:?}", show(request)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Numbers from a seed: the same requests every time, so that a failure can be looked at.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

#[test]
fn every_command_with_any_arguments() {
    const WORDS: &[&str] = &[
        "store",
        "STOREDIST",
        "streams",
        "keys",
        "LIMIT",
        "by",
        "get",
        "AUTH",
        "auth2",
        "copy",
        "GROUP",
        "",
        "0",
        "1",
        "2",
        "3",
        "5",
        "-1",
        "x",
    ];
    let table = CommandTable::builtin();
    let mut random = Random(2);
    let mut requests = Vec::new();
    for (_, spec) in table.iter() {
        if spec.flags.contains(Flags::PUBSUB) {
            continue; // channels are not keys to COMMAND GETKEYS
        }
        for round in 0..120 {
            let mut request: Vec<_> =
                spec.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
            let least = spec.arity.unsigned_abs() as usize;
            let n = if spec.arity > 0 { least } else { least + random.below(7) };
            while request.len() < n {
                // Unlike each other, so that a key tells which argument it is.
                let plain = format!("a{}", request.len()).into_bytes();
                let any = WORDS[random.below(WORDS.len())].as_bytes().to_vec();
                request.push(if round % 4 == 0 || random.below(2) == 0 { plain } else { any });
            }
            requests.push(request);
        }
    }

    let theirs = Server::start().get_keys(&requests);
    let (mut same, mut untold, mut differences) = (0, 0, Vec::new());
    for (request, theirs) in requests.iter().zip(theirs) {
        let ours = our_keys(&table, request);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) if ours == theirs => same += 1,
            (Ok(ours), Err(_)) if ours.is_empty() => same += 1,
            // Malformed: the server's GETKEYS says so, or it names keys, though the command itself
            // refuses the request (MSET without the last value).
            (Err(_), Err(_)) => untold += 1,
            (Err(_), Ok(keys)) if keys.is_empty() => untold += 1,
            (Err(e), _) if ["unbalanced arguments", "contradicting options"].contains(&&**e) => {
                untold += 1;
            }
            // The server merges one key into nothing, but its GETKEYS misses the second.
            (Ok(keys), Err(_)) if request[0] == b"pfmerge" && keys.len() == 1 => {}
            // STORE or STOREDIST again: the server writes to the last, but its GETKEYS sees the first.
            (Ok(keys), Ok(first))
                if request[0].starts_with(b"georadius") && keys.len() > first.len() =>
            {
                assert!(first.iter().all(|key| keys.contains(key)), "{}", show(request));
            }
            // ZUNIONSTORE and its like with a destination and no sources, which they refuse.
            (Ok(keys), Err(_)) if request[0].ends_with(b"store") && request[2] == b"0" => {
                assert_eq!(keys.len(), 1);
            }
            _ => differences.push(format!("{}: ours {ours:?}, theirs {theirs:?}", show(request))),
        }
    }
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
    assert!(same > 40_000 && untold < same / 10, "{same} same, {untold} not told by us");
}

#[test]
fn channels_of_sharded_pubsub_count_as_keys() {
    let table = CommandTable::builtin();
    let keys = |line: &str| our_keys(&table, &words(line));
    assert_eq!(keys("SPUBLISH c m"), Ok(words("c")));
    assert_eq!(keys("ssubscribe a b"), Ok(words("a b")));
    assert_eq!(keys("SUNSUBSCRIBE"), Ok(vec![]));
    assert_eq!(keys("SUBSCRIBE a b"), Ok(vec![]));
}
