//! A bound on what a caller may send: whatever a service's own limits are.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

/// What is said of a request that is larger.
pub(crate) const TOO_LARGE: &str = "the request is too large";

/// The whole request may have this many bytes: every request of ours is one message.
pub(crate) fn body(inner: Body, maximum_bytes: usize) -> Body {
    Body::new(Bounded { inner, left: maximum_bytes })
}

struct Bounded {
    inner: Body,
    left: usize,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        let size = frame.data_ref().map_or(0, Buf::remaining);
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(Status::resource_exhausted(TOO_LARGE)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
