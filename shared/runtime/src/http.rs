//! Liveness, readiness and metrics over HTTP.

use std::{future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Health;

/// Where a process is asked about itself, and how long it may take to end.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpConfig {
    /// Address of /livez, /readyz and /metrics; port 0 takes a free one.
    #[arg(long, env = "ROLEBRIDGE_HTTP_ADDR", default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub http_addr: SocketAddr,

    /// Seconds that a shutdown may take before what is left is abandoned.
    #[arg(long, env = "ROLEBRIDGE_SHUTDOWN_GRACE", default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub shutdown_grace: u64,
}

impl HttpConfig {
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(
        "cannot listen on {address} for health and metrics: choose another address with --http-addr or ROLEBRIDGE_HTTP_ADDR"
    )]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the health and metrics server failed")]
    Serve(#[source] std::io::Error),
}

/// A bound listener, so that a used port is an error at the start and not later.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let address = config.http_addr;
        let bind_error = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let local = listener.local_addr().map_err(bind_error)?;
        tracing::info!(address = %local, "health and metrics are served");
        Ok(Self { listener })
    }

    /// Serves until `shutdown`; requests in hand are finished.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        health: Health,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> Result<(), HttpError> {
        let metrics = Arc::new(metrics);
        let routes = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(move || std::future::ready(readiness(&health))))
            .route("/metrics", get(move || std::future::ready(metrics())));
        axum::serve(self.listener, routes)
            .with_graceful_shutdown(async move { shutdown.cancelled().await })
            .into_future()
            .await
            .map_err(HttpError::Serve)
    }
}

fn readiness(health: &Health) -> (StatusCode, String) {
    let missing = health.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let lines: Vec<String> = missing.into_iter().map(|(part, reason)| format!("{part}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_follows_its_parts_and_a_used_port_is_said_at_once() {
        let config = HttpConfig { http_addr: "127.0.0.1:0".parse().unwrap(), shutdown_grace: 1 };
        let server = HttpServer::bind(&config).await.unwrap();
        let address = server.listener.local_addr().unwrap();
        let taken = HttpServer::bind(&HttpConfig { http_addr: address, shutdown_grace: 1 }).await.unwrap_err();
        assert!(taken.to_string().contains(&address.to_string()), "{taken}");

        let (health, shutdown) = (Health::new(), CancellationToken::new());
        let nats = health.part("nats");
        let served = tokio::spawn(server.serve(health, || "metric 1\n".to_owned(), shutdown.clone()));
        let get = |path| async move {
            let reply = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            (reply.status().as_u16(), reply.text().await.unwrap())
        };
        assert_eq!(get("/livez").await.0, 200);
        assert_eq!(get("/readyz").await, (503, "nats: starting\n".to_owned()));
        nats.ready();
        assert_eq!(get("/readyz").await.0, 200);
        assert_eq!(get("/metrics").await.1, "metric 1\n");
        shutdown.cancel();
        served.await.unwrap().unwrap();
    }
}
