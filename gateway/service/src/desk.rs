//! The desk of a role's control thread: where reports of its workers, questions about its state and the wish to stop come
//! in, one after the other.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::Value;

use crate::{status, stop};

/// Letters waiting at the desk. When it is full, a reporter gets its report back and a questioner waits.
const LETTERS_MAX: usize = 16_384;

/// What comes in.
#[derive(Debug)]
pub enum Letter<R> {
    /// A worker has something to tell.
    Report(R),
    /// Somebody asks for the role's state.
    Status(Question),
    /// The role is to end.
    Stop,
}

/// Somebody waiting for the role's state.
#[derive(Debug)]
pub struct Question(SyncSender<Value>);

impl Question {
    /// Answers; the asker may have gone away.
    pub fn answer(self, state: Value) {
        drop(self.0.try_send(state));
    }
}

/// The desk itself.
#[derive(Debug)]
pub struct Desk<R> {
    send: SyncSender<Letter<R>>,
    letters: Receiver<Letter<R>>,
}

impl<R: Send + 'static> Desk<R> {
    /// Opens a desk that learns of SIGTERM and SIGINT and, if `stop_with_stdin`, of the end of standard input. To be called
    /// before any thread is made.
    ///
    /// # Errors
    /// When signals cannot be held or threads not be made.
    pub fn open(stop_with_stdin: bool) -> io::Result<Self> {
        stop::hold_signals()?;
        let desk = Self::new();
        let send = desk.send.clone();
        // Whoever asks the role to stop when it has ended already needs no answer.
        stop::on_stop(stop_with_stdin, move || drop(send.send(Letter::Stop)))?;
        Ok(desk)
    }

    fn new() -> Self {
        let (send, letters) = sync_channel(LETTERS_MAX);
        Self { send, letters }
    }

    /// For workers: hands a report in, or gives it back when the desk is full. What is reported to a desk that is closed
    /// is forgotten: the process ends in a moment.
    pub fn reporter(&self) -> impl Fn(R) -> Result<(), R> + Send + Sync + 'static {
        let send = self.send.clone();
        move |report| match send.try_send(Letter::Report(report)) {
            Err(TrySendError::Full(Letter::Report(report))) => Err(report),
            _ => Ok(()),
        }
    }

    /// For tasks that may wait: hands a report in, waiting for room; `false` when the desk is closed.
    pub fn waiting_reporter(&self) -> impl Fn(R) -> bool + Send + Sync + 'static {
        let send = self.send.clone();
        move |report| send.send(Letter::Report(report)).is_ok()
    }

    /// Answers on a status socket at `path` with what comes back from the desk.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve_status(&self, path: &Path) -> io::Result<status::StatusSocket> {
        let send = self.send.clone();
        status::serve(path, move || {
            let (answer, answers) = sync_channel(1);
            send.send(Letter::Status(Question(answer))).ok()?;
            answers.recv().ok()
        })
    }

    /// The next letter; `None` never comes while the desk lives, since it could always get another.
    pub fn receive(&self) -> Option<Letter<R>> {
        self.letters.recv().ok()
    }

    /// The next letter, or `None` when none comes within `patience`.
    pub fn receive_within(&self, patience: Duration) -> Option<Letter<R>> {
        self.letters.recv_timeout(patience).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_in_order_and_questions_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let desk = Desk::new();
        let report = desk.reporter();
        let socket = desk.serve_status(&path).unwrap();
        report(1).unwrap();
        report(2).unwrap();
        assert!(matches!(desk.receive(), Some(Letter::Report(1))));
        assert!(matches!(desk.receive_within(Duration::MAX), Some(Letter::Report(2))));
        assert!(desk.receive_within(Duration::from_millis(1)).is_none());
        let asker = std::thread::spawn(move || status::query(&path).unwrap());
        match desk.receive() {
            Some(Letter::Status(question)) => question.answer(serde_json::json!({ "x": 1 })),
            other => panic!("{other:?}"),
        }
        assert_eq!(asker.join().unwrap()["x"], 1);
        drop(socket);
    }

    #[test]
    fn a_full_desk_gives_the_report_back() {
        let desk = Desk::new();
        let report = desk.reporter();
        let taken = (0..LETTERS_MAX + 10).filter(|number| report(*number).is_ok()).count();
        assert_eq!(taken, LETTERS_MAX);
        assert_eq!(report(7), Err(7));
        desk.receive();
        assert_eq!(report(7), Ok(()));
        drop(desk);
        assert_eq!(report(8), Ok(()), "nobody is there to want it");
    }
}
