//! Twenty-four hours of a destination with a listener, on a router that loses its sessions again and again. READY must mean
//! that the session is alive, or was not long ago; and after every loss streams must come again before long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::common::*;
use super::router::{Kind, Router};
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Limit, Pending, Progress};
use i2psock::core::listener::Listener;
use i2psock::core::settings::Options;
use i2psock::core::stream::Stream;
use i2psock::identity::Keys;
use i2psock::sys;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long READY may be wrong: a minute of silence, half a minute for the answer, and what calls round up.
const WRONG: Duration = Duration::from_millis(90_100);
/// What the library waits between two sessions, and what everything else may take together.
const GAP: Duration = Duration::from_millis(6500);
const SLACK: Duration = Duration::from_secs(10);
/// How long streams of a lost session may keep their destination on the router.
const STREAMS: Duration = Duration::from_secs(31);
/// Turns of the library at one point in time, and among them those for which nothing but the time was a reason.
const MOST_TURNS: usize = 60;
const MOST_IDLE_TURNS: usize = 6;
/// Calls of a whole day: a thousand and a half for signs of life, and some for each fault.
const MOST_CALLS: usize = 10_000;

/// The streams that must come after a fault.
struct Owed {
    since: Instant,
    until: Instant,
    refused: u32,
}

/// What happens next without the library.
enum Plan {
    /// Something goes wrong.
    Fault,
    /// The stopped router goes on, or the one that was shut down starts again.
    Return,
    /// The program connects.
    Connect,
    /// A client comes.
    Client,
    /// The program drops a stream.
    Drop,
}

struct Day {
    name: String,
    router: Router,
    rng: Rng,
    start: Instant,
    now: Instant,
    listener: Listener,
    dest: DestHandle,
    /// After everything that stands on it.
    _controller: Control,
    plans: Vec<(Instant, Plan)>,
    streams: Vec<Stream>,
    connects: Vec<Pending<Stream>>,
    arrived: usize,
    /// Since when the library says READY although that is wrong.
    wrong: Option<Instant>,
    owed: Option<Owed>,
    /// Nothing shows that the session is dead, before the program connects.
    hidden: bool,
    calls: usize,
    faults: usize,
    worst: Duration,
    trail: VecDeque<String>,
}

impl Day {
    /// Opens everything, in real time; then the clock belongs to the test.
    fn begin(kind: Kind, seed: u64) -> Self {
        let name = format!("{kind:?} {seed}");
        let file = format!("i2psock-day-{}-{kind:?}-{seed}", std::process::id());
        let path = std::env::temp_dir().join(file);
        drop(std::fs::remove_file(&path));
        // Every day has a destination of its own, since ends of sessions are remembered for the whole process.
        let own = (kind as u8 + 1) * 50 + u8::try_from(seed).unwrap();
        let mut router = Router::new(kind, path, seed, own, now());
        let address = router.address();
        let mut options = options(&[("recover", "1")]);
        options.set_keys(Some(&Keys::from_text(&private_keys(own, 1)).unwrap()));
        let opening = std::thread::spawn(move || {
            let controller = try_controller(&address, &[("keeper", "0")]).unwrap();
            let dest = controller.open_dest("", 1, &options, LIMIT).unwrap().product().unwrap();
            let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
            (controller, dest, listener)
        });
        wait_until("it is open", || {
            router.turn(now());
            opening.is_finished()
        });
        let (controller, dest, listener) = opening.join().unwrap();
        let start = now();
        let mut day = Day {
            name,
            router,
            rng: Rng::new(seed + 1000),
            start,
            now: start,
            listener,
            dest,
            _controller: controller,
            plans: Vec::new(),
            streams: Vec::new(),
            connects: Vec::new(),
            arrived: 0,
            wrong: None,
            owed: None,
            hidden: false,
            calls: 0,
            faults: 0,
            worst: Duration::ZERO,
            trail: VecDeque::new(),
        };
        day.plan(5 * MINUTE, 30 * MINUTE, Plan::Fault);
        day.plan(MINUTE, 20 * MINUTE, Plan::Connect);
        day.plan(MINUTE, 20 * MINUTE, Plan::Client);
        day
    }

    /// A random time between the two.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = usize::try_from((most - least).as_millis()).unwrap();
        least + Duration::from_millis(self.rng.below(range) as u64)
    }

    fn plan(&mut self, least: Duration, most: Duration, plan: Plan) {
        let time = self.between(least, most);
        self.plans.push((self.now + time, plan));
    }

    fn note(&mut self, what: &str) {
        let at = (self.now - self.start).as_millis();
        self.trail.push_back(format!("{:>6}.{:03} s: {what}", at / 1000, at % 1000));
        if self.trail.len() > 30 {
            self.trail.pop_front();
        }
    }

    fn check(&self, holds: bool, what: &str) {
        if !holds {
            let (at, state) = (self.now - self.start, self.dest.destination().state());
            let trail = Vec::from(self.trail.clone()).join("\n");
            panic!("{} at {at:?}: {what}; {state:?}, {:?}\n{trail}", self.name, self.router.counts);
        }
    }

    fn state(&self) -> State {
        self.dest.destination().state().0
    }

    /// Lets router and library do everything they have to do at this time.
    fn settle(&mut self) {
        let (mut turns, mut idle) = (0, 0);
        loop {
            let news = self.router.turn(self.now);
            let is_readable = |fd| sys::poll_one(fd, sys::IN, 0).unwrap() != 0;
            let event = is_readable(self.dest.destination().fd()) || is_readable(self.listener.fd());
            let due = self.dest.destination().timeout_ms(self.now) == 0;
            if turns > 0 && !(news || event || due) {
                return;
            }
            turns += 1;
            idle += usize::from(!news && !event);
            self.check(turns <= MOST_TURNS && idle <= MOST_IDLE_TURNS, "it is busy and gets nowhere");
            self.serve();
        }
    }

    /// What the program's loop does.
    fn serve(&mut self) {
        self.calls += 1;
        while let Some(state) = self.dest.destination().service(self.now) {
            self.note(&format!("{state:?} ({:?})", self.dest.destination().state().2.map(|cause| cause.message)));
        }
        loop {
            match self.listener.accept(self.now) {
                Ok(Some(stream)) => {
                    self.arrived += 1;
                    self.use_stream(stream);
                }
                Ok(None) => break,
                Err(error) => self.check(false, &format!("the listener has ended: {error:?}")),
            }
        }
        for mut connect in std::mem::take(&mut self.connects) {
            match connect.step(self.now) {
                Ok(Progress::Block) => self.connects.push(connect),
                Ok(Progress::Done) => {
                    let stream = connect.take().unwrap();
                    self.use_stream(stream);
                }
                Err(error) => {
                    self.note(&format!("connect: {}", error.message));
                    self.check(!self.router.serves(), "a connect failed for no reason");
                }
            }
        }
    }

    /// Most streams are short; some last.
    fn use_stream(&mut self, stream: Stream) {
        if self.rng.below(3) == 0 {
            self.streams.push(stream);
            self.plan(SECOND, 20 * MINUTE, Plan::Drop);
        }
    }

    /// Whether anything is wrong that must not be.
    fn judge(&mut self) {
        let wrong = self.state() == State::Ready && !self.router.serves();
        self.wrong = if wrong { self.wrong.or(Some(self.now)) } else { None };
        if let Some(since) = self.wrong {
            self.check(self.now - since <= WRONG, "it says READY, and the session has long been dead");
        }
        self.check(self.state() != State::Dead, "the destination has ended");
        self.check(self.router.counts.doomed == 0, "the same keys were used again too soon");
        let Some(owed) = self.owed.take() else { return };
        if self.router.serves() && self.client() {
            self.worst = self.worst.max(self.now - owed.since);
            self.note("streams come again");
            return;
        }
        // Each refusal costs one more pause.
        let attempt = self.dest.destination().state().1.clamp(1, 7);
        let pause = Duration::from_secs(1 << (attempt - 1)).min(MINUTE);
        let until = owed.until + pause * (1 + self.router.counts.refused - owed.refused);
        self.check(self.now <= until, "no stream has come since the fault");
        self.owed = Some(owed);
    }

    /// A client comes, if the router can bring it.
    fn client(&mut self) -> bool {
        let before = self.arrived;
        if !self.router.deliver() {
            return false;
        }
        self.settle();
        self.check(self.arrived == before + 1, "a client has come and was not accepted");
        true
    }

    fn owe(&mut self, notice: Duration) {
        let streams = if self.streams.is_empty() { Duration::ZERO } else { STREAMS };
        let until = self.now + notice + GAP + SLACK + streams;
        self.owed = Some(Owed { since: self.now, until, refused: self.router.counts.refused });
    }

    /// The next fault comes some time after this one, or while the library is still busy with it.
    fn plan_fault(&mut self) {
        match self.rng.below(5) {
            0 => self.plan(MILLISECOND, 20 * SECOND, Plan::Fault),
            _ => self.plan(2 * MINUTE, 40 * MINUTE, Plan::Fault),
        }
    }

    fn fault(&mut self) {
        self.faults += 1;
        self.owed = None;
        // Without a session there is not much to lose.
        let which = if self.router.serves() { self.rng.below(9) } else { self.rng.below(2) };
        let notice = match which {
            0 => {
                let (least, most) = [(2, 60), (60, 150), (150, 1800)][self.rng.below(3)];
                self.router.stop();
                self.note("the router stops");
                return self.plan(least * SECOND, most * SECOND, Plan::Return);
            }
            1 => {
                self.router.shut_down();
                self.note("the router is shut down");
                return self.plan(SECOND / 10, 10 * MINUTE, Plan::Return);
            }
            2 => {
                self.router.end_sessions(self.now);
                self.note("the session's control socket is closed");
                Duration::ZERO
            }
            3 => {
                self.router.forget(true, false, self.now);
                self.note("the session is forgotten, and accepts end");
                Duration::ZERO
            }
            4 => {
                self.router.forget(false, true, self.now);
                self.note("the session is forgotten, and lookups say so");
                MINUTE
            }
            5 => {
                // The program connects before long: nothing else shows it.
                self.router.forget(false, false, self.now);
                self.note("the session is forgotten");
                self.hidden = true;
                self.plan(MILLISECOND, MINUTE, Plan::Connect);
                return self.owe(MINUTE);
            }
            6 if self.router.kind == Kind::Java => {
                self.router.die();
                self.note("the session dies");
                Duration::ZERO
            }
            7 => {
                self.router.leave_next_accept();
                self.note("an accept is not answered");
                self.client();
                SLACK
            }
            _ => {
                self.router.announce();
                self.note("the session's end is announced");
                2 * SECOND
            }
        };
        self.owe(notice);
        self.plan_fault();
    }

    fn act(&mut self, plan: Plan) {
        match plan {
            Plan::Fault => self.fault(),
            Plan::Return => {
                self.router.come_back(self.now);
                self.note("the router is there again");
                // What has arrived meanwhile comes first.
                self.settle();
                // It may still have to be asked about the session that it had forgotten before.
                self.owe(if self.state() == State::Ready { MINUTE } else { SECOND });
                self.plan_fault();
            }
            Plan::Connect => {
                // The start of an operation reads the real clock, which is long past: its HELLO must be answered at once.
                if self.state() == State::Ready && self.router.runs() {
                    match self.dest.connect(&destination(2), &Options::default(), Limit::Never) {
                        Ok(connect) => self.connects.push(connect),
                        Err(error) => self.check(false, &format!("READY, and a connect is refused: {error:?}")),
                    }
                }
                // Nothing else happens before it shows.
                if std::mem::take(&mut self.hidden) {
                    self.plan_fault();
                }
                if self.plans.iter().all(|(_, plan)| !matches!(plan, Plan::Connect)) {
                    self.plan(10 * MINUTE, 60 * MINUTE, Plan::Connect);
                }
            }
            Plan::Client => {
                if self.router.serves() {
                    self.client();
                }
                self.plan(MINUTE, 30 * MINUTE, Plan::Client);
            }
            Plan::Drop => {
                let which = self.rng.below(self.streams.len());
                drop(self.streams.swap_remove(which));
            }
        }
    }

    /// Goes on to the next point in time at which anything happens.
    fn jump(&mut self) {
        let timeout = self.dest.destination().timeout_ms(self.now);
        let timeout = u64::try_from(timeout).ok().map(|timeout| self.now + Duration::from_millis(timeout));
        let plans = self.plans.iter().map(|(at, _)| *at).min();
        let limits = [self.wrong.map(|since| since + WRONG), self.owed.as_ref().map(|owed| owed.until)];
        let limits = limits.into_iter().flatten().map(|limit| limit + MILLISECOND).filter(|limit| *limit > self.now);
        let next = limits.chain(timeout).chain(plans).chain(self.router.due()).min().unwrap();
        self.now = next.max(self.now + MILLISECOND / 10);
        let due = self.plans.iter().position(|(at, _)| *at <= self.now);
        if let Some((_, plan)) = due.map(|index| self.plans.swap_remove(index)) {
            self.act(plan);
        }
    }

    fn pass(mut self) -> Self {
        while self.now - self.start < DAY {
            self.settle();
            self.judge();
            self.jump();
            self.check(self.calls <= MOST_CALLS, "it is called far too often");
        }
        self
    }
}

#[test]
fn ready_means_alive_for_a_whole_day() {
    for (kind, seeds) in [(Kind::Java, 1..=3), (Kind::I2pd245, 4..=6), (Kind::I2pd258, 7..=9)] {
        // One after the other: what the process remembers about ends has one time.
        for seed in seeds {
            let real = now();
            let day = Day::begin(kind, seed).pass();
            println!(
                "{}: {} faults, {} streams, {} calls, the longest way back {:?}, {:?}, {:?}",
                day.name,
                day.faults,
                day.arrived,
                day.calls,
                day.worst,
                day.router.counts,
                real.elapsed()
            );
            let counts = &day.router.counts;
            assert!(day.faults > 20 && counts.created > 15 && counts.lookups > 800, "{counts:?}");
            assert_eq!(counts.pings > 0, kind == Kind::Java);
        }
    }
}
