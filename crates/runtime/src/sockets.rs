//! Listening sockets: bound here, or inherited from the parent.

use std::{net, sync::Arc};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};

use crate::listen::{Listen, ListenError};

/// The sockets that the parent passed by the LISTEN_FDS protocol, each to be taken once.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    inherited: Arc<Mutex<Vec<Inherited>>>,
}

#[derive(Debug)]
enum Inherited {
    Here(net::TcpListener),
    Unfit(std::io::Error),
    Taken,
}

impl Sockets {
    /// Takes over what the parent passed. Every descriptor becomes close-on-exec: workers inherit none. To be called
    /// before there are threads: it clears the protocol's variables from the environment.
    pub fn inherit() -> Self {
        let mut passed = listenfd::ListenFd::from_env();
        let inherited = (0..passed.len())
            .map(|index| match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => Inherited::Here(listener),
                Ok(None) => Inherited::Taken,
                Err(error) => Inherited::Unfit(error),
            })
            .collect();
        Self { inherited: Arc::new(Mutex::new(inherited)) }
    }

    /// A listening socket.
    ///
    /// # Errors
    /// When the address cannot be bound, or the inherited socket is absent, taken already or no TCP listener.
    pub fn listen(&self, listen: &Listen) -> Result<TcpListener, ListenError> {
        match listen {
            Listen::Address(address) => {
                let bind = || {
                    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                    socket.set_reuseaddr(true)?;
                    socket.bind(*address)?;
                    socket.listen(BACKLOG)
                };
                bind().map_err(|source| ListenError::Bind { address: *address, source })
            }
            Listen::Inherited(index) => self.take(*index),
        }
    }

    fn take(&self, index: usize) -> Result<TcpListener, ListenError> {
        let mut inherited = self.inherited.lock();
        let slot = inherited.get_mut(index).ok_or(ListenError::Absent { index })?;
        let unfit = |source| ListenError::Inherited { index, source };
        match std::mem::replace(slot, Inherited::Taken) {
            Inherited::Here(listener) => {
                listener.set_nonblocking(true).map_err(unfit)?;
                TcpListener::from_std(listener).map_err(unfit)
            }
            Inherited::Unfit(error) => Err(unfit(error)),
            Inherited::Taken => Err(ListenError::Absent { index }),
        }
    }
}

// Bursts of connections wait here while handshakes are made.
const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inherited_socket_is_taken_once() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Sockets { inherited: Arc::new(Mutex::new(vec![Inherited::Here(listener)])) };
        let taken = sockets.listen(&Listen::Inherited(0)).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        let twice = sockets.listen(&Listen::Inherited(0));
        assert!(matches!(twice, Err(ListenError::Absent { index: 0 })));
        assert!(matches!(sockets.listen(&Listen::Inherited(1)), Err(ListenError::Absent { index: 1 })));
        let occupied = sockets.listen(&Listen::Address(address));
        assert!(matches!(occupied, Err(ListenError::Bind { .. })));
    }
}
