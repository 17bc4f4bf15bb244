//! The texts of the reference on several upstreams: `[upstreams.NAME]`, and what names them.

/// What `optional` of an upstream means.
pub(super) const OPTIONAL_DOC: &str = "Whether /readyz does without this upstream.";
/// What `[databases]` means.
pub(super) const DATABASES_DOC: &str =
    "The upstream, and its database, that clients have who SELECT this number.";
/// What `[[routes]]` means.
pub(super) const ROUTES_DOC: &str =
    "The upstreams of keys (PREFIX=UPSTREAM) and channels (&PREFIX=UPSTREAM) by their prefixes.";

/// The tables: what each is for, and an example.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    (
        "Other clusters and servers behind the same address, any number of them (at most three \
         clusters, and 64 in all), each as [upstreams.NAME]; a name is 1 to 32 of a to z, 0 to 9, \
         _ and -. An upstream has the keys of [upstream], and seeds, read_from, optional, and \
         [upstreams.NAME.tls] with the keys of [tls.upstream]. client_name, connections, keepalive \
         and read_from are those outside of [upstreams] unless given; kind, master, logins and TLS \
         are not, so that no password goes to another server. optional = true: /readyz does \
         without it.",
        r#"[upstreams.queues]
kind = "sentinel"
master = "mymaster"
seeds = ["10.0.1.1:26379", "10.0.1.2:26379"]
password_file = "/run/secrets/queues"
read_from = "prefer_replica"
optional = true

[upstreams.queues.tls]
enabled = true
ca = "/etc/slotway/queues-ca.pem"
"#,
    ),
    (
        "The upstream of a client is chosen by its address, listen = [\"127.0.0.1:6379\", { at = \
         \"127.0.0.1:6380\", upstream = \"queues\" }], as in tls.downstream.listen; and by the \
         database that it selects, so that redis://slotway:6379/1 is another upstream: its \
         database 0, or the one after the colon.",
        r#"[databases]
1 = "queues"
2 = "queues:1"
"#,
    ),
    (
        "For clients whose upstream neither their address nor their database chooses, the \
         beginning of a key, or of a channel, does: the longest prefix that fits. A route has \
         either prefix or channel_prefix.",
        r#"[[routes]]
prefix = "rq:"
upstream = "queues"

[[routes]]
channel_prefix = "rq:"
upstream = "queues"
"#,
    ),
];

/// What else there is to know, for the page of the reference.
pub(super) const RULES: &str = r#"
- **The first upstream** is called `main`; clients have it where nothing else is configured for them. `seeds`, `[upstream]`, `[tls.upstream]` and `read_from` are the short form for it. `[upstreams.main]` is another way to write the same, with `[upstream]` then only for what others inherit: the same upstream in both forms is an error. A single `[upstreams.NAME]` without `main` is the first one, whatever its name. The first one cannot be optional.
- **Variables and flags** exist for these keys as for all others: `SLOTWAY_UPSTREAMS__QUEUES__SEEDS=10.0.1.1:26379` (a hyphen in the name is an underscore there), `--set upstreams.queues.kind=standalone`, `--set databases.1=queues`, `--set listen=127.0.0.1:6379,127.0.0.1:6380=queues`. `--set routes=rq:=queues,&rq:=queues` replaces all routes; `&` marks the prefix of channels, and a prefix with a comma can only be written in the file.
- **At run time** change: the logins of an upstream (`user`, `password`, `sentinel_user`, `sentinel_password` and their files, for new connections), `[databases]`, `[[routes]]` and the upstreams of listeners. Everything else about `[upstreams]` **needs a restart**, and so does what names an upstream that only the new file has. Logins that change together with `seeds`, `kind`, `master` or `tls` of their upstream wait for the restart with these: no server gets the password of another.
- `auth = "passthrough"` is for a single upstream.
- A seed belongs to one upstream; only Sentinels may be seeds of several, with a `master` for each.
"#;
