//! Who may connect, and how, is changed while clients are served: users, passwords, TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;
use slotway::sandbox::Conn;

use super::harness::{Slotway, To, cluster, local, under_load, write_file};
use crate::common::tls::{Ca, Client, Identity, client_config};
use crate::common::{eventually, http_get};

fn error(conn: &mut Conn, args: &[&str]) -> String {
    let reply = conn.command(args).expect("a reply");
    reply.error().unwrap_or_else(|| panic!("{args:?}: {reply:?}")).to_owned()
}

fn ok(conn: &mut Conn, args: &[&str]) {
    let reply = conn.command(args).expect("a reply");
    assert!(reply.error().is_none(), "{args:?}: {reply:?}");
}

/// Nothing more comes but the end.
fn is_closed(conn: &mut Conn) -> bool {
    conn.receive().is_err()
}

fn users(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("\"{line}\"")).collect();
    format!("users = [{}]\n", lines.join(", "))
}

#[test]
fn users_and_their_rules_change() {
    let everybody = "default on nopass ~* &* +@all";
    let before = [
        everybody,
        "app on >s3cret-app ~rule:a:* &rule:a:* +@all",
        "gone on >s3cret-gone ~* &* +@all",
    ];
    let slotway = Slotway::start(&users(&before));
    let login = |name: &str, password: &str| {
        let mut conn = slotway.connect();
        ok(&mut conn, &["AUTH", name, password]);
        conn
    };
    let (mut app, mut hears) = (login("app", "s3cret-app"), login("app", "s3cret-app"));
    let (mut gone, mut waits) = (login("gone", "s3cret-gone"), login("gone", "s3cret-gone"));
    ok(&mut app, &["SET", "rule:a:1", "1"]);
    assert!(error(&mut app, &["SET", "rule:b:1", "1"]).starts_with("NOPERM"));
    ok(&mut hears, &["SUBSCRIBE", "rule:a:news"]);
    let mut queues = login("app", "s3cret-app");
    ok(&mut queues, &["MULTI"]);
    ok(&mut queues, &["SET", "rule:a:1", "queued"]);
    ok(&mut gone, &["SET", "rule:b:1", "1"]);
    waits.send(&["BLPOP", "rule:list", "0"]).unwrap();

    // Whoever is not concerned notices nothing.
    let closed = under_load("users", &[To::Tcp(slotway.listen)], |load| {
        let after = [
            everybody,
            "app on >s3cret-app ~rule:b:* &rule:b:* +@all",
            "fresh on >s3cret-fresh ~* &* +@all",
        ];
        slotway.change_now(&users(&after), "changed");
        load.more();
    });
    assert_eq!(closed, 0, "kept connections were closed");
    assert!(error(&mut app, &["SET", "rule:a:1", "1"]).starts_with("NOPERM"), "the next command");
    ok(&mut app, &["SET", "rule:b:1", "1"]);
    assert!(error(&mut queues, &["EXEC"]).starts_with("EXECABORT"), "what was queued before, too");
    assert!(is_closed(&mut hears), "as Redis does with who listens to what it may not hear");
    assert!(is_closed(&mut gone) && is_closed(&mut waits), "as ACL DELUSER does");
    let mut fresh = slotway.connect();
    assert!(error(&mut fresh, &["AUTH", "gone", "s3cret-gone"]).starts_with("WRONGPASS"));
    ok(&mut fresh, &["AUTH", "fresh", "s3cret-fresh"]);
    ok(&mut fresh, &["SET", "rule:a:1", "1"]);

    // A file that is not valid changes nothing, and does not show what is in it.
    slotway.change_now(&users(&["app on >s3cret-app +@reed"]), "invalid");
    ok(&mut app, &["SET", "rule:b:1", "1"]);
    assert!(slotway.log().contains("+@reed"), "{}", slotway.log());

    // Everybody has to log in; then nobody; then everybody again.
    let mut stranger = slotway.connect();
    ok(&mut stranger, &["SET", "rule:c:1", "1"]);
    let strict = users(&["app on >s3cret-app ~* &* +@all"]);
    slotway.change_now(&strict, "changed");
    assert!(is_closed(&mut stranger) && is_closed(&mut fresh));
    let mut stranger = slotway.connect();
    assert!(error(&mut stranger, &["SET", "rule:c:1", "1"]).starts_with("NOAUTH"));
    slotway.change_now("", "changed");
    assert!(is_closed(&mut stranger), "it may come again, as everybody");
    assert!(is_closed(&mut app), "there is no such user");
    let (mut open, mut hears) = (slotway.connect(), slotway.connect());
    ok(&mut open, &["SET", "rule:c:1", "1"]);
    ok(&mut hears, &["SUBSCRIBE", "rule:c:news"]);
    let file = slotway.folder.join("users.acl");
    std::fs::write(&file, "user app on >s3cret-app ~* &* +@all\n").unwrap();
    let with_file = format!("users_file = \"{}\"\n", file.display());
    slotway.change_now(&with_file, "changed");
    assert!(error(&mut open, &["SET", "rule:c:1", "1"]).starts_with("NOAUTH"));
    assert!(is_closed(&mut hears), "it would hear what it may not ask for");
    ok(&mut open, &["AUTH", "app", "s3cret-app"]);
    // The file that is named now is watched by itself.
    std::fs::write(&file, "user app on >s3cret-two ~* &* +@all\n").unwrap();
    eventually("the new password holds", || {
        let reply = slotway.connect().command(&["AUTH", "app", "s3cret-two"]);
        reply.is_ok_and(|reply| reply.is_ok())
    });
    ok(&mut open, &["SET", "rule:c:1", "1"]);
    let log = slotway.log();
    assert!(log.contains("key=\"users\"") && log.contains("#***"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn an_unprotected_address_is_refused_at_run_time_too() {
    let slotway = Slotway::start(&users(&["app on >pw ~* &* +@all"]));
    let mut app = slotway.connect();
    ok(&mut app, &["AUTH", "app", "pw"]);
    let public = format!("0.0.0.0:{}", local().port());
    let listen = [slotway.listen.to_string(), public.clone()];
    let refused = || slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\"");
    write_file(&slotway.folder, &listen, slotway.admin, "");
    slotway.look();
    eventually("it is refused", || refused() == 1.0);
    assert!(slotway.log().contains(&format!("\"{public}\" can be reached from other machines")));
    ok(&mut app, &["SET", "reload:public", "1"]);
    write_file(&slotway.folder, &listen, slotway.admin, "protected_mode = false\n");
    slotway.look();
    eventually("it is listened on", || {
        let port = public.rsplit(':').next().unwrap().parse().unwrap();
        Conn::tcp((std::net::Ipv4Addr::LOCALHOST, port).into()).is_ok()
    });
    // The address is there, and what made it acceptable is to go.
    write_file(&slotway.folder, &listen, slotway.admin, "");
    slotway.look();
    eventually("it is refused", || refused() == 2.0);
}

#[test]
fn the_user_for_the_nodes_and_its_password_change() {
    let nodes = || cluster().addrs().into_iter().map(|addr| Conn::tcp(addr).unwrap());
    for mut node in nodes() {
        for user in ["first", "second"] {
            let password = format!(">s3cret-{user}");
            ok(&mut node, &["ACL", "SETUSER", user, "on", &password, "~*", "&*", "+@all"]);
        }
    }
    let folder = Slotway::folder();
    let (user, password) = (folder.join("username"), folder.join("password"));
    let write = |name: &str| {
        std::fs::write(&user, format!("{name}\n")).unwrap();
        std::fs::write(&password, format!("s3cret-{name}\n")).unwrap();
    };
    write("first");
    let slotway = Slotway::start(&format!(
        "[upstream]\nuser_file = \"{}\"\npassword_file = \"{}\"\nclient_name = \"by-file\"\n",
        user.display(),
        password.display()
    ));
    let with = |name: &str| {
        let (user, name) = (format!("user={name}"), "name=by-file");
        nodes().any(|mut node| {
            let list = node.command(&["CLIENT", "LIST"]).unwrap().text().unwrap_or_default();
            list.lines().any(|line| line.contains(&user) && line.contains(name))
        })
    };
    let mut conn = slotway.connect();
    ok(&mut conn, &["SET", "reload:user", "1"]);
    assert!(with("first") && !with("second"));
    write("second");
    eventually("the new user is known", || slotway.log().contains("key=\"upstream.user\""));
    eventually("new connections are the new user's", || {
        for mut node in nodes() {
            ok(&mut node, &["CLIENT", "KILL", "USER", "first"]);
        }
        // Reads are asked again when their connection is lost.
        ok(&mut conn, &["GET", "reload:user"]);
        with("second") && !with("first")
    });
    for mut node in nodes() {
        ok(&mut node, &["ACL", "DELUSER", "first"]);
    }
    ok(&mut conn, &["SET", "reload:user", "2"]);
    assert!(!slotway.log().contains("s3cret"), "{}", slotway.log());
}

/// What is shown at `addr`.
fn shown(addr: SocketAddr, config: &ClientConfig) -> Option<Vec<u8>> {
    // Without what the client remembers of a session.
    let client = Client::connect(addr, &Arc::new(config.clone())).ok()?;
    Some(client.stream.conn.peer_certificates()?.first()?.to_vec())
}

fn replace(identity: &Identity, by: &Identity) {
    for (file, by) in [(&identity.cert, &by.cert), (&identity.key, &by.key)] {
        let fresh = file.with_extension("fresh");
        std::fs::copy(by, &fresh).unwrap();
        std::fs::rename(fresh, file).unwrap();
    }
}

fn fresh_config(ca: &Path) -> ClientConfig {
    client_config(ca, None, false)
}

#[test]
fn tls_is_added_changed_and_taken_away() {
    let slotway = Slotway::start("");
    let folder = &slotway.folder;
    let ca = Ca::new(folder, "ca");
    let (served, next) = (ca.sign("served", &["localhost"]), ca.sign("next", &["localhost"]));
    let (first, second) = (slotway.listen, local());
    let with_tls = |plain: SocketAddr, tls: SocketAddr, cert: &Path| {
        let rest = format!(
            "[tls.downstream]\nlisten = [\"{tls}\"]\ncert = \"{}\"\nkey = \"{}\"\n",
            cert.display(),
            served.key.display()
        );
        write_file(folder, &[plain.to_string()], slotway.admin, &rest);
        slotway.look();
    };
    let mut plain = slotway.connect();
    let config = || Arc::new(fresh_config(&ca.file));

    // A certificate that is not there yet: nothing changes until it is.
    let late = folder.join("late.crt");
    with_tls(first, second, &late);
    eventually("it is refused", || {
        slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\"") == 1.0
    });
    assert!(slotway.log().contains("late.crt cannot be read"), "{}", slotway.log());
    std::fs::copy(&served.cert, &late).unwrap();
    eventually("it is tried again", || Client::connect(second, &config()).is_ok());
    let mut secured = Client::connect(second, &config()).unwrap();
    assert_eq!(secured.ask("SET reload:tls 1").unwrap(), "+OK");
    assert_eq!(slotway.metric("slotway_config_reloads_total", "outcome=\"invalid\""), 1.0);

    // Another certificate at the same place.
    let before = shown(second, &config()).unwrap();
    replace(&Identity { cert: late.clone(), key: served.key.clone() }, &next);
    eventually("the new one is shown", || {
        shown(second, &config()).is_some_and(|now| now != before)
    });
    assert_eq!(secured.ask("GET reload:tls").unwrap(), "$1\r\n1", "its connection stays");

    // The plain address becomes the one with TLS and the other way round, and nobody is in between.
    let closed = under_load("turned", &[To::Tcp(first)], |load| {
        let third = local();
        write_file(
            folder,
            &[first.to_string(), second.to_string()],
            slotway.admin,
            &format!(
                "[tls.downstream]\nlisten = [\"{third}\"]\ncert = \"{}\"\nkey = \"{}\"\n",
                late.display(),
                served.key.display()
            ),
        );
        slotway.look();
        eventually("TLS is elsewhere", || Client::connect(third, &config()).is_ok());
        ok(&mut Conn::tcp(second).unwrap(), &["GET", "reload:tls"]);
        load.more();
    });
    assert_eq!(closed, 0, "kept connections were closed");
    with_tls(second, first, &late);
    eventually("the first one speaks TLS", || Client::connect(first, &config()).is_ok());
    assert_eq!(secured.ask("GET reload:tls").unwrap(), "$1\r\n1");
    ok(&mut plain, &["GET", "reload:tls"]);

    // What needs a restart is said; the rest of the file is used.
    write_file(
        folder,
        &[first.to_string()],
        slotway.admin,
        &format!("[tls.upstream]\nenabled = true\nca = \"{}\"\n", ca.file.display()),
    );
    slotway.look();
    eventually("it is named", || {
        let log = slotway.log();
        log.lines().any(|l| l.contains("tls.upstream.enabled") && l.contains("needs a restart"))
    });
    eventually("TLS is gone", || Conn::tcp(first).is_ok_and(|mut c| c.command(&["PING"]).is_ok()));
    assert_eq!(secured.ask("GET reload:tls").unwrap(), "$1\r\n1");
}

/// One page over TLS.
fn https(addr: SocketAddr, ca: &Path, path: &str, token: &str) -> Option<(u16, String)> {
    let mut client = Client::connect(addr, &Arc::new(fresh_config(ca))).ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    client.stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    client.stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn the_admin_listener_speaks_https() {
    let slotway = Slotway::start("");
    let ca = Ca::new(&slotway.folder, "ca");
    let (served, next) = (ca.sign("admin", &["localhost"]), ca.sign("next", &["localhost"]));
    let file = slotway.folder.join("proxy.toml");
    let probe = |page: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_slotway"))
            .args(["probe", page, "--config"])
            .arg(&file)
            .output()
            .expect("slotway");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let rest = |token: &str| {
        format!(
            "admin_token = \"{token}\"\nadmin_token_for_probes = true\n[tls.admin]\n\
             cert = \"{}\"\nkey = \"{}\"\nmin_version = \"1.3\"\n",
            served.cert.display(),
            served.key.display()
        )
    };
    slotway.write(&rest("s3cret-one"));
    slotway.look();
    let get = |path: &str, token: &str| https(slotway.admin, &ca.file, path, token);
    eventually("it speaks HTTPS", || {
        get("/healthz", "s3cret-one") == Some((200, "ok\n".to_owned()))
    });
    assert_eq!(http_get(slotway.admin, "/healthz"), None, "and nothing else");
    assert_eq!(get("/healthz", "wrong").map(|page| page.0), Some(401));
    assert_eq!(probe("live"), (Some(0), "ok\n".to_owned()));
    let (_, metrics) = get("/metrics", "s3cret-one").expect("metrics");
    let handshakes = "slotway_tls_handshakes_total{side=\"admin\",result=\"ok\"}";
    assert!(metrics.contains(handshakes), "{metrics}");

    // The certificate and the token change, and the probe knows.
    let before = shown(slotway.admin, &fresh_config(&ca.file)).unwrap();
    replace(&served, &next);
    let (code, said) = probe("ready");
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(shown(slotway.admin, &fresh_config(&ca.file)), Some(before));
    slotway.write(&rest("s3cret-two"));
    slotway.look();
    eventually("the new token holds", || get("/", "s3cret-two").is_some_and(|page| page.0 == 200));
    assert_eq!(get("/", "s3cret-one").map(|page| page.0), Some(401));

    // It tells its token to nobody who has another certificate.
    let other = ca.sign("other", &["localhost"]);
    std::fs::write(
        &file,
        std::fs::read_to_string(&file)
            .unwrap()
            .replace(&served.cert.display().to_string(), &other.cert.display().to_string()),
    )
    .unwrap();
    let (code, said) = probe("live");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("tls.admin.cert"), "{said}");
    for text in [slotway.log(), said, get("/", "s3cret-two").unwrap().1] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    slotway.write("");
    slotway.look();
    eventually("it speaks HTTP again", || http_get(slotway.admin, "/healthz").is_some());
}
