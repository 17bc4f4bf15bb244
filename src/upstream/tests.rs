//! Tests of `upstream`.

use super::*;

fn pending(client: u32, slot: u16, flags: PendingFlags, len: u32) -> Pending {
    let dest = Dest::Client { index: client, generation: 1, seq: 0 };
    Pending {
        dest,
        len,
        slot: Slot(slot),
        command: crate::command::CommandId(0),
        flags,
        realm: 0,
        tries: 0,
        refused: None,
        before: 0,
        checks_shard: false,
        started: 0,
        expected: 10,
    }
}

fn id(index: u32) -> ClientId {
    ClientId { index, generation: 1 }
}

fn clients(all: &[Pending]) -> Vec<ClientId> {
    let client = |p: &Pending| match p.dest {
        Dest::Client { index, generation, .. } => ClientId { index, generation },
        _ => ClientId::UNKNOWN,
    };
    all.iter().map(client).collect()
}

fn upstream(pool: &mut Pool, commands: &[Pending], sent: usize) -> Upstream {
    let mut up = Upstream::new(NodeId(0), Protocol::Resp2);
    for (i, p) in commands.iter().enumerate() {
        up.queue.push(&vec![i as u8; p.len as usize], pool);
        up.pending.push_back(*p);
    }
    up.queue.mark_sent(sent);
    up
}

fn slots<'a>(pending: impl IntoIterator<Item = &'a Pending>) -> Vec<u16> {
    pending.into_iter().map(|p| p.slot.0).collect()
}

const WRITE: PendingFlags = PendingFlags::empty();
const READ: PendingFlags = PendingFlags::READ_ONLY;

#[test]
fn after_a_loss_commands_follow_as_the_node_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pool = Pool::default();
    let mut up = upstream(&mut pool, &[pending(1, 1, READ, 10); 8], 0);
    let socket = mio::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    up.connecting(Stream::Tcp(socket), 0);
    let _node = listener.accept().unwrap();
    (up.state, up.window) = (ConnectionState::Ready, 1);
    assert_eq!(up.flush().unwrap(), (10, false));
    assert_eq!(up.flush().unwrap(), (0, false), "one is under way");
    up.pending.pop_front();
    up.queue.release(10, &mut pool);
    for (window, wrote) in [(2, 20), (4, 20), (0, 30)] {
        up.widen();
        assert_eq!(up.window, window);
        assert_eq!(up.flush().unwrap(), (wrote, false));
    }
}

#[test]
fn a_lost_connection_keeps_what_may_be_sent_again() {
    let mut pool = Pool::default();
    // A read, a write, a read of another slot: written; a write cut in its middle; one unsent.
    let all = [
        pending(1, 10, READ, 5),
        pending(1, 11, WRITE, 5),
        pending(1, 12, READ, 5),
        pending(1, 13, WRITE, 5),
        pending(1, 14, WRITE, 5),
    ];
    let mut up = upstream(&mut pool, &all, 17);
    let given_up = up.lost(&mut pool, &clients(&all));
    assert_eq!(slots(&given_up), [11]);
    assert_eq!(slots(&*up.pending), [10, 12, 13, 14]);
    assert_eq!(up.pending.expected(), 40, "of the commands that are kept");
    assert_eq!(up.queue.len(), 20);
    assert_eq!(up.queue.sent(), 0);
    assert_eq!(up.queue.front(6), Some([0, 0, 0, 0, 0, 2].as_slice()));
}

#[test]
fn a_read_is_not_sent_again_behind_a_lost_write_that_followed_it() {
    let mut pool = Pool::default();
    let all = [
        pending(1, 10, READ, 5),
        pending(2, 10, READ, 5),
        pending(1, 10, WRITE, 5),
        pending(1, 10, READ, 5),
    ];
    let mut up = upstream(&mut pool, &all, 20);
    assert_eq!(up.lost(&mut pool, &clients(&all)).len(), 2);
    assert_eq!(up.pending.len(), 2, "the other client's, and the one after the write");
}

#[test]
fn parts_of_commands_are_their_clients_own() {
    let mut pool = Pool::default();
    let part = |mut p: Pending| {
        p.dest = Dest::Part { gather: 1, first: 0 };
        p
    };
    let all =
        [part(pending(0, 10, READ, 5)), part(pending(0, 10, READ, 5)), pending(2, 10, WRITE, 5)];
    let mut up = upstream(&mut pool, &all, 15);
    assert_eq!(up.lost(&mut pool, &[id(1), id(2), id(2)]).len(), 2);
    assert_eq!(up.pending.len(), 1, "the first client's part is sent again");
    let mut up = upstream(&mut pool, &all, 15);
    assert_eq!(
        up.lost(&mut pool, &[ClientId::UNKNOWN, id(1), id(2)]).len(),
        2,
        "it may be the same"
    );
}

#[test]
fn what_need_not_wait_for_a_script_can_be_taken_elsewhere() {
    let mut pool = Pool::default();
    // The script, a write, reads before and behind it, a read: written. Then one of each.
    let all = [
        pending(1, 1, WRITE, 5),
        pending(2, 2, READ, 5),
        pending(2, 3, WRITE, 5),
        pending(3, 4, READ, 5),
        pending(1, 5, READ, 5),
        pending(2, 6, READ, 5),
        pending(3, 7, WRITE, 5),
        pending(4, 8, WRITE, 5),
    ];
    let mut up = upstream(&mut pool, &all, 20);
    up.stop_writing();
    assert_eq!(up.window, 4);
    let of = clients(&all);
    let (taken, staying) =
        up.take_movable(&mut pool, &of, |p| p.flags.contains(PendingFlags::READ_ONLY));
    assert_eq!(slots(taken.iter().map(|(p, _)| p)), [4, 7, 8]);
    let frames: Vec<_> = taken.iter().map(|(_, frame)| frame[0]).collect();
    assert_eq!(frames, [3, 6, 7]);
    assert_eq!(staying, HashSet::from([id(1), id(2)]));
    assert_eq!(slots(&*up.pending), [1, 2, 3, 4, 5, 6]);
    assert_eq!(up.pending.iter().filter(|p| p.dest == Dest::Discard).count(), 1);
    assert_eq!((up.queue.sent(), up.queue.len()), (20, 30));
}

#[test]
fn what_is_not_sent_can_be_taken_elsewhere() {
    let mut pool = Pool::default();
    let all = [
        pending(1, 1, WRITE, 5),
        pending(1, 2, WRITE, 5),
        pending(1, 2, WRITE, 5),
        pending(1, 3, WRITE, 5),
    ];
    let mut up = upstream(&mut pool, &all, 7);
    let taken = up.take_unsent(&mut pool, |p| p.slot == Slot(2));
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].1, [2; 5]);
    assert_eq!(slots(&*up.pending), [1, 2, 3]);
    assert_eq!(up.pending.expected(), 30);
    assert_eq!((up.queue.sent(), up.queue.len()), (7, 15));
}
