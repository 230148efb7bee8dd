//! The laboratory on this machine's kernel, in both tiers.
//!
//! A process gets into one tier only, and what a person sees from outside has to be tried outside. So this program runs
//! itself: without [`TIER_VARIABLE`] it conducts, once per tier, the tests inside and then the tests from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod links;
mod roles;
mod sites;

use std::{
    env, fs, io,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfort_link::{Links, read_sysctl};
use ringfort_netlab::{
    Lab, LabError, Namespace, Spec, Steering, TIER_VARIABLE, Tier, address, bulk, enter, http, pin_thread, udp,
};

/// Names what a helper process (this program again) does.
const HELPER_VARIABLE: &str = "RINGFORT_LAB_TEST_HELPER";

/// Far more than anything here takes; a test that waits for something bounds itself by it.
const LIMIT: Duration = Duration::from_secs(5);

/// How long silence is waited for where silence is right.
const SILENCE: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    let arguments = || Arguments::from_args();
    match (env::var(HELPER_VARIABLE).ok(), env::var(TIER_VARIABLE).ok()) {
        (Some(helper), _) => help(&helper),
        (None, Some(_)) => match enter(tun_device_exists) {
            Ok(tier) => libtest_mimic::run(&arguments(), inside(tier)).exit_code(),
            Err(error) => give_up(&error),
        },
        (None, None) => conduct(&arguments()),
    }
}

/// Opening a TUN device takes an `ioctl`, which this crate does not have; whether it exists must do.
fn tun_device_exists() -> io::Result<()> {
    fs::metadata("/dev/net/tun").map(drop)
}

// ---- conducting, and the tests from outside ------------------------------------------------------------------------

fn conduct(arguments: &Arguments) -> ExitCode {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let tiers = if root { &["userns", "root"][..] } else { &["userns"] };
    let mut trials = Vec::new();
    let mut failed = false;
    for tier in tiers {
        println!("\nlaboratory tier {tier}:");
        let status = itself().args(env::args_os().skip(1)).env(TIER_VARIABLE, tier).status().unwrap();
        match status.code() {
            Some(0) => trials.extend(outside(tier)),
            Some(3) => println!("tier {tier} is not available on this machine, its tests did NOT run"),
            _ => failed = true,
        }
    }
    if trials.is_empty() && !failed {
        if env::var("CI").is_ok_and(|ci| ci == "true") {
            println!("test result: FAILED. No laboratory tier works on this machine, and CI must have one");
            return ExitCode::from(101);
        }
        return ExitCode::from(3);
    }
    println!("\nlaboratory, from outside:");
    let conclusion = libtest_mimic::run(arguments, trials);
    if failed { ExitCode::from(101) } else { conclusion.exit_code() }
}

fn give_up(error: &LabError) -> ExitCode {
    println!("{error}");
    ExitCode::from(error.exit_code())
}

fn outside(tier: &'static str) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&str)| {
        Trial::test(format!("{tier}::{name}"), move || {
            test(tier);
            Ok(())
        })
    };
    let nsenter = Command::new("nsenter").arg("--version").output().is_ok();
    vec![
        trial("nsenter_lines_lead_into_the_namespaces", nsenter_lines_work).with_ignored_flag(!nsenter),
        trial("a_killed_laboratory_takes_its_roles_along", killed_laboratory_leaves_nothing),
        trial("refusal_ends_with_code_3_and_a_command", refusal_has_a_remedy),
        trial("threads_are_refused", threads_are_refused),
    ]
}

fn nsenter_lines_work(tier: &str) {
    let (mut helper, lines) = helper_with_lines(tier, "keep");
    let expected = [("alice", "wan0"), ("internet", "to-alice"), ("gateway", "lan0"), ("site", "lan0")];
    for (namespace, interface) in expected {
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{namespace}: "))).unwrap();
        let output = Command::new("sh").arg("-c").arg(format!("{line} cat /proc/self/net/dev")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("{interface}:")), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    drop(helper.stdin.take());
    assert!(helper.wait().unwrap().success());
}

/// The helper is killed and drops nothing. Its role, a `cat`, ends at the end of its standard input, and then nothing
/// refers to the namespaces.
fn killed_laboratory_leaves_nothing(tier: &str) {
    let (mut helper, lines) = helper_with_lines(tier, "keep");
    let of = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let (role, namespace) = (of("role: "), of("role namespace: "));
    assert!(namespace_users(&namespace) > 0);
    helper.kill().unwrap();
    helper.wait().unwrap();
    eventually("the role ends", || !fs::exists(format!("/proc/{role}/ns")).unwrap());
    eventually("nothing uses the namespace", || namespace_users(&namespace) == 0);
}

fn refusal_has_a_remedy(tier: &str) {
    let output = helper(tier, "refuse").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&format!("tier {tier}: cannot make a TUN device")), "{text}");
    let command = text.lines().last().unwrap().trim();
    assert!(command.starts_with("sudo ") || command.starts_with("docker "), "{text}");
}

fn threads_are_refused(tier: &str) {
    let output = helper(tier, "threads").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("has 2 threads"), "{text}");
}

fn help(helper: &str) -> ExitCode {
    match helper {
        "keep" => keep(),
        "refuse" => {
            let no_device = || io::Result::<()>::Err(io::Error::from_raw_os_error(2));
            enter(no_device).map_or_else(|error| give_up(&error), |_| ExitCode::SUCCESS)
        }
        "threads" => {
            let _idle = thread::spawn(|| thread::sleep(LIMIT));
            enter(tun_device_exists).map_or_else(|error| give_up(&error), |_| ExitCode::SUCCESS)
        }
        other => panic!("no helper {other}"),
    }
}

fn keep() -> ExitCode {
    if let Err(error) = enter(tun_device_exists) {
        return give_up(&error);
    }
    let lab = Lab::build(&Spec::new(["alice"])).unwrap();
    let role = lab.spawn(lab.site(), Command::new("cat")).unwrap();
    for (name, line) in lab.nsenter_lines() {
        println!("{name}: {line}");
    }
    println!("role: {}", role.pid());
    println!("role namespace: {}", network_namespace(role.pid()));
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    ExitCode::SUCCESS
}

fn itself() -> Command {
    Command::new(env::current_exe().unwrap())
}

fn helper(tier: &str, helper: &str) -> Command {
    let mut command = itself();
    command.env(TIER_VARIABLE, tier).env(HELPER_VARIABLE, helper).process_group(0);
    command
}

fn helper_with_lines(tier: &str, name: &str) -> (Child, Vec<String>) {
    let mut helper = helper(tier, name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
    (helper, lines)
}

// ---- the tests inside ----------------------------------------------------------------------------------------------

fn inside(tier: Tier) -> Vec<Trial> {
    let trial = |name: &str, test: fn()| {
        Trial::test(format!("{tier}::{name}"), move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    vec![
        trial("is_built_quickly", is_built_quickly),
        trial("clients_reach_gateway_and_internet", clients_reach_gateway_and_internet),
        trial("gateway_and_site_reach_each_other", gateway_and_site_reach_each_other),
        trial("clients_and_site_do_not_reach_each_other", clients_and_site_do_not_reach_each_other),
        trial("site_sends_inner_addresses_to_the_gateway", site_sends_inner_addresses_to_the_gateway),
        trial("namespaces_are_named_and_counted", sites::namespaces_are_named_and_counted),
        trial("whoever_is_outside_reaches_each_other", sites::whoever_is_outside_reaches_each_other),
        trial("a_site_is_reached_by_its_own_gateway_only", sites::a_site_is_reached_by_its_own_gateway_only),
        trial("a_site_reaches_nothing_beyond_its_gateway", sites::a_site_reaches_nothing_beyond_its_gateway),
        trial(
            "a_site_reaches_its_pool_through_its_own_gateway",
            sites::a_site_reaches_its_pool_through_its_own_gateway,
        ),
        trial("wan_mtu_is_as_specified", wan_mtu_is_as_specified),
        trial("steering_is_as_specified", steering_is_as_specified),
        trial("roles_live_in_their_namespace", roles::roles_live_in_their_namespace),
        trial("roles_stop_when_asked_and_are_killed_when_deaf", roles::roles_stop_when_asked_and_are_killed_when_deaf),
        trial("roles_end_when_dropped", roles::roles_end_when_dropped),
        trial("cpu_time_is_counted", roles::cpu_time_is_counted),
        trial("a_missing_program_is_named", roles::a_missing_program_is_named),
        trial("bulk_and_round_trips_cross_the_laboratory", bulk_and_round_trips_cross_the_laboratory),
        trial("panics_and_values_come_back", panics_and_values_come_back),
        trial("dropping_removes_everything", dropping_removes_everything),
        trial("routes_are_added_replaced_and_deleted", links::routes_are_added_replaced_and_deleted),
        trial("links_are_moved_and_set", links::links_are_moved_and_set),
    ]
}

fn is_built_quickly() {
    let specs = [("two clients", Spec::new(["alice", "bob"])), ("a client, two sites and a controller", two_sites())];
    for (what, spec) in specs {
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let started = Instant::now();
                let lab = Lab::build(&spec).unwrap();
                let elapsed = started.elapsed();
                drop(lab);
                elapsed
            })
            .collect();
        times.sort_unstable();
        println!("laboratory with {what} built in {:.1?} (median), {:.1?} (worst of 5)", times[2], times[4]);
        assert!(times[2] < Duration::from_secs(1), "{times:?}");
    }
}

fn clients_reach_gateway_and_internet() {
    let lab = lab();
    for (server, addresses) in [(lab.gateway(), lab.gateway().addresses()), (lab.internet(), internet_host())] {
        for name in ["alice", "bob"] {
            let client = lab.client(name).unwrap();
            for (address, own) in addresses.into_iter().zip(client.addresses()) {
                assert_eq!(page_from(&lab, server, client, address).unwrap(), expected_page(own));
            }
        }
    }
}

fn gateway_and_site_reach_each_other() {
    let lab = lab();
    let gateway: [IpAddr; 2] = [address::GATEWAY_SITE_V4.into(), address::GATEWAY_SITE_V6.into()];
    for (v4, v6) in address::SITE_V4.into_iter().zip(address::SITE_V6) {
        for (service, own) in [IpAddr::V4(v4), v6.into()].into_iter().zip(gateway) {
            assert_eq!(page_from(&lab, lab.site(), lab.gateway(), service).unwrap(), expected_page(own));
        }
    }
    for address in gateway {
        page_from(&lab, lab.gateway(), lab.site(), address).unwrap();
    }
    // Nobody listens: an answer all the same, and another one than silence.
    let closed = SocketAddr::new(address::SITE_V4[0].into(), 9);
    let answer = lab.run_in(lab.gateway(), || http::get(closed, LIMIT)).unwrap();
    assert!(matches!(answer, Err(http::HttpError::Refused)), "{answer:?}");
}

fn clients_and_site_do_not_reach_each_other() {
    let lab = lab();
    let alice = lab.client("alice").unwrap();
    for service in lab.site().addresses() {
        let answer = page_from(&lab, lab.site(), alice, service);
        assert!(matches!(answer, Err(http::HttpError::Unreachable(_))), "{answer:?}");
    }
    for address in alice.addresses() {
        let answer = page_within(&lab, alice, lab.site(), address, SILENCE);
        assert!(matches!(answer, Err(http::HttpError::TimedOut)), "{answer:?}");
    }
}

fn site_sends_inner_addresses_to_the_gateway() {
    let lab = lab();
    let inner: [(IpAddr, IpAddr, IpAddr); 2] = [
        ("10.97.3.4".parse().unwrap(), address::GATEWAY_SITE_V4.into(), address::SITE_V4[0].into()),
        ("fd97::5".parse().unwrap(), address::GATEWAY_SITE_V6.into(), address::SITE_V6[0].into()),
    ];
    for (destination, gateway, source) in inner {
        let answer = lab.run_in(lab.site(), || Links::open().unwrap().route_to(destination)).unwrap().unwrap();
        assert_eq!(answer.gateway, Some(gateway));
        // IPv6 has no primary address among equals, so any of the site's will do there.
        let own = answer.source.unwrap();
        assert!(own == source || address::SITE_V6.map(IpAddr::V6).contains(&own), "{own}");
    }
    let nowhere = lab.run_in(lab.internet(), || Links::open().unwrap().route_to(inner[0].0)).unwrap();
    assert_eq!(nowhere.unwrap_err().errno(), Some(101), "the internet must not know inner addresses");
}

fn wan_mtu_is_as_specified() {
    let lab = Lab::build(&Spec { wan_mtu_bytes: 1400, ..two_sites() }).unwrap();
    let mtu = |namespace: &Namespace, interface: &str| {
        let path = format!("net/ipv6/conf/{interface}/mtu");
        lab.run_in(namespace, || read_sysctl(&path).unwrap()).unwrap()
    };
    assert_eq!(mtu(lab.client("alice").unwrap(), "wan0"), "1400");
    assert_eq!(mtu(lab.internet(), "to-alice"), "1400");
    assert_eq!(mtu(lab.internet(), "to-gateway"), "1400");
    assert_eq!(mtu(lab.internet(), "to-controller"), "1400");
    assert_eq!(mtu(lab.controller().unwrap(), "wan0"), "1400");
    for site in 0..2 {
        assert_eq!(mtu(lab.gateway_at(site).unwrap(), "wan0"), "1400");
        assert_eq!(mtu(lab.gateway_at(site).unwrap(), "lan0"), "1500");
        assert_eq!(mtu(lab.site_at(site).unwrap(), "lan0"), "1500");
    }
}

fn steering_is_as_specified() {
    let core = thread::available_parallelism().unwrap().get().min(2) - 1;
    let spec = Spec { steering: Some(Steering { endpoints: 0, gateway: core }), ..two_sites() };
    let lab = Lab::build(&spec).unwrap();
    for namespace in lab.namespaces() {
        let mask = lab.run_in(namespace, || read_sysctl("net/core/rps_default_mask").unwrap()).unwrap();
        let expected = if ["gateway", "gateway-1"].contains(&namespace.name()) { 1 << core } else { 1 };
        assert_eq!(u64::from_str_radix(&mask.replace(',', ""), 16).unwrap(), expected, "{}", namespace.name());
    }
    page_from(&lab, lab.gateway(), lab.client("alice").unwrap(), lab.gateway().v4().into()).unwrap();
}

fn bulk_and_round_trips_cross_the_laboratory() {
    let lab = lab();
    let (alice, gateway) = (lab.client("alice").unwrap(), lab.gateway());
    for address in gateway.addresses() {
        let listener = lab.run_in(gateway, || TcpListener::bind((address, 0)).unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                let sent = lab.run_in(alice, || bulk::send(bulk::connect(addr, LIMIT).unwrap(), SILENCE)).unwrap();
                sent.unwrap();
            });
            bulk::receive(bulk::accept(&listener).unwrap()).unwrap()
        });
        let socket = lab.run_in(gateway, || UdpSocket::bind((address, 0)).unwrap()).unwrap();
        let echo_addr = socket.local_addr().unwrap();
        let _echo = udp::echo(socket).unwrap();
        let trips = lab.run_in(alice, || {
            pin_thread(&[0]).unwrap();
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            udp::round_trips(&UdpSocket::bind(any).unwrap(), echo_addr, 200, 64, LIMIT).unwrap()
        });
        let trips = trips.unwrap();
        println!(
            "alice to gateway by {address}: {:.1} Gbit/s, round trip {:.1?} (median), {:.1?} (99 %)",
            received.gbit_per_second(),
            trips.median().unwrap(),
            trips.percentile(99).unwrap(),
        );
        assert!(received.bytes > 1_000_000, "{received:?}");
        assert_eq!(trips.returned(), 200);
    }
}

fn panics_and_values_come_back() {
    let lab = lab();
    let borrowed = String::from("value");
    assert_eq!(lab.run_in(lab.site(), || borrowed.len()).unwrap(), 5);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<(), LabError> = lab.run_in(lab.site(), || std::panic::resume_unwind(Box::new("expected")));
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "expected");
}

/// A netlink socket keeps the internet alive as a witness: the ends of the pairs there vanish with the namespaces of
/// their other ends.
fn dropping_removes_everything() {
    let lab = lab();
    let names: Vec<String> = lab.namespaces().map(|namespace| lab_namespace(&lab, namespace)).collect();
    let role = lab.spawn(lab.gateway(), Command::new("cat")).unwrap();
    let mut witness = lab.run_in(lab.internet(), || Links::open().unwrap()).unwrap();
    for interface in ["to-alice", "to-bob", "to-gateway"] {
        witness.index_of(interface).unwrap();
    }
    drop((role, lab));
    for name in names {
        assert_eq!(namespace_users(&name), 0, "{name}");
    }
    for interface in ["to-alice", "to-bob", "to-gateway"] {
        eventually("the pairs vanish", || witness.index_of(interface).is_err_and(|error| error.is_not_found()));
    }
}

// ---- what they share -----------------------------------------------------------------------------------------------

fn lab() -> Lab {
    Lab::build(&Spec::new(["alice", "bob"])).unwrap()
}

fn two_sites() -> Spec {
    Spec::new(["alice"]).with_sites(2).with_controller()
}

fn internet_host() -> [IpAddr; 2] {
    [address::INTERNET_HOST_V4.into(), address::INTERNET_HOST_V6.into()]
}

fn expected_page(client: IpAddr) -> String {
    http::page("test", SocketAddr::new(client, 0))
}

fn page_from(lab: &Lab, server: &Namespace, client: &Namespace, address: IpAddr) -> Result<String, http::HttpError> {
    page_within(lab, server, client, address, LIMIT)
}

fn page_within(
    lab: &Lab,
    server: &Namespace,
    client: &Namespace,
    address: IpAddr,
    limit: Duration,
) -> Result<String, http::HttpError> {
    let listener = lab.run_in(server, || TcpListener::bind((address, 0)).unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let _server = http::serve(listener, "test").unwrap();
    lab.run_in(client, || http::get(addr, limit)).unwrap()
}

fn lab_namespace(lab: &Lab, namespace: &Namespace) -> String {
    let own = || fs::read_link("/proc/thread-self/ns/net").unwrap().to_str().unwrap().to_owned();
    lab.run_in(namespace, own).unwrap()
}

fn network_namespace(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().to_str().unwrap().to_owned()
}

/// How many threads and descriptors of visible processes refer to the namespace, `net:[INODE]`.
fn namespace_users(name: &str) -> usize {
    let links = |folder: String| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let processes = links("/proc".into()).into_iter().filter_map(|path| path.to_str().map(str::to_owned));
    let mut users = 0;
    for process in processes {
        let threads = links(format!("{process}/task")).into_iter().map(|thread| thread.join("ns/net"));
        let all = threads.chain(links(format!("{process}/fd")));
        users += all.filter(|path| fs::read_link(path).is_ok_and(|target| target.to_str() == Some(name))).count();
    }
    users
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "did not happen within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
