//! The load of the pub/sub benches (benches/compare/pubsub.py): thousands of subscribers and one
//! publisher in one thread, so cheap that two cores suffice for it and what it measures.
//!
//! It subscribes, says `ready` and then obeys lines on its standard input: `run PIPELINE SECONDS`
//! publishes for so long, waits until every subscriber has every message, and answers with one line
//! of JSON. Whoever drives it reads the server's CPU clock before and after.
//!
//! Every message carries its number in its channel, and every subscriber must read its channel's
//! numbers one by one: one that is missing, comes twice or in another order ends this with an
//! error. All messages are equally long, so that takes one look at eight bytes each.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use mio::{Events, Interest, Poll, Token};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The payload: the number and padding, as long as the values of the other benches.
const PAYLOAD: usize = 64;
const DIGITS: usize = 8;
/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(10);
const PUBLISHER: Token = Token(usize::MAX);

#[derive(Parser)]
#[command(about = "Subscribers and a publisher; driven by benches/compare/pubsub.py")]
struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum, default_value = "channels")]
    kind: Kind,
    /// Different channels or patterns.
    #[arg(long, default_value_t = 1)]
    topics: usize,
    /// Subscribers of each of them.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// Topics that one connection subscribes to.
    #[arg(long, default_value_t = 1)]
    per_connection: usize,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    protocol: u8,
    /// Published messages that some subscriber has not read yet: no more than this.
    #[arg(long, default_value_t = 64)]
    window: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// SUBSCRIBE.
    Channels,
    /// PSUBSCRIBE; each message matches one of the patterns.
    Patterns,
    /// PSUBSCRIBE; each message matches all of them.
    Overlapping,
}

/// What is subscribed to, and where it is published.
struct Topic {
    name: String,
    /// Index of the channel whose messages it gets.
    channel: usize,
}

fn topics(kind: Kind, count: usize) -> Result<(Vec<Topic>, Vec<String>)> {
    let one_each =
        |name: fn(usize) -> String| (0..count).map(move |i| Topic { name: name(i), channel: i });
    match kind {
        Kind::Channels => Ok((
            one_each(|i| format!("news.{i:05}")).collect(),
            (0..count).map(|i| format!("news.{i:05}")).collect(),
        )),
        Kind::Patterns => Ok((
            one_each(|i| format!("news.{i:05}.*")).collect(),
            (0..count).map(|i| format!("news.{i:05}.item")).collect(),
        )),
        Kind::Overlapping => {
            let channel = "news.abcdefghijklmno";
            // Two of the letters are `?`: as many different patterns of one length as pairs.
            let pairs = (5..channel.len()).flat_map(|a| (5..a).map(move |b| (a, b)));
            let name = |(a, b)| {
                let hide = |(i, c)| if i == a || i == b { '?' } else { c };
                channel.chars().enumerate().map(hide).collect()
            };
            let topics: Vec<Topic> =
                pairs.take(count).map(|pair| Topic { name: name(pair), channel: 0 }).collect();
            if topics.len() < count {
                return Err(format!("at most {} patterns can overlap", topics.len()).into());
            }
            Ok((topics, vec![channel.to_owned()]))
        }
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn array(kind: char, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("{kind}{}\r\n", parts.len()).into_bytes();
    parts.iter().for_each(|part| bulk(&mut out, part));
    out
}

/// A number in decimal digits that is only ever increased by one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Number([u8; DIGITS]);

impl Number {
    const ZERO: Number = Number([b'0'; DIGITS]);

    fn advance(&mut self) {
        for digit in self.0.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

/// How the messages look that subscribers get.
struct Shape {
    length: usize,
    /// Where the message's number is.
    number: usize,
    /// Where the topic's index is; its connection has it if it has several topics.
    index: usize,
}

struct Subscriber {
    stream: mio::net::TcpStream,
    /// Its first topic, and the number that the next message of each of its topics must have.
    first: usize,
    next: Vec<Number>,
    /// A message of which only the beginning has come.
    tail: Vec<u8>,
}

impl Subscriber {
    /// Checks the messages in `bytes`; how many there were.
    fn take(&mut self, mut bytes: &[u8], shape: &Shape) -> Result<u64> {
        let mut count = 0;
        if !self.tail.is_empty() {
            let missing = (shape.length - self.tail.len()).min(bytes.len());
            self.tail.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.tail.len() < shape.length {
                return Ok(0);
            }
            let whole = std::mem::take(&mut self.tail);
            self.check(&whole, shape)?;
            count += 1;
        }
        let messages = bytes.chunks_exact(shape.length);
        self.tail.extend_from_slice(messages.remainder());
        for message in messages {
            self.check(message, shape)?;
            count += 1;
        }
        Ok(count)
    }

    fn check(&mut self, message: &[u8], shape: &Shape) -> Result<()> {
        let which = if self.next.len() == 1 {
            0
        } else {
            let index = std::str::from_utf8(&message[shape.index..shape.index + 5])?;
            index.parse::<usize>()?.wrapping_sub(self.first)
        };
        let next = self.next.get_mut(which).ok_or("a message of another's channel")?;
        if message[shape.number..shape.number + DIGITS] != next.0 {
            return Err(format!(
                "a subscriber of topic {} waits for number {} and got {:?}",
                self.first + which,
                String::from_utf8_lossy(&next.0),
                String::from_utf8_lossy(message)
            )
            .into());
        }
        next.advance();
        Ok(())
    }
}

struct Load {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    subscribers: Vec<Subscriber>,
    shape: Shape,
    publisher: mio::net::TcpStream,
    /// Per channel: the PUBLISH up to its payload, and the number of its next message.
    channels: Vec<(Vec<u8>, Number)>,
    /// The channel of the next message.
    turn: usize,
    /// Deliveries of one message, and the reply to its PUBLISH.
    receivers: u64,
    reply: Vec<u8>,
    window: u64,
    /// Since the beginning.
    published: u64,
    delivered: u64,
    /// Bytes of replies to the publisher that have not come.
    awaited: usize,
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn hello(protocol: u8) -> Vec<u8> {
    array('*', &[b"HELLO", protocol.to_string().as_bytes()])
}

/// Reads until what has come ends with `end`.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while !got.ends_with(end) {
        let n = stream.read(&mut piece).unwrap_or_default();
        got.extend_from_slice(&piece[..n]);
        if let Some(at) = got.windows(3).position(|part| part == b"\r\n-") {
            return Err(String::from_utf8_lossy(&got[at + 2..]).trim_end().into());
        }
        if n == 0 {
            return Err("a connection was not answered".into());
        }
    }
    Ok(())
}

impl Load {
    fn new(options: &Options) -> Result<Load> {
        let (topics, channels) = topics(options.kind, options.topics)?;
        let patterns = options.kind != Kind::Channels;
        let mark = if options.protocol == 3 { '>' } else { '*' };
        let poll = Poll::new()?;

        let mut subscribers = Vec::new();
        let chunks = topics.chunks(options.per_connection.max(1)).enumerate();
        let places: Vec<_> = chunks.flat_map(|at| vec![at; options.subscribers]).collect();
        // Some at a time: asked all, then heard all.
        for some in places.chunks(250) {
            let mut asked = Vec::new();
            for (chunk, mine) in some {
                let mut stream = connect(options.port)?;
                let mut command: Vec<&[u8]> =
                    vec![if patterns { b"PSUBSCRIBE" } else { b"SUBSCRIBE" }];
                command.extend(mine.iter().map(|topic| topic.name.as_bytes()));
                let mut request = hello(options.protocol);
                request.extend(array('*', &command));
                stream.write_all(&request)?;
                asked.push((stream, chunk * options.per_connection.max(1), mine.len()));
            }
            for (mut stream, first, count) in asked {
                let last = topics[first + count - 1].name.as_bytes();
                let mut end = Vec::new();
                bulk(&mut end, last);
                end.extend_from_slice(format!(":{count}\r\n").as_bytes());
                read_to(&mut stream, &end)?;
                stream.set_nonblocking(true)?;
                let mut stream = mio::net::TcpStream::from_std(stream);
                poll.registry().register(
                    &mut stream,
                    Token(subscribers.len()),
                    Interest::READABLE,
                )?;
                let next = vec![Number::ZERO; count];
                subscribers.push(Subscriber { stream, first, next, tail: Vec::new() });
            }
        }

        let mut publisher = connect(options.port)?;
        let mut request = hello(options.protocol);
        request.extend(array('*', &[b"PING"]));
        publisher.write_all(&request)?;
        read_to(&mut publisher, b"+PONG\r\n")?;
        publisher.set_nonblocking(true)?;
        let mut publisher = mio::net::TcpStream::from_std(publisher);
        poll.registry().register(&mut publisher, PUBLISHER, Interest::READABLE)?;

        let payload = [b'x'; PAYLOAD];
        let (topic, channel) = (topics[0].name.as_bytes(), channels[0].as_bytes());
        let message = if patterns {
            array(mark, &[b"pmessage", topic, channel, &payload])
        } else {
            array(mark, &[b"message", channel, &payload])
        };
        let named = message.windows(channel.len()).position(|part| part == channel).unwrap_or(0);
        let shape = Shape {
            length: message.len(),
            number: message.len() - 2 - PAYLOAD,
            index: named + "news.".len(),
        };
        let receivers =
            topics.iter().filter(|topic| topic.channel == 0).count() * options.subscribers;
        let publishes = channels.iter().map(|channel| {
            let mut request = array('*', &[b"PUBLISH", channel.as_bytes(), &payload]);
            request.truncate(request.len() - 2 - PAYLOAD);
            (request, Number::ZERO)
        });
        Ok(Load {
            poll,
            events: Events::with_capacity(4096),
            scratch: vec![0; 256 << 10],
            subscribers,
            shape,
            publisher,
            channels: publishes.collect(),
            turn: 0,
            receivers: receivers as u64,
            reply: format!(":{receivers}\r\n").into_bytes(),
            window: options.window as u64,
            published: 0,
            delivered: 0,
            awaited: 0,
        })
    }

    /// Publishes for `seconds`, `pipeline` messages at a time and the next ones when these are
    /// answered; ends when all is delivered. Gives the line to print.
    fn run(&mut self, pipeline: u64, seconds: f64) -> Result<String> {
        let (published, delivered) = (self.published, self.delivered);
        let began = Instant::now();
        let end = began + Duration::from_secs_f64(seconds);
        let mut behind = 0;
        let mut heard = began;
        loop {
            let now = Instant::now();
            let missing = self.published * self.receivers - self.delivered;
            behind = behind.max(missing.div_ceil(self.receivers));
            let room = self.window.max(pipeline) - pipeline;
            if self.awaited == 0 && missing <= room * self.receivers && now < end {
                self.publish(pipeline)?;
                heard = now;
            } else if self.awaited == 0 && missing == 0 {
                break;
            }
            if self.turn(Some(Duration::from_secs(1)))? {
                heard = now;
            } else if now - heard > PATIENCE {
                return Err(format!(
                    "{missing} deliveries and {} bytes of replies are missing",
                    self.awaited
                )
                .into());
            }
        }
        let took = began.elapsed().as_secs_f64();
        // What comes now comes twice.
        if self.turn(Some(Duration::from_millis(5)))? {
            return Err("something came after the last message".into());
        }
        Ok(format!(
            "{{\"published\": {}, \"deliveries\": {}, \"seconds\": {took:.6}, \"behind\": {behind}, \"bytes_each\": {}}}",
            self.published - published,
            self.delivered - delivered,
            self.shape.length,
        ))
    }

    fn publish(&mut self, count: u64) -> Result<()> {
        let mut burst = Vec::with_capacity(count as usize * 160);
        for _ in 0..count {
            let (request, number) = &mut self.channels[self.turn];
            burst.extend_from_slice(request);
            burst.extend_from_slice(&number.0);
            burst.resize(burst.len() + PAYLOAD - DIGITS, b'x');
            burst.extend_from_slice(b"\r\n");
            number.advance();
            self.turn = (self.turn + 1) % self.channels.len();
        }
        // Everything before has been answered, so the socket has room for all of it.
        self.publisher.write_all(&burst)?;
        self.published += count;
        self.awaited = self.reply.len() * count as usize;
        Ok(())
    }

    /// Reads what has come; whether anything has.
    fn turn(&mut self, timeout: Option<Duration>) -> Result<bool> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            other => other?,
        }
        let mut any = false;
        for event in &self.events {
            let token = event.token();
            loop {
                let stream = match self.subscribers.get_mut(token.0) {
                    Some(subscriber) => &mut subscriber.stream,
                    None => &mut self.publisher,
                };
                let n = match stream.read(&mut self.scratch) {
                    Ok(0) => {
                        return Err(format!("connection {} was closed", token.0 as isize).into());
                    }
                    Ok(n) => n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                any = true;
                let bytes = &self.scratch[..n];
                match self.subscribers.get_mut(token.0) {
                    Some(subscriber) => self.delivered += subscriber.take(bytes, &self.shape)?,
                    None => {
                        let size = self.reply.len();
                        let at = (size - self.awaited % size) % size;
                        let wanted = self.reply.iter().cycle().skip(at).take(n);
                        if n > self.awaited || !bytes.iter().eq(wanted) {
                            let text = String::from_utf8_lossy(bytes);
                            let wanted = String::from_utf8_lossy(&self.reply);
                            return Err(
                                format!("PUBLISH was answered {text:?}, not {wanted:?}").into()
                            );
                        }
                        self.awaited -= n;
                    }
                }
                // A read that does not fill the buffer has emptied the socket.
                if n < self.scratch.len() {
                    break;
                }
            }
        }
        Ok(any)
    }
}

fn obey(options: &Options) -> Result<()> {
    let mut load = Load::new(options)?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["run", pipeline, seconds] = words[..] else {
            return Err(format!("not understood: {line:?}").into());
        };
        println!("{}", load.run(pipeline.parse()?, seconds.parse()?)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    match obey(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
