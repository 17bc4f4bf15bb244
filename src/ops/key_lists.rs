//! KEYS: joins the lists of all primaries into one list, in bounded memory.
//!
//! The reply begins with its length, so nothing can be sent before every primary has announced the
//! length of its list. Then the lists are passed on one after the other as they arrive. Data of the
//! others stays in their sockets and at their nodes, except for what was already read.

use crate::resp::reply::element_count;

/// The lists of one KEYS. Methods return what the client gets and which list is read next.
#[derive(Debug)]
pub struct KeyLists {
    lists: Vec<List>,
    /// Index of the list that is passed on, once all lengths are known.
    current: usize,
    begun: bool,
}

#[derive(Debug, Default)]
struct List {
    /// Number of elements, once known.
    count: Option<u64>,
    /// The whole list, if it arrived before its turn (a short one).
    whole: Option<Vec<u8>>,
}

/// What the worker does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send an array header with this number of elements; they follow.
    Header(u64),
    /// Send these elements to the client.
    Elements(Vec<u8>),
    /// Continue reading this list.
    Resume(usize),
    /// The client's reply is complete.
    End,
}

/// What the worker does with a piece of a list that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Keep it: the length is incomplete.
    Incomplete,
    /// Keep it and stop reading: it is not this list's turn.
    Wait,
    /// Send these elements to the client.
    Pass(&'a [u8]),
}

/// The part of an aggregate behind its first line.
fn body(list: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', list).map_or(list.len(), |end| end + 1);
    list.get(end..).unwrap_or_default()
}

impl KeyLists {
    /// State for `lists` lists.
    pub fn new(lists: usize) -> KeyLists {
        let lists = (0..lists).map(|_| List::default()).collect();
        KeyLists { lists, current: 0, begun: false }
    }

    /// Whether the client has received the beginning of its reply, so that no error can follow.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The list that is passed on, once the client has received the header.
    pub fn current(&self) -> Option<usize> {
        Some(self.current).filter(|&at| self.begun && at < self.lists.len())
    }

    /// Handles the beginning of list `at` or, if `continued`, a further piece.
    pub fn piece<'a>(
        &mut self,
        at: usize,
        piece: &'a [u8],
        continued: bool,
    ) -> (Vec<Effect>, Piece<'a>) {
        let mut effects = Vec::new();
        let Some(list) = self.lists.get_mut(at) else { return (effects, Piece::Wait) };
        if list.count.is_none() {
            let Some(count) = element_count(piece) else { return (effects, Piece::Incomplete) };
            list.count = Some(count);
            effects = self.begin(Some(at));
        }
        let piece = match self.current() {
            Some(current) if current == at && continued => Piece::Pass(piece),
            Some(current) if current == at => Piece::Pass(body(piece)),
            _ => Piece::Wait,
        };
        (effects, piece)
    }

    /// Handles list `at`, which has arrived in one piece. `None`: the reply is an error.
    pub fn whole(&mut self, at: usize, frame: &[u8]) -> Option<Vec<Effect>> {
        let count = element_count(frame)?;
        if let Some(list) = self.lists.get_mut(at) {
            list.count = Some(count);
            list.whole = Some(body(frame).to_vec());
        }
        Some(match self.begun {
            true => self.advance(None),
            false => self.begin(None),
        })
    }

    /// Handles the last piece of the list that is passed on.
    pub fn last_piece(&mut self, piece: &[u8]) -> Vec<Effect> {
        self.current += 1;
        let mut effects = vec![Effect::Elements(piece.to_vec())];
        effects.extend(self.advance(None));
        effects
    }

    /// Sends the header once all lengths are known. `busy`: the list that is being read.
    fn begin(&mut self, busy: Option<usize>) -> Vec<Effect> {
        let counts: Option<Vec<u64>> = self.lists.iter().map(|list| list.count).collect();
        let Some(counts) = counts else { return Vec::new() };
        self.begun = true;
        let mut effects = vec![Effect::Header(counts.iter().sum())];
        effects.extend(self.advance(busy));
        effects
    }

    /// Goes on to the next list that has not arrived in full.
    fn advance(&mut self, busy: Option<usize>) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(list) = self.lists.get_mut(self.current) {
            let Some(whole) = list.whole.take() else {
                if busy != Some(self.current) {
                    effects.push(Effect::Resume(self.current));
                }
                return effects;
            };
            effects.push(Effect::Elements(whole));
            self.current += 1;
        }
        effects.push(Effect::End);
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(bytes: &[u8]) -> Effect {
        Effect::Elements(bytes.to_vec())
    }

    #[test]
    fn one_short_list_is_the_reply() {
        let mut lists = KeyLists::new(1);
        let effects = lists.whole(0, b"*1\r\n$1\r\na\r\n").unwrap();
        assert_eq!(effects, [Effect::Header(1), elements(b"$1\r\na\r\n"), Effect::End]);
        assert!(lists.has_begun());
        assert_eq!(lists.current(), None, "it is over");
    }

    #[test]
    fn nothing_is_sent_before_all_lengths_are_known() {
        let mut lists = KeyLists::new(2);
        assert_eq!(lists.whole(1, b"*0\r\n"), Some(vec![]));
        assert!(!lists.has_begun());
        assert_eq!(lists.current(), None);
    }

    #[test]
    fn lists_come_in_the_order_of_their_nodes() {
        let mut lists = KeyLists::new(2);
        lists.whole(1, b"*1\r\n$1\r\nb\r\n");
        let effects = lists.whole(0, b"*1\r\n$1\r\na\r\n").unwrap();
        let want =
            [Effect::Header(2), elements(b"$1\r\na\r\n"), elements(b"$1\r\nb\r\n"), Effect::End];
        assert_eq!(effects, want);
    }

    #[test]
    fn an_error_is_no_list() {
        assert_eq!(KeyLists::new(1).whole(0, b"-NOPERM x\r\n"), None);
    }

    #[test]
    fn a_length_in_two_pieces_is_waited_for() {
        let mut lists = KeyLists::new(1);
        assert_eq!(lists.piece(0, b"*1", false), (vec![], Piece::Incomplete));
        let (effects, piece) = lists.piece(0, b"*10\r\n$1\r\na\r\n", false);
        assert_eq!((effects, piece), (vec![Effect::Header(10)], Piece::Pass(b"$1\r\na\r\n")));
    }

    #[test]
    fn a_list_that_goes_on_has_no_first_line() {
        let mut lists = KeyLists::new(1);
        lists.piece(0, b"*2\r\n$1\r\na\r\n", false);
        let (effects, piece) = lists.piece(0, b"$1\r\nb\r\n", true);
        assert_eq!((effects, piece), (vec![], Piece::Pass(b"$1\r\nb\r\n")));
    }

    #[test]
    fn a_list_waits_for_its_turn() {
        let mut lists = KeyLists::new(2);
        assert_eq!(lists.piece(1, b"*2\r\n", false), (vec![], Piece::Wait));
        let (effects, piece) = lists.piece(0, b"*1\r\n$1\r\na\r\n", false);
        assert_eq!((effects, piece), (vec![Effect::Header(3)], Piece::Pass(b"$1\r\na\r\n")));
        assert_eq!(lists.current(), Some(0));
        assert_eq!(lists.piece(1, b"*2\r\n", false), (vec![], Piece::Wait));
    }

    #[test]
    fn the_first_list_is_read_on_when_the_last_length_is_known() {
        let mut lists = KeyLists::new(2);
        assert_eq!(lists.piece(0, b"*2\r\n", false), (vec![], Piece::Wait));
        let (effects, piece) = lists.piece(1, b"*1\r\n", false);
        assert_eq!((effects, piece), (vec![Effect::Header(3), Effect::Resume(0)], Piece::Wait));
    }

    #[test]
    fn the_end_of_a_list_is_the_next_ones_turn() {
        let mut lists = KeyLists::new(2);
        lists.piece(1, b"*2\r\n", false);
        lists.piece(0, b"*1\r\n", false);
        let effects = lists.last_piece(b"$1\r\na\r\n");
        assert_eq!(effects, [elements(b"$1\r\na\r\n"), Effect::Resume(1)]);
        assert_eq!(lists.last_piece(b""), [elements(b""), Effect::End]);
    }

    #[test]
    fn a_short_list_follows_a_long_one_without_being_read_on() {
        let mut lists = KeyLists::new(2);
        lists.whole(1, b"*1\r\n$1\r\nb\r\n");
        lists.piece(0, b"*1\r\n", false);
        let effects = lists.last_piece(b"$1\r\na\r\n");
        assert_eq!(effects, [elements(b"$1\r\na\r\n"), elements(b"$1\r\nb\r\n"), Effect::End]);
    }

    #[test]
    fn a_list_that_does_not_exist_waits() {
        assert_eq!(KeyLists::new(1).piece(7, b"*0\r\n", false), (vec![], Piece::Wait));
    }

    /// The client gets the same elements in the same order, however the pieces are cut and in
    /// whatever order they arrive.
    #[test]
    fn every_order_of_arrival_gives_the_same_reply() {
        // Three lists, the long ones of two pieces, in all interleavings.
        let texts: [&[u8]; 3] = [b"*2\r\n+a\r\n+b\r\n", b"*1\r\n+c\r\n", b"*2\r\n+d\r\n+e\r\n"];
        let cuts = [8usize, 0, 8];
        let mut orders = 0;
        for order in 0..3u32.pow(5) {
            let order: Vec<usize> = (0..5).map(|i| (order / 3u32.pow(i) % 3) as usize).collect();
            let count = |list| order.iter().filter(|&&l| l == list).count();
            if (count(0), count(1), count(2)) != (2, 1, 2) {
                continue;
            }
            orders += 1;
            assert_eq!(reply(&texts, &cuts, &order), b"*5\r\n+a\r\n+b\r\n+c\r\n+d\r\n+e\r\n");
        }
        assert_eq!(orders, 30);
    }

    /// Acts as the worker: what has arrived of a list waits in its connection until it is read.
    struct Worker<'a> {
        lists: KeyLists,
        texts: &'a [&'a [u8]; 3],
        arrived: [usize; 3],
        passed: [usize; 3],
        out: Vec<u8>,
        ended: bool,
    }

    fn reply(texts: &[&[u8]; 3], cuts: &[usize; 3], order: &[usize]) -> Vec<u8> {
        let (arrived, passed) = ([0; 3], [0; 3]);
        let lists = KeyLists::new(3);
        let mut worker = Worker { lists, texts, arrived, passed, out: Vec::new(), ended: false };
        for &list in order {
            worker.arrived[list] = match worker.arrived[list] {
                0 if cuts[list] > 0 => cuts[list],
                _ => texts[list].len(),
            };
            worker.feed(list);
        }
        assert!(worker.ended);
        worker.out
    }

    impl Worker<'_> {
        fn feed(&mut self, list: usize) {
            let (text, arrived, before) = (self.texts[list], self.arrived[list], self.passed[list]);
            let effects = match (arrived == text.len(), before) {
                (true, 0) => self.lists.whole(list, text).unwrap(),
                (true, _) if self.lists.current() == Some(list) => {
                    self.passed[list] = arrived;
                    self.lists.last_piece(&text[before..arrived])
                }
                _ => {
                    let new = &text[before..arrived];
                    let (effects, piece) = self.lists.piece(list, new, before > 0);
                    self.run(effects);
                    if let Piece::Pass(elements) = piece {
                        self.out.extend_from_slice(elements);
                        self.passed[list] = arrived;
                    }
                    return;
                }
            };
            self.run(effects);
        }

        fn run(&mut self, effects: Vec<Effect>) {
            for effect in effects {
                match effect {
                    Effect::Header(n) => self.out.extend(format!("*{n}\r\n").bytes()),
                    Effect::Elements(bytes) => self.out.extend(bytes),
                    Effect::Resume(list) if self.arrived[list] > self.passed[list] => {
                        self.feed(list);
                    }
                    Effect::Resume(_) => {}
                    Effect::End => self.ended = true,
                }
            }
        }
    }
}
