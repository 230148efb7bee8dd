//! Where io_uring is refused, as container runtimes do it: by a seccomp filter.

#![expect(unsafe_code, reason = "installs a seccomp filter")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::net::UnixDatagram;
use std::thread;

use ringfort_io::{
    Arrivals, Backend, BackendChoice, NoDepartures, OpenError, PacketIo, PortSharing, TunQueue, UdpSocket, Wait, Waker,
    open,
};

#[test]
fn auto_falls_back_to_epoll_and_says_why() {
    // A filter binds the thread that installed it, and there is no way back: hence a thread of its own.
    thread::spawn(|| {
        refuse_io_uring();
        let Err(OpenError::IoUring(reason)) = open_with(BackendChoice::IoUring) else {
            panic!("opened although refused");
        };
        assert!(reason.contains("sysctl kernel.io_uring_disabled=0") && reason.contains("seccomp"), "{reason}");

        let (mut io, refusal) = open_with(BackendChoice::Auto).unwrap();
        assert_eq!((io.backend(), refusal), (Backend::Epoll, Some(reason)));
        assert_eq!(io.backend().to_string(), "epoll");
        io.turn(&NoDepartures, &mut Arrivals::new(1, 1), Wait::Poll).unwrap();

        let (io, refusal) = open_with(BackendChoice::Epoll).unwrap();
        assert_eq!((io.backend(), refusal), (Backend::Epoll, None));
    })
    .join()
    .unwrap();
}

fn open_with(choice: BackendChoice) -> Result<(Box<dyn PacketIo>, Option<String>), OpenError> {
    let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, 0).unwrap();
    let (near, _far) = UnixDatagram::pair().unwrap();
    open(choice, udp, TunQueue::from_fd(near.into()).unwrap(), &Waker::new().unwrap())
}

/// Lets `io_uring_setup` fail with EPERM on this thread.
fn refuse_io_uring() {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number is the first word of the filter's input.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel reads `program` and the filter it points to, which live until the call returns.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0);
}
