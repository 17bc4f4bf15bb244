//! A user of slotway's own: name, passwords, rules; and the parser of its line in an ACL file.

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
    /// Hashes a password.
    pub fn of(password: &[u8]) -> Hash {
        Hash(Sha256::digest(password).into())
    }

    /// Parses 64 hexadecimal digits; lower case only, as in Redis.
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

    /// Compares in constant time.
    pub fn same(&self, other: &Hash) -> bool {
        let differ = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differ) == 0
    }

    /// The 64 hexadecimal digits, as ACL GETUSER shows them to users with that permission.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The part of an invalid selector to show in an error: its invalid rule if that is about commands,
/// since any other word may be a password.
fn selector_shown(rule: &str, table: &CommandTable) -> String {
    let inner = rule.trim_start_matches('(').trim_end_matches(')');
    let mut selector = Selector::default();
    let wrong = inner.split_whitespace().find(|rule| selector.apply(rule, table).is_err());
    match wrong.filter(|rule| rule.starts_with(['+', '-'])) {
        Some(rule) => format!("(… {rule} …)"),
        None => "(…)".into(),
    }
}

/// Slotway's own rule that allows commands whose effects cannot be checked.
pub const UNCHECKED: &str = "unchecked-commands";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Arc<str>,
    /// Whether the user can log in.
    pub on: bool,
    /// Whether any password is accepted; the user `default` then needs no login.
    pub nopass: bool,
    /// Whether commands whose effects cannot be checked are allowed if the command rules do.
    pub unchecked: bool,
    /// The accepted passwords.
    pub passwords: Vec<Hash>,
    /// The selectors; never empty, the first has the user's own rules.
    pub selectors: Vec<Selector>,
}

impl User {
    /// A user without any rights.
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

    /// Parses `user NAME rule …`; the word `user` is optional.
    ///
    /// # Errors
    /// The error, without any password or hash.
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
            // A selector is one rule that contains spaces.
            match rest.last_mut().filter(|last| last.starts_with('(') && !last.ends_with(')')) {
                Some(open) => *open += &format!(" {word}"),
                None => rest.push(word.to_owned()),
            }
        }
        for rule in &rest {
            user.apply(rule, table).map_err(|error| {
                // Rules about passwords are not shown.
                let shown = match rule.as_bytes().first() {
                    Some(sign @ (b'>' | b'<' | b'#' | b'!')) => format!("{}…", *sign as char),
                    Some(b'(') => selector_shown(rule, table),
                    // Possibly a password without its prefix.
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
            // Ignored: the nodes decide how RESTORE checks its payload.
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

    /// The same user, compiled for another command table.
    pub fn compiled(&self, table: &CommandTable) -> User {
        let mut user = self.clone();
        let unchecked = self.unchecked;
        user.selectors.iter_mut().for_each(|selector| selector.compile(table, unchecked));
        user
    }

    /// Whether a password is accepted. All hashes are compared, for constant time.
    pub(super) fn has_password(&self, given: &Hash) -> bool {
        let found = self.passwords.iter().fold(false, |found, known| known.same(given) | found);
        found | self.nopass
    }

    /// Checks a request whose number of arguments is valid.
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

    /// Index of the key or channel refused by [`User::check`]: the last of all selectors.
    pub fn denied_argument(&self, spec: &CommandSpec, args: &Args) -> usize {
        let all = self.selectors.iter().filter_map(|s| s.denied_argument(spec, args));
        all.max().unwrap_or(1)
    }

    /// Whether the user may subscribe to this channel or pattern.
    pub fn may_subscribe(&self, name: &[u8], pattern: bool) -> bool {
        self.selectors.iter().any(|selector| selector.may_subscribe(name, pattern))
    }

    /// Whether every request is allowed, unknown commands included.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::allows_everything)
    }

    /// A warning for the operator, as one sentence: the rules exempt the user from its own
    /// restrictions, or name commands that are refused all the same.
    pub fn warning(&self, table: &CommandTable) -> Option<String> {
        let name = &self.name;
        if self.is_unrestricted() {
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

    /// The user's line as in ACL LIST; with the hashes of its passwords if `secrets`.
    pub fn describe(&self, secrets: bool) -> String {
        self.described(secrets, Selector::describe)
    }

    /// The user's line with hashes and the commands refused because they cannot be checked.
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
