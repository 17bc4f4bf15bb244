//! One user of slotway's own: name, passwords, rules; and how a line of an ACL file becomes one.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::rule_error::RuleError;
use super::rules::{Denied, Selector};
use crate::command::{CommandId, CommandSpec, CommandTable};
use crate::resp::Args;

/// The SHA-256 of a password.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of a password.
    pub fn of(password: &[u8]) -> Hash {
        Hash(Sha256::digest(password).into())
    }

    /// Reads 64 hexadecimal digits, in lower case as Redis wants them.
    pub fn parse(text: &str) -> Option<Hash> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            match pair {
                [high, low] => *byte = digit(*high)? << 4 | digit(*low)?,
                _ => return None,
            }
        }
        Some(Hash(hash))
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    pub fn same(&self, other: &Hash) -> bool {
        let differ = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differ) == 0
    }

    /// As 64 hexadecimal digits. ACL GETUSER shows it to those who may see it.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Of a selector that is not understood: the rule in it that is not, if it is one about commands. A
/// password does not belong there, but somebody may have put one.
fn selector_shown(rule: &str, table: &CommandTable) -> String {
    let inner = rule.trim_start_matches('(').trim_end_matches(')');
    let mut selector = Selector::default();
    let wrong = inner.split_whitespace().find(|rule| selector.apply(rule, table).is_err());
    match wrong.filter(|rule| rule.starts_with(['+', '-'])) {
        Some(rule) => format!("(… {rule} …)"),
        None => "(…)".into(),
    }
}

/// The rule of slotway's own that lets a user run what cannot be checked.
pub const UNCHECKED: &str = "unchecked-commands";

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: Arc<str>,
    /// It can log in.
    pub on: bool,
    /// With any password, and `default` without logging in.
    pub nopass: bool,
    /// Commands whose effects cannot be checked are allowed if the rules about commands allow them.
    pub unchecked: bool,
    /// With one of these.
    pub passwords: Vec<Hash>,
    /// What it may do; never empty, the first one is the user's own.
    pub selectors: Vec<Selector>,
}

impl User {
    /// One that cannot do anything yet.
    pub fn new(name: &str) -> User {
        User {
            name: name.into(),
            on: false,
            nopass: false,
            unchecked: false,
            passwords: Vec::new(),
            selectors: vec![Selector::default()],
        }
    }

    /// Reads `user NAME rule …`; the first word may be left out.
    ///
    /// # Errors
    /// What is wrong with it. No password or hash is in the text.
    pub fn parse(line: &str, table: &CommandTable) -> Result<User, String> {
        let mut words = line.split_whitespace().peekable();
        words.next_if(|word| word.eq_ignore_ascii_case("user"));
        let name = words.next().ok_or("is empty; write \"user NAME rules …\"")?;
        if name.contains('\0') || name.starts_with(['>', '#', '~', '&', '+', '-', '(']) {
            return Err("begins with a rule; write \"user NAME rules …\"".into());
        }
        let mut user = User::new(name);
        let mut rest: Vec<String> = Vec::new();
        for word in words {
            // A selector is one rule, spaces and all.
            match rest.last_mut().filter(|last| last.starts_with('(') && !last.ends_with(')')) {
                Some(open) => *open += &format!(" {word}"),
                None => rest.push(word.to_owned()),
            }
        }
        for rule in &rest {
            user.apply(rule, table).map_err(|error| {
                // What begins a password is not shown.
                let shown = match rule.as_bytes().first() {
                    Some(sign @ (b'>' | b'<' | b'#' | b'!')) => format!("{}…", *sign as char),
                    Some(b'(') => selector_shown(rule, table),
                    // A password that was written without its sign, say.
                    _ if error == RuleError::Syntax => "…".into(),
                    _ => rule.clone(),
                };
                format!("user '{name}', rule '{shown}': {}", error.text())
            })?;
        }
        let unchecked = user.unchecked;
        user.selectors.iter_mut().for_each(|selector| selector.compile(table, unchecked));
        Ok(user)
    }

    fn apply(&mut self, rule: &str, table: &CommandTable) -> Result<(), RuleError> {
        match &*rule.to_ascii_lowercase() {
            "on" => self.on = true,
            "off" => self.on = false,
            "nopass" => {
                self.nopass = true;
                self.passwords.clear();
            }
            "resetpass" => {
                self.nopass = false;
                self.passwords.clear();
            }
            "reset" => *self = User::new(&self.name),
            UNCHECKED => self.unchecked = true,
            "clearselectors" => self.selectors.truncate(1),
            // What RESTORE looks at is the nodes' to say.
            "sanitize-payload" | "skip-sanitize-payload" => {}
            _ => match (rule.as_bytes().first(), rule.get(1..).unwrap_or_default()) {
                (Some(b'>'), password) => self.password(Hash::of(password.as_bytes())),
                (Some(b'#'), hash) => self.password(Hash::parse(hash).ok_or(RuleError::Hash)?),
                (Some(b'<'), password) => self.forget(Hash::of(password.as_bytes()))?,
                (Some(b'!'), hash) => self.forget(Hash::parse(hash).ok_or(RuleError::Hash)?)?,
                (Some(b'('), inner) => {
                    let inner = inner.strip_suffix(')').ok_or(RuleError::Unbalanced)?;
                    let mut selector = Selector::default();
                    inner.split_whitespace().try_for_each(|rule| selector.apply(rule, table))?;
                    self.selectors.push(selector);
                }
                _ => match self.selectors.first_mut() {
                    Some(root) => root.apply(rule, table)?,
                    None => return Err(RuleError::Syntax),
                },
            },
        }
        Ok(())
    }

    fn password(&mut self, hash: Hash) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn forget(&mut self, hash: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Its rules for the commands of another table.
    pub fn compiled(&self, table: &CommandTable) -> User {
        let mut user = self.clone();
        let unchecked = self.unchecked;
        user.selectors.iter_mut().for_each(|selector| selector.compile(table, unchecked));
        user
    }

    /// Whether one of its passwords is this one. All are compared.
    pub(super) fn has_password(&self, given: &Hash) -> bool {
        let found = self.passwords.iter().fold(false, |found, known| known.same(given) | found);
        found | self.nopass
    }

    /// Whether it may send this, whose number of arguments is right.
    #[inline]
    pub fn check(
        &self,
        id: CommandId,
        spec: &CommandSpec,
        args: &Args,
        keys: &mut Vec<u32>,
    ) -> Result<(), Denied> {
        let mut denied = Denied::Command;
        for selector in &self.selectors {
            match selector.check(id, spec, args, keys) {
                Ok(()) => return Ok(()),
                Err(why) => denied = denied.max(why),
            }
        }
        Err(denied)
    }

    /// The key or channel that [`User::check`] has found: the last of those that its selectors
    /// refuse.
    pub fn denied_argument(&self, spec: &CommandSpec, args: &Args) -> usize {
        let all = self.selectors.iter().filter_map(|s| s.denied_argument(spec, args));
        all.max().unwrap_or(1)
    }

    /// Whether it may be subscribed to this channel, or to this pattern.
    pub fn may_hear(&self, name: &[u8], pattern: bool) -> bool {
        self.selectors.iter().any(|selector| selector.may_hear(name, pattern))
    }

    /// Whether nothing at all is refused, so that commands may be sent that nobody knows.
    pub fn may_everything(&self) -> bool {
        self.selectors.iter().any(Selector::allows_everything)
    }

    /// What an operator should know of the user's rules, as one sentence: they let it out of its
    /// own rules, or name what is refused all the same.
    pub fn warning(&self, table: &CommandTable) -> Option<String> {
        let name = &self.name;
        if self.may_everything() {
            return None;
        }
        let free: Vec<&str> =
            self.selectors.iter().flat_map(|s| s.uncheckable(table, false)).collect();
        if self.unchecked && !free.is_empty() {
            return Some(format!(
                "user '{name}' has {UNCHECKED}: what scripts, functions and modules do for it is not \
                 kept to its keys, channels and commands, and is done with the rights of \
                 upstream.user"
            ));
        }
        self.selectors.iter().any(|s| s.names_withheld(table)).then(|| {
            format!(
                "user '{name}': its rules name commands that are refused, because slotway cannot \
                 check what scripts, functions and modules do; only ~* &* +@all together, or \
                 {UNCHECKED}, allow them"
            )
        })
    }

    /// Its line, as ACL LIST shows it, without its passwords unless `secrets`.
    pub fn describe(&self, secrets: bool) -> String {
        self.described(secrets, Selector::describe)
    }

    /// The same with its hashes, and with the commands that are refused because they cannot be
    /// checked.
    pub fn describe_effective(&self, table: &CommandTable) -> String {
        self.described(true, |selector| selector.describe_with(&selector.effective_commands(table)))
    }

    fn described(&self, secrets: bool, rules: impl Fn(&Selector) -> String) -> String {
        let mut line = format!("user {} {}", self.name, if self.on { "on" } else { "off" });
        if self.nopass {
            line += " nopass";
        }
        if self.unchecked {
            line += &format!(" {UNCHECKED}");
        }
        for hash in &self.passwords {
            line += &if secrets { format!(" #{}", hash.hex()) } else { " #***".into() };
        }
        for (i, selector) in self.selectors.iter().enumerate() {
            line += &match i {
                0 => format!(" {}", rules(selector)),
                _ => format!(" ({})", rules(selector)),
            };
        }
        line
    }
}
