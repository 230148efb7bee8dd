//! Clients that are heard at another address than before (X10).

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_engine::Machine;
use ringfort_engine::client::{Command, Event as ClientEvent};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;

use crate::world::{SITE, World, client_address, gateway_address, inner_address};

const TCP: Tcp<'_> = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };

fn service() -> SocketAddr {
    SocketAddr::new(SITE.parse().unwrap(), 80)
}

fn syn(client: usize) -> Vec<u8> {
    build::tcp(SocketAddr::new(inner_address(client), 5_000), service(), &TCP, &[])
}

fn answer(client: usize, bytes: usize) -> Vec<u8> {
    let flags = tcp_flags::ACK | tcp_flags::SYN;
    let tcp = Tcp { sequence: 9, acknowledgement: 101, flags, ..TCP };
    build::tcp(service(), SocketAddr::new(inner_address(client), 5_000), &tcp, &vec![0; bytes])
}

/// A translator forgets the flow: the client notices nothing, and the site's packets follow it.
// Covers: X10 allow
#[test]
fn a_client_that_answers_from_its_new_address_has_all_of_it() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let elsewhere = ([203, 0, 113, 77], 1_234).into();
    world.translated = Some((client, elsewhere));
    world.client_sends(client, &syn(client));
    world.run(Duration::from_millis(5));
    assert_eq!((world.counter("sessions_moved"), world.counter("paths_proven")), (1, 1));
    world.at_client[client].clear();
    for _ in 0..100 {
        world.site_sends(usize::from(session.worker().0), &answer(client, 1_000));
    }
    assert!(world.destinations().iter().all(|to| *to == elsewhere));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client].len(), 100);
    world.run(Duration::from_secs(30));
    assert_eq!((world.counter("paths_unproven"), world.counter("sessions")), (0, 1));
    assert!(matches!(world.client_events[client][..], [ClientEvent::Up(_)]), "{:?}", world.client_events[client]);
}

/// A client that moves knowingly takes an id that nobody has seen: who watches both paths sees nothing in common.
#[test]
fn a_client_that_moves_knowingly_goes_by_another_id() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    let mut seen = Vec::new();
    for round in 0..6u16 {
        world.client_sends(client, &syn(client));
        let records = world.wire();
        let id = records[0][1..9].to_vec();
        assert!(!seen.contains(&id), "round {round}");
        // The first byte is the worker.
        assert!(seen.iter().all(|before: &Vec<u8>| before[0] == id[0]));
        seen.push(id);
        world.run(Duration::from_millis(5));
        world.translated = Some((client, ([203, 0, 113, 77], 1_000 + round).into()));
        world.client_command(client, Command::PathChanged);
        // The next id may have to be sent again, once the path is proven.
        world.run(Duration::from_millis(500));
        assert_eq!(world.counter("paths_proven"), u64::from(round) + 1);
    }
    assert_eq!((world.counter("sessions"), world.counter("datagrams_unknown")), (1, 0));
    assert!(matches!(world.client_events[client][..], [ClientEvent::Up(_)]), "{:?}", world.client_events[client]);
}

/// Somebody on the way sends the newest record on from the address of somebody who never asked: that one is given no more than
/// three times what was spent on it, and the client has its session back.
// Covers: X10 refuse
#[test]
fn an_address_that_answers_nothing_is_given_little_and_left() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let victim: SocketAddr = ([192, 0, 2, 66], 666).into();
    world.client_sends(client, &syn(client));
    let [record] = <[Vec<u8>; 1]>::try_from(world.intercept()).unwrap();
    world.reaches_worker(worker, victim, &mut record.clone(), record.len());
    assert_eq!(world.counter("sessions_moved"), 1);
    for _ in 0..100 {
        world.site_sends(worker, &answer(client, 0));
    }
    let (mut given, mut rounds) = (0, 0);
    while world.counter("paths_unproven") == 0 {
        assert!(world.destinations().iter().all(|to| *to == victim));
        given += world.intercept().iter().map(Vec::len).sum::<usize>();
        // The client stays silent, or its next record would take the session back at once.
        world.run_gateway(Duration::from_millis(50));
        rounds += 1;
        assert!(rounds < 100, "it never gives up");
    }
    assert!(given > record.len() && given <= 3 * record.len(), "{given} bytes for {}", record.len());
    world.site_sends(worker, &answer(client, 0));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client].len(), 1, "its packets go to it again");
}

/// The client's own next record takes the session back, without a question.
// Covers: X10 allow
#[test]
fn the_next_record_from_home_takes_a_session_back() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    world.client_sends(client, &syn(client));
    let [record] = <[Vec<u8>; 1]>::try_from(world.intercept()).unwrap();
    world.reaches_worker(worker, ([192, 0, 2, 66], 666).into(), &mut record.clone(), record.len());
    world.intercept();
    world.client_sends(client, &syn(client));
    world.run(Duration::from_millis(5));
    for _ in 0..10 {
        world.site_sends(worker, &answer(client, 1_000));
    }
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client].len(), 10);
    assert_eq!((world.counter("sessions_moved"), world.counter("paths_proven")), (2, 0));
}

/// The answer counts only where it comes from: one that somebody has held back and sends from home, while a newer record has the
/// session elsewhere, proves nothing of elsewhere.
// Covers: X10 refuse
#[test]
fn an_answer_from_another_address_proves_nothing() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let (victim, home): (SocketAddr, _) = (([192, 0, 2, 66], 666).into(), client_address(client));
    let reaches = |world: &mut World, from, record: &[u8]| {
        world.reaches_worker(worker, from, &mut record.to_vec(), record.len());
    };
    world.client_sends(client, &syn(client));
    let [record] = <[Vec<u8>; 1]>::try_from(world.intercept()).unwrap();
    reaches(&mut world, victim, &record);
    // The question is seen on its way to the victim, and brought to the client, which answers.
    for mut question in world.intercept() {
        let length = question.len();
        world.clients[client].handle_outside(0, gateway_address(), &mut question, length, world.now);
    }
    world.client_sends(client, &syn(client));
    let records = world.intercept();
    let (newest, answers) = records.split_last().unwrap();
    assert!(!answers.is_empty());
    reaches(&mut world, victim, newest);
    answers.iter().for_each(|answer| reaches(&mut world, home, answer));
    assert_eq!((world.counter("sessions_moved"), world.counter("paths_proven")), (1, 0));
    world.intercept();
    for _ in 0..100 {
        world.site_sends(worker, &answer(client, 1_000));
    }
    assert!(world.wire().is_empty(), "{:?}", world.destinations());
}

/// What an association has to say of itself counts like packets: acknowledgements, connection ids and their repetitions.
// Covers: X10 refuse
#[test]
fn an_association_itself_sends_no_more_to_a_new_address_than_packets_may() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let victim: SocketAddr = ([192, 0, 2, 66], 666).into();
    // The client asks for another id.
    world.client_command(client, Command::PathChanged);
    let records = world.intercept();
    assert_eq!(records.len(), 2);
    let cost: usize = records.iter().map(Vec::len).sum();
    for record in &records {
        world.reaches_worker(worker, victim, &mut record.clone(), record.len());
    }
    let mut given = 0;
    for _ in 0..58 {
        assert!(world.destinations().iter().all(|to| *to == victim));
        given += world.intercept().iter().map(Vec::len).sum::<usize>();
        world.run_gateway(Duration::from_millis(50));
    }
    assert_eq!(world.counter("sessions_moved"), 1);
    assert!(given > 0 && given <= 3 * cost, "{given} bytes for {cost}");
}
