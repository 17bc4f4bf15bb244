//! Slotway: a cluster-aware Redis proxy.
//!
//! Clients speak plain Redis to slotway; slotway speaks to a Redis Cluster. The crate is divided
//! into rooms (top-level modules), listed here from the ground up. A room uses only the rooms that
//! its line names, all of which stand above it, and the files of a room do not use each other in a
//! circle, except for a module and its children. `tests/rooms.rs` enforces this.
//!
//! | room | is | uses |
//! |---|---|---|
//! | [`resp`] | the wire protocol: scans requests, finds ends of replies, writes replies. No I/O |  |
//! | [`dest`] | identities of clients, nodes and connections, destinations of replies. No I/O |  |
//! | [`lines`] | log lines that others can cause, limited. No I/O |  |
//! | [`backoff`] | pauses between attempts, with jitter. No I/O |  |
//! | [`meter`] | memory that a thread has taken |  |
//! | [`arena`] | memory that a thread gives back |  |
//! | [`command`] | the command table, from the server's own `COMMAND`. No I/O | resp |
//! | [`cluster`] | slots, nodes, shards; an immutable snapshot of the topology. No I/O | resp |
//! | [`hash`] | the hash tables of all rooms. No I/O | dest, cluster |
//! | [`errors`] | the errors that slotway answers with, as values: code, text, cause, remedy. No I/O | resp, cluster |
//! | [`descriptors`] | how the limit on open files is shared out | errors |
//! | [`channel`] | kinds of channels, and Redis's patterns. No I/O |  |
//! | [`proxy_protocol`] | the header by which a load balancer names its client. No I/O |  |
//! | [`scripts`] | the Lua scripts that any node can be given at any time. No I/O | resp, hash |
//! | [`observe`] | hot keys, big keys, slow commands, spans: what is seen as commands pass. No I/O | resp, hash, command, cluster, dest |
//! | [`users`] | who clients are and what they may do. No I/O | resp, hash, command, errors, channel |
//! | [`config`] | the configuration: file, environment, command line; the table of its keys | command, cluster, observe, users |
//! | [`tls`] | certificates, and TLS on sockets | cluster, config |
//! | [`buf`] | byte queues towards sockets |  |
//! | [`stream`] | sockets of either side | cluster, tls |
//! | [`placement`] | where commands go, and what becomes of those that do not get there: holds, refusals, retries, choice of a replica. No I/O | resp, dest, hash, cluster, errors, config |
//! | [`route`] | a command and a snapshot give a plan; partial replies are merged. No I/O | resp, dest, hash, command, cluster, errors, channel, config, buf |
//! | [`emulate`] | commands over several slots, composed of commands for one. No I/O | resp, hash, cluster, errors, scripts, placement, route |
//! | [`docs`] | the reference of commands | resp, command, route, emulate |
//! | [`ops`] | commands of more than one step: what they wait for, and what comes next. No I/O | resp, dest, command, cluster, errors, placement, route, emulate |
//! | [`pubsub`] | one subscription at the cluster for all subscribers: topics and the hub's logic. No I/O | resp, hash, backoff, cluster, channel, placement |
//! | [`metrics`] | what is counted, and how Prometheus sees it | command, cluster, errors, channel, tls, placement, emulate, pubsub |
//! | [`upstream`] | connections to nodes | resp, dest, command, cluster, scripts, buf, stream, placement, route |
//! | [`client`] | one downstream connection, its ordered reply queue, its limits | resp, dest, hash, command, cluster, errors, channel, proxy_protocol, scripts, observe, users, config, buf, stream, route, ops, metrics |
//! | [`mailbox`] | what threads say to each other | hash, command, cluster, errors, channel, dest, proxy_protocol, observe, users, config, pubsub, metrics, upstream, client |
//! | [`hub`] | the thread that holds the subscriptions at the cluster | resp, hash, lines, backoff, cluster, config, tls, buf, stream, pubsub, upstream, mailbox |
//! | [`common`] | what all parts of a worker share: the time, the settings, the turn at hand, the counters | resp, dest, lines, backoff, meter, arena, command, cluster, errors, descriptors, channel, scripts, observe, users, config, tls, buf, stream, placement, route, emulate, ops, metrics, upstream, client, mailbox, hub |
//! | [`nodes`] | the nodes of the cluster as one worker reaches them: connections, which can be used, who serves which slot | resp, dest, command, cluster, errors, observe, stream, placement, route, pubsub, metrics, upstream, client, mailbox, common |
//! | [`clients`] | the clients of one worker: who is read from, who waits, who leaves, replies of slotway's own | resp, dest, hash, command, cluster, errors, users, config, buf, stream, placement, route, ops, metrics, upstream, client, mailbox, common, nodes |
//! | [`access`] | the users of a worker's clients: accounts, realms, what is believed of their rights | resp, dest, hash, command, errors, users, metrics, upstream, mailbox, common, nodes, clients |
//! | [`node_scripts`] | which Lua scripts each node has | resp, dest, hash, command, scripts, route, metrics, upstream, mailbox, common, nodes |
//! | [`subscribers`] | a worker's half of pub/sub: topics, subscriptions, messages | resp, dest, hash, command, cluster, errors, channel, users, config, route, pubsub, upstream, client, mailbox, common, nodes, clients |
//! | [`base`] | what takes several of the parts above: greeting, sending, users that change | resp, dest, hash, command, cluster, errors, scripts, users, tls, buf, stream, placement, route, metrics, upstream, client, mailbox, common, nodes, clients, access, node_scripts, subscribers |
//! | [`operations`] | commands of more than one step, holds and retries, carried out | resp, dest, hash, command, cluster, errors, observe, users, buf, placement, route, emulate, ops, metrics, upstream, client, mailbox, common, nodes, clients, access, subscribers, base |
//! | [`recorder`] | what is seen of commands as they pass a worker | resp, dest, command, observe, config, upstream, client, common, nodes, clients, base, operations |
//! | [`engine`] | all parts of a worker together; replies to clients, next steps, deadlines | resp, dest, errors, users, config, buf, placement, route, emulate, ops, metrics, upstream, client, mailbox, common, nodes, clients, access, node_scripts, subscribers, base, operations, recorder |
//! | [`dispatch`] | commands of clients, from the plan to the buffers of the nodes | resp, dest, hash, command, cluster, errors, scripts, observe, users, buf, placement, route, emulate, ops, metrics, upstream, client, mailbox, common, nodes, clients, access, node_scripts, base, operations, engine |
//! | [`delivery`] | replies of nodes: which command each answers; refusals, lost connections | resp, dest, cluster, errors, users, buf, placement, route, ops, metrics, upstream, mailbox, common, nodes, clients, subscribers, base, engine, dispatch |
//! | [`worker`] | the event loop of one core: reads, writes, timers, messages from other threads | resp, dest, hash, meter, arena, command, cluster, proxy_protocol, config, tls, buf, placement, route, emulate, metrics, upstream, client, mailbox, common, nodes, clients, access, node_scripts, subscribers, base, operations, recorder, engine, dispatch, delivery |
//! | [`control`] | topology refresh, health of replicas, questions to nodes, the pool of workers | resp, lines, backoff, command, cluster, errors, descriptors, channel, observe, users, config, tls, pubsub, metrics, upstream, client, mailbox, common, hub, worker |
//! | [`admin`] | HTTP: metrics, health, the status page | command, cluster, descriptors, observe, users, config, tls, placement, metrics, client, control |
//! | [`process`] | the process: listening, signals, reload, hand-over, drain | lines, command, errors, descriptors, proxy_protocol, users, config, tls, stream, metrics, mailbox, control, admin |
//! | [`sandbox`] | a local cluster of real servers, for `make run`, tests and benches | cluster |
//!
//! The path of a GET from its read to its node's buffer, and of the reply back to the client's
//! buffer. Each file is listed once, with the functions passed in it, in order (`tests/rooms.rs`
//! checks that they exist).
//!
//! | way | file | functions |
//! |---|---|---|
//! | there | `worker/downstream.rs` | `client_readable`, `take_in`, `process` |
//! | there | `resp/request.rs` | `scan_request` |
//! | there | `dispatch/walk.rs` | `dispatch` |
//! | there | `command/table.rs` | `resolve` |
//! | there | `route/mod.rs` | `command`, `plan`, `flags` |
//! | there | `cluster/views.rs` | `get`, `slot_of` |
//! | there | `cluster/slot.rs` | `slot_of`, `crc16` |
//! | there | `placement/slot_table.rs` | `route` |
//! | there | `clients/fairness.rs` | `connection_of`, `has_to_wait` |
//! | there | `client/replies.rs` | `expect` |
//! | there | `buf.rs` | `push` |
//! | there | `upstream/pending.rs` | `push_back` |
//! | back | `worker/reading.rs` | `upstream_readable` |
//! | back | `delivery/reading.rs` | `replies` |
//! | back | `resp/reply.rs` | `advance` |
//! | back | `delivery/walk.rs` | `reply` |
//! | back | `upstream/pending.rs` | `pop_front` |
//! | back | `buf.rs` | `release`, `push_pieces` |
//! | back | `metrics/stats.rs` | `bucket`, `record` |
//! | back | `client/replies.rs` | `complete` |
//!
//! Where to look first:
//! - **What is sent again**, after which refusal or loss, and what never is: `after_refusal` and
//!   `after_loss` in `placement/policy.rs`. `placement/policy_tests.rs` has a line for each kind of
//!   command in each case. For shared connections `Pending::work` in `upstream/pending.rs` says what
//!   kind a command is, and `Upstream::lost` and `delivery/refused.rs` ask the policy.
//! - **A command that waits at a node** (BLPOP, WATCH, a transaction behind WATCH): its states are
//!   in `ops/errand.rs`; `operations/errand.rs` sends it, `delivery/dedicated.rs` handles the
//!   replies. When a key's slot leaves a node, the node itself ends the wait (MOVED, UNBLOCKED), and
//!   `refused` in `operations/errand.rs` sends the command to the new owner with the rest of its
//!   timeout.
//! - **A command that needs code of its own**: `OVERRIDES` in `route/behaviour.rs` says what is done
//!   about it if the server's own table does not. A new kind is a `Behaviour`, a `Plan` that
//!   `route/mod.rs` makes of it, and an arm of `dispatch_rare` in `dispatch/plans.rs`. A command
//!   that slotway answers is a `Local`: see `local` in `dispatch/plans.rs` and `client/local.rs`.
//!   One that no server has is declared in `PROXY_COMMANDS` in `command/table.rs`. Then: `place` in
//!   `clients/transaction.rs` (inside MULTI), `check_in_realm` in `base/users.rs` (users of the
//!   cluster), `wait_time` in `route/blocking.rs` (its timeout), `docs/commands.rs` (the reference).
//! - **What concerns several parts of a worker** (a lost connection, a failed command, a client that
//!   is closed): an `Effect` (`common/effect.rs`), carried out in `delivery/effect.rs`.
//! - **A command over several slots**: a recipe in `emulate`, named in `emulate/table.rs`. What its
//!   steps read is in `READS` of `emulate/talk.rs`. If it waits its name begins with b, or
//!   `spec_blocks` in `dispatch/emulation.rs` knows it. `docs/commands.rs` writes the reference.
//! - **An error of slotway's own**: `errors/table`.
//! - **A key of the configuration**: `config/keys.rs`. **A metric**: `metrics/names.rs`.
#![forbid(unsafe_code)]

mod access;
mod admin;
mod arena;
mod backoff;
mod base;
pub mod buf;
pub mod channel;
pub mod client;
mod clients;
pub mod cluster;
pub mod command;
mod common;
pub mod config;
pub mod control;
mod delivery;
mod descriptors;
mod dest;
mod dispatch;
pub mod docs;
mod emulate;
mod engine;
pub mod errors;
mod hash;
mod hub;
mod lines;
mod mailbox;
mod meter;
pub mod metrics;
mod node_scripts;
mod nodes;
mod observe;
mod operations;
mod ops;
pub mod placement;
pub mod process;
pub mod proxy_protocol;
pub mod pubsub;
mod recorder;
pub mod resp;
pub mod route;
pub mod sandbox;
pub mod scripts;
mod stream;
mod subscribers;
pub mod tls;
pub mod upstream;
pub mod users;
mod worker;
