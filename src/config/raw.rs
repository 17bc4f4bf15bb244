//! Values as written, before they are parsed by their keys' types.

/// A value as written, before it is parsed by its key's type.
pub(super) enum Raw {
    /// A value from the environment or a flag: untyped text, in which commas separate a list.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer; `None` if it does not fit 64 bits.
    Integer(Option<i64>),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// A TOML table, or inline table.
    Table(Vec<(String, Raw)>),
    /// Any other TOML value, as the name of its type.
    Other(&'static str),
}

impl Raw {
    /// The type in words ("a number"), for errors about a wrong type. Errors do not quote the
    /// value, which may be a secret written without its quotes.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Raw::Word(_) | Raw::Text(_) => "a string",
            Raw::Integer(_) => "a number",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a section",
            Raw::Boolean(_) => "true or false",
            Raw::Other(name) => name,
        }
    }

    pub(super) fn text(&self, example: &str) -> Result<&str, String> {
        match self {
            Raw::Word(text) | Raw::Text(text) => Ok(text),
            other => Err(format!("is {}; write {example}, in quotes", other.kind())),
        }
    }

    pub(super) fn integer(&self, example: &str) -> Result<i64, String> {
        match self {
            Raw::Integer(Some(number)) => Ok(*number),
            Raw::Integer(None) => Err("is too large".into()),
            Raw::Word(word) => word
                .trim()
                .parse()
                .map_err(|_| format!("\"{word}\" is not a number; write {example}")),
            Raw::Text(text) if text.trim().parse::<i64>().is_ok() => {
                Err(format!("is a string; write the number without quotes: {}", text.trim()))
            }
            other => Err(format!("is {}; write {example}", other.kind())),
        }
    }

    /// Parses every item of a list of texts. `Err`: the reasons of all that are wrong.
    pub(super) fn list<T>(
        &self,
        example: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        self.items(example, |item| match item {
            Raw::Word(text) | Raw::Text(text) => read(text),
            other => Err(format!("one item is {}; write {example}", other.kind())),
        })
    }

    /// Parses every item of a list. `Err`: the reasons of all that are wrong.
    pub(super) fn items<T>(
        &self,
        example: &str,
        read: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let words: Vec<Raw>;
        let raws = match self {
            Raw::Word(word) if word.trim().is_empty() => &[],
            Raw::Word(word) => {
                words = word.split(',').map(|item| Raw::Word(item.trim().into())).collect();
                words.as_slice()
            }
            Raw::List(items) => items.as_slice(),
            other => return Err(format!("is {}; write {example}", other.kind())),
        };
        let mut items = Vec::with_capacity(raws.len());
        let mut reasons = Vec::new();
        for raw in raws {
            match read(raw) {
                Ok(item) => items.push(item),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() { Ok(items) } else { Err(reasons.join("; ")) }
    }
}
