//! Reads grammar.txt and makes random commands from it.

use std::iter::Peekable;

/// One command: its arguments, and which of them are keys.
#[derive(Debug, Clone, Default)]
pub struct Command {
    pub args: Vec<Vec<u8>>,
    pub keys: Vec<usize>,
    /// Arguments that may be replaced without changing which keys the command has.
    pub data: Vec<usize>,
}

impl Command {
    /// A command without keys, from plain words.
    pub fn words(words: &[&str]) -> Self {
        let args = words.iter().map(|w| w.as_bytes().to_vec()).collect();
        Command { args, ..Command::default() }
    }

    /// The bytes that a client sends.
    pub fn wire(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*{}\r\n", self.args.len()).as_bytes());
        for a in &self.args {
            out.extend_from_slice(format!("${}\r\n", a.len()).as_bytes());
            out.extend_from_slice(a);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The same as a line of text, for servers that are typed to.
    pub fn inline(&self, out: &mut Vec<u8>) {
        for (i, a) in self.args.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            let plain = |c: &u8| c.is_ascii_graphic() && !b"\"'\\".contains(c);
            if !a.is_empty() && a.iter().all(plain) {
                out.extend_from_slice(a);
                continue;
            }
            out.push(b'"');
            for c in a {
                match c {
                    c if plain(c) => out.push(*c),
                    c => out.extend_from_slice(format!("\\x{c:02x}").as_bytes()),
                }
            }
            out.push(b'"');
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The command as one could type it into redis-cli.
    pub fn show(&self) -> String {
        let quoted = self.args.iter().map(|a| {
            let plain = !a.is_empty() && a.iter().all(|c| c.is_ascii_graphic() && *c != b'"');
            if plain {
                String::from_utf8_lossy(a).into_owned()
            } else {
                format!("\"{}\"", a.escape_ascii())
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// Pseudo-random numbers from a printed seed (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

#[derive(Debug)]
enum Part {
    Word(Vec<u8>),
    Token(String),
    Optional(Vec<Part>),
    OneOf(Vec<Vec<Part>>),
    Many(Vec<Part>),
    Then,
}

/// What one line of grammar.txt says: a command, perhaps others behind it.
#[derive(Debug)]
pub struct Shape(Vec<Part>);

impl Shape {
    /// Reads one line, without its weight.
    pub fn read(line: &str) -> Self {
        let mut chars = line.chars().peekable();
        let parts = sequence(&mut chars, line);
        assert!(chars.next().is_none(), "grammar: closed too often: {line}");
        Shape(parts)
    }

    /// What the commands of this shape can begin with (two arguments at most; `None` for one that
    /// is made up), each with every word that stands in the shape.
    pub fn beginnings(&self) -> Vec<(Vec<Option<String>>, Vec<String>)> {
        let commands = self.0.split(|part| matches!(part, Part::Then));
        let all = commands.flat_map(|parts| {
            let mut words = Vec::new();
            collect_words(parts, &mut words);
            beginnings(parts).into_iter().map(move |start| (start, words.clone()))
        });
        all.collect()
    }

    /// What the server runs as a script: it is not taken apart.
    fn is_script(&self) -> bool {
        let mut words = Vec::new();
        collect_words(&self.0, &mut words);
        let first = words.first().map_or("", String::as_str);
        ["EVAL", "FCALL", "SCRIPT", "FUNCTION"].iter().any(|name| first.starts_with(name))
    }

    /// Whether a transaction may have it: one command, with a key.
    fn fits_a_transaction(&self) -> bool {
        count_keys(&self.0) > 0 && !self.0.iter().any(|part| matches!(part, Part::Then))
    }
}

fn upper(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

fn collect_words(parts: &[Part], out: &mut Vec<String>) {
    for part in parts {
        match part {
            Part::Word(word) => out.push(upper(word)),
            Part::Optional(inner) | Part::Many(inner) => collect_words(inner, out),
            Part::OneOf(choices) => choices.iter().for_each(|c| collect_words(c, out)),
            Part::Token(_) | Part::Then => {}
        }
    }
}

fn beginnings(parts: &[Part]) -> Vec<Vec<Option<String>>> {
    let mut out = vec![Vec::new()];
    for part in parts {
        let choices = match part {
            Part::Word(word) => vec![vec![Some(upper(word))]],
            Part::Token(_) => vec![vec![None]],
            Part::Many(inner) => beginnings(inner),
            Part::Optional(inner) => {
                beginnings(inner).into_iter().chain(std::iter::once(Vec::new())).collect()
            }
            Part::OneOf(choices) => choices.iter().flat_map(|c| beginnings(c)).collect(),
            Part::Then => Vec::new(),
        };
        let longer = |start: Vec<Option<String>>| -> Vec<Vec<Option<String>>> {
            if start.len() >= 2 {
                return vec![start];
            }
            let all = choices.iter().map(|c| start.iter().chain(c).take(2).cloned().collect());
            all.collect()
        };
        out = out.into_iter().flat_map(longer).collect();
        out.sort_unstable();
        out.dedup();
    }
    out
}

/// The shapes of grammar.txt, each as often as its weight says.
pub struct Grammar {
    shapes: Vec<Shape>,
    /// What is sent by itself, as often as its weight says.
    anywhere: Vec<usize>,
    /// The same for transactions.
    for_transactions: Vec<usize>,
    /// How many stream entries were made.
    entries: usize,
    /// Whether each key of a command carries a tag of its own.
    pub scattered: bool,
    /// Those whose keys stay in one slot even so.
    one_slot: Vec<usize>,
    /// The beginnings of commands that are not sent.
    not_sent: Vec<String>,
}

const KEY_TYPES: [&str; 11] =
    ["str", "num", "list", "hash", "set", "iset", "zset", "stream", "geo", "hll", "bits"];
const TAGS: [&str; 4] = ["{a}", "{user:17}", "{\u{e9}}", "{ }"];

impl Grammar {
    pub fn read(text: &str) -> Self {
        let mut grammar = Grammar {
            shapes: Vec::new(),
            anywhere: Vec::new(),
            for_transactions: Vec::new(),
            entries: 0,
            scattered: false,
            one_slot: Vec::new(),
            not_sent: Vec::new(),
        };
        grammar.add(text, true);
        grammar
    }

    /// The same, and `more` for keys in any slots; each key of a command has a tag of its own, but
    /// in transactions, which have none of `more`.
    pub fn scattered(text: &str, more: &str) -> Self {
        let mut grammar = Grammar::read(text);
        grammar.scattered = true;
        grammar.add(more, false);
        grammar
    }

    /// Without the commands that begin so.
    pub fn without(mut self, beginnings: Vec<String>) -> Self {
        let is_sent = |at: &usize| {
            let mut words = Vec::new();
            collect_words(&self.shapes[*at].0, &mut words);
            let line = words.join(" ") + " ";
            !beginnings.iter().any(|b| line.starts_with(&format!("{b} ")))
        };
        self.anywhere.retain(is_sent);
        self.for_transactions.retain(is_sent);
        self.not_sent = beginnings;
        self
    }

    /// Whether a command that begins so may be sent.
    pub fn sends(&self, beginning: &str) -> bool {
        !self.not_sent.iter().any(|b| b == beginning)
    }

    fn add(&mut self, text: &str, for_transactions: bool) {
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with("# ") || line == "#" {
                continue;
            }
            let (weight, line) = match line.split_once(' ') {
                Some((w, rest)) if w.parse::<usize>().is_ok() => (w.parse().unwrap(), rest),
                _ => (1, line),
            };
            let at = self.shapes.len();
            let line = match line.strip_prefix("@ ") {
                Some(rest) => {
                    self.one_slot.push(at);
                    rest
                }
                None => line,
            };
            let shape = Shape::read(line);
            self.anywhere.extend(std::iter::repeat_n(at, weight));
            if for_transactions && shape.fits_a_transaction() {
                self.for_transactions.extend(std::iter::repeat_n(at, weight.max(1)));
            }
            self.shapes.push(shape);
        }
    }

    /// All shapes.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// A random command, and those that must follow it in the same pipeline.
    pub fn commands(&mut self, rng: &mut Rng) -> Vec<Command> {
        let at = self.anywhere[rng.below(self.anywhere.len())];
        let tag = rng.pick(&TAGS);
        self.make(at, tag, false, rng)
    }

    /// A random command for a transaction; with `tag`, all of its keys carry it.
    pub fn for_transaction(&mut self, tag: Option<&'static str>, rng: &mut Rng) -> Command {
        let at = self.for_transactions[rng.below(self.for_transactions.len())];
        let one_slot = tag.is_some();
        let tag = tag.unwrap_or_else(|| rng.pick(&TAGS));
        self.make(at, tag, one_slot, rng).remove(0)
    }

    /// A key as commands have them.
    pub fn any_key(&mut self, rng: &mut Rng) -> Vec<u8> {
        let shape = Shape::read("GET <any>");
        make(&shape, "", Place::Anywhere, 0, rng).0.remove(0).args.remove(1)
    }

    /// The commands of one shape, all of whose keys carry the tag.
    pub fn of_shape(&mut self, shape: &Shape, tag: &'static str, rng: &mut Rng) -> Vec<Command> {
        let (done, entries) = make(shape, tag, Place::OneSlot, self.entries, rng);
        self.entries = entries;
        done
    }

    fn make(
        &mut self,
        at: usize,
        tag: &'static str,
        one_slot: bool,
        rng: &mut Rng,
    ) -> Vec<Command> {
        let one_slot = one_slot || (self.scattered && self.one_slot.contains(&at));
        let place = match (one_slot, self.scattered) {
            (true, _) => Place::OneSlot,
            (false, true) => Place::Anywhere,
            (false, false) => Place::AsTheServerWants,
        };
        let (done, entries) = make(&self.shapes[at], tag, place, self.entries, rng);
        self.entries = entries;
        done
    }
}

/// Any of the hash tags.
pub fn any_tag(rng: &mut Rng) -> &'static str {
    rng.pick(&TAGS)
}

/// Which slots the keys of one command may be in.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    OneSlot,
    /// One, but several where slotway always splits.
    AsTheServerWants,
    Anywhere,
}

fn make(
    shape: &Shape,
    tag: &'static str,
    place: Place,
    entries: usize,
    rng: &mut Rng,
) -> (Vec<Command>, usize) {
    let place = match place {
        Place::Anywhere if shape.is_script() => Place::OneSlot,
        place => place,
    };
    let tagged = place == Place::OneSlot || count_keys(&shape.0) > 1;
    let done = vec![Command::default()];
    let mut maker = Maker { rng, tag, tagged, place, done, entries };
    maker.all(&shape.0);
    (maker.done, maker.entries)
}

/// Parts up to the closing bracket or the end.
fn sequence(chars: &mut Peekable<impl Iterator<Item = char>>, line: &str) -> Vec<Part> {
    let mut out = Vec::new();
    while let Some(&c) = chars.peek() {
        match c {
            ']' | ')' | '}' | '|' => break,
            ' ' => {
                chars.next();
            }
            '[' | '{' => {
                chars.next();
                let inner = sequence(chars, line);
                chars.next().unwrap_or_else(|| panic!("grammar: not closed: {line}"));
                out.push(if c == '[' { Part::Optional(inner) } else { Part::Many(inner) });
            }
            '(' => {
                let mut choices = Vec::new();
                while chars.next().is_some_and(|c| c != ')') {
                    choices.push(sequence(chars, line));
                }
                out.push(Part::OneOf(choices));
            }
            '<' => {
                let token: String = chars.by_ref().skip(1).take_while(|c| *c != '>').collect();
                out.push(Part::Token(token));
            }
            '"' => {
                chars.next();
                out.push(Part::Word(quoted(chars)));
            }
            _ => {
                let mut word = String::new();
                // a hash tag behind other letters belongs to the word
                let mut tag = false;
                while let Some(&c) = chars.peek() {
                    if " ])|".contains(c) || (c == '}' && !tag) {
                        break;
                    }
                    tag = c == '{' || (tag && c != '}');
                    word.push(c);
                    chars.next();
                }
                out.push(if word == ";;" { Part::Then } else { Part::Word(word.into_bytes()) });
            }
        }
    }
    out
}

/// The rest of a quoted word, its escapes resolved.
fn quoted(chars: &mut impl Iterator<Item = char>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\')) => out.push(c as u8),
                Some('n') => out.push(b'\n'),
                Some('r') => out.push(b'\r'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&hex, 16).expect("grammar: \\xNN"));
                }
                other => panic!("grammar: escape {other:?}"),
            },
            c => out.extend_from_slice(c.to_string().as_bytes()),
        }
    }
    out
}

fn is_key(token: &str) -> bool {
    matches!(token, "any" | "lexz" | "wkey" | "hkey" | "okey" | "ttlhash" | "vset")
        || KEY_TYPES.contains(&token)
}

/// How many keys a shape may have, repetitions counted twice.
fn count_keys(parts: &[Part]) -> usize {
    let count = |p: &Part| match p {
        Part::Token(t) => usize::from(is_key(t)),
        Part::Optional(inner) => count_keys(inner),
        Part::Many(inner) => 2 * count_keys(inner),
        Part::OneOf(choices) => choices.iter().map(|c| count_keys(c)).max().unwrap_or(0),
        Part::Word(_) | Part::Then => 0,
    };
    parts.iter().map(count).sum()
}

/// Makes the arguments of one shape.
struct Maker<'a> {
    rng: &'a mut Rng,
    tag: &'static str,
    /// Whether every key carries the tag.
    tagged: bool,
    place: Place,
    done: Vec<Command>,
    entries: usize,
}

impl Maker<'_> {
    fn all(&mut self, parts: &[Part]) {
        for p in parts {
            match p {
                Part::Word(w) => self.push(w.clone()),
                Part::Token(t) => self.token(t),
                Part::Optional(inner) if self.rng.one_in(2) => self.all(inner),
                Part::Optional(_) => {}
                Part::OneOf(choices) => {
                    let i = self.rng.below(choices.len());
                    self.all(&choices[i]);
                }
                Part::Many(inner) => {
                    for _ in 0..=self.rng.below(4) {
                        self.all(inner);
                    }
                }
                Part::Then => self.done.push(Command::default()),
            }
        }
    }

    fn command(&mut self) -> &mut Command {
        self.done.last_mut().expect("never empty")
    }

    fn push(&mut self, arg: Vec<u8>) {
        self.command().args.push(arg);
    }

    fn token(&mut self, token: &str) {
        if token == "same" {
            let before = &self.done[self.done.len() - 2];
            let key = before.args[before.keys[0]].clone();
            self.push_key(key);
        } else if token == "split" || token == "splitstr" {
            let kind = if token == "split" { self.rng.pick(&KEY_TYPES) } else { "str" };
            let key = if self.place == Place::OneSlot {
                self.key(kind, self.tag)
            } else if self.rng.one_in(2) {
                let tag = self.rng.pick(&TAGS);
                self.key(kind, tag)
            } else {
                self.key(kind, "")
            };
            self.push_key(key);
        } else if let "wkey" | "hkey" | "okey" = token {
            let of = self.rng.pick(&["n", "n", "m", "v"]);
            let mut element = self.data(of);
            element.truncate(20);
            let key = [token.get(..1).unwrap_or_default().as_bytes(), b"_", &element].concat();
            self.push_key(key);
        } else if let "wait" | "waitms" | "nk" = token {
            // Not to be spoiled: nobody waits for hours.
            let value = self.data(token);
            self.push(value);
        } else if is_key(token) {
            // a key of another type now and then, for WRONGTYPE
            let typed = token == "lexz" || token == "vset";
            let kind = if token == "any" || (!typed && self.rng.one_in(25)) {
                self.rng.pick(&KEY_TYPES)
            } else {
                token
            };
            let tag = match self.place {
                Place::Anywhere if self.rng.one_in(4) => "",
                Place::Anywhere => self.rng.pick(&TAGS),
                _ if self.tagged || self.rng.one_in(3) => self.tag,
                _ => "",
            };
            let key = self.key(kind, tag);
            self.push_key(key);
        } else {
            let value = self.data(token);
            let c = self.command();
            c.data.push(c.args.len());
            c.args.push(value);
        }
    }

    fn push_key(&mut self, key: Vec<u8>) {
        let c = self.command();
        c.keys.push(c.args.len());
        c.args.push(key);
    }

    fn key(&mut self, kind: &str, tag: &str) -> Vec<u8> {
        if tag.is_empty() && self.rng.one_in(60) {
            let odd: [&[u8]; 4] = [b"", b"{}", b"a{}{b}", b"}{\xff\x00\r\n"];
            return self.rng.pick(&odd).to_vec();
        }
        // few names, so that most commands find something
        let n = self.rng.below(if tag.is_empty() { 5 } else { 2 });
        let mut key = match n {
            0 => format!("{kind}:{n}{tag}"),
            _ => format!("{tag}{kind}:{n}"),
        }
        .into_bytes();
        if self.rng.one_in(60) {
            key.extend_from_slice(b"\xff\x00\r\n");
        }
        key
    }

    fn data(&mut self, token: &str) -> Vec<u8> {
        let r = &mut *self.rng;
        let n = r.below(1000);
        match token {
            "f" => format!("f{}", n % 8).into_bytes(),
            "m" if n.is_multiple_of(50) => b"bin\x00\xfe\r\n".to_vec(),
            "m" => format!("member-{}", n % 12).into_bytes(),
            "v" => match n % 12 {
                0 => Vec::new(),
                1 => b"\x00\xff\r\n$3\r\nx".to_vec(),
                2 => vec![b'v'; 10 + n],
                3 => br#"{"id": 7, "tags": ["a", "b"], "price": 12.50}"#.to_vec(),
                4 => b"*1\r\n".to_vec(),
                5 => format!("{n}").into_bytes(),
                _ => format!("v{}", n % 10).into_bytes(),
            },
            "int" => match n % 10 {
                0 => b"9223372036854775807".to_vec(),
                1 => format!("-{n}").into_bytes(),
                _ => format!("{n}").into_bytes(),
            },
            "n" => format!("{}", n % 10).into_bytes(),
            "idx" => format!("{}", n as i64 % 25 - 12).into_bytes(),
            "bit" if n.is_multiple_of(50) => format!("{}", n * 8).into_bytes(),
            "bit" => format!("{}", n % 40).into_bytes(),
            "fl" => r.pick(&["1.5", "-0.25", "3", "1e3", "0.1"]).as_bytes().to_vec(),
            "score" => match n % 15 {
                0 => b"+inf".to_vec(),
                1 => format!("{}.5", n % 7).into_bytes(),
                _ => format!("{}", n as i64 % 20 - 10).into_bytes(),
            },
            "range" => r.pick(&["-inf", "+inf", "0", "(3", "-5", "8", "(-2.5"]).into(),
            "lex" => r.pick(&["-", "+", "[member-1", "(member-2", "[member-7"]).into(),
            "lon" => format!("{}.{n}", n % 20).into_bytes(),
            "lat" => format!("-{}.{n}", n % 20).into_bytes(),
            "dist" => format!("{}", 1 + n * 5).into_bytes(),
            // far enough for nothing to expire while the test runs
            "sec" => format!("{}", 100_000 + n).into_bytes(),
            "ms" => format!("{}", 100_000_000 + n).into_bytes(),
            "at" => format!("{}", 4_000_000_000u64 + n as u64).into_bytes(),
            "atms" => format!("{}", 4_000_000_000_000u64 + n as u64).into_bytes(),
            // streams grow slowly, so that old ids are found again
            "newid" => {
                self.entries += 1;
                format!("{}-*", 1 + self.entries / 30).into_bytes()
            }
            "id" if n.is_multiple_of(8) => format!("{}", self.entries / 30).into_bytes(),
            "id" => {
                let near = 1 + (self.entries / 30).saturating_sub(n % 3);
                format!("{near}-{}", n % 4).into_bytes()
            }
            "weight" => match n % 40 {
                0 => r.pick(&["abc", "nan", "inf", "", "1e2", "0x10", " 1"]).into(),
                _ => format!("{}.{}", n as i64 - 500, n % 4).into_bytes(),
            },
            "few" if n.is_multiple_of(20) => {
                r.pick(&["inf", "-inf", "nan", "abc", "0.1", "-1"]).into()
            }
            "few" => r.pick(&["0", "1", "2", "3", "10", "2", "1"]).into(),
            "nk" if n.is_multiple_of(20) => r.pick(&["-1", "abc", "", "1.5", " 1", "99"]).into(),
            "nk" => r.pick(&["0", "1", "1", "2", "2", "3", "4"]).into(),
            "wait" if n.is_multiple_of(30) => r.pick(&["-1", "abc", "", "inf", "nan"]).into(),
            "wait" => r.pick(&["0.001", "0.002", "1e-3"]).into(),
            "waitms" if n.is_multiple_of(30) => r.pick(&["-1", "abc", "1.5"]).into(),
            "waitms" => r.pick(&["1", "2"]).into(),
            "pat" => r.pick(&["*", "f1*", "member-?", "str:[0-4]*", "*{a}*", "none"]).into(),
            other => panic!("grammar: no token <{other}>"),
        }
    }
}
