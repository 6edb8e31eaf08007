//! A private I2P network for tests: several real emissary routers in one process, all on 127.0.0.1, with a network id of
//! their own. Each has a SAM v3 bridge on a port that is given or that the kernel chooses. `netbox --help` says how a test uses it.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use emissary_core::router::Router;
use emissary_core::runtime::Runtime as _;
use emissary_core::{BandwidthConfig, Config, ExploratoryConfig, Ntcp2Config, SamConfig, TransitConfig};
use rand::{Rng as _, RngExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::loopback::Loopback;

mod loopback;

const USAGE: &str = "\
Usage: netbox [--routers N] [--ports TCP[:UDP],...] [--help]

Runs a private network of N I2P routers (default 4) on 127.0.0.1.

Prints one line for each router, 'SAM <tcp-port> <udp-port>', and then 'READY'.
Ends when its standard input ends, so it never outlives the program that
started it.

  --ports LIST  ports of the SAM bridges of the first routers, so that programs
                find them again after a restart (of new routers: they keep
                nothing); 0, and whatever is not given, is for the kernel to
                choose
";

/// Enough for tunnels of up to three hops.
const DEFAULT_ROUTERS: usize = 4;
/// A single one has nobody to publish its sessions to, and they end at once.
const ROUTERS: RangeInclusive<usize> = 2..=16;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long a new router may take to call the others; some milliseconds are usual.
const MEETING: Duration = Duration::from_secs(2);
/// From the last call to the end of its handshake.
const SETTLING: Duration = Duration::from_millis(50);

/// How the program ends.
type Ending = mpsc::UnboundedSender<Result<(), String>>;

enum Request {
    Run { routers: usize, ports: Vec<SamPorts> },
    Help,
}

/// Ports of a SAM bridge; 0 is any.
#[derive(Clone, Copy, Default)]
struct SamPorts {
    tcp: u16,
    udp: u16,
}

fn main() -> ExitCode {
    let result = match parse(std::env::args().skip(1)) {
        Ok(Request::Run { routers, ports }) => run(routers, &ports),
        Ok(Request::Help) => print(USAGE),
        Err(message) => {
            complain(&message);
            complain("try 'netbox --help'");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Request, String> {
    let (mut routers, mut ports) = (DEFAULT_ROUTERS, Vec::new());
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let value = || inline.or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--help" | "-h" => return Ok(Request::Help),
            "--routers" => routers = parse_routers(&value()?)?,
            "--ports" => ports = value()?.split(',').map(parse_ports).collect::<Result<_, _>>()?,
            _ => return Err(format!("unknown argument '{arg}'")),
        }
    }
    if ports.len() > routers {
        return Err(format!("--ports has {} entries for {routers} routers", ports.len()));
    }
    Ok(Request::Run { routers, ports })
}

fn parse_routers(count: &str) -> Result<usize, String> {
    match count.parse() {
        Ok(n) if ROUTERS.contains(&n) => Ok(n),
        _ => {
            let (least, most) = (ROUTERS.start(), ROUTERS.end());
            Err(format!("--routers takes a number from {least} to {most}, not '{count}'"))
        }
    }
}

fn parse_ports(entry: &str) -> Result<SamPorts, String> {
    let (tcp, udp) = entry.split_once(':').unwrap_or((entry, "0"));
    match (tcp.parse(), udp.parse()) {
        (Ok(tcp), Ok(udp)) => Ok(SamPorts { tcp, udp }),
        _ => Err(format!("--ports takes TCP or TCP:UDP, separated by commas, not '{entry}'")),
    }
}

fn run(routers: usize, ports: &[SamPorts]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    let result = runtime.block_on(network(routers, ports));
    // Routers take seconds to leave a network in good order; nobody is left to notice.
    runtime.shutdown_background();
    result
}

/// Runs until standard input ends (success) or a router does (failure).
async fn network(routers: usize, ports: &[SamPorts]) -> Result<(), String> {
    let (ended, mut endings) = mpsc::unbounded_channel();
    watch_stdin(ended.clone())?;
    let work = async {
        start(routers, ports, &ended).await?;
        print("READY\n")?;
        std::future::pending().await
    };
    tokio::select! {
        result = work => result,
        Some(result) = endings.recv() => result,
    }
}

/// Starts the routers one after the other; each calls all before it.
///
/// Two routers that call each other at the same moment both refuse, and a router that is to pass a message on to one it
/// has never met drops it. Either loses a tunnel or the first packet of a stream, and 8 s go by until someone tries again.
/// So everybody meets here, in good order.
async fn start(routers: usize, wanted: &[SamPorts], ended: &Ending) -> Result<(), String> {
    let net_id = private_net_id();
    let mut infos = Vec::with_capacity(routers + 1);
    // Number 0 has no bridge: it is there for the first of the others to know.
    for number in 0..=routers {
        let fail = |what: &dyn Display| format!("cannot start router {number}: {what}");
        let calls = loopback::calls();
        let sam = number.checked_sub(1).map(|member| wanted.get(member).copied().unwrap_or_default());
        let config = config(net_id, number, sam, infos.clone());
        let (router, _, info) = Router::<Loopback>::new(config, None, None).await.map_err(|e| fail(&e))?;
        let ports = *router.protocol_address_info();
        infos.push(info);
        let ended = ended.clone();
        tokio::spawn(async move {
            let what = match tokio::spawn(router).await {
                Ok(()) => "ended by itself",
                Err(_) => "died",
            };
            let _ = ended.send(Err(format!("router {number} {what}")));
        });
        let meeting = async {
            while loopback::calls() < calls + number {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(MEETING, meeting).await.is_err() {
            complain(&format!("router {number} called only {} of {number} routers", loopback::calls() - calls));
        }
        if number > 0 {
            let (Some(tcp), Some(udp)) = (ports.sam_tcp, ports.sam_udp) else {
                return Err(fail(&"it opened no SAM bridge"));
            };
            print(&format!("SAM {} {}\n", tcp.port(), udp.port()))?;
        }
    }
    sleep(SETTLING).await;
    Ok(())
}

/// Router `number`, which knows `others`; one without a bridge is no real member.
fn config(net_id: u8, number: usize, sam: Option<SamPorts>, others: Vec<Vec<u8>>) -> Config {
    // Each of these tunnels leads through one of the others, picked at random: enough of them to meet everyone.
    let tunnels = Some(4 * number.max(1));
    Config {
        net_id: Some(net_id),
        floodfill: sam.is_some(),
        allow_local: true,
        // The usual rules keep routers of one address range out of one tunnel: here all have the same address.
        insecure_tunnels: true,
        transit: Some(TransitConfig { max_tunnels: Some(5000) }),
        exploratory: Some(ExploratoryConfig {
            inbound_len: Some(1),
            inbound_count: tunnels,
            outbound_len: Some(1),
            outbound_count: tunnels,
        }),
        ntcp2: Some(Ntcp2Config {
            ipv4: true,
            ipv4_host: Some(LOOPBACK),
            ipv6: false,
            ipv6_host: None,
            iv: random(),
            key: random(),
            port: 0,
            publish: true,
            ml_kem: None,
            disable_pq: false,
        }),
        samv3_config: sam.map(|SamPorts { tcp, udp }| SamConfig {
            tcp_port: tcp,
            udp_port: udp,
            host: LOOPBACK.to_string(),
        }),
        // The default, 1 MB/s, is shared by all tunnels through a router, and transfers crawl.
        bandwidth: Some(BandwidthConfig { bandwidth: 1_000_000_000, share_ratio: 0.9 }),
        routers: others,
        ..Config::default()
    }
}

/// Not 2, the public network, and most likely not that of another netbox.
fn private_net_id() -> u8 {
    Loopback::rng().random_range(3..=u8::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    Loopback::rng().fill_bytes(&mut bytes);
    bytes
}

/// Tells when standard input ends or breaks. A thread of its own: nothing can interrupt a read of standard input, and the
/// runtime would wait for it.
fn watch_stdin(ended: Ending) -> Result<(), String> {
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            // An error ends it as well; either way there is nobody left to serve.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = ended.send(Ok(()));
        })
        .map(drop)
        .map_err(|e| format!("cannot watch standard input: {e}"))
}

fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| format!("cannot write to standard output: {e}"))
}

/// Not `eprintln!`, which panics when standard error is closed.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "netbox: {message}");
}
