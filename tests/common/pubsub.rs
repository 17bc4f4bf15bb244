//! Streams of numbered messages, and subscribers that keep the books of what they hear.
//!
//! A [`Stage`] has publishers, which never use a number twice and note how each PUBLISH was
//! answered, and subscribers, which note every number they hear. What is wrong in any case (heard
//! twice, out of order) is found by [`Stage::assert_sound`], what was acknowledged and never heard
//! by [`Stage::missing`]; whether that may be is the test's to say.

use super::errors::is_outcome_unknown;
use super::{PATIENCE, eventually_ok};
use slotway::sandbox::{Conn, Reply};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Messages per stream and turn of its publisher, sent at once.
const BATCH: u64 = 2;
/// What SET says of itself: at the channel of the event, and at the channel of the key.
const KEYEVENT: &str = "__keyevent@0__:set";
const KEYSPACE: &str = "__keyspace@0__:";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// What a subscriber listens to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    pub kind: Kind,
    pub name: String,
}

impl Topic {
    pub fn channel(name: &str) -> Topic {
        Topic { kind: Kind::Channel, name: name.to_owned() }
    }

    /// A prefix and a `*`; nothing else is needed here.
    pub fn pattern(name: &str) -> Topic {
        assert!(name.ends_with('*'), "{name}");
        Topic { kind: Kind::Pattern, name: name.to_owned() }
    }

    pub fn shard(name: &str) -> Topic {
        Topic { kind: Kind::Shard, name: name.to_owned() }
    }

    /// Hears notifications, and nothing else.
    pub fn is_keyspace(&self) -> bool {
        self.name.starts_with("__key")
    }

    fn command(&self) -> &'static str {
        ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][self.kind as usize]
    }

    fn hears(&self, source: Source, channel: &str) -> bool {
        match self.kind {
            Kind::Shard => source == Source::Shard && self.name == channel,
            _ if source == Source::Shard => false,
            Kind::Channel => self.name == channel,
            Kind::Pattern => channel.starts_with(self.name.trim_end_matches('*')),
        }
    }
}

/// Where a stream's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Publish,
    Shard,
    /// SETs of a new key each: the nodes' notifications are the messages.
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Waiting,
    Acknowledged,
    /// It may have been published or not.
    Unknown,
}

/// The messages of one publisher to one channel, numbered from 0.
#[derive(Debug)]
pub struct Stream {
    pub source: Source,
    pub publisher: String,
    pub channel: String,
    answers: Mutex<Vec<Answer>>,
}

impl Stream {
    /// The number that comes next.
    fn next(&self) -> u64 {
        lock(&self.answers).len() as u64
    }

    fn command(&self, number: u64) -> [String; 3] {
        let text = format!("{}:{number}", self.publisher);
        match self.source {
            Source::Publish => ["PUBLISH".into(), self.channel.clone(), text],
            Source::Shard => ["SPUBLISH".into(), self.channel.clone(), text],
            Source::Set => ["SET".into(), text, "v".into()],
        }
    }

    /// The channels that its messages are heard on.
    fn channels(&self) -> Vec<&str> {
        match self.source {
            Source::Set => vec![KEYEVENT, KEYSPACE],
            _ => vec![&self.channel],
        }
    }
}

/// What one subscriber has heard of one stream by one topic.
#[derive(Debug, Default)]
struct Heard {
    /// How often, by number.
    times: Vec<u8>,
    /// A number, and a higher one that came before it.
    behind: Vec<(u64, u64)>,
    last: Option<Instant>,
    silence: Duration,
}

impl Heard {
    fn note(&mut self, number: u64) {
        let index = number as usize;
        if index < self.times.len() {
            self.behind.push((number, self.times.len() as u64 - 1));
        } else {
            self.times.resize(index + 1, 0);
        }
        self.times[index] = self.times[index].saturating_add(1);
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.silence = self.silence.max(now - last);
        }
    }

    fn has(&self, number: u64) -> bool {
        self.times.get(number as usize).is_some_and(|times| *times > 0)
    }
}

/// By the topic's index, the publisher and the channel.
type Book = HashMap<(usize, String, String), Heard>;

/// A client that has subscribed, with a thread that reads.
pub struct Subscriber {
    pub name: String,
    pub topics: Vec<Topic>,
    sender: Conn,
    /// Confirmations of what it has said itself, that are still to come.
    confirmations: Arc<AtomicUsize>,
    book: Arc<Mutex<Book>>,
    /// The connection's end, and whether it was in order.
    end: Arc<Mutex<Option<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Connects, subscribes, and returns when everything is confirmed.
    pub fn start(addr: SocketAddr, name: &str, resp3: bool, topics: Vec<Topic>) -> Subscriber {
        let mut conn = Conn::tcp(addr).expect("a connection");
        conn.set_timeout(Some(PATIENCE)).expect("a timeout");
        if resp3 {
            let hello = conn.command(&["HELLO", "3"]).expect("HELLO 3");
            assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
        }
        let sender = conn.try_clone().expect("a second handle");
        for topic in &topics {
            conn.send(&[topic.command(), &topic.name]).expect("to subscribe");
        }
        let book = Arc::new(Mutex::new(Book::new()));
        let mut confirmed = 0;
        while confirmed < topics.len() {
            let frame = conn.receive().unwrap_or_else(|e| panic!("{name}: {e}"));
            let items = items(&frame, resp3).unwrap_or_else(|| panic!("{name}: {frame:?}"));
            if items[0].text().is_some_and(|kind| kind.ends_with("message")) {
                note(&topics, items, &mut lock(&book)).unwrap_or_else(|e| panic!("{name}: {e}"));
                continue;
            }
            let topic = &topics[confirmed];
            assert_eq!(items[0].text(), Some(topic.command().to_lowercase()), "{name}");
            assert_eq!(items[1].text().as_ref(), Some(&topic.name), "{name}");
            confirmed += 1;
        }
        conn.set_timeout(None).expect("no timeout");
        let end = Arc::new(Mutex::new(None));
        let confirmations = Arc::new(AtomicUsize::new(0));
        let reader = {
            let (topics, book, end) = (topics.clone(), Arc::clone(&book), Arc::clone(&end));
            let confirmations = Arc::clone(&confirmations);
            thread::spawn(move || {
                let how = read(conn, resp3, &topics, &confirmations, &book);
                *lock(&end) = Some(how);
            })
        };
        let name = name.to_owned();
        Subscriber { name, topics, sender, confirmations, book, end, reader: Some(reader) }
    }

    /// Subscribes or unsubscribes; returns when that is confirmed.
    #[track_caller]
    pub fn say(&mut self, command: &[&str]) {
        self.confirmations.store(command.len() - 1, Ordering::SeqCst);
        self.sender.send(command).expect("to send");
        super::eventually(&format!("{}: {command:?} is confirmed", self.name), || {
            self.confirmations.load(Ordering::SeqCst) == 0
        });
    }

    /// How the connection ended, if it did.
    pub fn end(&self) -> Option<String> {
        lock(&self.end).clone()
    }

    /// How many messages it has heard by this topic.
    pub fn count(&self, topic: &Topic) -> u64 {
        let index = self.topics.iter().position(|t| t == topic).expect("one of its topics");
        let book = lock(&self.book);
        let of_it = book.iter().filter(|((topic, ..), _)| *topic == index);
        of_it.flat_map(|(_, heard)| &heard.times).map(|times| u64::from(*times)).sum()
    }
}

/// Reads until the end, which it returns: "QUIT", "closed" or what was wrong.
fn read(
    mut conn: Conn,
    resp3: bool,
    topics: &[Topic],
    confirmations: &AtomicUsize,
    book: &Mutex<Book>,
) -> String {
    loop {
        match conn.receive() {
            Ok(reply) if reply.is_ok() => return "QUIT".into(),
            Ok(reply) => {
                let Some(items) = items(&reply, resp3) else { return format!("{reply:?}") };
                if items[0].text().is_some_and(|kind| kind.ends_with("subscribe"))
                    && confirmations.load(Ordering::SeqCst) > 0
                {
                    confirmations.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                if let Err(error) = note(topics, items, &mut lock(book)) {
                    return error;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return "closed".into();
            }
            Err(e) => return e.to_string(),
        }
    }
}

/// A message is an array in RESP2, a push in RESP3.
fn items(reply: &Reply, resp3: bool) -> Option<&[Reply]> {
    match reply {
        Reply::Push(items) if resp3 => Some(items),
        Reply::Array(items) if !resp3 => Some(items),
        _ => None,
    }
}

fn note(topics: &[Topic], items: &[Reply], book: &mut Book) -> Result<(), String> {
    let strange = || format!("not a message that it has subscribed to: {items:?}");
    let texts: Vec<String> = items.iter().filter_map(Reply::text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (kind, name, channel, text) = match texts[..] {
        ["message", channel, text] => (Kind::Channel, channel, channel, text),
        ["smessage", channel, text] => (Kind::Shard, channel, channel, text),
        ["pmessage", pattern, channel, text] => (Kind::Pattern, pattern, channel, text),
        _ => return Err(strange()),
    };
    let topic = topics.iter().position(|topic| topic.kind == kind && topic.name == name);
    let topic = topic.ok_or_else(strange)?;
    // A notification says who wrote by the key's name.
    let (channel, text) = match channel.strip_prefix(KEYSPACE) {
        Some(key) if text == "set" => (KEYSPACE, key),
        _ if channel.starts_with("__key") && channel != KEYEVENT => return Ok(()),
        _ => (channel, text),
    };
    // Others may publish as well; what they say is not numbered.
    let Some((publisher, number)) = text.split_once(':') else { return Ok(()) };
    let number = number.parse().map_err(|_| strange())?;
    book.entry((topic, publisher.to_owned(), channel.to_owned())).or_default().note(number);
    Ok(())
}

/// What was acknowledged and not heard, by topic and stream. All subscribers of a topic agree.
pub type Missing = BTreeMap<Topic, BTreeMap<String, BTreeSet<u64>>>;

/// A command of a publisher, and the error that it got.
type Refused = ([String; 3], Reply);

/// Publishers and subscribers at one address.
pub struct Stage {
    addr: SocketAddr,
    streams: Vec<Arc<Stream>>,
    pub subscribers: Vec<Subscriber>,
    publishers: Vec<JoinHandle<()>>,
    /// What the publishers were answered, other than a number or OK, with the commands.
    errors: Arc<Mutex<Vec<Refused>>>,
    /// Why a publisher has ended.
    failure: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
}

impl Stage {
    pub fn new(addr: SocketAddr) -> Stage {
        Stage {
            addr,
            streams: Vec::new(),
            subscribers: Vec::new(),
            publishers: Vec::new(),
            errors: Arc::default(),
            failure: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// One more subscriber; all are there before the first publisher.
    pub fn subscribe(&mut self, resp3: bool, topics: Vec<Topic>) {
        let protocol = if resp3 { 3 } else { 2 };
        let name = format!("subscriber {} (RESP{protocol})", self.subscribers.len());
        self.subscribers.push(Subscriber::start(self.addr, &name, resp3, topics));
    }

    /// One more publisher, that publishes to all these channels in turn.
    pub fn publish(&mut self, resp3: bool, pause: Duration, source: Source, channels: &[&str]) {
        let publisher = format!("p{}", self.publishers.len());
        let streams: Vec<Arc<Stream>> = channels
            .iter()
            .map(|channel| Stream {
                source,
                publisher: publisher.clone(),
                channel: (*channel).to_owned(),
                answers: Mutex::default(),
            })
            .map(Arc::new)
            .collect();
        self.streams.extend(streams.iter().cloned());
        let (addr, stop) = (self.addr, Arc::clone(&self.stop));
        let (errors, failure) = (Arc::clone(&self.errors), Arc::clone(&self.failure));
        self.publishers.push(thread::spawn(move || {
            if let Err(error) = publish(addr, resp3, pause, &streams, &stop, &errors) {
                *lock(&failure) = Some(format!("publisher {publisher}: {error}"));
            }
        }));
    }

    /// The next number of every stream.
    pub fn marks(&self) -> Vec<u64> {
        self.streams.iter().map(|stream| stream.next()).collect()
    }

    /// Waits until every stream has so many more messages.
    #[track_caller]
    pub fn more(&self, messages: u64) {
        let before = self.marks();
        eventually_ok("publishers go on", || {
            self.assert_sound();
            for (stream, before) in self.streams.iter().zip(&before) {
                let (next, wanted) = (stream.next(), before + messages);
                if next <= wanted {
                    let (publisher, channel) = (&stream.publisher, &stream.channel);
                    return Err(format!("{publisher} at {channel}: {next}, wanted {wanted}"));
                }
            }
            Ok(())
        });
    }

    /// Waits until every subscriber has heard something from `marks` on of everything that it
    /// listens to. All that was published before `marks` has been answered then.
    #[track_caller]
    pub fn all_hear(&self, what: &str, marks: &[u64]) {
        eventually_ok(&format!("{what}: everything is delivered"), || {
            self.assert_sound();
            self.for_each_ear(|ear| {
                let (mark, heard) = (marks[ear.index], ear.heard.map_or(0, |h| h.times.len()));
                if heard as u64 > mark {
                    return Ok(());
                }
                let next = ear.stream.next();
                Err(format!(
                    "{ear} has heard below {heard}, to hear from {mark}, said below {next}"
                ))
            })
        });
    }

    /// Nothing was heard twice; what was acknowledged was heard in order; nobody was closed.
    pub fn sound(&self) -> Result<(), String> {
        if let Some(failure) = lock(&self.failure).clone() {
            return Err(failure);
        }
        self.for_each_ear(|ear| {
            let Some(heard) = ear.heard else { return Ok(()) };
            if let Some(number) = heard.times.iter().position(|times| *times > 1) {
                return Err(format!("{ear}: {number} heard {} times", heard.times[number]));
            }
            // Keys live at several nodes, whose notifications have no order among each other.
            if ear.stream.source == Source::Set {
                return Ok(());
            }
            let answers = lock(&ear.stream.answers);
            // What has lost its connection may be executed at any time.
            let sure = |n: u64| answers.get(n as usize) != Some(&Answer::Unknown);
            match heard.behind.iter().find(|(low, high)| sure(*low) && sure(*high)) {
                Some((low, high)) => Err(format!("{ear}: {low} heard after {high}")),
                None => Ok(()),
            }
        })
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        if let Err(error) = self.sound() {
            panic!("{error}");
        }
    }

    /// What was acknowledged from `from` to before `to` and not heard. An error if subscribers of
    /// one topic do not agree about it: some may not have heard yet what others have.
    pub fn missing(&self, from: &[u64], to: &[u64]) -> Result<Missing, String> {
        let mut missing = Missing::new();
        let mut first: HashMap<(Topic, String), String> = HashMap::new();
        self.for_each_ear(|ear| {
            let answers = lock(&ear.stream.answers);
            let lost = (from[ear.index]..to[ear.index]).filter(|n| {
                answers.get(*n as usize) == Some(&Answer::Acknowledged)
                    && !ear.heard.is_some_and(|heard| heard.has(*n))
            });
            let lost: BTreeSet<u64> = lost.collect();
            let what = format!("{} at {}", ear.stream.publisher, ear.channel);
            let of_topic = missing.entry(ear.topic.clone()).or_default();
            match first.insert((ear.topic.clone(), what.clone()), ear.to_string()) {
                None => {
                    of_topic.insert(what, lost);
                    Ok(())
                }
                Some(_) if of_topic.get(&what) == Some(&lost) => Ok(()),
                Some(other) => {
                    Err(format!("{other} misses {:?}, {ear} misses {lost:?}", of_topic.get(&what)))
                }
            }
        })?;
        for of_topic in missing.values_mut() {
            of_topic.retain(|_, lost| !lost.is_empty());
        }
        missing.retain(|_, of_topic| !of_topic.is_empty());
        Ok(missing)
    }

    /// From now on, silence is measured anew.
    pub fn reset_silence(&self) {
        for subscriber in &self.subscribers {
            lock(&subscriber.book).values_mut().for_each(|heard| heard.silence = Duration::ZERO);
        }
    }

    /// The longest that a topic for which `of` says yes was silent.
    pub fn silence(&self, of: impl Fn(&Topic) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        for subscriber in &self.subscribers {
            for ((topic, ..), heard) in lock(&subscriber.book).iter() {
                if of(&subscriber.topics[*topic]) {
                    longest = longest.max(heard.silence);
                }
            }
        }
        longest
    }

    /// How many messages were acknowledged, and how many ended with an unknown outcome.
    pub fn published(&self) -> (usize, usize) {
        let count = |wanted: Answer| {
            let of = |stream: &Arc<Stream>| {
                lock(&stream.answers).iter().filter(|answer| **answer == wanted).count()
            };
            self.streams.iter().map(of).sum()
        };
        (count(Answer::Acknowledged), count(Answer::Unknown))
    }

    /// Ends publishers and subscribers; every error that a publisher got was one it may get.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for publisher in self.publishers.drain(..) {
            publisher.join().expect("a publisher");
        }
        self.assert_sound();
        // It was sent, and its connection lost.
        for error in lock(&self.errors).iter() {
            let (command, reply) = error;
            let unknown = reply.error().is_some_and(is_outcome_unknown);
            assert!(unknown, "a publisher was answered: {command:?}: {reply:?}");
        }
        for mut subscriber in self.subscribers.drain(..) {
            subscriber.sender.send(&["QUIT"]).expect("to send QUIT");
            let reader = subscriber.reader.take().expect("a reader");
            reader.join().expect("the reader");
            assert_eq!(subscriber.end().as_deref(), Some("QUIT"), "{}", subscriber.name);
        }
    }

    /// Every subscriber with everything that it is to hear, until the first error.
    fn for_each_ear(&self, mut look: impl FnMut(Ear) -> Result<(), String>) -> Result<(), String> {
        for subscriber in &self.subscribers {
            if let Some(end) = subscriber.end() {
                return Err(format!("{}: {end}", subscriber.name));
            }
            let book = lock(&subscriber.book);
            for (number, topic) in subscriber.topics.iter().enumerate() {
                for (index, stream) in self.streams.iter().enumerate() {
                    for channel in stream.channels() {
                        if topic.hears(stream.source, channel) {
                            let key = (number, stream.publisher.clone(), channel.to_owned());
                            let heard = book.get(&key);
                            look(Ear { subscriber, topic, stream, index, channel, heard })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A subscriber, and one of the streams that it is to hear by one of its topics.
struct Ear<'a> {
    subscriber: &'a Subscriber,
    topic: &'a Topic,
    stream: &'a Stream,
    /// The stream's, in marks.
    index: usize,
    channel: &'a str,
    heard: Option<&'a Heard>,
}

impl fmt::Display for Ear<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, publisher) = (&self.subscriber.name, &self.stream.publisher);
        write!(f, "{name}, by {}: {publisher} at {}", self.topic.name, self.channel)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn publish(
    addr: SocketAddr,
    resp3: bool,
    pause: Duration,
    streams: &[Arc<Stream>],
    stop: &AtomicBool,
    errors: &Mutex<Vec<Refused>>,
) -> std::io::Result<()> {
    let mut conn = Conn::tcp(addr)?;
    // Some wait for a failover.
    conn.set_timeout(Some(PATIENCE))?;
    if resp3 {
        conn.command(&["HELLO", "3"])?;
    }
    while !stop.load(Ordering::Relaxed) {
        let mut commands = Vec::new();
        let mut numbers = Vec::new();
        for stream in streams {
            let mut answers = lock(&stream.answers);
            for _ in 0..BATCH {
                let number = answers.len() as u64;
                answers.push(Answer::Waiting);
                numbers.push((stream, number));
                commands.push(stream.command(number).to_vec());
            }
        }
        let replies = conn.pipeline(&commands)?;
        for ((stream, number), reply) in numbers.into_iter().zip(replies) {
            let answer = match reply {
                Reply::Int(_) if stream.source != Source::Set => Answer::Acknowledged,
                reply if stream.source == Source::Set && reply.is_ok() => Answer::Acknowledged,
                other => {
                    lock(errors).push((stream.command(number), other));
                    Answer::Unknown
                }
            };
            lock(&stream.answers)[number as usize] = answer;
        }
        // The load is to be there, not to be heavy.
        thread::sleep(pause);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
