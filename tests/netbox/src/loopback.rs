//! What the routers run on: tokio, with every socket on 127.0.0.1.
//!
//! The runtime that comes with emissary (its own crate) lets the routers listen on all addresses, cannot open a UDP
//! socket on a machine without a default network interface, and brings another 180 crates (HTTP, TLS and UPnP clients) to
//! build.

use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use emissary_core::runtime::{self, MetricType};
use emissary_core::Error;
use flate2::write::{GzDecoder, GzEncoder};
use flate2::Compression;
use futures_core::Stream;
use rand::{CryptoRng, RngExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::{net, task, time};

const MTU: usize = 1500;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// How many connections the routers have made to each other so far.
pub fn calls() -> usize {
    CALLS.load(Ordering::Relaxed)
}

/// The address to bind instead of `asked`.
fn local(asked: SocketAddr) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, asked.port()).into()
}

fn error(e: io::Error) -> Error {
    Error::Custom(e.to_string())
}

#[derive(Clone)]
pub struct Loopback;

impl runtime::Runtime for Loopback {
    type TcpStream = TcpStream;
    type UdpSocket = UdpSocket;
    type TcpListener = TcpListener;
    type JoinSet<T: Send + 'static> = JoinSet<T>;
    type MetricsHandle = NoMetrics;
    type Instant = Instant;
    type Timer = Pin<Box<time::Sleep>>;

    fn spawn<F>(future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        tokio::spawn(future);
    }

    fn time_since_epoch() -> Duration {
        SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }

    fn now() -> Instant {
        Instant(time::Instant::now())
    }

    fn rng() -> impl CryptoRng + RngExt {
        rand::rng()
    }

    fn join_set<T: Send + 'static>() -> JoinSet<T> {
        JoinSet { tasks: task::JoinSet::new(), waker: None }
    }

    fn register_metrics(_: Vec<MetricType>, _: Option<u16>) -> NoMetrics {
        NoMetrics
    }

    fn timer(duration: Duration) -> Self::Timer {
        Box::pin(time::sleep(duration))
    }

    fn delay(duration: Duration) -> impl Future<Output = ()> + Send {
        time::sleep(duration)
    }

    fn gzip_compress(bytes: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes.as_ref()).ok()?;
        encoder.finish().ok()
    }

    fn gzip_decompress(bytes: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let mut decoder = GzDecoder::new(Vec::new());
        decoder.write_all(bytes.as_ref()).ok()?;
        decoder.finish().ok()
    }
}

pub struct TcpStream(net::TcpStream);

impl TcpStream {
    fn new(stream: net::TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl runtime::TcpStream for TcpStream {
    async fn connect(address: SocketAddr) -> Option<Self> {
        if !address.ip().is_loopback() {
            return None;
        }
        let stream = Self::new(net::TcpStream::connect(address).await.ok()?).ok()?;
        CALLS.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }
}

impl runtime::AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Result<usize, Error>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf)).map_err(error)?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl runtime::AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(error)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(error)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(error)
    }
}

pub struct TcpListener(net::TcpListener);

impl runtime::TcpListener<TcpStream> for TcpListener {
    async fn bind(address: SocketAddr) -> Option<Self> {
        net::TcpListener::bind(local(address)).await.ok().map(Self)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(TcpStream, SocketAddr)>> {
        loop {
            let Ok((stream, from)) = ready!(self.0.poll_accept(cx)) else {
                return Poll::Ready(None);
            };
            if let Ok(stream) = TcpStream::new(stream) {
                return Poll::Ready(Some((stream, from)));
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }
}

#[derive(Clone)]
pub struct UdpSocket(Arc<net::UdpSocket>);

impl runtime::UdpSocket for UdpSocket {
    async fn bind(address: SocketAddr) -> Option<Self> {
        let socket = net::UdpSocket::bind(local(address)).await.ok()?;
        Some(Self(Arc::new(socket)))
    }

    async fn bind_with_mtu(address: SocketAddr, _: usize) -> Option<Self> {
        <Self as runtime::UdpSocket>::bind(address).await
    }

    async fn send_to(&mut self, buf: &[u8], target: SocketAddr) -> Option<usize> {
        self.0.send_to(buf, target).await.ok()
    }

    async fn recv_from(&mut self, buf: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.0.recv_from(buf).await.ok()
    }

    fn poll_send_to(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<Option<usize>> {
        self.0.poll_send_to(cx, buf, target).map(Result::ok)
    }

    fn poll_recv_from(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Option<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        let from = ready!(self.0.poll_recv_from(cx, &mut buf)).ok();
        Poll::Ready(from.map(|from| (buf.filled().len(), from)))
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn mtu(&self) -> usize {
        MTU
    }
}

/// Unlike tokio's, an empty set is pending, and pushing to it wakes who polled it.
pub struct JoinSet<T> {
    tasks: task::JoinSet<T>,
    waker: Option<Waker>,
}

impl<T: Send + 'static> runtime::JoinSet<T> for JoinSet<T> {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn len(&self) -> usize {
        self.tasks.len()
    }

    fn push<F>(&mut self, future: F)
    where
        F: Future<Output = T> + Send + 'static,
        F::Output: Send,
    {
        self.tasks.spawn(future);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> Stream for JoinSet<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.tasks.poll_join_next(cx) {
            Poll::Ready(Some(ended)) => Poll::Ready(ended.ok()),
            Poll::Ready(None) | Poll::Pending => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Instant(time::Instant);

impl runtime::Instant for Instant {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Clone)]
pub struct NoMetrics;

impl runtime::MetricsHandle for NoMetrics {
    fn counter(&self, _: &'static str) -> impl runtime::Counter {
        NoMetrics
    }

    fn gauge(&self, _: &'static str) -> impl runtime::Gauge {
        NoMetrics
    }

    fn histogram(&self, _: &'static str) -> impl runtime::Histogram {
        NoMetrics
    }
}

impl runtime::Counter for NoMetrics {
    fn increment(&mut self, _: usize) {}

    fn increment_with_label(&mut self, _: usize, _: &'static str, _: &'static str) {}
}

impl runtime::Gauge for NoMetrics {
    fn increment(&mut self, _: usize) {}

    fn decrement(&mut self, _: usize) {}
}

impl runtime::Histogram for NoMetrics {
    fn record(&mut self, _: f64) {}
}
