//! The limit: a NATS micro service that answers every request with the same bytes, in a process of its own as the broker is.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use async_nats::service::ServiceExt as _;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::stage::{ECHO, Stage};

pub(crate) const ARGUMENT: &str = "--echo";

/// The process; it ends when this is dropped.
pub(crate) struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        // The only failure is that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Echo {
    /// Answers with `size` bytes.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(stage: &Stage, size: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).args(stage.echo_arguments()).arg(size.to_string()).stdin(Stdio::null());
        Ok(Self(command.spawn().context("start the echo")?))
    }
}

/// What the process does, until it is killed.
///
/// # Errors
/// No connection.
pub(crate) async fn serve(arguments: &[String]) -> Result<()> {
    let [url, user, seed, size] = arguments else { anyhow::bail!("--echo URL USER SEED SIZE") };
    let seed = std::fs::read_to_string(PathBuf::from(seed))?;
    let options =
        async_nats::ConnectOptions::with_nkey(seed.trim().to_owned()).custom_inbox_prefix(format!("_INBOX_{user}"));
    let client = options.connect(url).await?;
    let service = client.service_builder().start(user, "0.0.1").await.map_err(anyhow::Error::msg)?;
    let mut endpoint = service.endpoint(ECHO).await.map_err(anyhow::Error::msg)?;
    let body = Bytes::from(vec![b'x'; size.parse()?]);
    while let Some(request) = endpoint.next().await {
        request.respond(Ok(body.clone())).await?;
    }
    Ok(())
}
