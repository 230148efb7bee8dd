//! A host that is woken up (W4): the clocks as they are read, and what follows from a jump between them.

use std::cell::RefCell;
use std::time::Instant;

use super::*;

const INTERVAL: Duration = Duration::from_secs(3_600);
/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

fn control(at: BootInstant) -> Control {
    let config = Config {
        mode: Mode::Direct,
        controllers: vec!["controller.example:443".into()],
        hostname: "host.example".parse().unwrap(),
        port: 22,
        interval: INTERVAL,
    };
    Control { registrar: Registrar::new(INTERVAL, at), config, told: Told::default(), counts: Counts::default() }
}

/// Looks at the clocks every second for a while; how often that began a registration.
fn registrations(control: &mut Control, asleep: Duration, at: &mut BootInstant) -> usize {
    let mut begun = 0;
    for _ in 0..60 {
        *at = *at + Duration::from_secs(1);
        if control.look(asleep, *at) {
            begun += 1;
            control.registrar.handle_done(*at);
        }
    }
    begun
}

// Covers: W4 allow
// Covers: W4 refuse
#[test]
fn a_jump_between_the_clocks_is_one_more_registration_and_is_counted() {
    let mut at = BootInstant::from_nanos(1_000_000_000_000);
    let mut control = control(at);
    let wake_ups = |control: &Control| control.document()["totals"]["wake_ups"].as_u64();
    // What was slept before the start is no wake-up.
    assert_eq!(registrations(&mut control, HOUR, &mut at), 1, "the one of the start");
    assert_eq!((registrations(&mut control, HOUR, &mut at), wake_ups(&control)), (0, Some(0)));
    let woken = HOUR + Duration::from_secs(30);
    assert_eq!((registrations(&mut control, woken, &mut at), wake_ups(&control)), (1, Some(1)));
    assert_eq!((registrations(&mut control, woken, &mut at), wake_ups(&control)), (0, Some(1)));
}

/// The loop itself: what it reads is what it judges, and it begins what that asks for.
// Covers: W4 allow
#[test]
fn the_loop_registers_when_its_reader_jumps() {
    use std::sync::atomic::{AtomicU64, Ordering};

    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("host.sock");
    let desk = Desk::open(false).unwrap();
    let _served = desk.serve_status(&socket).unwrap();
    let slept = Arc::new(AtomicU64::new(5));
    let (done, reader) = (desk.waiting_reporter(), Arc::clone(&slept));
    // Nobody stops it: it ends with the process.
    std::thread::spawn(move || {
        let asleep = || Duration::from_secs(reader.load(Ordering::SeqCst));
        control(now().boot).run(&desk, asleep, || assert!(done(Event::Done(Ok(UnixSeconds(1))))));
    });
    let totals = || ringfort_service::status::query(&socket).unwrap()["totals"].clone();
    let wait = |registered: u64| {
        let begun = Instant::now();
        while totals()["registered"].as_u64() < Some(registered) {
            assert!(begun.elapsed() < PATIENCE, "{}", totals());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(1);
    assert_eq!(totals()["wake_ups"], 0);
    slept.store(65, Ordering::SeqCst);
    wait(2);
    assert_eq!((totals()["wake_ups"].clone(), totals()["registered"].clone()), (1.into(), 2.into()));
}

#[test]
fn sleep_is_what_boottime_has_more_than_monotonic_which_is_read_after_it() {
    let order = RefCell::new(Vec::new());
    let slept = asleep(|clock| {
        order.borrow_mut().push(clock);
        Duration::from_secs(if clock == ClockId::Boottime { 100 } else { 40 })
    });
    assert_eq!(slept, Duration::from_secs(60));
    assert_eq!(*order.borrow(), [ClockId::Boottime, ClockId::Monotonic]);
}

#[test]
fn the_reader_reads_the_clock_that_it_is_asked_for() {
    for clock in [ClockId::Boottime, ClockId::Monotonic] {
        let kernels = || {
            let time = clock_gettime(clock);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
        };
        let (before, read, after) = (kernels(), time_of(clock), kernels());
        assert!(before <= read && read <= after, "{clock:?}: {read:?} is not of {before:?} to {after:?}");
    }
    let monotonic = clock_gettime(ClockId::Monotonic);
    let (slept, boot) = (asleep(time_of), clock_gettime(ClockId::Boottime));
    assert!(slept.as_secs() <= (boot.tv_sec - monotonic.tv_sec).unsigned_abs(), "{slept:?}");
}
