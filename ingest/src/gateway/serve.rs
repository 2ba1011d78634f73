//! Listening: connections in bounded number, with or without TLS, until shutdown.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum_server::accept::Accept;
use axum_server::{Handle, Server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Engine, GatewayError, tls};
use crate::limits::STREAMS_PER_CONNECTION_MAX;

fn io_error(what: &'static str) -> impl Fn(io::Error) -> GatewayError {
    move |source| GatewayError::Io { what, source }
}

pub(super) async fn serve(
    engine: &Engine,
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), GatewayError> {
    let handle = Handle::new();
    let connections = Arc::new(Semaphore::new(engine.config.connections));
    let server = Server::<SocketAddr>::from_listener(listener)
        .handle(handle.clone())
        .first_request_timeout(engine.config.header_timeout.duration());
    match &engine.config.tls {
        None => {
            let server = limited(server.map(|inner| Capped { inner, connections }), engine);
            run(
                server.serve(router.into_make_service()),
                handle,
                engine,
                shutdown,
            )
            .await
        }
        Some(config) => {
            let tls = tls::config(config)?;
            let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(tls);
            let server = server.map(|_| Capped {
                inner: acceptor,
                connections,
            });
            let server = limited(server, engine);
            run(
                server.serve(router.into_make_service()),
                handle,
                engine,
                shutdown,
            )
            .await
        }
    }
}

/// Runs a server until it ends or is shut down, and then until its requests end.
async fn run(
    server: impl Future<Output = io::Result<()>>,
    handle: Handle<SocketAddr>,
    engine: &Engine,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), GatewayError> {
    let mut server = std::pin::pin!(server);
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = shutdown => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            handle.graceful_shutdown(Some(engine.config.drain_timeout.duration()));
            server.await
        }
    };
    ended.map_err(io_error("serving"))
}

fn limited<A>(mut server: Server<SocketAddr, A>, engine: &Engine) -> Server<SocketAddr, A> {
    let builder = server.http_builder();
    builder
        .http1()
        .header_read_timeout(engine.config.header_timeout.duration());
    builder
        .http2()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    server
}

/// Accepts connections while there are fewer than the limit.
#[derive(Clone)]
struct Capped<A> {
    inner: A,
    connections: Arc<Semaphore>,
}

type Accepting<S, T> = Pin<Box<dyn Future<Output = io::Result<(S, T)>> + Send>>;

impl<A, S> Accept<TcpStream, S> for Capped<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = Held<A::Stream>;
    type Service = A::Service;
    type Future = Accepting<Self::Stream, Self::Service>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let permit = match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                tracing::debug!("connection closed, there are as many as are allowed");
                let error = io::Error::other("too many connections");
                return Box::pin(async move { Err(error) });
            }
        };
        // Answers are small and final: waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        let accepting = self.inner.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let held = Held {
                stream,
                _permit: permit,
            };
            Ok((held, service))
        })
    }
}

/// A connection that counts as one for as long as it lives.
struct Held<S> {
    stream: S,
    _permit: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
