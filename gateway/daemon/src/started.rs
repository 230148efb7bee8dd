//! What the workers said at their start, and the notice that all of them run.

use ringfort_io::Backend;
use ringfort_service::notify_ready;
use ringfort_types::WorkerIndex;
use serde_json::{Value, json};

/// One place per worker, empty until it runs.
#[derive(Debug, Default)]
pub(crate) struct Started {
    workers: Vec<Value>,
    told_ready: bool,
}

impl Started {
    /// Nobody of `count` has said anything yet.
    pub(crate) fn expect(count: usize) -> Self {
        Self { workers: vec![Value::Null; count], told_ready: false }
    }

    /// One runs. Once all do, systemd and whoever waits are told.
    pub(crate) fn note(
        &mut self,
        worker: WorkerIndex,
        backend: Backend,
        fallback: Option<String>,
        core: Option<usize>,
    ) {
        let backend = backend.to_string();
        tracing::info!(%worker, backend, core, "worker started");
        if let Some(reason) = fallback {
            tracing::warn!(%worker, reason, "io_uring is not available, using epoll");
        }
        if let Some(place) = self.workers.get_mut(usize::from(worker.0)) {
            *place = json!({ "backend": backend, "core": core });
        }
        if !self.told_ready && self.workers.iter().all(Value::is_object) {
            self.told_ready = true;
            notify_ready();
        }
    }

    /// For whoever asks.
    pub(crate) fn document(&self) -> &[Value] {
        &self.workers
    }
}
