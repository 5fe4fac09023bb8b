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
use crate::sweep::{GROUP, each_group_in_turn};

/// What a tensor holds. Mean, deviation, norm and magnitudes are those of its finite elements; what is not finite is
/// counted.
///
/// In `f64` for both types, each within 1e-12 of itself (the mean of the largest magnitude), whatever the range: squares
/// neither over- nor underflow. A result that itself overflows, in `f64` alone, is infinite. Each 64 KiB are summed alone,
/// about their mean if that is large beside the deviation, and merged (Chan, Golub and `LeVeque` 1983): such a mean does no
/// harm.
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
        match self.norm {
            _ if count == 0 => 0.0,
            norm if norm.is_finite() => norm / num_traits::Float::sqrt(count as f64),
            _ => num_traits::Float::hypot(self.mean, self.std),
        }
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

/// Elements whose sums are taken together: 64 KiB, so that reading the counters costs little.
const fn chunk<T: Float>() -> usize {
    1024 * T::LANES
}

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
    smallest: T,
    largest: T,
    /// How often each exponent field occurs in what is finite.
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
        let (mut seen, mut lowest) = (Surveyed::nothing(), guess(self.x));
        for chunk in self.x.chunks(chunk::<T>()) {
            lowest = seen.add(simd, chunk, lowest);
        }
        seen
    }

    fn work(&self) -> usize {
        self.x.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        if self.x.len() <= chunk::<T>() {
            return Err(self);
        }
        let (a, b) = self.x.split_at(self.x.len().div_ceil(chunk::<T>()) / 2 * chunk::<T>());
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
            smallest: T::infinity(),
            largest: T::zero(),
            fields: vec![0; field_of(T::infinity())],
            subnormals: vec![0; T::FRACTION_BITS as usize],
        }
    }

    /// Adds a chunk whose exponent fields begin at `lowest` or above, one hopes; returns the same of the next chunk.
    #[inline(always)]
    fn add<S: Simd<T>>(&mut self, simd: S, x: &[T], lowest: usize) -> usize {
        self.counts.len += x.len();
        let (finite, scaled): (Vec<T>, Vec<T>);
        let mut x = x;
        let (mut seen, mut counters) = Seen::of(simd, x, lowest);
        if !seen.squares.is_finite() {
            x.iter().filter_map(|&x| Class::of(x)).for_each(|class| self.counts.add(class));
            finite = x.iter().copied().filter(|x| x.is_finite()).collect();
            x = &finite;
            (seen, counters) = Seen::of(simd, x, lowest);
        }
        if seen.largest.is_zero() {
            // It adds nothing to a sum, but counts; an exponent below all others does not matter.
            self.fields[0] += x.len() as u64;
            self.chunks.push(Sums { count: x.len(), exponent: i32::MIN, mean: 0.0, rest: 0.0, squares: 0.0 });
            return lowest;
        }
        self.smallest = self.smallest.min(seen.smallest);
        self.largest = self.largest.max(seen.largest);
        let [first, last] = [seen.smallest, seen.largest].map(field_of);
        if lowest <= first && last < lowest + bits::<T>() {
            let mut zeros = x.len() as u64;
            for (field, count) in (first..).zip(&mut self.fields[first..=last]) {
                let found = counters.get((field - lowest) as u32);
                *count += found;
                zeros -= found;
            }
            self.fields[0] += zeros;
        } else {
            self.count_singly(x);
            if first == 0 {
                self.add_subnormals(x);
            }
        }
        let exponent = Scaled::new(seen.largest, 0).exponent;
        self.chunks.push(if !T::PRODUCTS_FIT_F64 && exponent.abs() > MAX_EXPONENT {
            scaled = x.iter().map(|&x| ldexp(x, -exponent)).collect();
            Seen::of(simd, &scaled, lowest).0.sums(simd, &scaled, exponent)
        } else {
            seen.sums(simd, x, 0)
        });
        around::<T>(first, last)
    }

    /// Counts exponents one at a time, in four counters for each: equal neighbours do not wait for each other.
    #[inline(never)]
    fn count_singly(&mut self, x: &[T]) {
        let mut table = vec![[0_u16; 4]; field_of(T::infinity()) + 1];
        let counts = &mut table[..=field_of(T::infinity())]; // the compiler then knows that no field is out of bounds
        let (groups, rest) = x.as_chunks::<4>();
        for group in groups {
            for (i, &x) in group.iter().enumerate() {
                counts[field_of(x)][i] += 1;
            }
        }
        for &x in rest {
            counts[field_of(x)][0] += 1;
        }
        for (field, counts) in self.fields.iter_mut().zip(counts) {
            *field += counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        }
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
        let subnormals: u64 = self.subnormals.iter().sum();
        let counts = [&self.subnormals, &self.fields[1..]].concat();
        let lowest = 1 - T::BIAS - T::FRACTION_BITS.cast_signed();
        TensorStats {
            len,
            mean: ldexp(mean, exponent),
            std: if count > 0.0 { root(squares / count) } else { 0.0 },
            norm: root(squares + count * mean * mean),
            smallest: if self.smallest.is_finite() { number(self.smallest) } else { 0.0 },
            largest: number(self.largest),
            zeros: (self.fields[0] - subnormals) as usize,
            subnormals: subnormals as usize,
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

/// What the first loop over a chunk sees.
#[derive(Clone, Copy)]
struct Seen<T> {
    sum: f64,
    /// Not finite if an element is not.
    squares: f64,
    /// Of the magnitudes but 0; infinite if there are none.
    smallest: T,
    largest: T,
}

impl<T: Float> Seen<T> {
    /// Counts exponent fields from `lowest` on, as many as there are counters.
    #[inline(always)]
    fn of<S: Simd<T>>(simd: S, x: &[T], lowest: usize) -> (Self, Counters<T, S>) {
        let [mut sum, mut squares] = [[Lanes::zero(simd.wide()); 2]; 2];
        let [mut before, mut largest] = [T::infinity(), T::zero()].map(|x| Lanes::splat(simd, x));
        let [one, lowest] = [1, lowest as u64].map(|bits| Lanes::splat(simd, T::from_bits(bits)));
        let mut counters = Counters::new(simd);
        let mut group_number = 0;
        each_group_in_turn(
            simd,
            x,
            T::zero(),
            #[inline(always)]
            |group| {
                let mut rows = [one; GROUP];
                for (i, block) in group.iter().enumerate() {
                    for (half, x) in halves(simd, block).enumerate() {
                        // Of `f32` a half has sums of its own, of `f64` every other block.
                        let k = if T::PRODUCTS_FIT_F64 { half } else { i % 2 };
                        sum[k] = sum[k] + x;
                        squares[k] =
                            if T::PRODUCTS_FIT_F64 { x.mul_add_exact(x, squares[k]) } else { squares[k] + x * x };
                    }
                    let magnitude = Lanes::load(simd, block).abs();
                    largest = magnitude.larger(largest);
                    // The number before it; of 0 that is a NaN, and passed over.
                    before = magnitude.int_sub(one).smaller(before);
                    rows[i] = magnitude.shr(T::FRACTION_BITS).int_sub(lowest).bit();
                }
                counters.add(group_number, rows);
                group_number += 1;
            },
        );
        counters.finish();
        let before = before.fold(T::min);
        let seen = Self {
            sum: total(sum),
            squares: total(squares),
            smallest: if before.is_finite() { T::from_bits(before.to_bits() + 1) } else { before },
            largest: largest.fold(T::max),
        };
        (seen, counters)
    }

    /// Where the mean is large beside the deviation, from distances from the mean: they cancel little. If the mean is not
    /// known well enough for that, from the one that they give.
    #[inline(always)]
    fn sums<S: Simd<T>>(self, simd: S, x: &[T], exponent: i32) -> Sums {
        let (mut origin, mut distances, mut squares) = (0.0, self.sum, self.squares);
        let mut sums = Sums::new(x.len(), exponent, origin, distances, squares);
        for _ in 0..2 {
            if sums.squares >= squares * LEFT_OVER {
                break;
            }
            origin = sums.mean;
            [distances, squares] = distances_from(simd, x, origin);
            sums = Sums::new(x.len(), exponent, origin, distances, squares);
        }
        sums
    }
}

impl Sums {
    /// From the sums of distances from a number, and of their squares.
    fn new(count: usize, exponent: i32, origin: f64, distances: f64, squares: f64) -> Self {
        let shift = distances / count.max(1) as f64;
        let mean = origin + shift;
        Self { count, exponent, mean, rest: origin - mean + shift, squares: squares - distances * shift }
    }
}

/// If less of the squares of distances than this is left over by the distance of their origin from the mean, their
/// rounding errors show.
const LEFT_OVER: f64 = 1.0 / 16.0;

/// The sum of distances from a number, and of their squares.
#[inline(always)]
fn distances_from<T: Float, S: Simd<T>>(simd: S, x: &[T], origin: f64) -> [f64; 2] {
    let [mut distances, mut squares] = [[Lanes::zero(simd.wide()); 2]; 2];
    let (blocks, tail) = T::blocks(x);
    for block in blocks {
        for (i, x) in halves(simd, block).enumerate() {
            let distance = x - x.all(origin);
            distances[i] = distances[i] + distance;
            squares[i] = squares[i] + distance * distance;
        }
    }
    tail.iter().map(|&x| wide(x) - origin).fold([total(distances), total(squares)], |[distances, squares], distance| {
        [distances + distance, squares + distance * distance]
    })
}

/// The lanes of a block in `f64`. Those of `f64` itself are one half.
#[inline(always)]
fn halves<T: Float, S: Simd<T>>(simd: S, block: &T::Block) -> impl Iterator<Item = Lanes<f64, S::Wide>> {
    let [low, high] = simd.load_wide(block);
    [Lanes::new(simd.wide(), low), Lanes::new(simd.wide(), high)].into_iter().take(T::LANES / 8)
}

#[inline(always)]
fn total<S: Simd<f64>>([a, b]: [Lanes<f64, S>; 2]) -> f64 {
    (a + b).fold(
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Counts the exponents of a chunk. An element becomes a bit, whose place is its exponent.
///
/// Each bit of each lane has a counter, whose binary digits lie in as many rows: adding two elements takes one full adder.
/// Source: W. Muła, N. Kurz, D. Lemire, "Faster Population Counts Using AVX2 Instructions", The Computer Journal 61(1),
/// 2018.
struct Counters<T: Float, S: Simd<T>> {
    digits: [Lanes<T, S>; 11],
    /// Carries of the first two digits, which are added last.
    fours: [[Lanes<T, S>; 16]; 16],
}

impl<T: Float, S: Simd<T>> Counters<T, S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { digits: [Lanes::zero(simd); 11], fours: [[Lanes::zero(simd); 16]; 16] }
    }

    #[inline(always)]
    fn add(&mut self, group: usize, mut rows: [Lanes<T, S>; GROUP]) {
        self.fours[group / 16 % 16][group % 16] = add_rows(&mut rows, &mut self.digits[..2]);
    }

    #[inline(always)]
    fn finish(&mut self) {
        let digits = &mut self.digits;
        let mut carries = [digits[10]; 16];
        for (carry, fours) in carries.iter_mut().zip(&mut self.fours) {
            *carry = add_rows(fours, &mut digits[2..6]);
        }
        digits[10] = add_rows(&mut carries, &mut digits[6..10]);
    }

    /// How many elements were this bit.
    #[inline(always)]
    fn get(&self, bit: u32) -> u64 {
        let one = self.digits[0].all(T::from_bits(1));
        let mut counts = self.digits[0].all(T::zero());
        for digit in self.digits.iter().rev() {
            counts = counts.shl(1).int_add(digit.shr(bit) & one);
        }
        counts.store().as_ref().iter().map(|count| count.to_bits()).sum()
    }
}

/// Adds rows of bits, two to the power of how many digits there are, and returns what is carried.
#[inline(always)]
fn add_rows<T: Float, S: Simd<T>>(rows: &mut [Lanes<T, S>], digits: &mut [Lanes<T, S>]) -> Lanes<T, S> {
    let mut pairs = rows.len() / 2;
    for digit in digits {
        for i in 0..pairs {
            let (a, b) = (rows[2 * i], rows[2 * i + 1]);
            rows[i] = (a & b) | ((a | b) & *digit);
            *digit = a ^ b ^ *digit;
        }
        pairs /= 2;
    }
    rows[0]
}

/// How many exponents are counted at once.
const fn bits<T: Float>() -> usize {
    8 * size_of::<T>()
}

/// Where to begin to count, with as much room below these exponent fields as above.
fn around<T: Float>(first: usize, last: usize) -> usize {
    ((first + last + 1).saturating_sub(bits::<T>()) / 2).max(1)
}

/// The same for a tensor, judged by its first elements.
fn guess<T: Float>(x: &[T]) -> usize {
    let normal = || x.iter().take(64).filter(|x| x.is_normal()).map(|&x| field_of(x));
    around::<T>(normal().min().unwrap_or(1), normal().max().unwrap_or(1))
}

#[inline(always)]
fn field_of<T: Float>(x: T) -> usize {
    (x.to_bits() >> T::FRACTION_BITS) as usize & (2 * T::BIAS as usize + 1)
}

#[inline(always)]
fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().unwrap_or(f64::NAN)
}
