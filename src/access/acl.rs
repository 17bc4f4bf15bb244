//! ACL for slotway's own users: who they are and what they may do. Users of the cluster ask the
//! cluster.

use std::sync::Arc;

use crate::access::Access;
use crate::clients::{Clients, Flow};
use crate::command::{CommandId, CommandTable};
use crate::common::Core;
use crate::common::users::DryRunError;
use crate::errors::Failure;
use crate::resp::{ArgRange, Args, Protocol, RequestProgress, scan_request, write};
use crate::users::{Selector, UNCHECKED, User};

impl Access {
    /// ACL `name` of a user that may say it. `None`: a node answers.
    #[allow(clippy::too_many_arguments)] // the parts that it works with, each borrowed
    pub(crate) fn own_acl(
        &mut self,
        index: usize,
        command: CommandId,
        name: &str,
        user: &Arc<User>,
        args: &Args,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Option<Flow> {
        let protocol = clients.slab.get(index)?.session.protocol;
        let mut reply = Vec::new();
        match name {
            "whoami" => write::bulk(&mut reply, user.name.as_bytes()),
            "users" => {
                write::array_header(&mut reply, self.users.iter().count());
                self.users.iter().for_each(|user| write::bulk(&mut reply, user.name.as_bytes()));
            }
            "list" => {
                write::array_header(&mut reply, self.users.iter().count());
                let table = core.router.table();
                let lines = self.users.iter().map(|user| user.describe_effective(table));
                lines.for_each(|line| write::bulk(&mut reply, line.as_bytes()));
            }
            "getuser" => match self.users.get(args.get(2).unwrap_or_default()) {
                Some(user) => get_user(user, core.router.table(), protocol, &mut reply),
                None => write::null(&mut reply, protocol),
            },
            "dryrun" => self.acl_dry_run(args, &mut reply, core),
            "setuser" | "deluser" | "load" | "save" => {
                let command = name.to_ascii_uppercase().into();
                Failure::UsersInConfig { command }.write(&mut reply);
            }
            _ => return None,
        }
        if let Some(client) = clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        core.stats.count_own(command, &reply);
        clients.answer_plain(index, &reply, core);
        Some(Flow::Next)
    }

    fn acl_dry_run(&mut self, args: &Args, reply: &mut Vec<u8>, core: &mut Core) {
        let name = args.get(2).unwrap_or_default();
        let Some(user) = self.users.get(name).cloned() else {
            let user = name.escape_ascii().to_string().into();
            return Failure::UserNotFound { user }.write(reply);
        };
        let mut frame = Vec::new();
        let rest: Vec<&[u8]> = args.iter().skip(3).collect();
        write::request(&mut frame, &rest);
        let mut ranges: Vec<ArgRange> = Vec::new();
        let limits = &core.settings.request;
        // It is a request because it was written as one.
        let _ = scan_request(&frame, limits, &mut RequestProgress::default(), &mut ranges);
        match core.dry_run(&user, &Args::new(&frame, &ranges)) {
            Ok(()) => write::simple(reply, "OK"),
            Err(DryRunError::NoCommand(failure)) => failure.write(reply),
            Err(DryRunError::Denied(text)) => write::bulk(reply, text.as_bytes()),
        }
    }
}

fn get_user(user: &User, table: &CommandTable, protocol: Protocol, out: &mut Vec<u8>) {
    let text = |out: &mut Vec<u8>, text: &str| write::bulk(out, text.as_bytes());
    write::map_header(out, protocol, 6);
    text(out, "flags");
    let on = if user.on { "on" } else { "off" };
    let mut flags = vec![on];
    flags.extend(user.nopass.then_some("nopass"));
    flags.extend(user.unchecked.then_some(UNCHECKED));
    write::header(out, if protocol == Protocol::Resp3 { b'~' } else { b'*' }, flags.len());
    flags.into_iter().for_each(|flag| text(out, flag));
    text(out, "passwords");
    write::array_header(out, user.passwords.len());
    user.passwords.iter().for_each(|hash| text(out, &hash.hex()));
    let rules = |out: &mut Vec<u8>, selector: &Selector| {
        let parts = [
            ("commands", selector.effective_commands(table)),
            ("keys", selector.keys()),
            ("channels", selector.channels()),
        ];
        for (name, rules) in parts {
            text(out, name);
            text(out, &rules);
        }
    };
    let mut selectors = user.selectors.iter();
    selectors.next().into_iter().for_each(|root| rules(out, root));
    text(out, "selectors");
    write::array_header(out, selectors.len());
    for selector in selectors {
        write::map_header(out, protocol, 3);
        rules(out, selector);
    }
}
