//! The table of errors: [`Failure`], its codes, texts, causes and remedies.
//!
//! Long: it is the one table of all errors.

pub mod fields;

use super::{Code, Row, Section, Unanswered};
use crate::cluster::Slot;
use crate::resp::ProtocolError;
use fields::{Cause, CrossSlotRemedy, ForSlot, Halfway, Key, Last, StopCause};
use std::fmt;

/// The code of an error: the field that its row names in brackets, or a constant.
macro_rules! code {
    (($field:ident)) => {
        $field.clone()
    };
    ($code:ident) => {
        Code::$code
    };
}

/// The code on the reference page; `None` if it is in a field.
macro_rules! documented_code {
    (($field:ident)) => {
        None
    };
    ($code:ident) => {
        Some(Code::$code)
    };
}

/// `text` without its first word.
fn behind_code(text: &str) -> &str {
    text.split_once(' ').map_or("", |(_, rest)| rest)
}

/// Declares [`Failure`], [`FailureId`] and the table from which code, text and reference page come.
///
/// A text may end in a promise, written after `+`: what it says of the command's execution.
/// `as_redis` has the errors that a Redis server gives in the same situation, in the same words; the
/// sections have slotway's own, in rows with a common cause.
macro_rules! failures {
    (
        as_redis {
            $($(#[$redis_doc:meta])* $redis:ident $({ $($redis_field:ident: $redis_type:ty),+ })?
                => $redis_code:tt $redis_text:literal;)*
        }
        $(section $section:literal {
            $(row $cause:literal => $remedy:literal {
                $($(#[$doc:meta])* $name:ident $({ $($field:ident: $type:ty),+ })?
                    => $code:tt $text:literal $(+ $promise:literal $($tail:literal)?)?;)+
            })+
        })+
    ) => {
        /// An error that slotway replies with.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Failure {
            /// An error whose text, code included, comes from a node or quotes the client's command.
            Verbatim(Box<[u8]>),
            $($(#[$redis_doc])* $redis $({ $(#[allow(missing_docs)] $redis_field: $redis_type),+ })?,)*
            $($($($(#[$doc])* $name $({ $(#[allow(missing_docs)] $field: $type),+ })?,)+)+)+
        }

        /// The name of an error in the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureId {
            $($(#[$redis_doc])* $redis,)*
            $($($($(#[$doc])* $name,)+)+)+
        }

        #[allow(unused_variables)] // most texts and codes leave out some fields
        impl Failure {
            /// The error's code.
            pub fn code(&self) -> Code {
                match self {
                    Failure::Verbatim(text) => Code::of_verbatim(text),
                    $(Failure::$redis $({ $($redis_field),+ })? => code!($redis_code),)*
                    $($($(Failure::$name $({ $($field),+ })? => code!($code),)+)+)+
                }
            }

            /// Writes the text up to the promise, without the code.
            pub(super) fn write_statement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Failure::Verbatim(text) => f.write_str(behind_code(&String::from_utf8_lossy(text))),
                    $(Failure::$redis $({ $($redis_field),+ })? => write!(f, $redis_text),)*
                    $($($(Failure::$name $({ $($field),+ })? => write!(f, $text),)+)+)+
                }
            }

            /// Writes the promise: what the text says of the command's execution.
            pub(super) fn write_promise(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($($(Failure::$name $({ $($field),+ })? => { $(write!(f, $promise)?;)? })+)+)+
                    _ => {}
                }
                Ok(())
            }

            /// Writes the text after the promise.
            pub(super) fn write_tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($($(Failure::$name $({ $($field),+ })? => { $($(write!(f, $tail)?;)?)? })+)+)+
                    _ => {}
                }
                Ok(())
            }
        }

        /// The sections of the reference page.
        pub(super) fn sections() -> Vec<Section> {
            vec![$(Section {
                title: $section,
                rows: vec![$(Row {
                    errors: vec![$((documented_code!($code), concat!($text $(, $promise $(, $tail)?)?))),+],
                    cause: $cause,
                    remedy: $remedy,
                }),+],
            }),+]
        }

        /// All errors of the table: name, code and template.
        pub(super) fn templates() -> Vec<(FailureId, Option<Code>, &'static str)> {
            vec![
                $((FailureId::$redis, documented_code!($redis_code), $redis_text),)*
                $($($((
                    FailureId::$name,
                    documented_code!($code),
                    concat!($text $(, $promise $(, $tail)?)?),
                ),)+)+)+
            ]
        }

        /// The errors in Redis's words.
        pub(super) fn as_redis() -> Vec<(Option<Code>, &'static str)> {
            vec![$((documented_code!($redis_code), $redis_text)),*]
        }
    };
}

failures! {
    as_redis {
        /// AUTH with a password where none is expected.
        NoPasswordExpected => Err "AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
        /// A channel that the user's rules do not allow.
        ChannelDenied => NoPerm "this user has no permissions to access one of the channels used as arguments";
        /// SORT with an option that the user's rules do not allow.
        SortDenied { option: &'static str } => Err "{option} option of SORT denied due to insufficient ACL permissions.";
        /// A command that the user's rules do not allow.
        CommandDenied { command: Box<str> } => NoPerm "this user has no permissions to run the '{command}' command";
        /// A key that the user's rules do not allow.
        KeyDenied => NoPerm "this user has no permissions to access one of the keys used as arguments";
        /// A command before the login.
        LogInFirst => NoAuth "Authentication required.";
        /// HELLO before the login.
        LogInWithHello => NoAuth "HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
        /// A wrong user name or password.
        WrongPassword => WrongPass "invalid username-password pair or user is disabled.";
        /// DISCARD outside of a transaction.
        DiscardWithoutMulti => Err "DISCARD without MULTI";
        /// EXEC outside of a transaction.
        ExecWithoutMulti => Err "EXEC without MULTI";
        /// MULTI inside a transaction.
        NestedMulti => Err "MULTI calls can not be nested";
        /// WATCH inside a transaction.
        WatchInsideMulti => Err "WATCH inside MULTI is not allowed";
        /// EXEC of a transaction with a command that was refused.
        DiscardedByErrors => ExecAbort "Transaction discarded because of previous errors.";
        /// A wrong number of arguments.
        WrongArity { command: Box<str> } => Err "wrong number of arguments for '{command}' command";
        /// An argument that is unknown or in the wrong place.
        Syntax => Err "syntax error";
        /// An argument that should be an integer.
        NotAnInteger => Err "value is not an integer or out of range";
        /// A weight of ZUNIONSTORE or similar that is not a number.
        WeightNotAFloat => Err "weight value is not a float";
        /// SORT of values that are not numbers.
        ScoresNotDoubles => Err "One or more scores can't be converted into double";
        /// PFCOUNT or PFMERGE of a string that is not a HyperLogLog.
        NotAHyperLogLog => WrongType "Key is not a valid HyperLogLog string value.";
        /// PFCOUNT of a HyperLogLog with invalid registers.
        CorruptedHyperLogLog => InvalidObj "Corrupted HLL object detected";
        /// LCS of keys that do not hold strings.
        NotStrings => Err "The specified keys must contain string values";
        /// A command that a subscribed client may not send over RESP2.
        SubscribedClient { command: Box<str> } => Err "Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
        /// A number that does not fit 32 bits.
        NotAnInt32 => Err "value is out of range, value must between -2147483648 and 2147483647";
        /// SELECT of a database that does not exist on any server.
        NoSuchDatabase => Err "DB index is out of range";
        /// HELLO with an unknown protocol version.
        NoSuchProtocol => NoProto "unsupported protocol version";
        /// HELLO with a protocol version that is not a number.
        ProtocolNotAnInteger => Err "Protocol version is not an integer or out of range";
        /// HELLO with an unknown option.
        HelloOption { option: Box<str> } => Err "Syntax error in HELLO option '{option}'";
        /// CLIENT SETNAME with invalid characters.
        ClientNameInvalid => Err "Client names cannot contain spaces, newlines or special characters.";
        /// CLIENT SETINFO with invalid characters.
        ClientInfoInvalid { option: Box<str> } => Err "{option} cannot contain spaces, newlines or special characters.";
        /// CLIENT SETINFO with an unknown attribute.
        UnknownOption { option: Box<str> } => Err "Unrecognized option '{option}'";
        /// An unknown subcommand.
        UnknownSubcommand { name: Box<str>, container: Box<str> } => Err "unknown subcommand '{name}'. Try {container} HELP.";
        /// An unknown subcommand, or a wrong number of its arguments.
        UnknownSubcommandOrArity { name: Box<str>, container: Box<str> } => Err "unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP.";
        /// An unknown node ID.
        UnknownNode { id: Box<str> } => Err "Unknown node {id}";
        /// CLIENT LIST ID with an ID that is not a number.
        InvalidClientId => Err "Invalid client ID";
        /// CLIENT KILL ID with an invalid ID.
        ClientIdNotPositive => Err "client-id should be greater than 0";
        /// CLIENT KILL with an address that no client has.
        NoSuchClient => Err "No such client";
        /// An unknown client type.
        UnknownClientType { name: Box<str> } => Err "Unknown client type '{name}'";
        /// CLIENT KILL USER with an unknown user.
        NoSuchUser { user: Box<str> } => Err "No such user '{user}'";
        /// ACL DRYRUN of an unknown user.
        UserNotFound { user: Box<str> } => Err "User '{user}' not found";
        /// ACL DRYRUN of an unknown command.
        CommandNotFound { command: Box<str> } => Err "Command '{command}' not found";
        /// An unknown letter in a filter of CLIENT LIST.
        NotInFilter { what: &'static str, value: Box<str> } => Err "Unknown {what} found in the provided filter: {value}";
        /// An unknown letter in an excluding filter of CLIENT LIST.
        NotInNegatedFilter { what: &'static str, filter: Box<str>, value: Box<str> } => Err "Unknown {what} found in the NOT-{filter} filter: {value}";
        /// A field that should be a number.
        FieldNotAnInteger { name: &'static str } => Err "{name} is not an integer or out of range";
        /// A field that should be at least 1.
        FieldNotPositive { name: &'static str } => Err "{name} should be greater than 0";
        /// A filter for another database.
        NotInDatabases { name: &'static str } => Err "{name} number should be between 0 and 0";
        /// CLIENT PAUSE with an unknown mode.
        PauseMode => Err "CLIENT PAUSE mode must be WRITE or ALL";
        /// CLIENT PAUSE with a negative time.
        NegativeTimeout => Err "timeout is negative";
        /// CLIENT UNBLOCK with an unknown reason.
        UnblockReason => Err "CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
        /// CLIENT CACHING of a client that does not track keys.
        CachingWithoutTracking => Err "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
        /// SLOWLOG GET with an invalid count.
        CountTooSmall => Err "count should be greater than or equal to -1";
        /// No such script.
        NoSuchScript => NoScript "No matching script.";
        /// No such key.
        NoSuchKey => Err "no such key";
        /// A blocking command ended by CLIENT UNBLOCK … ERROR.
        UnblockedByClient => Unblocked "client unblocked via CLIENT UNBLOCK";
        /// The stream that XREADGROUP waited for was deleted.
        StreamDeleted => Unblocked "the stream key no longer exists";
        /// The node was demoted while a command blocked on it.
        UnblockedByRole => Unblocked "force unblock from blocking operation, instance state changed";
    }

    section "The cluster" {
        row "none of `seeds` can be reached, or they refuse slotway"
            => "the log names each node and the reason; `/readyz` has the last one. Check addresses, network policy, `upstream.user` and `upstream.password`" {
            /// No topology is known yet.
            NoTopology { last: Last } => ClusterDown "slotway does not know the cluster: no seed has answered yet (configuration key: seeds){last}";
        }
        row "a failover or a moving slot, and more commands wait for it than `limits.held` allows"
            => "none if it passes; otherwise see `CLUSTER NODES`, or raise `limits.held`" {
            /// `limits.held` is reached.
            HoldsFull { slot: Slot } => ClusterDown "slot {slot} is in motion or without a primary, and what waits for such slots has reached limits.held";
        }
        row "the slot, or a shard that the command needs, has had no primary for longer than `timeouts.command`"
            => "bring the shard back: see `CLUSTER NODES` on a node, and `missing_slots` in `/readyz`" {
            /// No primary is known.
            NoPrimary => ClusterDown "no primary is known";
            /// A slot without a primary.
            SlotWithoutPrimary { slot: Slot } => ClusterDown "slot {slot} has no primary";
            /// A shard without a primary, in a command for all shards.
            ShardWithoutPrimary { shard: Box<str> } => ClusterDown "{shard} has no primary";
            /// Slots that belong to no shard.
            SlotsWithoutPrimary => ClusterDown "its slots have no primary at the moment";
            /// All nodes have failed.
            NoNodeOnline => ClusterDown "no node of the cluster is online at the moment";
        }
        row "a failover takes longer than `timeouts.no_primary`, or the shard has no replica that can be promoted"
            => "check the shard's nodes; set a longer `timeouts.no_primary`, or 0 to wait until `timeouts.command`" {
            /// A primary has been missing for longer than `timeouts.no_primary`; times in seconds.
            PrimaryMissing { place: Box<str>, primary: Box<str>, seconds: f64, limit: f64, outcome: Unanswered, why: String }
                => ClusterDown "{place} (shard of {primary}) has been without a working primary for {seconds:.1} s, longer than timeouts.no_primary = {limit} s" + ": the command was {outcome}" "; {why}";
        }
        row "a command for several nodes (`CONFIG SET`, `ACL SETUSER`, `SCRIPT FLUSH`, `SCRIPT KILL` …) was not executed on the nodes that the error names; the others have executed it"
            => "bring the node back, or let the cluster forget it (`CLUSTER FORGET`), and send the command again" {
            /// A node that the cluster considers failed, or that has left it.
            NodeFailed => Err "the node has failed, as the cluster says, or has left it" + ": the command was not sent there";
            /// A node that is not reached.
            NodeNotReached => Err "the node is not reached";
            /// A connection for one client to a node failed.
            NodeUnreachable { node: Box<str>, why: Box<str>, outcome: &'static str } => Err "slotway does not reach {node} ({why})" + ": {outcome}";
        }
    }

    section "Deadlines and lost connections" {
        row "the deadline passed: the node is slow, frozen, cut off, or the slot has no primary. The text says whether the command was sent, and quotes the node's last error; the code is `OUTCOMEUNKNOWN` if the command may have been executed, otherwise that of the node's last error"
            => "see `SLOWLOG` and `LATENCY` on that node; raise `timeouts.command` if the command may take that long. If a migration takes longer, finish it (`redis-cli --cluster fix`)" {
            /// The deadline `timeouts.command` has passed; times in seconds.
            Deadline { code: Code, seconds: f64, slot: ForSlot, node: Box<str>, tries: u32, outcome: Unanswered, migration: Box<str>, last: Last }
                => (code) "slotway waited {seconds:.1} s (timeouts.command){slot}, node {node}, {tries} tries" + ": the command was {outcome}{migration}" "{last}";
            /// A blocking command's timeout plus `timeouts.command` has passed; times in seconds.
            BlockingDeadline { code: Code, seconds: f64, slot: ForSlot, node: Box<str>, tries: u32, outcome: Unanswered, migration: Box<str>, last: Last }
                => (code) "slotway waited {seconds:.1} s (its own time and timeouts.command){slot}, node {node}, {tries} tries" + ": the command was {outcome}{migration}" "{last}";
        }
        row "the node of the channel cannot be reached"
            => "as for a deadline; the client may subscribe again" {
            /// A subscription that no node has confirmed; times in seconds.
            Unsubscribed { seconds: f64, topic: Key } => ClusterDown "slotway waited {seconds:.1} s (timeouts.command), and no node has confirmed the subscription to '{topic}'; it is given up";
        }
        row "a node died or closed the connection with a write in flight. Reads are sent again automatically"
            => "only the application knows whether the write may be repeated; make writes idempotent where it matters. `commands.on_outcome_unknown = \"disconnect\"` closes the connection instead, for clients that retry then. Often: `timeout`, `client-output-buffer-limit` or a restart of the node" {
            /// The connection was lost after the command was sent, which may change data.
            ConnectionLost { node: Box<str>, why: Box<str> } => OutcomeUnknown "slotway lost its connection to {node} ({why}) after the command was sent" + ": it may or may not have been executed";
        }
        row "the same for a blocking command, which would go on waiting at the slot's next primary, but there is none within `timeouts.no_primary`, or `CLIENT UNBLOCK` has ended it, or for the reason at the end of the text"
            => "the same" {
            /// The connection was lost after a blocking command was sent, and it cannot be sent again.
            NotSentAgain { cause: Cause } => OutcomeUnknown "slotway lost a connection after the command was sent" + ": it may or may not have been executed, and it is not sent again: {cause}";
        }
        row "the same for a connection lent to one client"
            => "the same" {
            /// A dedicated connection was closed with a command in flight.
            LentConnectionClosed => Err "the connection was closed before the reply came";
        }
    }

    section "Limits" {
        row "too much data is in flight at once: large values, clients that do not read, a slow node"
            => "see `slotway_buffer_bytes`, `slotway_upstream_in_flight_bytes` by node, `CLIENT LIST` (`omem`); add slotways, or raise `limits.memory` along with the machine's memory" {
            /// No memory for a request; sizes in bytes.
            BuffersFull { limit: usize } => Oom "slotway's buffers are full: limits.memory = {limit} bytes over all workers" + "; try again, or raise it";
        }
        row "a value is larger than the memory that is left; the connection is closed, and the command was not executed"
            => "raise `limits.memory`, or use fewer workers: each has an equal share" {
            /// A request that is larger than the memory available; sizes in bytes.
            RequestTooLarge { bytes: usize, limit: usize, workers: usize } => Oom "a request of {bytes} bytes is larger than what is left of limits.memory = {limit} bytes (over {workers} workers, an equal share each); send smaller ones, or raise it";
        }
        row "the command only reads, and its reply has to be kept whole before it is passed on (several slots or nodes, emulation)"
            => "ask for less at a time (`COUNT`, fewer keys), or raise `limits.memory`; trying again is safe" {
            /// No memory for the reply to a read; sizes in bytes.
            NoRoomForRead { limit: usize } => Oom "slotway's buffers have no room for the reply, which is dropped: limits.memory = {limit} bytes over all workers" + "; nothing was changed: try again, ask for less at a time, or raise it";
        }
        row "the same for a command that may change data (a large `LMPOP` or `LPOP`, a part of a split transaction): popped elements may be lost. Counted in `slotway_outcome_unknown_total`"
            => "check the data before sending it again; ask for less at a time, or raise `limits.memory`" {
            /// No memory for the reply to a write; sizes in bytes.
            NoRoomForWrite { limit: usize } => OutcomeUnknown "slotway has no room for the reply, which is dropped (limits.memory = {limit} bytes over all workers; ask for less at a time, or raise it) after the command was sent" + ": it may or may not have been executed";
        }
        row "`limits.clients`, or the limit on open files, which has lowered `limits.clients` or is exhausted"
            => "close idle clients (`timeouts.idle`), raise the limit and `LimitNOFILE`, or add slotways" {
            /// `limits.clients` is reached.
            TooManyClients { limit: usize } => Err "max number of clients reached: limits.clients = {limit}; close connections, or raise it";
            /// `limits.clients`, lowered by the limit on open files, is reached.
            TooManyClientsForFiles { configured: usize, lowered: usize, files: usize } => Err "max number of clients reached: limits.clients = {configured} is lowered to {lowered} by the limit of {files} open files; close connections, or raise that limit (ulimit -n, LimitNOFILE)";
            /// No file descriptor.
            NoDescriptor => Err "max number of clients reached: slotway has no file descriptor left; close connections, or raise the limit on open files (ulimit -n, LimitNOFILE)";
        }
        row "all workers have failed; they are restarted after a second"
            => "a bug; please report it with the log" {
            /// No worker to serve a client.
            NoWorker => Err "slotway has no worker running, see its log";
        }
        row "too many clients block, watch or monitor at the same time"
            => "raise `limits.dedicated`, and the nodes' `maxclients` with it" {
            /// `limits.dedicated` is reached.
            TooManyDedicated { limit: usize } => Err "limit of connections for blocking commands, WATCH and MONITOR reached: limits.dedicated = {limit}" + "; try again, or raise it";
        }
        row "the limit on open files leaves fewer connections than the configuration allows: *Sizing*, file descriptors"
            => "raise `LimitNOFILE`" {
            /// `limits.dedicated`, lowered by the limit on open files, is reached.
            TooManyDedicatedForFiles { configured: usize, lowered: usize } => Err "limit of connections for blocking commands, WATCH and MONITOR reached: limits.dedicated = {configured} is lowered to {lowered} by the limit on open files" + "; try again, or raise that limit (ulimit -n, LimitNOFILE)";
            /// `limits.users`, lowered by the limit on open files, is reached.
            TooManyUsersForFiles { configured: usize, lowered: usize } => Err "limit of users and databases reached: limits.users = {configured} is lowered to {lowered} by the limit on open files" + "; try again, or raise that limit (ulimit -n, LimitNOFILE)";
        }
        row "too many users of the cluster are logged in at the same time"
            => "raise `limits.users`, and the nodes' `maxclients` with it" {
            /// `limits.users` is reached.
            TooManyUsers { limit: usize } => Err "limit of users and databases reached: limits.users = {limit}" + "; try again, or raise it";
        }
        row "a blocking command or `WATCH` needs a connection to a node that refuses it"
            => "see the node's `maxclients`, its log, slotway's log" {
            /// The node refuses a dedicated connection.
            NoConnection => Err "no connection can be made at the moment";
        }
        row "the name of a channel, or the argument of `CLIENT SETNAME` or `CLIENT SETINFO`, is too long"
            => "use a shorter one" {
            /// A channel or pattern that is too long; sizes in bytes.
            TopicTooLong { limit: usize } => Err "slotway does not subscribe to names of more than {limit} bytes";
            /// CLIENT SETNAME with a name that is too long.
            ClientNameTooLong => Err "Client names may have at most 4096 bytes behind slotway.";
            /// CLIENT SETINFO with a value that is too long.
            LibNameTooLong => Err "lib-name and lib-ver may have at most 4096 bytes behind slotway.";
        }
    }

    section "Several nodes and several slots" {
        row "a command for several nodes, or with keys in several slots, was not executed by all: the error names those that failed, and their errors; the others have executed it. The code is that of one of these errors"
            => "resolve those errors, then send the command again" {
            /// Some or all parts of a command have failed.
            PartsFailed { code: Code, failed: usize, parts: u32, which: String } => (code) "{failed} of {parts} parts failed{which}";
        }
        row "nodes of different versions, or a module with unexpected replies: the replies cannot be merged"
            => "ask the nodes directly" {
            /// A reply of a type that differs from the others.
            NotAList => Err "a node answered with what is no list as the others'";
            /// A reply that should be a number.
            NotANumber => Err "a node answered without a number";
            /// A part that has no reply.
            NoReply => Err "no reply";
        }
        row "a node's reply to `CONFIG GET`, `ACL LIST`, `ACL GETUSER` or `MODULE LIST` has a form in which slotway cannot find secrets"
            => "check which server the nodes run; ask the node directly" {
            /// A reply that may contain secrets.
            NotFiltered => Err "a node answered in a form that slotway does not pass on";
        }
        row "a cursor of `SCAN` that slotway has not returned, or one of an old topology"
            => "begin again with cursor 0" {
            /// SCAN with an invalid cursor.
            InvalidCursor => Err "invalid cursor";
        }
        row "the node's cursors use the upper bits"
            => "use `SCAN` on that node directly; please report it" {
            /// A node's cursor that does not fit into slotway's.
            CursorTooLarge => Err "the node's SCAN cursor is too large to be carried in slotway's";
        }
        row "a command with keys in several slots"
            => "see the text; docs/commands.md describes what `commands.cross_slot` gives up" {
            /// Keys of one command in several slots.
            CrossSlot { first: Key, first_slot: Slot, other: Key, slot: Slot, remedy: CrossSlotRemedy }
                => CrossSlot "Keys in request don't hash to the same slot: '{first}' is in slot {first_slot}, '{other}' in slot {slot}{remedy}";
        }
        row "a command or transaction with keys on several upstreams ([upstreams](configuration.md))"
            => "use keys of one upstream, or change `[[routes]]`" {
            /// Keys on different upstreams.
            CrossUpstream { first: Key, first_place: Box<str>, other: Key, place: Box<str> }
                => CrossSlot "Keys in request are on different upstreams: '{first}' on {first_place}, '{other}' on {place}; use keys of one upstream, or change [[routes]] in slotway's configuration";
            /// SORT with a pattern whose keys may be on another upstream.
            PatternOnUpstreams { command: Box<str> } => CrossSlot "{command} with a pattern whose keys may be on another upstream than its key; use patterns that begin with a route's prefix, or change [[routes]] in slotway's configuration";
        }
        row "a command for the whole cluster inside `MULTI`"
            => "see the text, or send it outside of `MULTI`" {
            /// A command for all shards in a transaction.
            AllShardsInMulti { command: Box<str> } => CrossSlot "{command} asks all shards, and a transaction is one slot's; set transactions.cross_slot = \"split\" in slotway's configuration to let it in";
        }
        row "`SORT` with `BY` or `GET` after `MULTI`, with `commands.cross_slot = \"emulate\"`"
            => "send it outside of `MULTI`" {
            /// SORT with a pattern of keys in a transaction.
            PatternInMulti { command: Box<str> } => Err "{command} with keys of a pattern is not allowed inside a transaction: inside a transaction a command's keys must share one slot: what commands.cross_slot = \"emulate\" does in steps could be no part of EXEC";
        }
        row "a node failed between the steps of a command over several slots; the text says which steps were executed. The code is `OUTCOMEUNKNOWN` if that is not known of one of them, otherwise `ERR` (`slotway_emulated_total{outcome=\"halfway\"}`)"
            => "check both keys; after a move both may have the data, but never neither" {
            /// An emulated command stopped after some of its steps.
            StoppedHalfway { code: Code, command: Box<str>, done: Halfway, cause: StopCause } => (code) "{command} over several slots stopped halfway: {done} (commands.cross_slot = \"emulate\"); the cause: {cause}";
        }
        row "a node failed, or a connection was lost, while the keys were read or before the first was written"
            => "resolve the cause and send it again" {
            /// An emulated command failed before any step that changes data.
            FailedBefore { command: Box<str>, cause: Cause } => Err "{command} over several slots failed before anything was changed; the cause: {cause}";
        }
        row "with `commands.cross_slot = \"emulate\"`: a node's reply is not one that a server gives"
            => "check which server the nodes run; please report it" {
            /// A reply to EXEC that is not an array.
            EmptyExec => Err "a node answered EXEC with nothing";
            /// A reply to EXEC with too few elements.
            ShortExec => Err "a node answered EXEC with too little";
        }
        row "for 6 seconds other clients' `RENAME`, `SMOVE` or `LMOVE` from the same key were in progress, or one has just been broken off"
            => "try again" {
            /// Another client is moving the source key.
            SourceContended { command: Box<str>, key: Key } => Err "{command} over several slots: others are moving '{key}' all the time; nothing was changed";
            /// Other clients are moving the keys.
            KeysContended { command: Box<str> } => Err "{command} over several slots: others are moving the same keys all the time; nothing was changed";
        }
        row "for 6 seconds other clients took each element that `LMOVE` was about to move"
            => "try again" {
            /// Other clients keep taking the elements.
            ElementsContended => Err "others take the source's elements all the time; nothing was changed";
        }
    }

    section "Transactions" {
        row "a node discarded its part of a split transaction, for the reason in the text"
            => "check the replies of the other commands before sending the transaction again" {
            /// One slot's part of a transaction was discarded.
            PartDiscarded { reason: String } => ExecAbort "this command's slot was not executed: {reason} (other slots of the transaction may have been: transactions.cross_slot = \"split\")";
        }
        row "with `split`, each slot is a transaction of its own"
            => "use a common hash tag for keys that belong together" {
            /// A watched key changed after the transaction had begun.
            WatchedPartChanged => ExecAbort "a watched key changed while the transaction began: this command's slot was not executed, other slots of the transaction were (transactions.cross_slot = \"split\")";
        }
        row "a command was refused while it was queued, or `EXEC` itself at `limits.memory`; the text is that error. Nothing was executed"
            => "correct that command; for `OOM`, try again" {
            /// The whole transaction was discarded.
            Discarded { cause: String } => ExecAbort "Transaction discarded because of: {cause}";
        }
        row "`WATCH`, `SUBSCRIBE` and the like between `MULTI` and `EXEC`"
            => "send it before `MULTI` or after `EXEC`" {
            /// A command that cannot be queued.
            NotInMulti { command: Box<str> } => Err "{command} is not allowed inside a transaction";
            /// A command that cannot be queued, in Redis's words.
            NotInMultiRedis => Err "Command not allowed inside a transaction";
            /// A command that cannot be queued, in Valkey's words.
            NotInMultiValkey { command: Box<str> } => Err "Command '{command}' not allowed inside a transaction";
        }
        row "the ACL of `upstream.user`"
            => "set `ACL SETUSER … +multi +exec` on the nodes" {
            /// A node refused MULTI and executed the commands.
            MultiRefused { reason: String } => Err "the node refused MULTI ({reason}): the commands of this transaction were executed, but not as one; the user that slotway logs in as needs MULTI and EXEC";
        }
    }

    section "What is denied" {
        row "`commands.deny` names the command"
            => "change `commands.deny` or `commands.allow`, or use another command" {
            /// Denied by the configuration.
            DeniedByConfig { command: Box<str>, entry: Box<str> } => NoPerm "{command} is denied by commands.deny in slotway's configuration{entry}";
        }
        row "`SHUTDOWN`, `DEBUG`, `MIGRATE` and others ([commands.md](commands.md))"
            => "see the text" {
            /// Denied because it acts on one node behind the cluster's back.
            OneNodeOnly { command: Box<str>, name: Box<str> } => NoPerm "{command} is denied: it would act on a single node of the cluster behind slotway; send it to that node directly (commands.allow = [\"{name}\"] in slotway's configuration allows it)";
        }
        row "`SYNC`, `SCRIPT DEBUG` and others"
            => "see the text" {
            /// Denied because it changes the state of a shared connection.
            ConnectionTakeover { command: Box<str> } => NoPerm "{command} is denied: it is about the connection to a node, which slotway's clients share; send it to that node directly (commands.allow does not open it)";
        }
        row "`CONFIG SET` of these through slotway"
            => "set it on each node, and `upstream.password`" {
            /// Denied because it would lock slotway out of the nodes.
            NodesAccess { command: Box<str> } => NoPerm "{command} of requirepass or an announced address is denied: connections to the nodes would be refused, or nodes would log in elsewhere with their password; set it on the nodes, and upstream.password in slotway's configuration";
        }
        row "a command that is not implemented ([commands.md](commands.md))"
            => "use another command" {
            /// A command that is not implemented.
            NotSupported { command: Box<str> } => Err "{command} is not supported by this version of slotway";
        }
        row "client-side caching, which a client switches on when it connects. redis-py and others fail with this error; node-redis retries for as long as its `reconnectStrategy` allows, so that `connect()` never returns"
            => "remove `clientSideCache` (node-redis) or `cache_config` (redis-py) from the client's options; [commands.md](commands.md#client-side-caching)" {
            /// CLIENT TRACKING ON.
            TrackingNotSupported => Err "CLIENT TRACKING ON is not supported by this version of slotway: invalidation messages would need to be told apart by client, and many clients share a connection to a node; switch client-side caching off in the client";
        }
        row "a client configured for another database"
            => "use database 0, with a prefix in the keys" {
            /// SELECT of another database.
            OnlyDatabase0 => Err "SELECT is not allowed in cluster mode (the Redis Cluster behind slotway has only database 0)";
        }
        row "a user of the nodes' (`auth = \"passthrough\"`) that selects another database than 0"
            => "use database 0, or one of slotway's own users" {
            /// SELECT of a user that the nodes know, or the login of one behind it.
            DatabaseOfUser => Err "another database than 0 is not supported for users that log in at the nodes (auth = \"passthrough\")";
        }
        row "`SELECT` between `WATCH` and `EXEC`"
            => "select the database before" {
            /// SELECT while keys are watched.
            SelectWhileWatching => Err "SELECT while keys are watched is not supported: they are watched in their database; send UNWATCH or EXEC before";
            /// SELECT of a database that is another upstream, by a client with subscriptions.
            SelectWhileSubscribed => Err "SELECT of a database of another upstream is not supported while there are subscriptions: they are at the present upstream; unsubscribe before";
        }
    }

    section "Logins and users" {
        row "the input is not RESP (such as TLS on a port without TLS), or larger than `limits.bulk`, `limits.inline` or `limits.multibulk`; before the login the limits are much lower"
            => "check the client's port, TLS setting and password; raise the limit" {
            /// Input that is not a valid request.
            Protocol { error: ProtocolError } => Err "{error}";
        }
        row "a client that has to log in has not done so in that time"
            => "log in directly after connecting, or raise `timeouts.login`" {
            /// No login within `timeouts.login`, in milliseconds.
            LoginLate { limit: u64 } => NoAuth "Authentication required: no login within {limit} ms (timeouts.login); log in sooner, or raise it";
        }
        row "`auth = \"passthrough\"`: a client on another machine has not logged in, or as `default`"
            => "see the text" {
            /// Denied by protected mode.
            Protected => Denied "slotway is in protected mode (protected_mode), and the cluster's default user needs no password: from other machines nobody is that user. Log in as another user; or give the default user a password, or switch it off, on all nodes; or, where the network keeps others away, set protected_mode = false";
        }
        row "a client at that address is guessing passwords, or has a wrong one"
            => "see the log and `slotway_logins_total`; check the client's password" {
            /// Too many failed logins from an address.
            LoginsThrottled => Err "slotway: many logins from this address have failed lately, and too many wait" + "; try again";
        }
        row "a user of slotway's own whose rules refuse something runs or loads a script or function, or a module's command without declared keys"
            => "change the user's rules: `~* &* +@all`, or `unchecked-commands` ([commands.md](commands.md#users))" {
            /// A command whose effects cannot be checked against the user's rules.
            Unchecked { command: Box<str> } => NoPerm "this user has no permissions to run the '{command}' command: slotway cannot check what it does against this user's keys, channels and commands. Allowed for users with ~* &* +@all, or with unchecked-commands in their rules (users, users_file)";
        }
        row "`auth = \"passthrough\"`: the user was deleted or its password changed while commands were in flight"
            => "log in again" {
            /// The user was deleted.
            UserGone { user: Box<str> } => NoPerm "the cluster has no user '{user}' any more";
            /// The user's connections were closed.
            UserClosed => Err "slotway has closed the connections of this user: not sent again";
        }
        row "`auth = \"passthrough\"`: slotway could not check with a node whether the user may run a command that slotway answers itself"
            => "set `ACL SETUSER … +acl|dryrun`; the nodes need Redis 7 or newer" {
            /// `upstream.user` may not use ACL DRYRUN.
            DryRunDenied => NoPerm "slotway cannot ask what this user may do: upstream.user needs ACL DRYRUN (+acl|dryrun)";
            /// A reply to ACL DRYRUN that is not understood.
            DryRunNotUnderstood => NoPerm "slotway does not understand ACL DRYRUN's answer";
        }
        row "no node that could verify a password can be reached"
            => "as for *The cluster*" {
            /// No node can be reached to verify a login.
            UsersNotAsked { why: String } => ClusterDown "slotway cannot ask the cluster about its users: {why}";
        }
        row "`ACL SETUSER` and the like while slotway has users of its own"
            => "change `users` or `users_file`" {
            /// An ACL command that would change users.
            UsersInConfig { command: Box<str> } => Err "ACL {command} is for the nodes' users: slotway's are in its configuration (users, users_file), which is read again when it changes";
        }
        row "between `MULTI` and `EXEC`"
            => "send it before `MULTI` or after `EXEC`" {
            /// AUTH in a transaction.
            AuthInMulti => Err "AUTH is not allowed inside a transaction";
            /// ACL in a transaction.
            AclInMulti => Err "ACL is not allowed inside a transaction";
        }
        row "a login that came after SIGTERM"
            => "connect to another slotway" {
            /// Slotway is shutting down.
            Stopping => Err "slotway is stopping";
        }
    }

    section "Load balancers" {
        row "a client has connected to an address of `proxy_protocol.listen` without the load balancer, or the load balancer sends no valid header"
            => "turn the header on at the load balancer; have other clients connect to another address" {
            /// A missing or invalid header.
            ProxyHeader { why: String } => Err "{why}: each connection to this address has to begin with one (proxy_protocol.listen); have the load balancer send it, or connect to another address";
            /// A header that took longer than `proxy_protocol.timeout`, in milliseconds.
            ProxyHeaderLate { limit: u128 } => Err "no PROXY protocol header within {limit} ms (proxy_protocol.timeout)";
        }
        row "a load balancer sends headers to an address that does not expect them"
            => "add the address to `proxy_protocol.listen`, or turn the header off at the load balancer" {
            /// A header where none is expected.
            ProxyHeaderUnexpected => Err "Protocol error: a PROXY protocol header, which this address does not accept; add it to proxy_protocol.listen, or turn the header off at the load balancer";
        }
        row "the connection does not come from an address in `proxy_protocol.trusted`"
            => "add the network to `proxy_protocol.trusted`" {
            /// A connection from an address that is not trusted.
            ProxyUntrusted => Err "this address accepts connections from proxy_protocol.trusted only; add the load balancer's network there, or connect to an address that is not in proxy_protocol.listen";
        }
    }
}
