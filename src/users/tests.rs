//! Rules of Redis 7.0.15; tests/users.rs compares many more with a running server.

use super::*;
use crate::command::CommandId;
use crate::resp::{Args, words};

fn user(rules: &str) -> User {
    User::parse(&format!("user u {rules}"), &CommandTable::builtin()).unwrap()
}

fn check(user: &User, line: &str) -> Result<(), Denied> {
    let table = CommandTable::builtin();
    let ranges = words(line);
    let args = Args::new(line.as_bytes(), &ranges);
    let id = table.resolve(&args).unwrap();
    user.check(id, table.get(id), &args, &mut Vec::new())
}

fn error(rules: &str) -> String {
    User::parse(&format!("u {rules}"), &CommandTable::builtin()).unwrap_err()
}

#[test]
fn rules_apply_in_order() {
    let denied = Err(Denied::Command);
    let u = user("+@read -@dangerous +set +config|get ~*");
    for (line, expected) in [
        ("GET a", Ok(())),
        ("set a b", Ok(())),
        ("KEYS x", denied),
        ("CONFIG GET x", Ok(())),
        ("CONFIG SET x y", denied),
        ("DEL a", denied),
        ("AUTH x", Ok(())),
        ("HELLO 3", Ok(())),
    ] {
        assert_eq!(check(&u, line), expected, "{line}");
    }
    let u = user("allcommands allkeys -config +config|get -select +select|0");
    assert_eq!(check(&u, "CONFIG GET x"), Ok(()));
    assert_eq!(check(&u, "CONFIG SET x y"), denied);
    assert_eq!(check(&u, "SELECT 0"), Ok(()));
    assert_eq!(check(&u, "SELECT 1"), denied);
    assert!(!u.is_unrestricted());
    assert!(user("+@all ~* &*").is_unrestricted());
    assert!(!user("+@all ~*").is_unrestricted());
}

#[test]
fn key_patterns_by_access() {
    let denied = Err(Denied::Key);
    let u = user("+@all %R~ro:* %W~wo:* ~rw:*");
    for (line, expected) in [
        ("GET ro:a", Ok(())),
        ("GET wo:a", denied),
        ("GET rw:a", Ok(())),
        ("GET other", denied),
        ("SET ro:a x", denied),
        ("SET wo:a x", Ok(())),
        ("SET wo:a x GET", denied),
        ("SET rw:a x GET", Ok(())),
        ("COPY ro:a wo:a", Ok(())),
        ("COPY wo:a ro:a", denied),
        ("MGET ro:a rw:b", Ok(())),
        ("MGET ro:a x", denied),
        ("BITFIELD ro:a GET u8 0", Ok(())),
        ("BITFIELD ro:a GET u8 0 SET u8 0 1", denied),
        ("BITFIELD rw:a INCRBY u8 0 1", Ok(())),
        ("SORT ro:a STORE wo:b", Ok(())),
        ("SORT ro:a STORE ro:b", denied),
        ("SORT ro:a BY w_* STORE wo:b", Err(Denied::Sort("BY"))),
        ("SORT ro:a BY nosort GET #", Err(Denied::Sort("GET"))),
        ("EVAL s 1 rw:a", Err(Denied::Unchecked)),
        ("EVAL s 1 ro:a", Err(Denied::Unchecked)),
        ("PING", Ok(())),
        ("SSUBSCRIBE ch", Err(Denied::Channel)),
    ] {
        assert_eq!(check(&u, line), expected, "{line}");
    }
    let plain = user("+@all ~a* resetkeys ~b*");
    assert_eq!((check(&plain, "MGET b1 b2"), check(&plain, "GET a1")), (Ok(()), denied));
}

/// Scripts bypass the rules: allowed only to users that may do everything, or by explicit rule.
#[test]
fn commands_that_cannot_be_checked() {
    const UNCHECKABLE: [&str; 10] = [
        "EVAL s 1 a:1",
        "EVAL_RO s 1 a:1",
        "EVALSHA s 1 a:1",
        "EVALSHA_RO s 1 a:1",
        "FCALL f 1 a:1",
        "FCALL_RO f 1 a:1",
        "SCRIPT LOAD s",
        "FUNCTION LOAD s",
        "FUNCTION RESTORE s",
        "DEBUG OBJECT a:1",
    ];
    let limited = [
        "~a:* +@all -@dangerous -@admin +debug",
        "~* +@all",
        "~* &* +@all -flushall",
        "~* &* +@scripting +debug",
        "~a:* &* +@all",
        "~a:* +eval +evalsha (~* &* +@all -get)",
    ];
    for rules in limited {
        let u = user(rules);
        for line in UNCHECKABLE {
            let told = check(&u, line);
            assert!(matches!(told, Err(Denied::Unchecked)), "{rules}: {line}: {told:?}");
        }
        assert_eq!(check(&u, "SCRIPT EXISTS x"), Ok(()), "{rules}");
        let free = user(&format!("{rules} unchecked-commands"));
        for line in UNCHECKABLE {
            assert_eq!(check(&free, line), Ok(()), "{rules}: {line}");
        }
        assert!(free.describe(false).contains(" unchecked-commands "), "{}", free.describe(false));
        assert!(free.warning(&CommandTable::builtin()).is_some_and(|w| w.contains("'u'")));
    }
    // The rules about commands and declared keys still apply.
    let free = user("~a:* +@all -eval unchecked-commands");
    assert_eq!(check(&free, "EVAL s 1 a:1"), Err(Denied::Command));
    assert_eq!(check(&free, "EVALSHA s 1 b:1"), Err(Denied::Key));
    for rules in ["~* &* +@all", "~a:* +get (~* &* +@all)"] {
        let u = user(rules);
        UNCHECKABLE.iter().for_each(|line| assert_eq!(check(&u, line), Ok(()), "{rules}: {line}"));
        assert_eq!(u.warning(&CommandTable::builtin()), None);
    }
    // A rule for one script's text or digest is no exception.
    assert_eq!(check(&user("~* +evalsha|s"), "EVALSHA s 1 a:1"), Err(Denied::Unchecked));
    assert_eq!(check(&user("~* +get"), "EVAL s 1 a:1"), Err(Denied::Command));
    // A warning is given only if the rules name the refused command.
    let table = CommandTable::builtin();
    assert!(user("~a:* +eval").warning(&table).is_some_and(|w| w.contains("unchecked-commands")));
    assert!(user("~a:* +@scripting").warning(&table).is_some());
    assert_eq!(user("~a:* +@all -@dangerous").warning(&table), None);
    // The rules shown by ACL GETUSER and ACL LIST have the same effect when parsed again.
    let shown = user("~a:* +@all").selectors[0].effective_commands(&table);
    assert_eq!(check(&user(&format!("~a:* {shown}")), "EVAL s 1 a:1"), Err(Denied::Command));
}

/// Modules' commands, by their entry in the cluster's table.
#[test]
fn commands_of_modules_that_cannot_be_checked() {
    let command = |name: &str, flags: &str, first: i64| {
        let flags: Vec<&str> = flags.split(' ').collect();
        let words: String = flags.iter().map(|f| format!("+{f}\r\n")).collect();
        format!(
            "*7\r\n${}\r\n{name}\r\n:-2\r\n*{}\r\n{words}:{first}\r\n:{first}\r\n:{}\r\n*1\r\n+@read\r\n",
            name.len(),
            flags.len(),
            i64::from(first > 0)
        )
    };
    for (name, flags, first, checkable) in [
        ("json.get", "readonly module", 1, true),
        ("ft.search", "readonly module", 0, false),
        ("search", "readonly module", 0, false),
        ("x.keys", "readonly module movablekeys", 1, false),
        ("tfcall", "readonly module", 1, false),
        ("rg.trigger", "readonly module", 1, false),
    ] {
        let reply = format!("*1\r\n{}", command(name, flags, first));
        let table = CommandTable::builtin().overlay(reply.as_bytes()).expect(name);
        let line = format!("{name} a:1");
        let ranges = words(&line);
        let args = Args::new(line.as_bytes(), &ranges);
        let id = table.resolve(&args).expect(name);
        let told = |rules: &str| {
            let user = user(rules).compiled(&table);
            user.check(id, table.get(id), &args, &mut Vec::new())
        };
        let expected = if checkable { Ok(()) } else { Err(Denied::Unchecked) };
        assert_eq!(told("~a:* &* +@all"), expected, "{name}");
        assert_eq!(told("~* &* +@all -@dangerous"), expected, "{name}");
        assert_eq!(told("~* &* +@all"), Ok(()), "{name}");
        assert_eq!(told("~* +@all unchecked-commands"), Ok(()), "{name}");
    }
}

#[test]
fn channels_and_their_patterns() {
    let u = user("+@all ~* &news.* &a?c");
    let denied = Err(Denied::Channel);
    for (line, expected) in [
        ("SUBSCRIBE news.x abc", Ok(())),
        ("SUBSCRIBE news.x other", denied),
        ("PSUBSCRIBE news.*", Ok(())),
        ("PSUBSCRIBE news.x", denied),
        ("PSUBSCRIBE *", denied),
        ("PUBLISH news.x text", Ok(())),
        ("PUBLISH text news.x", denied),
        ("SPUBLISH abc x", Ok(())),
        ("UNSUBSCRIBE other", Ok(())),
        ("PUBSUB CHANNELS", Ok(())),
    ] {
        assert_eq!(check(&u, line), expected, "{line}");
    }
    assert_eq!(check(&user("+@all ~* allchannels"), "PSUBSCRIBE *"), Ok(()));
}

#[test]
fn one_selector_must_allow_the_whole_request() {
    let u = user("+get ~a* (+set ~b*) (~c* +get +set &x)");
    assert_eq!(u.selectors.len(), 3);
    assert_eq!(check(&u, "GET a1"), Ok(()));
    assert_eq!(check(&u, "SET a1 x"), Err(Denied::Key));
    assert_eq!(check(&u, "SET b1 x"), Ok(()));
    assert_eq!(check(&u, "GET b1"), Err(Denied::Key));
    assert_eq!(check(&u, "SET c1 x"), Ok(()));
    assert_eq!(check(&u, "DEL c1"), Err(Denied::Command));
    assert_eq!(user("(+get) clearselectors").selectors.len(), 1);
}

#[test]
fn errors_do_not_contain_secrets() {
    assert_eq!(
        error("+nosuch"),
        "user 'u', rule '+nosuch': Unknown command or category name in ACL"
    );
    for (rules, text) in [
        ("+@nosuch", "Unknown command or category"),
        ("+config|nosuch", "Unknown command or category"),
        ("-select|0", "Unknown command or category"),
        ("+config|get|x", "first-arg of a subcommand"),
        ("~* ~x", "after the * pattern"),
        ("&* &x", "after the * pattern"),
        ("%X~x", "Syntax error"),
        ("(+get", "Unmatched parenthesis"),
        ("<nothis", "does not exist"),
    ] {
        assert!(error(rules).contains(text), "{rules}: {}", error(rules));
    }
    for rules in ["(+nosuch >hunter2)", "(~a >hunter2", "(>hunter2 +nosuch)", "(hunter2)"] {
        assert!(!error(rules).contains("hunter2"), "{}", error(rules));
    }
    assert!(error("(~a +nosuch)").contains("(… +nosuch …)"), "{}", error("(~a +nosuch)"));
    for rules in ["#hunter2", "<hunter2", "!hunter2", "hunter2"] {
        assert!(!error(rules).contains("hunter2"), "{}", error(rules));
    }
    assert!(user("+json.get -json.set").selectors[0].commands().contains("+json.get -json.set"));
}

#[test]
fn passwords() {
    // printf %s pw | sha256sum
    let hash = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
    assert_eq!(Hash::of(b"pw").hex(), hash);
    let u = user(&format!("on #{hash} >other"));
    let has = |u: &User, text: &[u8]| u.has_password(&Hash::of(text));
    assert!(has(&u, b"pw") && has(&u, b"other") && !has(&u, b"") && !has(&u, b"pw "));
    assert!(!has(&user("on >pw <pw"), b"pw") && has(&user("on >pw nopass"), b"any"));
    assert!(!user("nopass >pw").nopass && user("on").on && !user("on reset").on);
    for text in [format!("{u:?}"), u.describe(false)] {
        assert!(!text.contains(hash) && !text.contains("other"), "{text}");
    }
    assert!(u.describe(true).contains(hash));
}

#[test]
fn logins() {
    let table = CommandTable::builtin();
    let file = "# people\nuser default off\n\nuser app on >pw ~* +@all\nUSER old off >pw\n";
    let users = Users::new(parse_file(file, &table).unwrap(), false, true).unwrap();
    assert!(matches!(users.login(b"app", b"pw"), Login::Own(user) if *user.name == *"app"));
    for (name, password) in [("app", "no"), ("app", ""), ("old", "pw"), ("nobody", "pw")] {
        assert_eq!(users.login(name.as_bytes(), password.as_bytes()), Login::Wrong, "{name}");
    }
    assert!(!users.is_open() && !users.allows_without_login());
    assert!(users.login_by_certificate("app").is_some());
    assert!(users.login_by_certificate("old").is_none(), "off");
    let through = Users::new(parse_file(file, &table).unwrap(), true, true).unwrap();
    assert_eq!(through.login(b"nobody", b"pw"), Login::Elsewhere);
    assert_eq!(through.login(b"app", b"no"), Login::Wrong, "its name is slotway's");
    assert!(Users::default().is_open());
    assert!(!Users::new(Vec::new(), false, true).unwrap().is_open(), "an empty file");
    let stranger = Users::new(vec![user("on nopass")], false, false).unwrap();
    assert!(!stranger.allows_without_login(), "it is not called default");
    let stranger = parse_file("user default on nopass", &table).unwrap();
    assert!(Users::new(stranger, false, false).unwrap().allows_without_login());
    assert!(Users::new(vec![user(""), user("on")], false, false).is_err(), "twice");
    let wrong = parse_file("user a on\nuser b +nosuch\n", &table).unwrap_err();
    assert!(wrong.starts_with("line 2: user 'b'"), "{wrong}");
    assert!(parse_file("a on\n", &table).is_err());
}

#[test]
fn unknown_commands() {
    let unknown = |rules: &str| {
        let (table, ranges) = (CommandTable::builtin(), words("NOSUCH a"));
        let args = Args::new(b"NOSUCH a", &ranges);
        let spec = table.get(CommandId::UNKNOWN);
        user(rules).check(CommandId::UNKNOWN, spec, &args, &mut Vec::new())
    };
    assert_eq!(unknown("+@all ~* &*"), Ok(()));
    assert_eq!(unknown("+@read ~* &*"), Err(Denied::Command));
    assert_eq!(unknown("+@all -@dangerous ~* &*"), Err(Denied::Command));
    assert_eq!(unknown("+@all -json.set ~* &*"), Err(Denied::Command));
    assert_eq!(unknown("+@all ~a* &*"), Err(Denied::Key));
}

/// A verdict holds for the command that waited for it, and for the user that it was given to.
#[test]
fn a_result_is_for_one_command() {
    let args = |words: &[&[u8]]| {
        let mut frame = Vec::new();
        crate::resp::write::request(&mut frame, words);
        let mut ranges = Vec::new();
        let limits = crate::resp::RequestLimits::default();
        crate::resp::scan_request(&frame, &limits, &mut Default::default(), &mut ranges).unwrap();
        CommandTag::of(&crate::resp::Args::new(&frame, &ranges))
    };
    let (one, other) = (args(&[b"SUBSCRIBE", b"ab"]), args(&[b"SUBSCRIBE", b"a", b"b"]));
    assert_ne!(one, other);
    let mut account = Account::default();
    let wanted = account.ask(one, 100);
    assert_eq!((account.asked(), wanted.strong_count()), (100, 1));
    account.answer(CheckResult::Allowed);
    assert_eq!((account.asked(), wanted.strong_count()), (0, 0));
    assert_eq!(account.answered(other), None);
    assert_eq!(account.answered(one), None, "what was not its command's is nobody's");
    account.store_result(one, CheckResult::Allowed);
    assert_eq!(account.answered(one), Some(CheckResult::Allowed));
    // Another user.
    account.store_result(one, CheckResult::Allowed);
    let wanted = account.ask(one, 0);
    account.realm = 7;
    assert_eq!(account.leave(), 7);
    assert_eq!(wanted.strong_count(), 0, "nobody waits for it");
    account.answer(CheckResult::Allowed);
    assert_eq!((account.answered(one), account.realm), (None, OWN_REALM));
}
