//! `credentials serve`: the endpoint by itself, beside programs that are started otherwise.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use messaging::Bus;

use super::{
    Asked,
    endpoint::{Endpoint, Token},
};
use crate::{error::CliError, show::Output};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    asked: Asked,
    /// Address to listen on: 127.0.0.1 alone; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "127.0.0.1:PORT", value_parser = loopback)]
    listen: u16,
    /// File with the token that SDKs must send, 16 characters or more and no line end; a random one, which is printed, when absent.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The port of an address on 127.0.0.1. SDKs ask no other host without TLS, and nobody else should.
fn loopback(text: &str) -> Result<u16, String> {
    let refused = || "it takes 127.0.0.1:PORT alone: whoever can ask this endpoint gets credentials".to_owned();
    let address: SocketAddr = text.parse().map_err(|_| refused())?;
    let is_loopback = address.ip() == SocketAddr::from(([127, 0, 0, 1], 0)).ip();
    if is_loopback { Ok(address.port()) } else { Err(refused()) }
}

/// Cancel: SIGTERM and SIGINT end it; answers in hand are given. Failure of the listener ends it; that of a renewal is told to whoever asks.
pub(super) async fn run(bus: &Bus, args: Serve, output: Output) -> Result<(), CliError> {
    let shutdown = runtime::shutdown_on_signals();
    let token = match args.token_file {
        Some(path) => Token::file(path).await?,
        None => Token::random(),
    };
    let endpoint = Endpoint::bind(args.listen, token, args.asked.cached(bus)?).await?;
    let variables = endpoint.variables();
    if output.is_json() {
        // One line, so that a program can read it and go on.
        let all: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        println!("{}", serde_json::to_string(&all)?);
    } else {
        for (name, value) in variables {
            println!("{name}={value}");
        }
    }
    endpoint.serve(shutdown).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        assert_eq!(loopback("127.0.0.1:0"), Ok(0));
        assert_eq!(loopback("127.0.0.1:8181"), Ok(8181));
        for wrong in
            ["0.0.0.0:0", "127.0.0.2:1", "10.0.0.1:80", "[::1]:80", "[::]:0", "localhost:80", "127.0.0.1", "80"]
        {
            assert!(loopback(wrong).unwrap_err().contains("127.0.0.1:PORT"), "{wrong}");
        }
    }
}
