//! The arguments of a scanned request, as ranges of the bytes that it arrived in.

/// The position of an argument in its buffer: `[start, end)`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgRange {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset past the last byte.
    pub end: u32,
}

/// The arguments of one request; argument 0 is the command's name. Borrowed: nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// The arguments at `ranges` of `buf`. A range outside `buf` reads as an empty argument.
    pub fn new(buf: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Args { buf, ranges }
    }

    /// Number of arguments, including the name.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are no arguments at all, not even a name.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `i`, or `None` past the end.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        let r = self.ranges.get(i)?;
        Some(self.buf.get(r.start as usize..r.end as usize).unwrap_or_default())
    }

    /// Whether argument `i` equals `word`, ignoring case.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// All arguments in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

/// For tests: the positions of the words of `line`, which are separated by one space each.
#[cfg(test)]
pub(crate) fn words(line: &str) -> Vec<ArgRange> {
    let mut start = 0;
    let range = |word: &str| {
        let end = start + word.len() as u32;
        let range = ArgRange { start, end };
        start = end + 1;
        range
    };
    line.split(' ').map(range).collect()
}
