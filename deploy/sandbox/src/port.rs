//! Ports on the loopback address that stay ours while we hold them, also between the end of a server and its next start.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use crate::{
    error::{Result, SandboxError},
    paths,
};

/// Below the ports that Linux and macOS give to outgoing connections: nothing takes one of these by accident.
const FIRST: u16 = 20_000;
const LAST: u16 = 29_999;

/// A port that no other sandbox on this build folder takes until this is dropped.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    _lock: File,
}

impl PortLease {
    pub(crate) fn take() -> Result<Self> {
        let dir = paths::sandbox_dir()?.join("ports");
        std::fs::create_dir_all(&dir).map_err(SandboxError::io("make the folder of the ports"))?;
        // A random start, so that parallel programs seldom meet.
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let count = LAST - FIRST + 1;
        let start = u16::from_be_bytes([a, b]) % count;
        for step in 0..count {
            let port = FIRST + (start + step) % count;
            let lock = File::create(dir.join(port.to_string())).map_err(SandboxError::io("make the lock of a port"))?;
            // The bound socket is closed at once; the lock keeps other sandboxes away, the range everybody else.
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _lock: lock });
            }
        }
        Err(SandboxError::NoPort { first: FIRST, last: LAST })
    }

    pub(crate) const fn number(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_distinct_and_can_be_bound() {
        let leases: Vec<_> = (0..20).map(|_| PortLease::take().expect("a port")).collect();
        let distinct: std::collections::HashSet<_> = leases.iter().map(PortLease::number).collect();
        assert_eq!(distinct.len(), leases.len());
        for lease in &leases {
            TcpListener::bind(lease.address()).expect("the port is free");
        }
    }
}
