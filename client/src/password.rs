//! Passwords: from a terminal without echo, or from standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest password in bytes. A hash function must read all of it.
const PASSWORD_BYTES_MAX: u64 = 1_024;

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// Asked for on the terminal.
    Terminal,
    /// The first line of standard input.
    Stdin,
    /// The first line of a file.
    File(PathBuf),
}

impl PasswordSource {
    /// Reads it. `prompt` is shown on the terminal.
    ///
    /// # Errors
    /// When there is no terminal, no line, or a line longer than 1,024 bytes.
    pub fn read(self, prompt: &str) -> io::Result<Zeroizing<String>> {
        match self {
            Self::File(path) => {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                let file = File::open(&path).map_err(named)?;
                first_line(&mut BufReader::new(file)).map_err(named)
            }
            Self::Stdin => first_line(&mut io::stdin().lock()),
            Self::Terminal => {
                let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("there is no terminal to ask on ({error}); use --password-stdin"),
                    )
                })?;
                write!(terminal, "{prompt}: ")?;
                terminal.flush()?;
                let silent = Silent::new(&terminal)?;
                let line = first_line(&mut BufReader::new(&terminal));
                drop(silent);
                writeln!(terminal)?;
                line
            }
        }
    }
}

fn first_line(from: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    // With room for all of it, so that no copy is left behind by growing.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX as usize + 1));
    from.take(PASSWORD_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(invalid(&format!("expected a password of at most {PASSWORD_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(&line).map_err(|_| invalid("expected a password in UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(invalid("expected a password, found an empty line"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal that does not echo; as before when dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // There is nothing better to do when the terminal is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_bounded_line() {
        assert_eq!(*first_line(&mut &b"secret\r\nmore"[..]).unwrap(), "secret");
        assert_eq!(*first_line(&mut &b" spaces stay "[..]).unwrap(), " spaces stay ");
        for bad in [&b""[..], b"\n", &[b'a'; 2_000], b"\xff\n"] {
            assert!(first_line(&mut &bad[..]).is_err());
        }
    }
}
