//! Tests without a server; `tests/command_table.rs` compares with a real one.

use super::*;
use crate::resp::{ArgRange, Args};

fn with_args<T>(line: &str, f: impl FnOnce(&Args) -> T) -> T {
    let start_of = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    let ranges: Vec<_> = line
        .split_whitespace()
        .map(|w| ArgRange { start: start_of(w) as u32, end: (start_of(w) + w.len()) as u32 })
        .collect();
    f(&Args::new(line.as_bytes(), &ranges))
}

fn resolved<'t>(table: &'t CommandTable, line: &str) -> Option<&'t str> {
    with_args(line, |args| table.resolve(args)).map(|id| &*table.get(id).name)
}

fn keys(table: &CommandTable, line: &str) -> Result<Vec<u32>, KeyError> {
    with_args(line, |args| {
        let mut out = vec![99];
        let spec = table.get(table.resolve(args).unwrap());
        key_positions(spec, args, &mut out).map(|()| out)
    })
}

fn spec<'t>(table: &'t CommandTable, name: &str) -> &'t CommandSpec {
    table.get(table.by_name(name).unwrap())
}

/// Builds a COMMAND reply from a short form: `(a b)` is an array, `5` an integer, others strings.
fn reply(text: &str) -> Vec<u8> {
    fn one<'a>(words: &mut impl Iterator<Item = &'a str>, word: &str, out: &mut Vec<u8>) {
        if word == "(" {
            let (mut items, mut n) = (Vec::new(), 0);
            while let Some(word) = words.next().filter(|w| *w != ")") {
                one(words, word, &mut items);
                n += 1;
            }
            out.extend(format!("*{n}\r\n").bytes());
            out.extend(items);
        } else if word.parse::<i64>().is_ok() {
            out.extend(format!(":{word}\r\n").bytes());
        } else {
            out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
    }
    let text = text.replace('(', " ( ").replace(')', " ) ");
    let (mut words, mut out) = (text.split_whitespace(), Vec::new());
    let first = words.next().unwrap();
    one(&mut words, first, &mut out);
    out
}

#[test]
fn every_name_is_found_in_any_letter_case() {
    let table = CommandTable::builtin();
    assert!(table.len() > 340, "{}", table.len());
    for (id, spec) in table.iter() {
        let line = spec.name.replace('|', " ");
        let mixed: String = (line.chars().enumerate())
            .map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c })
            .collect();
        for line in [&line, &line.to_uppercase(), &mixed] {
            assert_eq!(with_args(line, |args| table.resolve(args)), Some(id), "{line}");
        }
        assert_eq!(table.by_name(&spec.name), Some(id));
    }
}

#[test]
fn what_is_not_a_name_is_not_found() {
    let table = CommandTable::builtin();
    for line in ["", "nosuch", "getx", "ge", "config|set", "set|x", "h\\get", "geT\u{0}", "[et"] {
        assert_eq!(resolved(&table, line), None, "{line:?}");
    }
    let long = "g".repeat(100_000);
    assert_eq!(resolved(&table, &long), None);
    assert_eq!(with_args("", |args| table.resolve(args)), None);
    // Bit 0x20 is ignored by the hash, but only letters have a case: `_` is not DEL.
    assert_eq!(resolved(&table, "eval\u{7f}ro"), None);
}

#[test]
fn subcommands_of_containers_only() {
    let table = CommandTable::builtin();
    assert_eq!(resolved(&table, "CONFIG Set maxmemory 1"), Some("config|set"));
    assert_eq!(resolved(&table, "config nosuch"), Some("config"));
    assert_eq!(resolved(&table, "config"), Some("config"));
    assert_eq!(resolved(&table, "command"), Some("command"));
    assert_eq!(resolved(&table, "get set"), Some("get"));
    assert_eq!(resolved(&table, "numpat"), None);
    let sub = table.by_name("config|set").unwrap();
    assert_eq!(table.container_of(sub), table.by_name("config"));
    assert_eq!(table.container_of(table.by_name("get").unwrap()), None);
}

#[test]
fn the_fast_path_is_taken_where_it_can() {
    let table = CommandTable::builtin();
    for name in ["get", "set", "hset", "zadd", "expire", "sort_ro", "xadd"] {
        assert_eq!(spec(&table, name).keys, KeySpec::One(1), "{name}");
    }
    assert_eq!(spec(&table, "object|encoding").keys, KeySpec::One(2));
    assert_eq!(spec(&table, "mset").keys, KeySpec::Range { first: 1, last: -1, step: 2 });
    assert_eq!(spec(&table, "ping").keys, KeySpec::None);
    assert!(table.iter().all(|(_, s)| s.keys_complete));
}

#[test]
fn malformed_requests_have_no_keys() {
    let table = CommandTable::builtin();
    for (line, error) in [
        ("get", KeyError::TooFew),
        ("mget", KeyError::TooFew),
        ("blpop", KeyError::TooFew),
        ("copy a", KeyError::TooFew),
        ("eval s", KeyError::TooFew),
        ("eval s x", KeyError::NotANumber),
        ("eval s -1 a", KeyError::NotANumber),
        ("eval s 01 a", KeyError::NotANumber),
        ("eval s +1 a", KeyError::NotANumber),
        ("eval s 2 a", KeyError::TooMany),
        ("eval s 999999999999999999 a", KeyError::TooMany),
        ("eval s 9223372036854775807 a", KeyError::NotANumber),
        ("eval s 99999999999999999999999 a", KeyError::NotANumber),
        ("mset a 1 b", KeyError::Unbalanced),
        ("xread streams a b 0", KeyError::Unbalanced),
        ("migrate h 1 k 0 10 keys a", KeyError::Syntax),
        ("sort", KeyError::TooFew),
        ("migrate", KeyError::TooFew),
        ("zunionstore", KeyError::TooFew),
        ("zunionstore d 2 a", KeyError::TooMany),
    ] {
        assert_eq!(keys(&table, line), Err(error), "{line}");
    }
    assert_eq!(keys(&table, "xread count 1 block 0"), Ok(vec![]));
}

#[test]
fn names_that_look_like_options_and_options_said_twice() {
    let table = CommandTable::builtin();
    for (line, positions) in [
        ("georadius a 1 1 1 km", &[1][..]),
        ("georadius a 1 1 1 km store", &[1]),
        ("georadius a 1 1 1 store b", &[1, 6]),
        ("georadius a 1 1 1 km asc store b count 1 storedist c store d", &[1, 8, 12, 14]),
        ("georadiusbymember a store 1 km storedist b store c", &[1, 6, 8]),
        ("xread count 1 block 0 streams a b 0 0", &[6, 7]),
        ("xread streams streams streams 0 0", &[2, 3]),
        ("xreadgroup group g streams count 5 noack streams a b > >", &[8, 9]),
        ("xreadgroup count 5 group streams streams noack streams a >", &[8]),
        ("xreadgroup noack group g c streams noack noack streams > > >", &[6, 7, 8]),
        ("xreadgroup group g c newer 5 streams a >", &[7]),
    ] {
        assert_eq!(keys(&table, line).as_deref(), Ok(positions), "{line}");
    }
    let accesses = |line: &str| {
        with_args(line, |args| {
            let mut out = Vec::new();
            key_accesses(table.get(table.resolve(args).unwrap()), args, &mut out).unwrap();
            out.into_iter().map(|(i, access)| (i, access.read, access.write)).collect::<Vec<_>>()
        })
    };
    assert_eq!(
        accesses("georadius a 1 1 1 km store b store c"),
        [(1, true, false), (7, false, true), (9, false, true)]
    );
    assert_eq!(accesses("xreadgroup group g streams streams a >"), [(5, true, false)]);
}

#[test]
fn an_overlay_keeps_ids_and_appends_new_commands() {
    let builtin = CommandTable::builtin();
    let json = "((json.get -2 (readonly module newflag) 1 1 1 () () () ()) \
                 (GET 3 (readonly) 1 1 1 (@read @string) (request_policy:odd) () ()) \
                 (config -2 () 0 0 0 () () () ((config|new 2 (admin) 0 0 0 (@admin) () () ()))))";
    let table = builtin.overlay(&reply(json)).unwrap();
    assert_eq!(table.len(), builtin.len() + 2);
    for (id, old) in builtin.iter() {
        assert_eq!(table.get(id).name, old.name);
    }
    let get = spec(&table, "get");
    assert_eq!((get.arity, get.request_policy), (3, RequestPolicy::Special));
    assert_eq!(resolved(&table, "JSON.GET k"), Some("json.get"));
    assert_eq!(spec(&table, "json.get").class, Class::Other);
    assert!(spec(&table, "json.get").is_read_only());
    assert_eq!(resolved(&table, "CONFIG NEW"), Some("config|new"));
    assert_eq!(resolved(&table, "CONFIG SET"), Some("config|set"), "stays");
    assert_eq!(resolved(&builtin, "JSON.GET k"), None, "the old table is as it was");
    // Repeated overlays, as topologies change, must not grow the table.
    assert_eq!(table.overlay(&reply(json)).unwrap().len(), table.len());
}

#[test]
fn many_new_commands_are_all_found() {
    let mut text = String::from("(");
    for i in 0..3000 {
        text += &format!("(module.command.{i} 2 (module) 1 1 1 () () () ())");
    }
    let table = CommandTable::builtin().overlay(&reply(&(text + ")"))).unwrap();
    for i in 0..3000 {
        let name = format!("module.command.{i}");
        assert_eq!(resolved(&table, &format!("{name} k")), Some(&*name));
    }
    assert_eq!(resolved(&table, "get k"), Some("get"));
}

#[test]
fn an_older_server_does_not_take_away_what_is_known() {
    // Redis 5 and 6 have neither key specs nor subcommands in their replies.
    let old = "((get 2 (readonly fast) 1 1 1) (zunionstore -4 (write movablekeys) 0 0 0 (@write)) \
                (object -2 (readonly random) 2 2 1 (@keyspace)) \
                (newer -2 (write movablekeys) 1 1 1 (@write)))";
    let table = CommandTable::builtin().overlay(&reply(old)).unwrap();
    assert_eq!(keys(&table, "zunionstore d 2 a b"), Ok(vec![1, 3, 4]));
    assert_eq!(resolved(&table, "object freq k"), Some("object|freq"));
    assert_eq!(keys(&table, "object nosuch k"), Ok(vec![2]));
    let newer = spec(&table, "newer");
    assert_eq!((&newer.keys, newer.keys_complete), (&KeySpec::One(1), false));
}

#[test]
fn keywords_are_searched_from_both_ends() {
    let table = |from: i32| {
        let begin = format!("(type keyword spec (keyword KEYS startfrom {from}))");
        let find = "(type range spec (lastkey -1 keystep 1 limit 0))";
        let specs = format!("((flags () begin_search {begin} find_keys {find}))");
        let text = format!("((m.x -2 (movablekeys module) 0 0 0 () () {specs} ()))");
        CommandTable::builtin().overlay(&reply(&text)).unwrap()
    };
    let (forwards, backwards) = (table(1), table(-2));
    assert_eq!(keys(&forwards, "m.x a keys b keys c"), Ok(vec![3, 4, 5]));
    assert_eq!(keys(&backwards, "m.x a Keys b keys c"), Ok(vec![5]));
    assert_eq!(keys(&backwards, "m.x a Keys b c"), Ok(vec![3, 4]));
    assert_eq!(keys(&backwards, "m.x keys"), Ok(vec![]), "nothing follows it");
    assert_eq!(keys(&forwards, "m.x a b keys"), Ok(vec![]));
    assert_eq!(keys(&table(i32::MIN), "m.x keys a"), Ok(vec![]));
    assert_eq!(keys(&table(i32::MAX), "m.x keys a"), Ok(vec![]));
}

#[test]
fn garbage_is_refused_without_a_panic() {
    let builtin = CommandTable::builtin();
    let whole = include_bytes!("redis-7.0.15.resp");
    // Some commands with all kinds of key specs; the whole reply would take minutes.
    let start = memchr::memmem::find(whole, b"*10\r\n$7\r\nmigrate\r\n").unwrap();
    let some = [b"*3\r\n", &whole[start..]].concat();
    let end = (start..).find(|&i| {
        let bytes = [b"*3\r\n", &whole[start..i]].concat();
        builtin.overlay(&bytes).is_ok()
    });
    let some = &some[..end.unwrap() - start + 4];
    for cut in (0..some.len()).step_by(2) {
        assert_eq!(builtin.overlay(&some[..cut]).unwrap_err(), TableError::Truncated, "{cut}");
    }
    let mut changed = some.to_vec();
    for at in (0..some.len()).step_by(3) {
        for byte in *b"*$:%-|_09\r\n\xff" {
            changed[at] = byte;
            let _ = builtin.overlay(&changed);
        }
        changed[at] = some[at];
    }
    for (bytes, error) in [
        (&b"-NOPERM no\r\n"[..], TableError::Refused("NOPERM no".into())),
        (b"+OK\r\n", TableError::Malformed("not a list of commands")),
        (b"*1\r\n:5\r\n", TableError::Malformed("a command without a name")),
        (b"*0\r\n+x\r\n", TableError::Malformed("not RESP")),
        (b"*9223372036854775807\r\n", TableError::Truncated),
        (b"%9223372036854775807\r\n", TableError::Truncated),
        (b"$9223372036854775807\r\n", TableError::Truncated),
        (b"$-7\r\n", TableError::Malformed("not RESP")),
        (b"", TableError::Truncated),
        (b"\r\n", TableError::Malformed("not RESP")),
        (&b"*1\r\n".repeat(100_000), TableError::Malformed("nested too deep")),
        (&b"|1\r\n+a\r\n+b\r\n".repeat(100_000), TableError::Malformed("nested too deep")),
    ] {
        assert_eq!(builtin.overlay(bytes).unwrap_err(), error);
    }
    assert_eq!(builtin.overlay(b"*1\r\n*-1\r\n").unwrap().len(), builtin.len());
}

#[test]
fn policies_flags_and_arity() {
    let table = CommandTable::builtin();
    let policies = |name| (spec(&table, name).request_policy, spec(&table, name).response_policy);
    assert_eq!(policies("del"), (RequestPolicy::MultiShard, ResponsePolicy::AggSum));
    assert_eq!(policies("mget"), (RequestPolicy::MultiShard, ResponsePolicy::None));
    assert_eq!(policies("config|set"), (RequestPolicy::AllNodes, ResponsePolicy::AllSucceeded));
    assert_eq!(policies("get"), (RequestPolicy::None, ResponsePolicy::None));
    let is = |name: &str| {
        let spec = spec(&table, name);
        (spec.is_write(), spec.is_read_only(), spec.may_block())
    };
    assert_eq!(is("set"), (true, false, false));
    assert_eq!(is("get"), (false, true, false));
    assert_eq!(is("blpop"), (true, false, true));
    assert_eq!(is("xread"), (false, true, true));
    assert_eq!(is("eval"), (true, false, false));
    assert_eq!(is("eval_ro"), (false, true, false));
    assert_eq!(is("ping"), (false, false, false));
    let (get, mget) = (spec(&table, "get"), spec(&table, "mget"));
    assert_eq!([1, 2, 3].map(|n| get.arity_fits(n)), [false, true, false]);
    assert_eq!([1, 2, 3].map(|n| mget.arity_fits(n)), [false, true, true]);
    assert_eq!(format!("{:?}", get.flags), r#"{"readonly", "fast"}"#);
    assert_eq!(Flags::of_word("nosuch"), Flags::empty());
    assert_eq!(&*table.get(CommandId::UNKNOWN).name, "unknown");
}

#[test]
fn classes_by_what_a_command_is_about() {
    let table = CommandTable::builtin();
    for (class, names) in [
        (Class::String, "get set mget incr lcs"),
        (Class::Hash, "hset hscan"),
        (Class::List, "lpush blpop lmpop"),
        (Class::Set, "sadd sinterstore"),
        (Class::SortedSet, "zadd bzpopmin zunionstore"),
        (Class::Stream, "xadd xreadgroup xinfo xinfo|stream xgroup|create"),
        (Class::Geo, "geoadd georadius geosearchstore"),
        (Class::HyperLogLog, "pfadd pfdebug"),
        (Class::Bitmap, "setbit bitop"),
        (Class::Scripting, "eval fcall script script|load function function|list"),
        (Class::Keyspace, "del sort sort_ro scan object object|freq memory|usage dump flushall"),
        (Class::PubSub, "publish spublish pubsub pubsub|channels"),
        (Class::Connection, "ping auth hello client client|list wait"),
        (Class::Transaction, "multi watch"),
        (Class::Server, "info config config|set acl|whoami memory time lolwut cluster|slots"),
    ] {
        for name in names.split(' ') {
            assert_eq!(spec(&table, name).class, class, "{name}");
        }
    }
    assert_eq!(Class::HyperLogLog.name(), "hyperloglog");
}

#[test]
fn by_name_puts_subcommands_behind_their_container() {
    let table = CommandTable::builtin();
    let names: Vec<_> = table.iter_by_name().map(|(_, s)| &*s.name).collect();
    assert_eq!(names.len(), table.len());
    let at = |name| names.iter().position(|n| *n == name).unwrap();
    assert!(at("config") < at("config|get") && at("config|set") < at("copy"));
    assert_eq!(at("eval") + 1, at("eval_ro"));
    assert_eq!(names[0], "acl");
}
