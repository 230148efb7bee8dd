//! Processes in the namespaces.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ringfort_netlab::{LabError, Role};

use crate::{LIMIT, SILENCE, eventually, lab, lab_namespace};

pub(crate) fn roles_live_in_their_namespace() {
    let lab = lab();
    let mut role = lab.spawn_on(lab.gateway(), &[0], Command::new("cat")).unwrap();
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let theirs = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", role.pid())).unwrap();
    assert_eq!(theirs("net").to_str().unwrap(), lab_namespace(&lab, lab.gateway()));
    assert_ne!(theirs("net"), own("net"));
    assert_eq!(theirs("user"), own("user"));
    let status = fs::read_to_string(format!("/proc/{}/status", role.pid())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    // The end of standard input is how a role learns that the laboratory is gone.
    role.close_stdin();
    assert!(role.wait(LIMIT).unwrap().unwrap().success());
}

pub(crate) fn roles_stop_when_asked_and_are_killed_when_deaf() {
    let lab = lab();
    let mut role = lab.spawn(lab.gateway(), Command::new("cat")).unwrap();
    assert_eq!(role.stop(LIMIT).unwrap().signal(), Some(15));
    assert_eq!(role.stop(LIMIT).unwrap().signal(), Some(15), "stopping twice answers the same");
    assert!(role.cpu_time().is_err());

    let mut deaf = Command::new("sh");
    deaf.args(["-c", "trap '' TERM; echo ready; exec cat"]).stdout(Stdio::piped());
    let mut role = lab.spawn(lab.gateway(), deaf).unwrap();
    let mut line = String::new();
    BufReader::new(role.take_stdout().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let started = Instant::now();
    assert_eq!(role.stop(SILENCE).unwrap().signal(), Some(9));
    assert!((SILENCE..LIMIT).contains(&started.elapsed()));
}

pub(crate) fn roles_end_when_dropped() {
    let lab = lab();
    let role = lab.spawn(lab.site(), Command::new("cat")).unwrap();
    let process = format!("/proc/{}", role.pid());
    assert!(fs::exists(&process).unwrap());
    drop(role);
    assert!(!fs::exists(&process).unwrap());
}

pub(crate) fn cpu_time_is_counted() {
    let lab = lab();
    let idle = lab.spawn(lab.gateway(), Command::new("cat")).unwrap();
    let mut busy = Command::new("sh");
    // It ends by itself after some seconds, should this process be killed.
    busy.args(["-c", "i=0; while [ $i -lt 5000000 ]; do i=$((i + 1)); done"]);
    let busy = lab.spawn(lab.gateway(), busy).unwrap();
    eventually("50 ms of CPU time are used", || busy.cpu_time().unwrap() >= Duration::from_millis(50));
    let ran = |role: &Role| {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", role.pid())).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let (before, scheduler, after) = (busy.cpu_time().unwrap(), ran(&busy), busy.cpu_time().unwrap());
    // The scheduler's figure is brought up to date at its ticks, the clock at once.
    assert!(scheduler <= after && before < scheduler + Duration::from_millis(50), "{before:?} {scheduler:?} {after:?}");
    assert!(idle.cpu_time().unwrap() < Duration::from_millis(50));
}

pub(crate) fn a_missing_program_is_named() {
    let lab = lab();
    let error = lab.spawn(lab.gateway(), Command::new("no-such-program")).unwrap_err();
    assert!(error.to_string().contains("start no-such-program in namespace gateway"), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert!(lab.spawn_on(lab.gateway(), &[], Command::new("cat")).is_err());
    assert!(matches!(lab.client("mallory"), Err(LabError::UnknownClient(_))));
}
