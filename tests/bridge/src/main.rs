//! The bridge as a program.

use i2psock_bridge::{Action, Bridge, Config, Reply, Rule, Split, Which};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Usage: i2psock-bridge [OPTION]...
A SAM v3 bridge without a router: connects the programs on this machine with each other.

Prints `SAM <TCP port> <UDP port>` once it is listening, and ends when its standard input does.
Lines of its standard input are orders; each is answered with `OK`, or `ERROR` and why:

  kill ID            end a session and close its control socket; `all` is all of them
  kill ID announced  the same after a line that tells the client
  die ID             a session dies behind its open control socket, as the router has it; or `all`
  forget ID          the router forgets the id of a session; or `all`
  refuse             refuse new connections ...
  listen             ... and take them again

  --port N           TCP port on 127.0.0.1; 0 (the default) picks a free one. The same one can be had again
                     at once when the bridge has ended or was killed
  --udp-port N       UDP port on 127.0.0.1, for datagrams; 0 (the default) picks a free one,
                     on i2pd the TCP port minus one when that is free
  --ipv6             listen on ::1 too
  --unix PATH        listen on a unix socket too
  --personality P    java (the default), i2pd-2.45, i2pd-2.58 or emissary
  --max-version 3.x  highest protocol version to negotiate
  --user U           ask for this user ...
  --password P       ... and this password
  --host NAME=B64    a host name and its destination; may be repeated
  --build-delay MS   how long a session takes to come up
  --idle-ping MS     send PING on sockets idle for this long and expect PONG
  --ping-every MS    send PING on session and forward sockets all the time
  --duplicated N     refuse the first N sessions with given keys with DUPLICATED_DEST
  --duplicated-for MS
                     refuse all of them for so long
  --duplicated-after MS
                     refuse the keys of a session for so long after its end
  --keep-closed MS   how long i2pd keeps a closed destination, which kills a session with the same keys
                     that was made in this time; 5000 unless given, 0 is not at all
  --no-manager MS    refuse all sessions with `No manager yet` for so long after the start
  --die-after MS     every session dies so long after its OK, behind its open control socket
  --forget-after MS  the id of every session is forgotten so long after its OK
  --dsa-keys         make DSA keys, whatever SIGNATURE_TYPE says
  --accepts-fail N   the first N ACCEPTs get OK and then an error
  --accepts-end N    the first N ACCEPTs get OK and then are closed
  --park MS          how long a stream waits for an ACCEPT; unless given, 3000 on java (10 where nobody
                     has ever accepted), 10000 on i2pd, 60000 on emissary
  --split N          write replies in pieces of N bytes
  --drip MS          write replies byte by byte, one per interval
  --loss PERCENT     lose so many of all datagrams
  --duplicate PERCENT
                     deliver so many of all datagrams twice
  --reorder PERCENT  hold so many of all datagrams back until the next has arrived
  --forge PERCENT    along with so many of all datagrams forwarded, send one with the payload
                     `forged` from another port than the bridge's
  --seed N           which datagrams these are; 0 unless given
  --no-stdin         do not end with standard input
  --verbose          log all lines, without keys and passwords, to standard error
  --help             show this
";

struct Options {
    config: Config,
    stdin: bool,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut config = Config::default();
    let mut stdin = true;
    let (mut user, mut password) = (None, None);
    while let Some(arg) = args.next() {
        // `--name value` and `--name=value` alike.
        let (name, mut inline) = match arg.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (arg, None),
        };
        let mut value = || inline.take().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--port" => config.port = number(&name, &value()?)?,
            "--udp-port" => config.udp_port = number(&name, &value()?)?,
            "--ipv6" => config.ipv6 = true,
            "--unix" => config.unix = Some(value()?.into()),
            "--personality" => config.personality = value()?.parse()?,
            "--max-version" => config.max_version = value()?.parse()?,
            "--user" => user = Some(value()?),
            "--password" => password = Some(value()?),
            "--host" => {
                let text = value()?;
                let (host, destination) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=B64"))?;
                config.hosts.push((host.to_string(), destination.to_string()));
            }
            "--build-delay" => config.build_delay = millis(&name, &value()?)?,
            "--idle-ping" => config.idle_ping = Some(millis(&name, &value()?)?),
            "--ping-every" => config.faults.ping_every = Some(millis(&name, &value()?)?),
            "--duplicated" => config.faults.duplicated_times = number(&name, &value()?)?,
            "--duplicated-for" => config.faults.duplicated_for = millis(&name, &value()?)?,
            "--duplicated-after" => config.faults.duplicated_after = millis(&name, &value()?)?,
            "--keep-closed" => config.keep_closed = Some(millis(&name, &value()?)?),
            "--no-manager" => config.faults.no_manager = millis(&name, &value()?)?,
            "--die-after" => config.faults.die_after = Some(millis(&name, &value()?)?),
            "--forget-after" => config.faults.forget_after = Some(millis(&name, &value()?)?),
            "--dsa-keys" => config.faults.dsa_keys = true,
            "--accepts-fail" => {
                let line = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"on demand\"\n";
                config.faults.rules.push(accepts(number(&name, &value()?)?, line));
            }
            "--accepts-end" => config.faults.rules.push(accepts(number(&name, &value()?)?, "")),
            "--park" => config.park = Some(millis(&name, &value()?)?),
            "--split" => config.faults.split = Split::Every { bytes: number(&name, &value()?)?, gap: Duration::ZERO },
            "--drip" => config.faults.drip = Some(millis(&name, &value()?)?),
            "--loss" => config.faults.loss = percent(&name, &value()?)?,
            "--duplicate" => config.faults.duplicate = percent(&name, &value()?)?,
            "--reorder" => config.faults.reorder = percent(&name, &value()?)?,
            "--forge" => config.faults.forge = percent(&name, &value()?)?,
            "--seed" => config.faults.seed = number(&name, &value()?)?,
            "--no-stdin" => stdin = false,
            "--verbose" => config.verbose = true,
            "--help" => return Ok(None),
            _ => return Err(format!("unknown option {name:?}")),
        }
        if inline.is_some() {
            return Err(format!("{name} takes no value"));
        }
    }
    config.auth = match (user, password) {
        (None, None) => None,
        (Some(user), Some(password)) => Some((user, password)),
        _ => return Err("--user and --password go together".to_string()),
    };
    Ok(Some(Options { config, stdin }))
}

fn accepts(times: u64, last: &str) -> Rule {
    // Time to tell the OK from what follows.
    let action = Action::then_close(Duration::from_millis(20), last);
    Rule { reply: Reply::StreamAccept, which: Which::First(times), action }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name}: {text:?} is not a suitable number"))
}

fn percent(name: &str, text: &str) -> Result<u8, String> {
    number(name, text).and_then(|n| match n {
        0..=100 => Ok(n),
        _ => Err(format!("{name}: {text:?} is more than everything")),
    })
}

fn millis(name: &str, text: &str) -> Result<Duration, String> {
    number(name, text).map(Duration::from_millis)
}

fn run(options: Options) -> io::Result<()> {
    let bridge = Bridge::start(options.config)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "SAM {} {}", bridge.port(), bridge.udp_port())?;
    stdout.flush()?;
    if options.stdin {
        for line in io::stdin().lock().split(b'\n') {
            match order(&bridge, &String::from_utf8_lossy(&line?)) {
                Ok(()) => writeln!(stdout, "OK")?,
                Err(why) => writeln!(stdout, "ERROR {why}")?,
            }
            stdout.flush()?;
        }
        bridge.stop();
        return Ok(());
    }
    loop {
        std::thread::park();
    }
}

/// Carries out a line of standard input.
fn order(bridge: &Bridge, line: &str) -> Result<(), String> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["kill", id] | ["kill", id, "announced"] => {
            let announced = words.len() == 3;
            match id {
                "all" => drop(bridge.faults().kill_all_sessions(announced)),
                id if bridge.faults().kill_session(id, announced) => {}
                id => return Err(format!("there is no session {id:?}")),
            }
            Ok(())
        }
        ["die", id] => each(bridge, id, |id| bridge.faults().die_session(id)),
        ["forget", id] => each(bridge, id, |id| bridge.faults().forget_session(id)),
        ["refuse"] => {
            bridge.stop_listening();
            Ok(())
        }
        ["listen"] => bridge.listen_again().map_err(|e| e.to_string()),
        _ => Err(format!("unknown order {line:?}")),
    }
}

/// Does it to the session with this id, or to all.
fn each(bridge: &Bridge, id: &str, what: impl Fn(&str) -> bool) -> Result<(), String> {
    match id {
        "all" => bridge.sessions().iter().for_each(|session| {
            what(&session.id);
        }),
        id if what(id) => {}
        id => return Err(format!("there is no session {id:?}")),
    }
    Ok(())
}

fn complain(message: &str) {
    // With standard error closed the exit status has to do.
    let _ = writeln!(io::stderr(), "i2psock-bridge: {message}");
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            return match io::stdout().write_all(HELP.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(message) => {
            complain(&format!("{message}; see --help"));
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e.to_string());
            ExitCode::FAILURE
        }
    }
}
