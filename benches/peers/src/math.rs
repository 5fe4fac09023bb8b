//! Vector functions of slices, on one thread.

use std::cell::RefCell;
use std::hint::black_box;
use std::mem::MaybeUninit;

use anyhow::{Result, ensure};
use rten_simd::SimdUnaryOp;
use rten_vecmath::{Erf, Exp, Gelu, Sigmoid, Silu, Tanh};

use crate::Options;
use crate::data::{Aligned, uniform};
use crate::limits::Passes;
use crate::measure::Contender;
use crate::report::{Case, LIMIT, NANPROOF, Report};

/// A function from a slice to one of the same length.
type Function<T> = Box<dyn Fn(&[T], &mut [T])>;

/// Lengths whose two arrays lie in the second level of the cache, and beyond it.
const LENGTHS: [usize; 2] = [1 << 14, 1 << 20];

struct Job<T> {
    name: &'static str,
    /// The operands are uniform between 0 and this, or between this and its negative.
    range: Range,
    ours: fn(&[T], &mut [T]) -> nanproof::Result<()>,
    peers: Vec<(&'static str, Function<T>)>,
}

#[derive(Clone, Copy)]
enum Range {
    Upto(f32),
    Within(f32),
}

impl Range {
    fn operands<T: Copy + From<f32>>(self, len: usize) -> Aligned<T> {
        let unit = uniform::<f32>(len, 5);
        let mut unit = unit.iter();
        Aligned::new(len, || {
            let x = unit.next().copied().unwrap_or_default();
            T::from(match self {
                Self::Upto(greatest) => (0.5 + 0.499 * x) * greatest,
                Self::Within(greatest) => x * greatest,
            })
        })
    }
}

/// Measures all cases; the number of wrong results.
pub fn run(options: &Options) -> Result<usize> {
    ensure!(options.threads == 1, "math measures one thread");
    let mut report = Report::new(options.csv, options.threads(), options.effort());
    let mut failures = 0;
    for len in LENGTHS {
        for job in jobs() {
            failures += measure(options, &mut report, format!("{} {len}", job.name), &job, len);
        }
        for job in jobs_f64() {
            failures += measure(options, &mut report, format!("f64 {} {len}", job.name), &job, len);
        }
    }
    report.finish();
    Ok(failures)
}

fn naive<T: Copy + 'static>(f: fn(T) -> T) -> (&'static str, Function<T>) {
    ("naive", Box::new(move |x, y| x.iter().zip(y).for_each(|(&x, y)| *y = f(x))))
}

fn rten(f: impl SimdUnaryOp<f32> + 'static) -> (&'static str, Function<f32>) {
    let map = move |x: &[f32], y: &mut [f32]| {
        // SAFETY: initialised elements may be taken for ones that need not be; the function writes only numbers.
        let y = unsafe { &mut *(std::ptr::from_mut(y) as *mut [MaybeUninit<f32>]) };
        f.map(x, y);
    };
    ("rten-vecmath", Box::new(map))
}

fn jobs() -> Vec<Job<f32>> {
    use nanproof::math;
    let within = Range::Within;
    vec![
        Job { name: "exp", range: within(80.0), ours: math::exp, peers: vec![rten(Exp {}), naive(f32::exp)] },
        Job { name: "ln", range: Range::Upto(100.0), ours: math::ln, peers: vec![naive(f32::ln)] },
        Job { name: "tanh", range: within(8.0), ours: math::tanh, peers: vec![rten(Tanh {}), naive(f32::tanh)] },
        Job {
            name: "sigmoid",
            range: within(20.0),
            ours: math::sigmoid,
            peers: vec![rten(Sigmoid {}), naive(|x| 1.0 / (1.0 + (-x).exp()))],
        },
        Job { name: "erf", range: within(4.0), ours: math::erf, peers: vec![rten(Erf {})] },
        Job { name: "gelu", range: within(6.0), ours: nanproof::gelu, peers: vec![rten(Gelu {})] },
        Job {
            name: "silu",
            range: within(20.0),
            ours: nanproof::silu,
            peers: vec![rten(Silu {}), naive(|x| x / (1.0 + (-x).exp()))],
        },
        Job {
            name: "softplus",
            range: within(20.0),
            ours: math::softplus,
            peers: vec![naive(|x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p())],
        },
    ]
}

fn jobs_f64() -> Vec<Job<f64>> {
    use nanproof::math;
    vec![
        Job { name: "exp", range: Range::Within(700.0), ours: math::exp, peers: vec![naive(f64::exp)] },
        Job { name: "ln", range: Range::Upto(100.0), ours: math::ln, peers: vec![naive(f64::ln)] },
        Job { name: "tanh", range: Range::Within(8.0), ours: math::tanh, peers: vec![naive(f64::tanh)] },
    ]
}

fn measure<T>(options: &Options, report: &mut Report, name: String, job: &Job<T>, len: usize) -> usize
where
    T: bytemuck::Pod + Default + From<f32> + Into<f64>,
{
    if !options.wants(&name) {
        return 0;
    }
    let work = (2 * len * size_of::<T>()) as f64;
    let x: Aligned<T> = job.range.operands(len);
    let y = RefCell::new(Aligned::<T>::zeros(len));
    let mut expected = Aligned::<T>::zeros(len);
    (job.ours)(&x, &mut expected).expect("finite");

    let (x, y, ours) = (&x, &y, job.ours);
    let mut contenders = vec![Contender::new(NANPROOF, work, move || {
        ours(black_box(x), &mut y.borrow_mut()).expect("finite");
    })];
    let mut failures = 0;
    for (peer, f) in &job.peers {
        f(x, &mut y.borrow_mut());
        let is_right = |(&y, &expected): (&T, &T)| {
            let (y, expected): (f64, f64) = (y.into(), expected.into());
            (y - expected).abs() <= 1e-3 * expected.abs().max(1e-3)
        };
        if let Some(i) = y.borrow().iter().zip(&*expected).position(|pair| !is_right(pair)) {
            eprintln!("ERROR: {name}: {peer} is wrong at {i}; left out");
            failures += 1;
            continue;
        }
        contenders.push(Contender::new(*peer, work, move || f(black_box(x), &mut y.borrow_mut())));
    }
    let copy = Passes::best().copy;
    contenders.push(Contender::new(LIMIT, work, move || {
        copy(bytemuck::cast_slice(black_box(x)), bytemuck::cast_slice_mut(&mut y.borrow_mut()));
    }));
    report.measure(Case { name, work, unit: "GB/s", contenders });
    failures
}
