//! What the vector functions are tested against, and how: double-double arithmetic, ULPs, every backend.

extern crate std;

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::{Add, Div, Mul, Neg, Sub};
use std::thread;

use crate::float::{Float, Format};
use crate::kernel::Kernel;
use crate::lanes::Lanes;
use crate::simd::{Avx2, Avx512, Baseline, Simd};

/// A function of one or two arguments; one of one argument ignores the second.
pub(super) trait Function<T: Float>: Sync {
    fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, y: Lanes<T, S>) -> Lanes<T, S>;
}

struct Map<'a, T: Float, F> {
    function: &'a F,
    x: &'a [T::Block],
    y: &'a [T::Block],
    _type: PhantomData<T>,
}

impl<T: Float, F: Function<T>> Kernel for Map<'_, T, F> {
    type Elem = T;
    type Output = Vec<T::Block>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Self::Output {
        let mut output = Vec::with_capacity(self.x.len());
        for (x, y) in self.x.iter().zip(self.y) {
            output.push(self.function.apply(Lanes::load(simd, x), Lanes::load(simd, y)).store());
        }
        output
    }
}

fn run<T: Float, S: Simd<T>, F: Function<T>>(simd: S, function: &F, x: &[T], y: &[T]) -> Vec<T> {
    let blocks = |x: &[T]| -> Vec<T::Block> {
        x.chunks(T::LANES)
            .map(|chunk| {
                let mut block = T::fill(chunk[0]);
                block.as_mut()[..chunk.len()].copy_from_slice(chunk);
                block
            })
            .collect()
    };
    let (x_blocks, y_blocks) = (blocks(x), blocks(y));
    let mut output = simd.vectorize(Map { function, x: &x_blocks, y: &y_blocks, _type: PhantomData });
    let mut output = T::flatten_mut(&mut output).to_vec();
    output.truncate(x.len());
    output
}

/// The function on the best backend of this CPU.
pub(super) fn apply<T: Float, F: Function<T>>(function: &F, x: &[T], y: &[T]) -> Vec<T>
where
    Baseline: Simd<T>,
    Avx2: Simd<T>,
    Avx512: Simd<T>,
{
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = Avx512::detect() {
            return run(simd, function, x, y);
        }
        if let Some(simd) = Avx2::detect() {
            return run(simd, function, x, y);
        }
    }
    run(Baseline, function, x, y)
}

/// The function of one pair of arguments.
pub(super) fn value<T: Float, F: Function<T>>(function: &F, x: T, y: T) -> T
where
    Baseline: Simd<T>,
    Avx2: Simd<T>,
    Avx512: Simd<T>,
{
    apply(function, &[x], &[y])[0]
}

/// Holds every backend to the bits of the baseline.
pub(super) fn assert_same_bits<T: Float, F: Function<T>>(function: &F, x: &[T], y: &[T])
where
    Baseline: Simd<T>,
    Avx2: Simd<T>,
    Avx512: Simd<T>,
{
    let want = run(Baseline, function, x, y);
    let compare = |name: &str, got: &[T]| {
        for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{name}: f({:e}, {:e}) = {got:e}, baseline {want:e}", x[i], y[i]);
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = Avx2::detect() {
            compare("avx2", &run(simd, function, x, y));
        }
        if let Some(simd) = Avx512::detect() {
            compare("avx512", &run(simd, function, x, y));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = compare;
}

/// The largest error met, in ULP, and where.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Worst {
    pub(super) ulp: f64,
    pub(super) at: (f64, f64),
}

impl Worst {
    pub(super) fn meet(&mut self, ulp: f64, at: (f64, f64)) {
        if ulp.is_nan() || ulp > self.ulp {
            *self = Self { ulp, at };
        }
    }

    pub(super) fn assert_at_most(self, limit: f64) {
        std::println!("{self:?}");
        assert!(self.ulp <= limit, "{self:?}, not at most {limit}");
    }
}

/// The largest error of an f32 function over every `step`-th bit pattern. `second` gives the second argument, `oracle`
/// the true value; where that is NaN the function must be NaN too.
pub(super) fn worst_f32<F: Function<f32>>(
    function: &F,
    step: u32,
    second: impl Fn(f32) -> f32 + Sync,
    oracle: impl Fn(f64, f64) -> f64 + Sync,
) -> Worst {
    const CHUNK: u64 = 1 << 16;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (step, second, oracle) = (u64::from(step), &second, &oracle);
    let work = |thread: usize| {
        let mut worst = Worst::default();
        for start in (0..1_u64 << 32).step_by(CHUNK as usize).skip(thread).step_by(threads) {
            let bits = (start.next_multiple_of(step)..start + CHUNK).step_by(step as usize);
            let x: Vec<f32> = bits.map(<f32 as Format>::from_bits).collect();
            let y: Vec<f32> = x.iter().map(|&x| second(x)).collect();
            for ((&x, &y), got) in x.iter().zip(&y).zip(apply(function, &x, &y)) {
                let (x, y) = (f64::from(x), f64::from(y));
                worst.meet(ulps_f32(got, oracle(x, y)), (x, y));
            }
        }
        worst
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|i| scope.spawn(move || work(i))).collect();
        let mut worst = Worst::default();
        for worker in workers {
            let other = worker.join().expect("no panic");
            worst.meet(other.ulp, other.at);
        }
        worst
    })
}

/// The distance of `got` from the true value, in units of the last place of an f32 there; infinity counts as 2^128.
pub(super) fn ulps_f32(got: f32, want: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got.is_infinite() && want.is_infinite() && (got > 0.0) == (want > 0.0) {
        return 0.0;
    }
    let limit = f64::from(f32::MAX) + 2_f64.powi(103);
    if got.is_infinite() && want.abs() >= limit && (got > 0.0) == (want > 0.0) {
        return 0.0;
    }
    let exponent = ((want.to_bits() >> 52 & 0x7ff) as i32 - 1023).clamp(-126, 127);
    (f64::from(got) - want).abs() / 2_f64.powi(exponent - 23)
}

/// A sum of two f64: twice the digits, the range of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Double(pub(super) f64, pub(super) f64);

fn two_sum(a: f64, b: f64) -> Double {
    let sum = a + b;
    let part = sum - a;
    Double(sum, (a - (sum - part)) + (b - part))
}

impl Double {
    pub(super) fn new(x: f64) -> Self {
        Self(x, 0.0)
    }

    /// Times a power of two.
    pub(super) fn times(self, power: f64) -> Self {
        Self(self.0 * power, self.1 * power)
    }
}

impl Add for Double {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        let high = two_sum(self.0, b.0);
        let low = two_sum(self.1, b.1);
        let high = two_sum(high.0, high.1 + low.0);
        two_sum(high.0, high.1 + low.1)
    }
}

impl Neg for Double {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0, -self.1)
    }
}

impl Sub for Double {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self + -b
    }
}

impl Mul for Double {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        let product = self.0 * b.0;
        let error = self.0.mul_add(b.0, -product);
        two_sum(product, error + (self.0 * b.1 + self.1 * b.0))
    }
}

impl Div for Double {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let first = Self::new(self.0 / b.0);
        let rest = self - first * b;
        let second = Self::new(rest.0 / b.0);
        let rest = rest - second * b;
        first + second + Self::new(rest.0 / b.0)
    }
}

const LN_2: Double = Double(core::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);

/// `e^r - 1` and `n` with `x = n ln 2 + r`.
fn exp_m1_reduced(x: Double) -> (Double, i32) {
    let n = (x.0 / LN_2.0).round();
    let r = x - Double::new(n) * LN_2;
    let mut sum = Double::new(0.0);
    for i in (1..=27_u32).rev() {
        sum = (sum + Double::new(1.0)) * r / Double::new(f64::from(i));
    }
    #[expect(clippy::cast_possible_truncation, reason = "an exponent")]
    (sum, n as i32)
}

/// `(m, n)` with `m 2^n = e^x`.
pub(super) fn exp(x: Double) -> (Double, i32) {
    let (m, n) = exp_m1_reduced(x);
    (Double::new(1.0) + m, n)
}

/// `e^x - 1`, for `x` below 700.
pub(super) fn exp_m1(x: Double) -> Double {
    let (m, n) = exp_m1_reduced(x);
    let power = 2_f64.powi(n);
    m.times(power) + (Double::new(power) - Double::new(1.0))
}

/// `ln(1 + u)`: one step of Newton's method from the standard library's value.
pub(super) fn ln_1p(u: f64) -> Double {
    let start = Double::new(u.ln_1p());
    if u.abs() < 1e-290 {
        return start; // the step would be lost in subnormal numbers, and so is what it would add
    }
    let step = if u < 1.0 {
        let at_start = exp_m1(start);
        (Double::new(u) - at_start) / (Double::new(1.0) + at_start)
    } else {
        let (m, n) = exp(-start);
        let (a, b) = (2_f64.powi(n / 2), 2_f64.powi(n - n / 2));
        Double::new(u).times(a).times(b) * m + m.times(a).times(b) - Double::new(1.0)
    };
    start + step - step * step * Double::new(0.5)
}

/// `ln x`, for a finite `x` above 0: one step of Newton's method from the standard library's value.
pub(super) fn ln(x: f64) -> Double {
    let start = Double::new(x.ln());
    let (m, n) = exp(-start);
    let (a, b) = (2_f64.powi(n / 2), 2_f64.powi(n - n / 2));
    let step = Double::new(x).times(a).times(b) * m - Double::new(1.0);
    start + step - step * step * Double::new(0.5)
}

/// The distance of `got` from the true value `want 2^n`, in units of the last place of an f64 there, for `got` not
/// infinite.
pub(super) fn ulps_f64(got: f64, want: Double, n: i32) -> f64 {
    let exponent = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let last = (exponent(want.0) + n).max(-1022) - 52; // exponent of the last place
    // Both are scaled to a last place of 1 in steps that neither round nor overflow.
    let scale = |x: f64, n: i32| {
        let (a, b) = (n / 2, n - n / 2);
        let (c, d) = (b / 2, b - b / 2);
        x * 2_f64.powi(a) * 2_f64.powi(c) * 2_f64.powi(d)
    };
    let (got, want) = (scale(got, -last), Double(scale(want.0, n - last), scale(want.1, n - last)));
    ((got - want.0) - want.1).abs()
}

/// Numbers between 0 and 1 without pattern.
pub(super) fn uniform(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed | 1;
    core::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 * 2_f64.powi(-53)
    })
}

/// Numbers of every sign and exponent, the special ones among them.
pub(super) fn of_every_size<T: Float>(count: usize, seed: u64) -> Vec<T> {
    let special = [0, 1, T::one().to_bits(), T::infinity().to_bits(), T::nan().to_bits(), T::max_value().to_bits()];
    let sign = (-T::zero()).to_bits();
    let random = uniform(seed).map(|x| x.to_bits() << 12 ^ (x * 2_f64.powi(60)).to_bits() << 30);
    special.into_iter().flat_map(|x| [x, x | sign]).chain(random).map(T::from_bits).take(count).collect()
}
