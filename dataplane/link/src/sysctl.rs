//! `net` sysctls of the calling thread's network namespace.
//!
//! `/proc/sys/net` shows each thread the values of its own network namespace, so a thread that has entered a namespace
//! reads and writes there without any further mount.

use std::{fs, io};

use crate::LinkError;

/// Writes `value` to `/proc/sys/PATH` in the calling thread's network namespace, for example
/// `sysctl("net/ipv4/ip_forward", "1")`. `path` is relative, uses slashes and begins with `net/`.
///
/// # Errors
/// [`LinkError::Argument`] if the path is not one below `net/`; [`LinkError::Refused`] with the kernel's answer.
pub fn sysctl(path: &str, value: &str) -> Result<(), LinkError> {
    let attempt = || format!("write {value} to sysctl {path}");
    let file = file_of(path, attempt)?;
    // Opened without O_CREAT: a name that this kernel does not have is ENOENT and not EACCES.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| LinkError::Refused { attempt: attempt(), source, detail: None })
}

/// Reads `/proc/sys/PATH` in the calling thread's network namespace, without the line end.
///
/// # Errors
/// As [`sysctl`].
pub fn read_sysctl(path: &str) -> Result<String, LinkError> {
    let attempt = || format!("read sysctl {path}");
    let text = fs::read_to_string(file_of(path, attempt)?).map_err(|source| LinkError::Refused {
        attempt: attempt(),
        source,
        detail: None,
    })?;
    Ok(text.trim_end().to_owned())
}

/// Interface names may stand in the path, so everything but the separators, `.` and `..` is let through.
fn file_of(path: &str, attempt: impl Fn() -> String) -> Result<String, LinkError> {
    let mut parts = path.split('/');
    let below_net = parts.next() == Some("net") && path.len() > "net/".len();
    if !below_net || parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err(LinkError::Argument { attempt: attempt(), what: "the path does not name a file below net/" });
    }
    Ok(format!("/proc/sys/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_value_of_this_namespace() {
        assert!(["0", "1"].contains(&read_sysctl("net/ipv4/ip_forward").unwrap().as_str()));
    }

    #[test]
    fn refuses_everything_outside_net() {
        for path in ["", "net", "net/", "kernel/hostname", "/net/ipv4/ip_forward", "net/../kernel/hostname", "net//x"] {
            assert!(matches!(sysctl(path, "1"), Err(LinkError::Argument { .. })), "{path}");
        }
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        assert!(sysctl("net/ipv4/no_such_thing", "1").unwrap_err().is_not_found());
    }
}
