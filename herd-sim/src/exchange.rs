//! What one request carries with it while it is answered, and what a fault does to it.

use std::{io, sync::Arc};

use http::StatusCode;

use super::{
    engine::Lease,
    fault::{FaultKind, Struck},
    node::Node,
    slots::Pace,
    socket::Connection,
    surface::ApiError,
};

/// What a request carries with it while it is answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Arc<Connection>,
    /// The fault that struck it.
    pub(crate) struck: Option<Struck>,
}

/// Why there is no ordinary answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error in the surface's form.
    Api(ApiError),
    /// The connection ends.
    Cut(io::Error),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl Exchange {
    /// Prepares the cut of the connection, with everything written so far on its way.
    pub(crate) async fn cut(&self, kind: FaultKind) -> io::Error {
        // Handing control back once lets hyper flush what it holds.
        tokio::task::yield_now().await;
        if kind == FaultKind::Reset {
            self.connection.reset_on_close();
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a simulated fault")
    }

    /// The fault that struck it.
    pub(crate) fn fault(&self) -> FaultKind {
        self.struck.as_ref().map_or(FaultKind::None, |struck| struck.fault.fault)
    }

    /// How much slower it is than usual.
    pub(crate) fn slowness(&self) -> f64 {
        self.struck.as_ref().map_or(1.0, |struck| struck.fault.slowness())
    }

    /// Waits while the engine hangs, with the request in its slot if it has one.
    pub(crate) async fn hang(&mut self, slot: Option<(&Lease, Pace)>) {
        let hung = |struck: &&mut Struck| struck.fault.fault == FaultKind::HangBeforeFirstByte;
        let Some(struck) = self.struck.as_mut().filter(hung) else { return };
        if let Some((lease, pace)) = slot {
            lease.set_pace(pace.frozen_after(0));
        }
        struck.lifted().await;
    }

    /// What a fault does before the request is looked at.
    pub(crate) async fn strike_early(&self) -> Result<(), Failure> {
        let Some(struck) = &self.struck else { return Ok(()) };
        match struck.fault.fault {
            FaultKind::Error400 => return Err(ApiError::bad_request("simulated refusal of the request").into()),
            FaultKind::Error500 => {
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "simulated failure of the node").into());
            }
            FaultKind::Busy503 => return Err(ApiError::busy().into()),
            FaultKind::Reset if struck.fault.after_chunks.is_none() => {
                return Err(Failure::Cut(self.cut(FaultKind::Reset).await));
            }
            _ => {}
        }
        Ok(())
    }
}
