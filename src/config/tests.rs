//! Tests of `config`.

use std::collections::BTreeSet;

use super::*;

fn from_flags<'a>(settings: impl IntoIterator<Item = &'a str>) -> Result<Loaded, ConfigError> {
    let flags = settings.into_iter().map(|text| Flag::Set(text.into())).collect();
    load(&Sources { flags, ..Sources::default() })
}

/// Paths of files may name systemd's credentials, and no other key may.
#[test]
fn credentials_of_systemd() {
    let with = |folder: Option<&str>, settings: &[&str]| {
        let env = folder.map(|f| ("CREDENTIALS_DIRECTORY".into(), f.into())).into_iter();
        let flags = settings.iter().map(|text| Flag::Set((*text).into())).collect();
        load(&Sources { env: env.collect(), flags, ..Sources::default() })
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    std::fs::write(format!("{folder}/password"), "hunter2\n").unwrap();
    let path = "${CREDENTIALS_DIRECTORY}/password";
    let (file, key) = (format!("upstream.password_file={path}"), format!("tls.admin.key={path}"));
    let config = with(Some(folder), &[&file]).unwrap().config;
    assert_eq!(config.upstream.password_file, format!("{folder}/password"));
    assert_eq!(&*config.upstream.password.reveal(), "hunter2");
    let name = "tracing.service_name=${CREDENTIALS_DIRECTORY}/password";
    let other = with(Some(folder), &[name]).unwrap().config;
    assert_eq!(other.tracing.service_name, path);
    for wrong in [None, Some(""), Some("relative")] {
        let told = with(wrong, &[&file, &key]).unwrap_err().to_string();
        assert_eq!(told.matches("CREDENTIALS_DIRECTORY is not set").count(), 2, "{told}");
    }
    let missing = "upstream.password_file=${CREDENTIALS_DIRECTORY}/none";
    let told = with(Some(folder), &[missing]).unwrap_err().to_string();
    assert!(told.contains(&format!("{folder}/none: cannot be read")), "{told}");
}

/// A value that is not the default, for every key.
pub(super) const OTHER: &[&str] = &[
    "listen=unix:/run/s.sock,[::1]:7",
    "hand_over=on",
    "seeds=a:1,b:2",
    "workers=2",
    "admin=",
    "announce=proxy:8",
    "announce_mode=cluster",
    "read_from=zone",
    "zone=z",
    "auth=passthrough",
    "users=app on nopass ~* resetchannels -@all +get",
    "users_file=",
    "protected_mode=false",
    "admin_token=hunter3",
    "admin_token_file=",
    "admin_token_for_probes=true",
    "upstream.kind=sentinel",
    "upstream.master=m",
    "upstream.sentinel_user=su",
    "upstream.sentinel_password=hunter4",
    "upstream.sentinel_password_file=",
    "upstream.user=u",
    "upstream.user_file=",
    "upstream.password=hunter2",
    "upstream.password_file=",
    "upstream.client_name=n",
    "upstream.connections=2",
    "upstream.keepalive=11s",
    "tls.downstream.listen=[::]:8,b:9",
    "tls.downstream.announce=proxy:10",
    "tls.downstream.cert=c1",
    "tls.downstream.key=k1",
    "tls.downstream.client_ca=ca1",
    "tls.downstream.client_auth=optional",
    "tls.downstream.user_from=san",
    "tls.downstream.min_version=1.3",
    "tls.downstream.handshake_timeout=13s",
    "tls.upstream.enabled=true",
    "tls.upstream.ca=ca2",
    "tls.upstream.verify=chain",
    "tls.upstream.server_name=name",
    "tls.upstream.cert=c2",
    "tls.upstream.key=k2",
    "tls.upstream.min_version=1.3",
    "tls.admin.cert=c3",
    "tls.admin.key=k3",
    "tls.admin.min_version=1.3",
    "proxy_protocol.listen=unix:/run/s.sock",
    "proxy_protocol.trusted=10.0.0.0/8,::1",
    "proxy_protocol.timeout=2s",
    "timeouts.command=0",
    "timeouts.connect=2s",
    "timeouts.no_primary=27s",
    "timeouts.probe=250ms",
    "timeouts.drain=3s",
    "timeouts.login=14s",
    "timeouts.idle=4m",
    "timeouts.max_age=15m",
    "timeouts.keepalive=12s",
    "retries.budget_percent=28",
    "retries.min_per_second=29",
    "reconnect.min=5ms",
    "reconnect.max=6s",
    "topology.refresh=7s",
    "topology.min_interval=8ms",
    "replicas.max_lag=20s",
    "replicas.max_lag_bytes=21MiB",
    "replicas.check=22s",
    "replicas.in_failover=read",
    "replicas.zones=a:1=z,b=y",
    "transactions.cross_slot=split",
    "pubsub.output_hard=18MiB",
    "pubsub.output_soft=19KiB",
    "pubsub.output_soft_time=9s",
    "pubsub.on_gap=disconnect",
    "limits.clients=9",
    "limits.client_output=10MiB",
    "limits.upstream_in_flight=11MiB",
    "limits.memory=12MiB",
    "limits.held=13MiB",
    "limits.scripts=17MiB",
    "limits.dedicated=17",
    "limits.users=18",
    "limits.bulk=14MiB",
    "limits.inline=15KiB",
    "limits.multibulk=16",
    "observe.hot_keys=false",
    "observe.sample=23",
    "slowlog.slower_than=24ms",
    "slowlog.max_len=25",
    "tracing.endpoint=http://collector:4318",
    "tracing.sample=26",
    "tracing.service_name=other",
    "commands.deny=keys,@dangerous",
    "commands.allow=config|set",
    "commands.on_outcome_unknown=disconnect",
    "commands.blocking=graph.query",
    "commands.cross_slot=emulate",
    "commands.cross_slot_turn=23ms",
    "log.level=debug",
    "log.format=json",
];

#[test]
fn every_key_reaches_its_own_field_and_every_field_has_a_key() {
    // Without `..`: a new field does not compile here until it has a key to be set by.
    let Config {
        listen,
        hand_over,
        seeds,
        workers,
        admin,
        announce,
        announce_mode,
        read_from,
        zone,
        auth,
        users: own_users,
        users_file,
        protected_mode,
        admin_token,
        admin_token_file,
        admin_token_for_probes,
        upstream,
        tls: Tls { downstream, upstream: secured, admin: admin_tls },
        timeouts,
        retries: Retries { budget_percent, min_per_second },
        reconnect,
        topology,
        replicas,
        transactions,
        pubsub,
        limits,
        observe: Observe { hot_keys, sample },
        slowlog: SlowLog { slower_than, max_len },
        tracing: Tracing { endpoint, sample: traced, service_name },
        commands,
        on_outcome_unknown,
        emulation,
        log,
        proxy_protocol,
        // Tables of their own: see `upstreams.rs`.
        upstreams: _,
        listener_upstreams: _,
        routes: _,
        databases: _,
    } = from_flags(OTHER.iter().copied()).unwrap().config;
    let Upstream {
        kind,
        master,
        sentinel_user,
        sentinel_password,
        sentinel_password_file,
        user,
        user_file,
        password,
        password_file,
        client_name,
        connections,
        keepalive,
    } = upstream;
    assert_eq!(
        (kind, master.as_str(), sentinel_user.as_str()),
        (UpstreamKind::Sentinel, "m", "su")
    );
    assert_eq!((&*sentinel_password.reveal(), &*sentinel_password_file), ("hunter4", ""));
    let TlsDownstream {
        listen: tls_listen,
        announce: tls_announce,
        cert,
        key,
        client_ca,
        client_auth,
        user_from,
        min_version,
        handshake_timeout,
    } = downstream;
    let files = [cert, key, client_ca].map(|file| file.unwrap().display().to_string());
    assert_eq!(files, ["c1", "k1", "ca1"]);
    assert_eq!((client_auth, user_from), (ClientAuth::Optional, UserFrom::San));
    let texts = |all: &[Address]| all.iter().map(Address::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&tls_listen), ["[::]:8", "b:9"]);
    assert_eq!(tls_announce.map(|a| a.to_string()).as_deref(), Some("proxy:10"));
    assert_eq!(handshake_timeout, Duration::from_secs(13));
    let TlsAdmin { cert, key, min_version: admin_version } = admin_tls;
    let files = [cert, key].map(|file| file.unwrap().display().to_string());
    assert_eq!(files, ["c3", "k3"]);
    let versions = [min_version, secured.min_version, admin_version];
    assert_eq!(versions, [TlsVersion::Tls13; 3]);
    let TlsUpstream { enabled, ca, verify, server_name, cert, key, min_version: _ } = secured;
    let files = [cert, key, ca].map(|file| file.unwrap().display().to_string());
    assert_eq!(files, ["c2", "k2", "ca2"]);
    assert_eq!((enabled, verify, server_name.as_str()), (true, Verify::Chain, "name"));
    assert_eq!((budget_percent, min_per_second), (28, 29));
    let Timeouts {
        command,
        connect,
        no_primary,
        probe,
        drain,
        login,
        idle,
        max_age,
        keepalive: client_keepalive,
    } = timeouts;
    let times = [login, max_age].map(|time| time.map(|time| time.as_secs()));
    assert_eq!(times, [Some(14), Some(900)]);
    let ProxyProtocol { listen: proxied, trusted, timeout } = proxy_protocol;
    assert_eq!((proxied.len(), trusted.len(), timeout.as_secs()), (1, 2, 2));
    let Reconnect { min, max } = reconnect;
    let Topology { refresh, min_interval } = topology;
    let Replicas { max_lag, max_lag_bytes, check, in_failover, zones } = replicas;
    let Limits {
        clients,
        client_output,
        upstream_in_flight,
        memory,
        held,
        scripts,
        dedicated,
        users,
        bulk,
        inline,
        multibulk,
    } = limits;
    let crate::command::Rules { deny, allow, blocking } = commands;
    let Transactions { cross_slot } = transactions;
    let PubSub { output_hard, output_soft, output_soft_time, on_gap } = pubsub;
    let Log { level, format } = log;

    assert_eq!(
        listen,
        [Listen::Unix("/run/s.sock".into()), Listen::Tcp(Address { host: "::1".into(), port: 7 })]
    );
    assert_eq!(seeds.iter().map(Address::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
    assert_eq!((workers.count(), admin, hand_over), (2, None, HandOver::On));
    assert_eq!(announce.map(|a| a.to_string()).as_deref(), Some("proxy:8"));
    assert_eq!(announce_mode, AnnounceMode::Cluster);
    assert_eq!((user.as_str(), &*password.reveal()), ("u", "hunter2"));
    assert_eq!((auth, protected_mode, users), (Auth::Passthrough, false, 18));
    assert_eq!((&*admin_token.reveal(), admin_token_for_probes), ("hunter3", true));
    assert_eq!((users_file + &admin_token_file + &password_file + &user_file).as_str(), "");
    assert_eq!(own_users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["app"]);
    assert_eq!((client_name.as_str(), connections), ("n", 2));
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    assert_eq!((command, connect, drain, idle), (None, s(2), s(3), Some(s(240))));
    assert_eq!((probe, keepalive, client_keepalive), (Some(ms(250)), Some(s(11)), Some(s(12))));
    assert_eq!(no_primary, Some(s(27)));
    assert_eq!((min, max, refresh, min_interval), (ms(5), s(6), s(7), ms(8)));
    assert_eq!((read_from, zone.as_str(), in_failover), (ReadFrom::Zone, "z", InFailover::Read));
    assert_eq!((max_lag, max_lag_bytes, check), (Some(s(20)), 21 * MIB, s(22)));
    assert_eq!(zones.iter().map(NodeZone::to_string).collect::<Vec<_>>(), ["a:1=z", "b=y"]);
    assert_eq!((clients, client_output, upstream_in_flight), (9, 10 * MIB, 11 * MIB));
    assert_eq!((memory, held, bulk), (Memory::Bytes(12 * MIB), 13 * MIB, 14 * MIB));
    assert_eq!(scripts, 17 * MIB);
    assert_eq!((cross_slot, dedicated), (CrossSlot::Split, 17));
    assert_eq!((output_hard, output_soft), (18 * MIB, 19 * KIB));
    assert_eq!((output_soft_time, on_gap), (s(9), OnGap::Disconnect));
    assert_eq!((inline, multibulk), (15 * KIB, 16));
    assert_eq!((hot_keys, sample), (false, 23));
    assert_eq!((slower_than, max_len), (Some(ms(24)), 25));
    assert_eq!((endpoint.as_str(), traced), ("http://collector:4318", 26));
    assert_eq!(service_name, "other");
    let texts = |rules: &[crate::command::Rule]| {
        rules.iter().map(|r| r.text().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        [texts(&deny), texts(&allow), texts(&blocking)],
        [
            vec!["keys".into(), "@dangerous".into()],
            vec!["config|set".into()],
            vec!["graph.query".to_owned()]
        ]
    );
    assert_eq!(on_outcome_unknown, OnOutcomeUnknown::Disconnect);
    assert_eq!((emulation.cross_slot, emulation.turn), (CrossSlotCommand::Emulate, ms(23)));
    assert_eq!((level.as_str(), format), ("debug", LogFormat::Json));

    let keys: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    let set: Vec<_> = OTHER.iter().filter_map(|text| text.split('=').next()).collect();
    assert_eq!(keys, set);
}

#[test]
fn every_key_is_in_a_section_that_exists() {
    let sections: BTreeSet<_> = KEYS.iter().map(|key| key.section_and_name().0).collect();
    let listed = SECTIONS.iter().map(|section| section.name).chain([""]).collect();
    assert_eq!(sections, listed);
    for key in KEYS {
        assert_eq!(key.path, key.path.to_lowercase(), "variables are capitals of the path");
        assert!(!key.path.contains("__"), "would be a dot in the variable");
    }
}

#[test]
fn what_check_prints_is_what_was_set() {
    let others: Vec<_> = OTHER.iter().copied().filter(|s| !s.contains("hunter")).collect();
    let loaded = from_flags(others).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("effective.toml");
    std::fs::write(&file, effective_toml(&loaded)).unwrap();
    let again = load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn proxy_toml_in_the_repository_is_the_default_with_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text == proxy_toml(), "out of date: slotway docs proxy-toml > proxy.toml");
    let loaded = load(&Sources { file: Some(path.into()), ..Sources::default() }).unwrap();
    assert_eq!(loaded.config, Config::default());
    for key in KEYS {
        assert_ne!(*loaded.origin(key.path), Origin::Default, "{} is missing", key.path);
    }
}

#[test]
fn docs_configuration_md_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    assert!(
        std::fs::read_to_string(path).unwrap() == docs_markdown(),
        "out of date: slotway docs configuration > docs/configuration.md"
    );
}

#[test]
fn no_secret_in_debug_output_nor_in_the_effective_configuration() {
    let loaded = from_flags(["upstream.password=hunter2"]).unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let shown = effective_toml(&loaded);
    assert!(!shown.contains("hunter2") && shown.contains("password = \"***\""), "{shown}");
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    for (setting, range) in [
        ("workers=0", "from 1 to"),
        ("upstream.connections=65", "from 1 to 64"),
        ("limits.bulk=3GiB", "\"2GiB\""),
        ("limits.multibulk=2147483648", "2147483647"),
        ("timeouts.connect=0", "\"1ms\""),
        ("timeouts.connect=48h", "\"1h\""),
        ("upstream.client_name=a b", "no spaces"),
        ("listen=", "at least one"),
        ("read_from=replica", "\"lowest_latency\" or \"zone\""),
        ("replicas.zones=a", "\"host=zone\""),
        ("commands.deny=keyz", "the nearest is \"keys\""),
        ("commands.allow=@dangerus", "the nearest is \"@dangerous\""),
        ("commands.allow=config set", "the nearest is \"config|set\""),
        ("commands.blocking=@all", "commands are named one by one"),
        ("commands.blocking=blpo", "the nearest is \"blpop\""),
    ] {
        let error = from_flags([setting]).unwrap_err().to_string();
        let key = setting.split('=').next().unwrap();
        assert!(error.starts_with(&format!("--set {key}: ")), "{error}");
        assert!(error.contains(range), "{error}");
    }
}
