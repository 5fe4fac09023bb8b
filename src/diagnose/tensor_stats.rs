//! [`TensorStats`]: what a tensor holds, in one pass.
//!
//! A tensor is cut into chunks that stay in the first cache, so several short loops over a chunk read memory once.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::Result;
use crate::finite::{Class, Counts};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch};
use crate::lanes::Lanes;
use crate::scaled::{Scaled, ldexp};
use crate::simd::Simd;
use crate::sweep::each_block;

/// What a tensor holds. Mean, deviation, norm and magnitudes are those of its finite elements; what is not finite is
/// counted.
///
/// In `f64` for both types, each within 1e-12 of itself (the mean of the largest magnitude), whatever the range: squares
/// neither over- nor underflow. A result that itself overflows, in `f64` alone, is infinite. For deviations a pass over
/// each 4096 elements comes after their mean, and parts are merged (Chan, Golub and `LeVeque` 1983): a mean that is large
/// beside the deviation does no harm.
///
/// ```
/// use nanproof::TensorStats;
///
/// let stats = TensorStats::of(&[3.0_f32, -4.0, 0.0, f32::NAN, 1e-40])?;
/// assert_eq!((stats.len, stats.nan, stats.zeros, stats.subnormals), (5, 1, 1, 1));
/// assert_eq!((stats.mean, stats.norm, stats.largest), (-0.25, 5.0, 4.0));
/// assert_eq!(stats.exponents.iter().collect::<Vec<_>>(), [(-133, 1), (1, 1), (2, 1)]);
/// assert_eq!(stats.exponents.f16().flushed, 1);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TensorStats {
    /// All elements.
    pub len: usize,
    /// The mean; 0 if no element is finite.
    pub mean: f64,
    /// The standard deviation: the root of the mean square distance from the mean.
    pub std: f64,
    /// The L2 norm.
    pub norm: f64,
    /// The smallest magnitude that is not 0; 0 if there is none.
    pub smallest: f64,
    /// The largest magnitude.
    pub largest: f64,
    /// Zeros of either sign.
    pub zeros: usize,
    /// Subnormal numbers.
    pub subnormals: usize,
    /// NaNs.
    pub nan: usize,
    /// Plus infinities.
    pub pos_inf: usize,
    /// Minus infinities.
    pub neg_inf: usize,
    /// The exponents of what is finite and not 0.
    pub exponents: Exponents,
}

/// A histogram of exponents: how many numbers have `2^e <= |x| < 2^(e + 1)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Exponents {
    /// The exponent of the first count.
    lowest: i32,
    counts: Vec<u64>,
}

/// What a narrower format would lose, judged by exponents alone: numbers that rounding moves over a limit are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Losses {
    /// Numbers that become infinite.
    pub overflow: u64,
    /// Numbers that become subnormal, and lose digits.
    pub subnormal: u64,
    /// Numbers that become 0.
    pub flushed: u64,
}

impl TensorStats {
    /// Looks through a tensor once. Nothing is refused: the empty tensor has zeros everywhere.
    ///
    /// # Errors
    /// [`Error::Isa`](crate::Error::Isa) and [`Error::UnknownIsa`](crate::Error::UnknownIsa) alone.
    pub fn of<T: Float>(x: &[T]) -> Result<Self> {
        launch(Survey { x }).map(Surveyed::finish)
    }

    /// Elements that are not finite.
    #[must_use]
    pub fn not_finite(&self) -> usize {
        self.nan.saturating_add(self.pos_inf).saturating_add(self.neg_inf)
    }

    /// The root mean square of the finite elements; 0 if there are none.
    #[must_use]
    pub fn rms(&self) -> f64 {
        let count = self.len - self.not_finite();
        if count == 0 { 0.0 } else { self.norm / num_traits::Float::sqrt(count as f64) }
    }
}

impl Exponents {
    /// The exponents from the lowest to the highest that occurs, and how often each does.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (self.lowest..).zip(self.counts.iter().copied()).filter(|&(_, count)| count > 0)
    }

    /// What [`f16`](https://en.wikipedia.org/wiki/Half-precision_floating-point_format) would lose: it reaches from 2^-24
    /// to below 2^16, subnormal below 2^-14.
    #[must_use]
    pub fn f16(&self) -> Losses {
        self.losses(16, -14, -25)
    }

    /// What [`bf16`](https://en.wikipedia.org/wiki/Bfloat16_floating-point_format) would lose: it reaches from 2^-133 to
    /// below 2^128, subnormal below 2^-126.
    #[must_use]
    pub fn bf16(&self) -> Losses {
        self.losses(128, -126, -134)
    }

    fn losses(&self, too_large: i32, normal: i32, kept: i32) -> Losses {
        let count = |is_in: &dyn Fn(i32) -> bool| self.iter().filter(|&(e, _)| is_in(e)).map(|(_, count)| count).sum();
        Losses {
            overflow: count(&|e| e >= too_large),
            subnormal: count(&|e| (kept..normal).contains(&e)),
            flushed: count(&|e| e < kept),
        }
    }

    /// Of counts that start at an exponent.
    fn trimmed(lowest: i32, counts: &[u64]) -> Self {
        let first = counts.iter().position(|&count| count > 0).unwrap_or(counts.len());
        let end = counts.iter().rposition(|&count| count > 0).map_or(first, |last| last + 1);
        Self { lowest: lowest.saturating_add(i32::try_from(first).unwrap_or(0)), counts: counts[first..end].to_vec() }
    }
}

/// Elements whose sums are taken together: they fit the first cache.
const CHUNK: usize = 4096;

/// Looks through a tensor.
#[derive(Debug)]
pub struct Survey<'a, T> {
    x: &'a [T],
}

/// What a survey saw. The sums of chunks are kept apart, so that it does not matter where threads cut.
#[derive(Debug)]
pub struct Surveyed<T> {
    chunks: Vec<Sums>,
    counts: Counts,
    zeros: usize,
    smallest: T,
    largest: T,
    /// How often each exponent field occurs.
    fields: Vec<u64>,
    /// How often each exponent of subnormal numbers occurs.
    subnormals: Vec<u64>,
}

/// Of a chunk: the mean in two terms and the sum of squared distances from it, of `x * 2^-exponent`.
#[derive(Clone, Copy, Debug)]
struct Sums {
    count: usize,
    exponent: i32,
    mean: f64,
    /// What the mean lacks by its rounding, which may be more than the deviation.
    rest: f64,
    squares: f64,
}

impl<T: Float> Kernel for Survey<'_, T> {
    type Elem = T;
    type Output = Surveyed<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Surveyed<T> {
        let mut seen = Surveyed::nothing();
        let mut fields = vec![Counters::default(); seen.fields.len()];
        for chunk in self.x.chunks(CHUNK) {
            seen.add(simd, chunk, &mut fields);
        }
        seen.fields = fields.into_iter().map(|counts| counts.iter().sum()).collect();
        seen
    }

    fn work(&self) -> usize {
        self.x.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        if self.x.len() <= CHUNK {
            return Err(self);
        }
        let (a, b) = self.x.split_at(self.x.len().div_ceil(CHUNK) / 2 * CHUNK);
        Ok((Self { x: a }, Self { x: b }))
    }
}

impl<T: Float> Join for Surveyed<T> {
    fn join(mut self, b: Self) -> Self {
        let add = |a: &mut Vec<u64>, b: Vec<u64>| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.fields, b.fields);
        add(&mut self.subnormals, b.subnormals);
        Self {
            chunks: self.chunks.join(b.chunks),
            counts: self.counts.join(b.counts),
            zeros: self.zeros + b.zeros,
            smallest: self.smallest.min(b.smallest),
            largest: self.largest.max(b.largest),
            ..self
        }
    }
}

impl<T: Float> Surveyed<T> {
    fn nothing() -> Self {
        Self {
            chunks: Vec::new(),
            counts: Counts::default(),
            zeros: 0,
            smallest: T::infinity(),
            largest: T::zero(),
            fields: vec![0; field_of(T::infinity()) + 1],
            subnormals: vec![0; T::FRACTION_BITS as usize],
        }
    }

    #[inline(always)]
    fn add<S: Simd<T>>(&mut self, simd: S, x: &[T], fields: &mut [Counters]) {
        let seen_before = |fields: &[Counters], field: usize| fields[field].iter().sum::<u64>();
        let (zero, top) = (0, fields.len() - 1);
        let before = [zero, top].map(|field| seen_before(fields, field));
        count_fields(x, fields);
        let [small, special] = [(zero, before[0]), (top, before[1])].map(|(f, before)| seen_before(fields, f) - before);
        self.counts.len += x.len();
        if special > 0 {
            x.iter().filter_map(|&x| Class::of(x)).for_each(|class| self.counts.add(class));
            let finite: Vec<T> = x.iter().copied().filter(|x| x.is_finite()).collect();
            self.add_finite(simd, &finite, small as usize);
        } else {
            self.add_finite(simd, x, small as usize);
        }
    }

    /// `small`: how many are subnormal or 0.
    #[inline(always)]
    fn add_finite<S: Simd<T>>(&mut self, simd: S, x: &[T], small: usize) {
        if small > 0 {
            let zeros = x.iter().filter(|x| x.is_zero()).count();
            self.zeros += zeros;
            if zeros < small {
                self.add_subnormals(x);
            }
        }
        let seen = Seen::of(simd, x);
        let smallest = if small > 0 { smallest_but_zero(simd, x) } else { seen.smallest };
        self.smallest = self.smallest.min(smallest);
        self.largest = self.largest.max(seen.largest);
        let exponent = Scaled::new(seen.largest, 0).exponent;
        self.chunks.push(if seen.largest.is_zero() {
            // It adds nothing to a sum, but counts; an exponent below all others does not matter.
            Sums { count: x.len(), exponent: i32::MIN, mean: 0.0, rest: 0.0, squares: 0.0 }
        } else if T::LANES == 8 && exponent.abs() > MAX_EXPONENT {
            let scaled: Vec<T> = x.iter().map(|&x| ldexp(x, -exponent)).collect();
            Seen::of(simd, &scaled).sums(x.len(), exponent)
        } else {
            seen.sums(x.len(), 0)
        });
    }

    #[cold]
    fn add_subnormals(&mut self, x: &[T]) {
        for &x in x.iter().filter(|x| x.is_subnormal()) {
            let bit = (x.abs().to_bits().ilog2()) as usize;
            self.subnormals[bit] += 1;
        }
    }

    fn finish(self) -> TensorStats {
        let Counts { nan, pos_inf, neg_inf, len } = self.counts;
        let exponent = self.chunks.iter().map(|chunk| chunk.exponent).max().filter(|&e| e > i32::MIN).unwrap_or(0);
        let shift = |chunk: &Sums| (chunk.exponent.max(-MAX_SHIFT) - exponent).max(-MAX_SHIFT);
        let mut chunks = self.chunks.iter().filter(|chunk| chunk.count > 0).peekable();
        // Means are taken from that of the first chunk on: what they differ by is not lost in their rounding.
        let start = chunks.peek().map_or(0.0, |first| ldexp(first.mean, shift(first)));
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for chunk in chunks {
            let scale = |x, times: i32| ldexp(x, shift(chunk) * times);
            let n = chunk.count as f64;
            let distance = scale(chunk.mean, 1) - start + scale(chunk.rest, 1) - mean;
            squares += scale(chunk.squares, 2) + distance * distance * (count * n / (count + n));
            count += n;
            mean += distance * (n / count);
        }
        let (mean, squares) = (start + mean, squares.max(0.0));
        let root = |x: f64| ldexp(num_traits::Float::sqrt(x), exponent);
        let number = |x: T| x.to_f64().unwrap_or(f64::NAN);
        let normal = self.fields.get(1..self.fields.len() - 1).unwrap_or_default();
        let counts = [&self.subnormals, normal].concat();
        let lowest = 1 - T::BIAS - T::FRACTION_BITS.cast_signed();
        TensorStats {
            len,
            mean: ldexp(mean, exponent),
            std: if count > 0.0 { root(squares / count) } else { 0.0 },
            norm: root(squares + count * mean * mean),
            smallest: if self.smallest.is_finite() { number(self.smallest) } else { 0.0 },
            largest: number(self.largest),
            zeros: self.zeros,
            subnormals: self.subnormals.iter().sum::<u64>() as usize,
            nan,
            pos_inf,
            neg_inf,
            exponents: Exponents::trimmed(lowest, &counts),
        }
    }
}

/// Numbers of `f64` beyond `2^-400` and `2^400` are scaled before they are squared.
const MAX_EXPONENT: i32 = 400;

/// What is further below the largest by this many powers of two is nothing beside it.
const MAX_SHIFT: i32 = 2200;

/// What a loop over a chunk sees.
#[derive(Clone, Copy)]
struct Seen<T> {
    /// A number near the mean: sums of distances from it cancel little.
    origin: f64,
    distances: f64,
    squares: f64,
    /// Of the magnitudes.
    smallest: T,
    largest: T,
}

impl<T: Float> Seen<T> {
    /// From the mean of the first block on; if that turns out to be far from the mean, again from the mean.
    #[inline(always)]
    fn of<S: Simd<T>>(simd: S, x: &[T]) -> Self {
        let first = &x[..x.len().min(T::LANES)];
        let mut seen = Self::from(simd, x, first.iter().map(|&x| wide(x)).sum::<f64>() / first.len().max(1) as f64);
        let sums = seen.sums(x.len(), 0);
        if sums.squares < seen.squares * LEFT_OVER {
            seen = Self::from(simd, x, sums.mean);
        }
        seen
    }

    #[inline(always)]
    fn from<S: Simd<T>>(simd: S, x: &[T], origin: f64) -> Self {
        let [mut distances, mut squares] = [[Lanes::zero(simd.wide()); 2]; 2];
        let [mut nearest, mut largest] = [T::neg_infinity(), T::zero()].map(|x| Lanes::splat(simd, x));
        let (blocks, tail) = T::blocks(x);
        for block in blocks {
            let x = Lanes::load(simd, block);
            for (i, x) in halves(x).enumerate() {
                let distance = x - x.all(origin);
                distances[i] = distances[i] + distance;
                squares[i] = squares[i] + distance * distance;
            }
            let magnitude = x.abs();
            nearest = (-magnitude).larger(nearest);
            largest = magnitude.larger(largest);
        }
        let [distances, squares] = [total(distances), total(squares)];
        let (smallest, largest) = (-nearest.fold(T::max), largest.fold(T::max));
        tail.iter().fold(Self { origin, distances, squares, smallest, largest }, |seen, &x| {
            let (distance, magnitude) = (wide(x) - origin, x.abs());
            Self {
                origin,
                distances: seen.distances + distance,
                squares: seen.squares + distance * distance,
                smallest: seen.smallest.min(magnitude),
                largest: seen.largest.max(magnitude),
            }
        })
    }

    fn sums(self, count: usize, exponent: i32) -> Sums {
        let shift = self.distances / count.max(1) as f64;
        let mean = self.origin + shift;
        Sums { count, exponent, mean, rest: self.origin - mean + shift, squares: self.squares - self.distances * shift }
    }
}

/// If less of the squares of distances than this is left over by the distance of their origin from the mean, their
/// rounding errors show.
const LEFT_OVER: f64 = 1.0 / 64.0;

/// The smallest magnitude but 0; infinite if there is none.
#[inline(always)]
fn smallest_but_zero<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> T {
    let [zero, infinity] = [T::zero(), T::infinity()].map(|x| Lanes::splat(simd, x));
    let mut nearest = -infinity;
    each_block(
        simd,
        x,
        T::zero(),
        #[inline(always)]
        |x| nearest = (-x.eq(zero).select(infinity, x.abs())).larger(nearest),
    );
    -nearest.fold(T::max)
}

/// The lanes in `f64`. Those of `f64` itself are one half.
#[inline(always)]
fn halves<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> impl Iterator<Item = Lanes<f64, S::Wide>> {
    x.widen().into_iter().take(T::LANES / 8)
}

#[inline(always)]
fn total<S: Simd<f64>>([a, b]: [Lanes<f64, S>; 2]) -> f64 {
    (a + b).fold(
        #[inline(always)]
        |a, b| a + b,
    )
}

/// How often an exponent field occurs, in as many counters: equal neighbours do not wait for each other.
type Counters = [u64; 8];

#[inline(always)]
fn count_fields<T: Float>(x: &[T], fields: &mut [Counters]) {
    let fields = &mut fields[..=field_of(T::infinity())]; // the compiler then knows that no field is out of bounds
    let (groups, rest) = x.as_chunks::<8>();
    for group in groups {
        for (i, &x) in group.iter().enumerate() {
            fields[field_of(x)][i] += 1;
        }
    }
    for &x in rest {
        fields[field_of(x)][0] += 1;
    }
}

#[inline(always)]
fn field_of<T: Float>(x: T) -> usize {
    (x.to_bits() >> T::FRACTION_BITS) as usize & (2 * T::BIAS as usize + 1)
}

#[inline(always)]
fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().unwrap_or(f64::NAN)
}
