//! Named tasks that live and die together.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a process ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("the task '{task}' failed")]
    TaskFailed {
        task: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the task '{task}' ended though nobody asked it to")]
    TaskEnded { task: &'static str },
    #[error("the task '{task}' panicked: this is a bug, please report it")]
    TaskPanicked { task: &'static str },
    #[error("{count} task(s) had not finished {grace_s} s after shutdown began and were abandoned")]
    GraceExceeded { count: usize, grace_s: u64 },
}

/// Owns the long-lived tasks of a process.
///
/// Cancel: the token given to [`Supervisor::new`] (or a dead task) cancels [`Supervisor::token`]; tasks finish what is in hand and return `Ok`.
/// Failure: the first task that ends early decides the process's error.
#[derive(Debug)]
pub struct Supervisor {
    shutdown: CancellationToken,
    tasks: TaskTracker,
    deaths: (mpsc::UnboundedSender<RuntimeError>, mpsc::UnboundedReceiver<RuntimeError>),
}

impl Supervisor {
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown: shutdown.child_token(), tasks: TaskTracker::new(), deaths: mpsc::unbounded_channel() }
    }

    /// Cancelled when the process is to end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs `task` until it ends. `name` stands in logs and in the error when it dies.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (deaths, shutdown) = (self.deaths.0.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            let death = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if shutdown.is_cancelled() => return,
                Ok(Ok(())) => RuntimeError::TaskEnded { task: name },
                Ok(Err(error)) => RuntimeError::TaskFailed { task: name, source: Box::new(error) },
                Err(_) => RuntimeError::TaskPanicked { task: name },
            };
            // The receiver lives as long as the supervisor; without it nobody is left to tell.
            let _ = deaths.send(death);
            shutdown.cancel();
        });
    }

    /// Waits for shutdown or a dead task, then for all tasks to end, at most `grace`.
    ///
    /// # Errors
    /// The first task's death, or that some did not end in time.
    pub async fn finish(mut self, grace: Duration) -> Result<(), RuntimeError> {
        self.shutdown.cancelled().await;
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await;
        if let Ok(death) = self.deaths.1.try_recv() {
            return Err(death);
        }
        drained.map_err(|_| RuntimeError::GraceExceeded { count: self.tasks.len(), grace_s: grace.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_failed_task_takes_the_others_down_and_is_named() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let token = supervisor.token();
        supervisor.spawn("waits", async move {
            token.cancelled().await;
            Ok::<_, io::Error>(())
        });
        supervisor.spawn("fails", async { Err(io::Error::other("disk full")) });
        let error = supervisor.finish(GRACE).await.unwrap_err();
        assert!(matches!(error, RuntimeError::TaskFailed { task: "fails", .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_a_death_too() {
        let supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("ends", async { Ok::<_, io::Error>(()) });
        assert!(matches!(supervisor.finish(GRACE).await, Err(RuntimeError::TaskEnded { task: "ends" })));

        let supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("panics", async {
            if true {
                panic!("on purpose");
            }
            Ok::<_, io::Error>(())
        });
        assert!(matches!(supervisor.finish(GRACE).await, Err(RuntimeError::TaskPanicked { task: "panics" })));
    }

    #[tokio::test]
    async fn shutdown_lets_tasks_finish_what_is_in_hand() {
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let (token, (done, mut finished)) = (supervisor.token(), mpsc::channel(1));
        supervisor.spawn("worker", async move {
            token.cancelled().await;
            tokio::task::yield_now().await;
            done.send("flushed").await.unwrap();
            Ok::<_, io::Error>(())
        });
        shutdown.cancel();
        supervisor.finish(GRACE).await.unwrap();
        assert_eq!(finished.recv().await, Some("flushed"));
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_abandoned_after_the_grace() {
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor::new(shutdown.clone());
        supervisor.spawn("stuck", std::future::pending::<Result<(), io::Error>>());
        shutdown.cancel();
        let finished = supervisor.finish(Duration::from_millis(20)).await;
        assert!(matches!(finished, Err(RuntimeError::GraceExceeded { count: 1, .. })), "{finished:?}");
    }
}
