//! Tests of `[upstreams]`, and of what names them.

use super::*;

/// Loads a file with this text, called `f` in errors.
fn with(text: &str, env: &[(&str, &str)], settings: &[&str]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: settings.iter().map(|text| Flag::Set((*text).into())).collect(),
    };
    load(&sources).map_err(|error| error.to_string().replace(file.to_str().unwrap(), "f"))
}

#[track_caller]
pub(super) fn from_file(text: &str) -> Config {
    with(text, &[], &[]).unwrap().config
}

#[track_caller]
fn refused(text: &str) -> String {
    with(text, &[], &[]).unwrap_err()
}

fn texts(all: &[Address]) -> Vec<String> {
    all.iter().map(Address::to_string).collect()
}

const MAIN_SEED: &str = "seeds = ['m:1']\n";
const QUEUES: &str = "[upstreams.queues]\nkind = 'standalone'\nseeds = ['q:1']\n";

/// A valid file: the top, then what is added, then the sections of `main` and `queues`.
pub(super) fn file(top: &str, sections: &str) -> String {
    format!("{MAIN_SEED}{top}\n{QUEUES}{sections}")
}

#[test]
fn an_upstream_has_its_own_keys_and_inherits_no_login() {
    let config = from_file(
        "seeds = ['m:1']\nread_from = 'any'\n\
         [upstream]\nkind = 'sentinel'\nmaster = 'm'\nuser = 'u'\npassword = 'p'\n\
         client_name = 'n'\nconnections = 3\nkeepalive = '7s'\n\
         [tls.upstream]\nenabled = true\n\
         [upstreams.a]\nseeds = ['a:1', 'a:2']\n\
         [upstreams.b]\nseeds = ['b:1']\nkind = 'standalone'\nread_from = 'prefer_replica'\n\
         user = 'v'\npassword = 'q'\nsentinel_user = 's'\nconnections = 4\noptional = true\n\
         tls = { enabled = true, verify = 'chain' }\n",
    );
    assert_eq!(config.upstream_names(), ["main", "a", "b"]);
    let [a, b] = config.upstreams.as_slice() else { panic!("{:?}", config.upstreams) };
    assert_eq!(texts(&a.seeds), ["a:1", "a:2"]);
    let upstream = Upstream {
        client_name: "n".into(),
        connections: 3,
        keepalive: Some(Duration::from_secs(7)),
        ..Config::default().upstream
    };
    assert_eq!((&a.upstream, a.optional), (&upstream, false));
    assert_eq!((a.read_from, a.tls.enabled), (ReadFrom::Any, false));
    let own = &b.upstream;
    assert_eq!((own.kind, own.user.as_str()), (UpstreamKind::Standalone, "v"));
    assert_eq!((&*own.password.reveal(), own.sentinel_user.as_str()), ("q", "s"));
    assert_eq!((own.connections, b.optional), (4, true));
    assert_eq!((b.read_from, b.tls.enabled), (ReadFrom::PreferReplica, true));
    assert_eq!(b.tls.verify, Verify::Chain);
}

#[test]
fn main_may_be_written_as_the_others_are() {
    let long = "read_from = 'any'\n[upstreams.main]\nkind = 'standalone'\nseeds = ['m:1']\n\
                user = 'u'\nread_from = 'prefer_replica'\n[upstreams.main.tls]\nenabled = true\n\
                [upstreams.q]\nseeds = ['q:1']\n";
    let short = "seeds = ['m:1']\nread_from = 'prefer_replica'\n\
                 [upstream]\nkind = 'standalone'\nuser = 'u'\n[tls.upstream]\nenabled = true\n\
                 [upstreams.q]\nseeds = ['q:1']\nread_from = 'any'\n";
    assert_eq!(from_file(long), from_file(short));
    // Both at once is an error, but for what other upstreams inherit.
    let both = format!("{MAIN_SEED}[upstream]\nuser = 'u'\n[upstreams.main]\nseeds = ['n:1']\n");
    assert_eq!(
        refused(&both),
        "f:1: seeds: is given, and so is upstreams.main.seeds (f:5), which is the same upstream; \
         keep one\n\
         f:3: upstream.user: is given, and so is [upstreams.main] (f:4), which is the same \
         upstream; keep one"
    );
    let inherits = from_file("[upstream]\nconnections = 3\n[upstreams.main]\nseeds = ['n:1']\n");
    assert_eq!((inherits.upstream.connections, inherits.seeds.len()), (3, 1));
    // Errors name it as it is written.
    assert_eq!(
        refused("[upstreams.main]\nkind = 'cluster'\n"),
        "f:1: upstreams.main.seeds: none given, so there is nothing to connect to; write seeds = \
         [\"host:port\"] there"
    );
}

#[test]
fn a_single_upstream_is_the_default_and_of_several_one_is_main() {
    let loaded = with(QUEUES, &[], &[]).unwrap();
    assert_eq!(loaded.config.upstream_names(), ["queues"]);
    loaded.require_seeds().unwrap();
    assert_eq!(
        refused(&format!("{QUEUES}[upstreams.a]\nseeds = ['a:1']\n")),
        "f:4: upstreams: there are a, queues, and none is called main; name one of them main: \
         clients have that one where nothing else is configured for them"
    );
    let why =
        "cannot be true: clients have this upstream where nothing else is configured for them";
    assert_eq!(
        refused(&format!("{QUEUES}optional = true\n")),
        format!("f:4: upstreams.queues.optional: {why}")
    );
    assert_eq!(
        refused("[upstreams.main]\nseeds = ['a:1']\noptional = true\n"),
        format!("f:3: upstreams.main.optional: {why}")
    );
}

#[test]
fn errors_of_upstreams_have_key_and_line() {
    for (sections, told) in [
        (
            "[upstreams.a]\n",
            "f:6: upstreams.a.seeds: none given, so there is nothing to connect to; write seeds = \
             [\"host:port\"] there",
        ),
        (
            "[upstreams.Queues]\n",
            "f:6: upstreams: \"Queues\" is no name of an upstream; write 1 to 32 of a to z, 0 to \
             9, _ and -",
        ),
        (
            "passwort = 'x'\n",
            "f:6: upstreams.queues.passwort: unknown key; the nearest is \
                              upstreams.queues.password",
        ),
        (
            "zzzzzzzz = ['a:1']\n",
            "f:6: upstreams.queues.zzzzzzzz: unknown key; an upstream has the \
                                keys of [upstream], and seeds, read_from, optional and [tls]",
        ),
        ("optional = 1\n", "f:6: upstreams.queues.optional: is a number; write true or false"),
        (
            "connections = 65\n",
            "f:6: upstreams.queues.connections: 65 is out of range; write a \
                                whole number from 1 to 64",
        ),
        ("tls = true\n", "f:6: upstreams.queues.tls: is a section; write [upstreams.queues.tls]"),
        (
            "[upstreams.a]\nseeds = [\n'a:1',\n'b',\n]\n",
            "f:9: upstreams.a.seeds: \"b\" has no port; write \"host:port\" or \
             \"[IPv6 address]:port\"",
        ),
        (
            "[upstreams.a]\nseeds = ['a:1', 'm:1']\n",
            "f:7: upstreams.a.seeds: \"m:1\" is a seed of main, too (f:1); a server belongs to one \
             upstream",
        ),
        (
            "[upstreams.a]\nseeds = ['a:1']\n[upstreams.b]\nseeds = ['b:1']\n\
             [upstreams.c]\nseeds = ['c:1']\n",
            "f:10: upstreams: at most 3 clusters can be served at once, and 64 upstreams in all",
        ),
    ] {
        assert_eq!(refused(&file("", sections)), told, "{sections}");
    }
    assert_eq!(refused("upstreams = 1\n"), "f:1: upstreams: is a section; write [upstreams.NAME]");
    assert_eq!(
        refused("[upstreams]\nseeds = ['a:1']\n"),
        "f:2: upstreams.seeds: is a section of its own; write [upstreams.seeds]"
    );
    assert_eq!(
        refused(&file("auth = 'passthrough'", "")),
        "f:2: auth: \"passthrough\" is for a single upstream, and there are main, queues; write \
         users of slotway's own (users, users_file), and auth = \"own\""
    );
}

#[test]
fn sentinels_may_know_the_servers_of_several_upstreams() {
    let of = |master: &str| {
        let a = "[upstreams.a]\nkind = 'sentinel'\nseeds = ['s:1']\n";
        let b = format!("[upstreams.b]\nkind = 'sentinel'\nseeds = ['s:1']\nmaster = '{master}'\n");
        with(&format!("{MAIN_SEED}{a}{b}"), &[], &[])
    };
    assert_eq!(of("other").unwrap().config.upstreams.len(), 2);
    assert!(of("mymaster").unwrap_err().contains("\"s:1\" is a seed of a, too (f:4)"));
}

#[test]
fn variables_and_flags_set_the_keys_of_upstreams() {
    let env = [
        ("SLOTWAY_UPSTREAMS__QUEUES__SEEDS", "e:1,e:2"),
        ("SLOTWAY_UPSTREAMS__QUEUES__TLS__ENABLED", "true"),
        ("SLOTWAY_UPSTREAMS__MY_CACHE__CONNECTIONS", "5"),
        ("SLOTWAY_UPSTREAMS__NEW__SEEDS", "n:1"),
    ];
    let text = file("", "[upstreams.my-cache]\nseeds = ['c:1']\n");
    let flags = ["upstreams.queues.seeds=f:1", "upstreams.new.kind=standalone"];
    let config = with(&text, &env, &flags).unwrap().config;
    assert_eq!(config.upstream_names(), ["main", "my-cache", "new", "queues"]);
    let [cache, new, queues] = config.upstreams.as_slice() else { panic!() };
    assert_eq!((cache.upstream.connections, texts(&new.seeds)), (5, vec!["n:1".into()]));
    assert_eq!(new.upstream.kind, UpstreamKind::Standalone);
    assert_eq!((texts(&queues.seeds), queues.tls.enabled), (vec!["f:1".into()], true));
    let wrong = |env: &[(&str, &str)], flags: &[&str]| with(&file("", ""), env, flags).unwrap_err();
    assert_eq!(
        wrong(&[("SLOTWAY_UPSTREAMS__QUEUES__SEED", "a:1")], &[]),
        "SLOTWAY_UPSTREAMS__QUEUES__SEED: unknown variable; the nearest is \
         SLOTWAY_UPSTREAMS__QUEUES__SEEDS"
    );
    assert_eq!(
        wrong(&[], &["upstreams.queues.knd=cluster"]),
        "--set upstreams.queues.knd: unknown key; the nearest is upstreams.queues.kind"
    );
    assert_eq!(
        wrong(&[], &["upstreams.queues=a:1"]),
        "--set upstreams.queues: names no key of an upstream; write upstreams.NAME.KEY, such as \
         upstreams.queues.seeds"
    );
}

#[test]
fn a_listener_may_have_an_upstream() {
    let listen = "listen = ['a:1', { at = 'a:2', upstream = 'queues' }, {at = 'a:3'}]";
    let tls = "[tls.downstream]\ncert = 'c'\nkey = 'k'\n\
               listen = [{ at = 'a:4', upstream = 'queues' }, 'a:5']\n";
    let upstreams = |config: &Config| {
        let plain = config.listen.iter().cloned();
        let secured = config.tls.downstream.listen.iter().cloned().map(Listen::Tcp);
        let all =
            plain.chain(secured).map(|listen| config.upstream_of_listener(&listen).map(|id| id.0));
        all.collect::<Vec<_>>()
    };
    let loaded = with(&file(listen, tls), &[], &[]).unwrap();
    assert_eq!(upstreams(&loaded.config), [None, Some(1), None, Some(1), None]);
    assert_eq!(
        KEYS[0].show(&loaded.config).to_string(),
        "[\"a:1\", { at = \"a:2\", upstream = \"queues\" }, \"a:3\"]"
    );
    // What is given later replaces addresses and upstreams of that key.
    let config =
        with(&file(listen, tls), &[], &["listen=a:2,a:6=queues,unix:/a=B"]).unwrap().config;
    assert_eq!(upstreams(&config), [None, Some(1), None, Some(1), None]);
    assert_eq!(config.listener_upstreams.len(), 2);
    for (item, told) in [
        (
            "{ at = 'a:1', upstream = 'queue' }",
            "no upstream is called \"queue\"; the nearest is \"queues\"",
        ),
        (
            "{ at = 'a:1', upstream = 'zzz' }",
            "no upstream is called \"zzz\"; there are main, queues",
        ),
        (
            "{ at = 'a', upstream = 'queues' }",
            "\"a\" has no port; write \"host:port\" or \"[IPv6 address]:port\"",
        ),
        (
            "{ upstream = 'queues' }",
            "one item has no address; write { at = \"127.0.0.1:6380\", upstream = \"queues\" }",
        ),
        (
            "{ at = 'a:1', to = 'b' }",
            "\"to\" is no key of a listener; write { at = \"127.0.0.1:6380\", \
                upstream = \"queues\" }",
        ),
        (
            "{ at = 1 }",
            "at is a number; write { at = \"127.0.0.1:6380\", upstream = \"queues\" }, in quotes",
        ),
    ] {
        assert_eq!(
            refused(&file(&format!("listen = ['b:1',\n{item}]"), "")),
            format!("f:3: listen: {told}")
        );
    }
    assert_eq!(
        refused(&file("listen = ['b:0', { at = 'b:0', upstream = 'queues' }]", "")).lines().next(),
        Some("f:2: listen: \"b:0\" is given twice, and for upstream \"queues\"; give each a port")
    );
}

#[test]
fn databases_and_routes_name_upstreams() {
    let text = file(
        "",
        "[databases]\n01 = 'queues'\n16 = 'main:3'\n\
         [[routes]]\nprefix = 'rq:'\nupstream = 'queues'\n\
         [[routes]]\nchannel_prefix = 'rq:'\nupstream = 'queues'\n",
    );
    let of = |number, upstream: &str, database| DatabaseRoute {
        number,
        upstream: upstream.into(),
        database,
    };
    let keys = |prefix: &str, upstream: &str| Route {
        prefix: Some(prefix.into()),
        channel_prefix: None,
        upstream: upstream.into(),
    };
    let channels = |prefix: &str| Route {
        prefix: None,
        channel_prefix: Some(prefix.into()),
        upstream: "queues".into(),
    };
    let config = from_file(&text);
    assert_eq!(config.databases, [of(1, "queues", 0), of(16, "main", 3)]);
    assert_eq!(config.routes, [keys("rq:", "queues"), channels("rq:")]);
    // Later sources add databases, and replace the routes.
    let env = [("SLOTWAY_DATABASES__2", "queues:1"), ("SLOTWAY_ROUTES", "x=queues")];
    let settings = ["databases.1=main:9", "routes=rq:=queues, &a=b=queues,~&c=main"];
    let config = with(&text, &env, &settings).unwrap().config;
    let databases = [of(1, "main", 9), of(2, "queues", 1), of(16, "main", 3)];
    assert_eq!(config.databases, databases);
    let routes = [keys("rq:", "queues"), channels("a=b"), keys("&c", "main")];
    assert_eq!(config.routes, routes);
    let config = with(&text, &env, &[]).unwrap().config;
    assert_eq!(config.routes, [keys("x", "queues")]);
}

#[test]
fn errors_of_databases_and_routes_have_key_and_line() {
    let database = "write 0 to 65535";
    let example =
        "write [[routes]] with prefix = \"rq:\" (or channel_prefix) and upstream = \"queues\"";
    let empty = "is empty; the upstream of all that no route is for is the first, or `main`";
    for (text, told) in [
        (
            "[databases]\n1 = 'queus'",
            "f:7: databases.1: no upstream is called \"queus\"; the nearest is \
                \"queues\""
                .into(),
        ),
        (
            "[databases]\n65536 = 'queues'",
            format!("f:7: databases.65536: \"65536\" is no number of a database; {database}"),
        ),
        (
            "[databases]\nx = 'queues'",
            format!("f:7: databases.x: \"x\" is no number of a database; {database}"),
        ),
        (
            "[databases]\n1 = 'queues:x'",
            format!("f:7: databases.1: \"x\" is no number of a database; {database}"),
        ),
        (
            "[databases]\n1 = 2",
            "f:7: databases.1: is a number; write the name of an upstream, such as \
                \"queues\" or \"queues:1\", in quotes"
                .into(),
        ),
        (
            "[databases]\n01 = 'queues'\n1 = 'main'",
            "f:8: databases.1: database 1 is given twice (f:7)".into(),
        ),
        (
            "[databases]\n0 = 'queues'",
            "f:7: databases.0: is the database that clients begin in; theirs is \
                the upstream of their listener, or else the first, which `main` is"
                .into(),
        ),
        (
            "[[routes]]\nprefix = 'a'\nupstream = 'queus'",
            "f:6: routes: no upstream is called \"queus\"; the nearest is \
                \"queues\""
                .into(),
        ),
        ("[[routes]]\nprefix = ''\nupstream = 'queues'", format!("f:7: routes.prefix: {empty}")),
        (
            "[[routes]]\nprefix = 'a'\nchannel_prefix = 'a'\nupstream = 'queues'",
            "f:6: routes: has prefix and channel_prefix; write a route for each".into(),
        ),
        (
            "[[routes]]\nupstream = 'queues'",
            "f:6: routes: has neither prefix nor channel_prefix; write one of them".into(),
        ),
        (
            "[[routes]]\nprefix = 'a'",
            "f:6: routes: names no upstream; write upstream = \"queues\"".into(),
        ),
        (
            "[[routes]]\nprefx = 'a'\nupstream = 'queues'",
            "f:7: routes.prefx: unknown key; the nearest is routes.prefix".into(),
        ),
        (
            "[[routes]]\nprefix = 'a'\nupstream = 'queues'\n[[routes]]\nprefix = \
                'a'\nupstream = 'main'",
            "f:9: routes: prefix \"a\" is given twice (f:6)".into(),
        ),
        ("[routes]\nprefix = 'a'", format!("f:6: routes: is a list; {example}")),
        ("[route]\nprefix = 'a'", "f:6: route: unknown section; the nearest is [[routes]]".into()),
        (
            "[upstream.b]\nseeds = ['b:1']",
            "f:6: upstream.b: unknown section; the nearest is [upstreams.b]".into(),
        ),
    ] {
        assert_eq!(refused(&file("", text)), told, "{text}");
    }
    assert_eq!(
        refused("routes = ['a=b']\n"),
        format!("f:1: routes: one item is a string; {example}")
    );
    assert_eq!(refused("databases = 1\n"), "f:1: databases: is a section; write [databases]");
    let wrong = with(&file("", ""), &[], &["routes=a", "routes==queues"]).unwrap_err();
    assert_eq!(
        wrong,
        format!(
            "--set routes: \"a\" has no \"=\"; write PREFIX=UPSTREAM, such as rq:=queues, or with \
             & before the prefix of channels, &news:=queues\n--set routes: {empty}"
        )
    );
}

#[test]
fn logins_of_upstreams_are_read_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (name, text) in [("user", "u\n"), ("password", "p\n"), ("sentinel", "s\n")] {
        std::fs::write(format!("{path}/{name}"), text).unwrap();
    }
    let text = file(
        "",
        "user_file = '${CREDENTIALS_DIRECTORY}/user'\n\
         password_file = '${CREDENTIALS_DIRECTORY}/password'\n\
         sentinel_password_file = '${CREDENTIALS_DIRECTORY}/sentinel'\n",
    );
    let env = [("CREDENTIALS_DIRECTORY", path)];
    let config = with(&text, &env, &[]).unwrap().config;
    let of_queues = &config.upstreams[0].upstream;
    assert_eq!(of_queues.user, "u");
    let secrets = [&of_queues.password, &of_queues.sentinel_password];
    assert_eq!(secrets.map(|secret| secret.reveal().to_string()), ["p", "s"]);
    assert!(config.upstream.user.is_empty() && config.upstream.password.is_empty());
    assert_eq!(files::user_files(&config).collect::<Vec<_>>(), [format!("{path}/user")]);
    let watched = files::secrets(&config);
    let watched: Vec<_> = watched.iter().filter(|s| !s.file.is_empty()).map(|s| s.path()).collect();
    assert_eq!(
        watched,
        ["upstreams.queues.password_file", "upstreams.queues.sentinel_password_file"]
    );
    // Errors.
    let told = with(&text, &[], &[]).unwrap_err();
    let start = "f:6: upstreams.queues.user_file: CREDENTIALS_DIRECTORY is not set";
    assert!(told.contains(start) && told.lines().count() == 3, "{told}");
    let both = with(&text, &env, &["upstreams.queues.user=v", "upstreams.queues.password=q"]);
    assert_eq!(
        both.unwrap_err(),
        "f:6: upstreams.queues.user_file: upstreams.queues.user is given as well (--set \
         upstreams.queues.user); keep one\n\
         f:7: upstreams.queues.password_file: upstreams.queues.password is given as well (--set \
         upstreams.queues.password); keep one"
    );
    let told = refused("[upstreams.main]\nseeds = ['a:1']\npassword_file = '/none'\n");
    assert!(told.starts_with("f:3: upstreams.main.password_file: /none: cannot be read"), "{told}");
}

#[test]
fn values_of_an_upstream_contradict_each_other_as_those_of_the_short_form() {
    for (sections, told) in [
        (
            "read_from = 'zone'\n",
            "f:6: upstreams.queues.read_from: \"zone\" needs to know which zone \
                slotway itself is in; set `zone`, or SLOTWAY_ZONE",
        ),
        (
            "tls = { enabled = true, cert = 'c' }\n",
            "upstreams.queues.tls.key: has to be given with upstreams.queues.tls.cert",
        ),
        (
            "tls = { ca = 'c' }\n",
            "f:6: upstreams.queues.tls.ca: is given, and connections to nodes do \
                not use TLS; write upstreams.queues.tls.enabled = true, or = false if \
                that is meant",
        ),
    ] {
        assert_eq!(refused(&file("", sections)), told);
    }
    let zone =
        "\"zone\" needs to know which zone slotway itself is in; set `zone`, or SLOTWAY_ZONE";
    assert_eq!(refused(&file("read_from = 'zone'", "")), format!("f:2: read_from: {zone}"));
}

#[test]
fn upstreams_are_shown_with_their_origins_and_without_their_secrets() {
    let text = file(
        "listen = [{ at = 'a:1', upstream = 'queues' }]",
        "password = 'hunter2'\ntls = { enabled = true }\n[databases]\n1 = 'queues:2'\n\
         [[routes]]\nprefix = 'a,\"'\nupstream = 'queues'\n\
         [[routes]]\nchannel_prefix = 'b'\nupstream = 'main'\n",
    );
    let loaded = with(&text, &[], &["upstreams.queues.connections=2"]).unwrap();
    let shown = effective_toml(&loaded);
    assert!(!shown.contains("hunter2") && !format!("{loaded:?}").contains("hunter2"));
    for line in [
        "[upstreams.queues]\nseeds = [\"q:1\"]  # /",
        "f:5\n",
        "connections = 2  # --set upstreams.queues.connections\n",
        "password = \"***\"  # /",
        "[upstreams.queues.tls]\nenabled = true  # /",
        "[databases]\n1 = \"queues:2\"  # /",
        "[[routes]]\nprefix = 'a,\"'  # /",
        "[[routes]]\nchannel_prefix = \"b\"  # /",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    // It is a file that means the same, but for secrets.
    let again = from_file(&shown);
    let mut same = loaded.config.clone();
    same.upstreams[0].upstream.password = Secret::new("***");
    assert_eq!(again, same);
    let entries = key_entries(&loaded.config);
    let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|e| &*e.value);
    assert_eq!(value("upstreams.queues.password"), Some("\"***\""));
    assert_eq!(value("databases.1"), Some("\"queues:2\""));
    assert_eq!(value("routes"), Some("['a,\"=queues', \"&b=main\"]"));
}
