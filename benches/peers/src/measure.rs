//! Minimum times of contenders that take turns.

use std::time::{Duration, Instant};

/// One of those measured in a case.
pub struct Contender<'a> {
    pub name: String,
    /// Work of one call: floating-point operations or bytes.
    pub work: f64,
    call: Box<dyn FnMut() + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: impl Into<String>, work: f64, call: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), work, call: Box::new(call) }
    }
}

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    /// The calls of a round go on at least this long, so that the timer's resolution does not matter.
    round: Duration,
    /// All rounds of a case together; the fewest rounds are made even so.
    case: Duration,
    fewest_rounds: usize,
    /// A pause before each round, in which the idle threads of the last contender go to sleep.
    pause: Duration,
}

/// Of calls as long as this, a first one to warm the caches up makes no difference.
const LONG_CALL: Duration = Duration::from_millis(30);

impl Effort {
    pub fn new(quick: bool, threads: usize) -> Self {
        let (round, case, fewest_rounds) = if quick { (2, 900, 2) } else { (4, 6000, 5) };
        let pause = if threads > 1 { 3 } else { 0 };
        Self {
            round: Duration::from_millis(round),
            case: Duration::from_millis(case),
            fewest_rounds,
            pause: Duration::from_millis(pause),
        }
    }
}

/// The smallest time of a call of each contender, in nanoseconds.
///
/// The contenders take turns, a round each, so that all see the same states of the machine.
pub fn interleaved(contenders: &mut [Contender<'_>], effort: Effort) -> Vec<f64> {
    let start = Instant::now();
    let calls: Vec<usize> = contenders.iter_mut().map(|contender| calls_of_a_round(contender, effort.round)).collect();
    let mut best = vec![f64::INFINITY; contenders.len()];
    let mut rounds = 0;
    while rounds < effort.fewest_rounds || start.elapsed() < effort.case {
        for i in 0..contenders.len() {
            // In turns from both ends: nobody has always the same one before, who leaves the caches in his state.
            let i = if rounds % 2 == 0 { i } else { contenders.len() - 1 - i };
            std::thread::sleep(effort.pause);
            best[i] = best[i].min(round(&mut contenders[i], calls[i], best[i]));
        }
        rounds += 1;
    }
    best
}

/// Nanoseconds a call, over so many calls.
fn round(contender: &mut Contender<'_>, calls: usize, expected: f64) -> f64 {
    if expected.is_infinite() || expected < LONG_CALL.as_nanos() as f64 {
        (contender.call)();
    }
    let start = Instant::now();
    for _ in 0..calls {
        (contender.call)();
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// As many calls as fill a round.
fn calls_of_a_round(contender: &mut Contender<'_>, round: Duration) -> usize {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        for _ in 0..calls {
            (contender.call)();
        }
        let elapsed = start.elapsed();
        if 4 * elapsed >= round {
            let ratio = round.as_secs_f64() / elapsed.as_secs_f64();
            return ((calls as f64 * ratio).ceil() as usize).max(1);
        }
        calls *= 4;
    }
}
