//! Measures the vector functions: those of f32 over all 2^32 inputs, those of f64 over inputs chosen to hurt. Prints a
//! table of the largest errors; fails if one is beyond its goal.
//!
//! ```text
//! cargo run --release --example exhaustive                     # everything: an hour of processor time
//! cargo run --release --example exhaustive -- erf gelu         # functions by name
//! cargo run --release --example exhaustive -- --stride 1009    # every 1009th input
//! ```
//!
//! Oracles know nothing of the kernels. For f32 they are the f64 functions of the standard library and of `libm`, good to
//! an f64 ULP or two: 2^-28 of an f32 ULP. For f64 they are those of `nanproof::reference`, of 100 bits.

use std::thread;

use clap::Parser;
use nanproof::reference::{self, Wide, ulp_error};
use nanproof::{Error, math};

type Slices<T> = fn(&[T], &mut [T]) -> Result<(), Error>;

/// What there is to measure: a name, the function for both types, its oracles, and the goals in ULP.
struct Case {
    name: &'static str,
    f32: (Slices<f32>, fn(f64) -> f64),
    f64: (Slices<f64>, fn(f64) -> Wide),
    goals: [f64; 2],
    /// Where the f64 function has something to lose.
    range: [f64; 2],
}

#[derive(Parser)]
struct Arguments {
    /// The functions to measure; all if none is named.
    names: Vec<String>,
    /// Of f32, every so many inputs; of f64, so many times fewer.
    #[arg(long, default_value_t = 1)]
    stride: u32,
    /// f64 inputs for each function.
    #[arg(long, default_value_t = 10_000_000)]
    inputs: u32,
}

/// The largest error met, and where.
#[derive(Clone, Copy, Default)]
struct Worst {
    ulp: f64,
    at: f64,
}

impl Worst {
    fn meet(&mut self, ulp: f64, at: f64) {
        if ulp.is_nan() || ulp > self.ulp {
            *self = Self { ulp, at };
        }
    }
}

fn cases() -> Vec<Case> {
    let case = |name, f32, f64, goals, range| Case { name, f32, f64, goals, range };
    vec![
        case("exp", (math::exp, f64::exp), (math::exp, |x| Wide::new(x).exp()), [0.55, 1.0], [-745.2, 709.8]),
        case("exp2", (math::exp2, f64::exp2), (math::exp2, reference::exp2), [0.55, 1.0], [-1075.0, 1024.0]),
        case(
            "exp_m1",
            (math::exp_m1, f64::exp_m1),
            (math::exp_m1, |x| Wide::new(x).exp_m1()),
            [0.6, 1.0],
            [-40.0, 709.8],
        ),
        case("ln", (math::ln, f64::ln), (math::ln, |x| Wide::new(x).ln()), [0.6, 1.0], [0.0, 4.0]),
        case("ln_1p", (math::ln_1p, f64::ln_1p), (math::ln_1p, |x| Wide::new(x).ln_1p()), [0.6, 1.0], [-1.0, 3.0]),
        case("log2", (math::log2, f64::log2), (math::log2, reference::log2), [0.6, 1.0], [0.0, 4.0]),
        case("tanh", (math::tanh, f64::tanh), (math::tanh, reference::tanh), [1.0, 1.5], [-20.0, 20.0]),
        case("sigmoid", (math::sigmoid, sigmoid), (math::sigmoid, reference::sigmoid), [1.0, 1.5], [-745.2, 40.0]),
        case(
            "log_sigmoid",
            (math::log_sigmoid, |x| -softplus(-x)),
            (math::log_sigmoid, |x| -reference::softplus(-x)),
            [1.0, 1.5],
            [-40.0, 745.2],
        ),
        case("softplus", (math::softplus, softplus), (math::softplus, reference::softplus), [1.0, 1.5], [-745.2, 40.0]),
        case("erf", (math::erf, libm::erf), (math::erf, reference::erf), [1.5, 1.5], [-6.0, 6.0]),
        case("erfc", (math::erfc, libm::erfc), (math::erfc, reference::erfc), [1.5, 1.5], [-6.0, 27.3]),
        case("sqrt", (math::sqrt, f64::sqrt), (math::sqrt, |x| Wide::new(x).sqrt()), [0.5, 0.5], [0.0, 4.0]),
        case("gelu", (nanproof::gelu, gelu), (nanproof::gelu, reference::gelu), [2.0, 2.0], [-38.7, 9.0]),
        case(
            "gelu_tanh",
            (nanproof::gelu_tanh, gelu_tanh),
            (nanproof::gelu_tanh, reference::gelu_tanh),
            [2.0, 2.0],
            [-23.0, 9.0],
        ),
        case(
            "silu",
            (nanproof::silu, |x| at_limit(x, sigmoid)),
            (nanproof::silu, reference::silu),
            [1.0, 1.5],
            [-752.0, 40.0],
        ),
        case("mish", (nanproof::mish, mish), (nanproof::mish, reference::mish), [5.0, 5.0], [-752.0, 40.0]),
        case(
            "elu",
            (|x, y| nanproof::elu(1.0, x, y), |x| if x > 0.0 { x } else { x.exp_m1() }),
            (|x, y| nanproof::elu(1.0, x, y), |x| reference::elu(1.0, x)),
            [0.6, 1.0],
            [-40.0, 1.0],
        ),
    ]
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 }
}

/// `x f(x)`, which is 0 at `-Inf`.
fn at_limit(x: f64, f: impl Fn(f64) -> f64) -> f64 {
    if x == f64::NEG_INFINITY { 0.0 } else { x * f(x) }
}

fn gelu(x: f64) -> f64 {
    at_limit(x, |x| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    at_limit(x, |x| sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)))
}

fn mish(x: f64) -> f64 {
    at_limit(x, |x| {
        let t = (-x.abs()).exp();
        if x < 0.0 { t * (t + 2.0) / (t * (t + 2.0) + 2.0) } else { (1.0 + 2.0 * t) / (1.0 + 2.0 * t + 2.0 * t * t) }
    })
}

/// The distance of `got` from the true value, in units of the last place of an f32 there; what overflows is right.
fn ulp_f32(got: f32, want: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got.is_infinite() || want.is_infinite() {
        return if got == want as f32 { 0.0 } else { f64::INFINITY };
    }
    let exponent = ((want.to_bits() >> 52 & 0x7ff) as i32 - 1023).clamp(-126, 127);
    (f64::from(got) - want).abs() * f64::from_bits(((1023 + 23 - exponent) as u64) << 52)
}

/// Shares the numbers below `count` out to the threads of the machine in turns of `turn`.
fn parallel(count: u64, turn: u64, work: impl Fn(std::ops::Range<u64>) -> Worst + Sync) -> Worst {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let own = |thread: usize| {
        let starts = (0..count).step_by(turn as usize).skip(thread).step_by(threads);
        starts.fold(Worst::default(), |mut worst, start| {
            let other = work(start..count.min(start + turn));
            worst.meet(other.ulp, other.at);
            worst
        })
    };
    thread::scope(|scope| {
        let own = &own;
        let workers = (0..threads).map(|i| scope.spawn(move || own(i))).collect::<Vec<_>>();
        workers.into_iter().fold(Worst::default(), |mut worst, worker| {
            let other = worker.join().expect("no panic");
            worst.meet(other.ulp, other.at);
            worst
        })
    })
}

fn measure_f32((function, oracle): (Slices<f32>, fn(f64) -> f64), stride: u64) -> (Worst, u64) {
    let count = (1_u64 << 32).div_ceil(stride);
    let worst = parallel(count, 1 << 14, |numbers| {
        let x = numbers.map(|i| f32::from_bits((i * stride) as u32)).collect::<Vec<_>>();
        let mut y = vec![0.0; x.len()];
        let _ = function(&x, &mut y); // NaN and infinities are among the inputs
        let mut worst = Worst::default();
        for (&x, &got) in x.iter().zip(&y) {
            worst.meet(ulp_f32(got, oracle(f64::from(x))), f64::from(x));
        }
        worst
    });
    (worst, count)
}

/// Half of the inputs are spread over the range, a quarter lies around 0 and 1, a quarter is of any size.
fn input_f64(number: u64, [low, high]: [f64; 2]) -> f64 {
    // SplitMix64.
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let bits = mixed ^ mixed >> 31;
    let unit = (bits >> 11) as f64 * f64::EPSILON / 2.0;
    let spread = low + unit * (high - low);
    match number % 8 {
        0..4 => spread,
        4 => 2.0 * unit - 1.0,
        5 => 1.0 + (unit - 0.5) * (-((bits & 31) as f64)).exp2(),
        6 => spread * (-((bits & 63) as f64)).exp2(),
        _ => f64::from_bits(bits),
    }
}

fn measure_f64((function, oracle): (Slices<f64>, fn(f64) -> Wide), range: [f64; 2], count: u64) -> Worst {
    parallel(count, 1 << 12, |numbers| {
        let x = numbers.map(|i| input_f64(i, range)).collect::<Vec<_>>();
        let mut y = vec![0.0; x.len()];
        let _ = function(&x, &mut y);
        let mut worst = Worst::default();
        for (&x, &got) in x.iter().zip(&y) {
            worst.meet(ulp_error(got, oracle(x)), x);
        }
        worst
    })
}

fn main() {
    let Arguments { names, stride, inputs } = Arguments::parse();
    let mut missed = false;
    println!("| function | type | largest error (ULP) | at | goal | inputs |\n|---|---|---|---|---|---|");
    for Case { name, f32, f64, goals, range } in cases() {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut row = |kind, Worst { ulp, at }: Worst, goal, count: u64| {
            println!("| {name} | {kind} | {ulp:.3} | {at:e} | {goal} | {count} |");
            missed |= ulp.is_nan() || ulp > goal;
        };
        let (worst, count) = measure_f32(f32, stride.into());
        row("f32", worst, goals[0], count);
        let count = u64::from(inputs / stride);
        row("f64", measure_f64(f64, range, count), goals[1], count);
    }
    if missed {
        std::process::exit(1);
    }
}
