//! Maps over slices in blocks: the only file that knows of tails.

use crate::error::Result;
use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch};
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// Replaces the elements of `outputs` by `f(inputs, outputs)`, block by block. All slices have one length.
///
/// The lanes past the end of a tail repeat its first element, so they raise nothing that a real lane does not.
#[inline(always)]
pub(crate) fn sweep<T: Float, S: Simd<T>, const N: usize, const M: usize>(
    simd: S,
    inputs: [&[T]; N],
    mut outputs: [&mut [T]; M],
    mut f: impl FnMut([Lanes<T, S>; N], [Lanes<T, S>; M]) -> [Lanes<T, S>; M],
) {
    let (blocks, tails) = split(inputs);
    let (mut out_blocks, mut out_tails) = split_mut(&mut outputs);
    for i in 0..out_blocks[0].len() {
        let mut y = [Lanes::zero(simd); M];
        for (y, blocks) in y.iter_mut().zip(&out_blocks) {
            *y = Lanes::load(simd, &blocks[i]);
        }
        let result = f(load_each(simd, blocks, i), y);
        for (blocks, result) in out_blocks.iter_mut().zip(result) {
            blocks[i] = result.store();
        }
    }
    if !out_tails[0].is_empty() {
        let mut y = [Lanes::zero(simd); M];
        for (y, tail) in y.iter_mut().zip(&out_tails) {
            *y = load_tail(simd, tail, tail[0]);
        }
        let result = f(load_tails(simd, tails), y);
        for (tail, result) in out_tails.iter_mut().zip(result) {
            store_tail(result, tail);
        }
    }
}

/// Calls `f` with the blocks of slices of one length, as [`sweep`] does.
#[inline(always)]
fn read<T: Float, S: Simd<T>, const N: usize, const M: usize>(
    simd: S,
    x: [&[T]; N],
    y: [&[T]; M],
    mut f: impl FnMut([Lanes<T, S>; N], [Lanes<T, S>; M]),
) {
    let ((x_blocks, x_tails), (y_blocks, y_tails)) = (split(x), split(y));
    for i in 0..y_blocks[0].len() {
        f(load_each(simd, x_blocks, i), load_each(simd, y_blocks, i));
    }
    if !y_tails[0].is_empty() {
        f(load_tails(simd, x_tails), load_tails(simd, y_tails));
    }
}

// Loops here, not `array::map`: its machinery would be most of what the compiler has to go through.

/// The whole blocks of each slice, and the tails.
#[inline(always)]
pub(crate) fn split<T: Float, const N: usize>(x: [&[T]; N]) -> ([&[T::Block]; N], [&[T]; N]) {
    let mut blocks: [&[T::Block]; N] = [&[]; N];
    let mut tails: [&[T]; N] = [&[]; N];
    for k in 0..N {
        (blocks[k], tails[k]) = T::blocks(x[k]);
    }
    (blocks, tails)
}

/// The whole blocks of each slice, and the tails, to write.
fn split_mut<'a, T: Float, const M: usize>(y: &'a mut [&mut [T]; M]) -> ([&'a mut [T::Block]; M], [&'a mut [T]; M]) {
    let mut parts = y.each_mut().map(|y| T::blocks_mut(y));
    let blocks = parts.each_mut().map(|(blocks, _)| core::mem::take(blocks));
    (blocks, parts.map(|(_, tail)| tail))
}

/// Block `i` of each slice.
#[inline(always)]
pub(crate) fn load_each<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    x: [&[T::Block]; N],
    i: usize,
) -> [Lanes<T, S>; N] {
    let mut lanes = [Lanes::zero(simd); N];
    for (lanes, x) in lanes.iter_mut().zip(x) {
        *lanes = Lanes::load(simd, &x[i]);
    }
    lanes
}

/// The tails, filled up with their first elements.
#[inline(always)]
fn load_tails<T: Float, S: Simd<T>, const N: usize>(simd: S, tails: [&[T]; N]) -> [Lanes<T, S>; N] {
    let mut lanes = [Lanes::zero(simd); N];
    for (lanes, tail) in lanes.iter_mut().zip(tails) {
        *lanes = load_tail(simd, tail, tail[0]);
    }
    lanes
}

/// A tail, shorter than a block, with `fill` in the lanes past its end.
#[inline(always)]
pub(crate) fn load_tail<T: Float, S: Simd<T>>(simd: S, tail: &[T], fill: T) -> Lanes<T, S> {
    let mut block = T::fill(fill);
    block.as_mut()[..tail.len()].copy_from_slice(tail);
    Lanes::load(simd, &block)
}

/// Writes the first lanes to a tail.
#[inline(always)]
pub(crate) fn store_tail<T: Float, S: Simd<T>>(x: Lanes<T, S>, tail: &mut [T]) {
    tail.copy_from_slice(&x.store().as_ref()[..tail.len()]);
}

/// The first `len` lanes.
#[inline(always)]
pub(crate) fn first_lanes<T: Float, S: Simd<T>>(simd: S, len: usize) -> Mask<T, S> {
    let len = T::from(len).unwrap_or_else(T::infinity);
    Lanes::load(simd, &T::LANE_NUMBERS).lt(Lanes::splat(simd, len))
}

/// Calls `f` with each block of `x`, the tail filled up with `fill`.
#[inline(always)]
pub(crate) fn each_block<T: Float, S: Simd<T>>(simd: S, x: &[T], fill: T, mut f: impl FnMut(Lanes<T, S>)) {
    let (blocks, tail) = T::blocks(x);
    for block in blocks {
        f(Lanes::load(simd, block));
    }
    if !tail.is_empty() {
        f(load_tail(simd, tail, fill));
    }
}

/// Blocks that [`each_group`] hands out together.
pub(crate) const GROUP: usize = 4;

/// Calls `f` with each group of blocks of `x` and the number of its first block; what is missing in the last group is
/// `fill`.
#[inline(always)]
pub(crate) fn each_group<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    fill: T,
    mut f: impl FnMut(usize, [Lanes<T, S>; GROUP]),
) {
    let (blocks, tail) = T::blocks(x);
    let count = blocks.len() + usize::from(!tail.is_empty());
    for first in (0..count).step_by(GROUP) {
        let mut group = [Lanes::splat(simd, fill); GROUP];
        for (k, lanes) in group.iter_mut().enumerate() {
            if let Some(block) = blocks.get(first + k) {
                *lanes = Lanes::load(simd, block);
            } else if first + k == blocks.len() && !tail.is_empty() {
                *lanes = load_tail(simd, tail, fill);
            }
        }
        f(first, group);
    }
}

/// A formula that is applied to the elements of `N` slices, and changes those of `M`.
pub trait Formula<T: Float, const N: usize, const M: usize>: Copy + Send + Sync {
    /// The new elements, from those read and the old ones.
    fn apply<S: Simd<T>>(self, x: [Lanes<T, S>; N], y: [Lanes<T, S>; M], guard: &mut Guard<T, S>) -> [Lanes<T, S>; M];
}

/// Notes whether a formula came upon an operand that it is guarded against.
#[derive(Debug)]
pub struct Guard<T: Float, S: Simd<T>>(Lanes<T, S>);

impl<T: Float, S: Simd<T>> Guard<T, S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self(Lanes::zero(simd))
    }

    #[inline(always)]
    pub(crate) fn note(&mut self, guarded: Mask<T, S>) {
        self.0 = guarded.select(self.0.all(T::one()), self.0);
    }
}

/// The kernel of every elementwise operation. All slices have one length.
#[derive(Debug)]
pub struct Elementwise<'a, T, F, const N: usize, const M: usize> {
    pub(crate) formula: F,
    pub(crate) inputs: [&'a [T]; N],
    pub(crate) outputs: [&'a mut [T]; M],
}

/// What an elementwise operation tells of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// All that was written is finite.
    pub(crate) finite: bool,
    /// The guard was needed.
    pub(crate) guarded: bool,
}

impl Seen {
    #[inline(always)]
    fn new<T: Float, S: Simd<T>>(watch: Watch<T, S>, guard: Guard<T, S>) -> Self {
        Self { finite: watch.all_finite(), guarded: (!guard.0.eq(guard.0.all(T::zero()))).any() }
    }
}

impl Join for Seen {
    fn join(self, b: Self) -> Self {
        Self { finite: self.finite && b.finite, guarded: self.guarded || b.guarded }
    }
}

impl<T: Float, F: Formula<T, N, M>, const N: usize, const M: usize> Kernel for Elementwise<'_, T, F, N, M> {
    type Elem = T;
    type Output = Seen;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Seen {
        let (mut watch, mut guard) = (Watch::new(simd), Guard::new(simd));
        sweep(
            simd,
            self.inputs,
            self.outputs,
            #[inline(always)]
            |x, y| {
                let result = self.formula.apply(x, y, &mut guard);
                for y in result {
                    watch.see(y);
                }
                result
            },
        );
        Seen::new(watch, guard)
    }

    fn work(&self) -> usize {
        self.outputs[0].len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { formula, inputs, outputs } = self;
        let at = outputs[0].len() / 2;
        let mut halves = outputs.map(|y| y.split_at_mut(at));
        let outputs = halves.each_mut().map(|(first, _)| core::mem::take(first));
        let rest = halves.map(|(_, second)| second);
        let first = Self { formula, inputs: inputs.map(|x| &x[..at]), outputs };
        Ok((first, Self { formula, inputs: inputs.map(|x| &x[at..]), outputs: rest }))
    }
}

/// The same, but nothing is written: what [`Elementwise`] would tell.
#[derive(Debug)]
pub struct Rehearsal<'a, T, F, const N: usize, const M: usize> {
    formula: F,
    inputs: [&'a [T]; N],
    outputs: [&'a [T]; M],
}

impl<T: Float, F: Formula<T, N, M>, const N: usize, const M: usize> Kernel for Rehearsal<'_, T, F, N, M> {
    type Elem = T;
    type Output = Seen;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Seen {
        let (mut watch, mut guard) = (Watch::new(simd), Guard::new(simd));
        read(
            simd,
            self.inputs,
            self.outputs,
            #[inline(always)]
            |x, y| {
                for y in self.formula.apply(x, y, &mut guard) {
                    watch.see(y);
                }
            },
        );
        Seen::new(watch, guard)
    }

    fn work(&self) -> usize {
        self.outputs[0].len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { formula, inputs, outputs } = self;
        let at = outputs[0].len() / 2;
        let first = Self { formula, inputs: inputs.map(|x| &x[..at]), outputs: outputs.map(|y| &y[..at]) };
        Ok((first, Self { formula, inputs: inputs.map(|x| &x[at..]), outputs: outputs.map(|y| &y[at..]) }))
    }
}

/// The kernel of a function of one operand, `y = f(x)`; of `y` itself where there is no `x`. Both have one length.
///
/// There is one loop for blocks and tail, because the compiler has many functions to go through in it.
#[derive(Debug)]
pub struct Map<'a, T, F> {
    formula: F,
    x: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Float, F: Formula<T, 0, 1>> Kernel for Map<'_, T, F> {
    type Elem = T;
    type Output = Seen;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Seen {
        let (mut watch, mut guard) = (Watch::new(simd), Guard::new(simd));
        for start in (0..self.y.len()).step_by(T::LANES) {
            let x = match T::blocks(&self.x.unwrap_or(self.y)[start..]) {
                ([block, ..], _) => Lanes::load(simd, block),
                ([], tail) => load_tail(simd, tail, tail[0]),
            };
            let [y] = self.formula.apply([], [x], &mut guard);
            watch.see(y);
            match T::blocks_mut(&mut self.y[start..]) {
                ([block, ..], _) => *block = y.store(),
                ([], tail) => store_tail(y, tail),
            }
        }
        Seen::new(watch, guard)
    }

    fn work(&self) -> usize {
        self.y.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { formula, x, y } = self;
        let at = y.len() / 2;
        let (first, rest) = y.split_at_mut(at);
        Ok((Self { formula, x: x.map(|x| &x[..at]), y: first }, Self { formula, x: x.map(|x| &x[at..]), y: rest }))
    }
}

/// Applies a function of one operand, in place where there is no `x`.
pub(crate) fn map<'a, T, F>(formula: F, x: Option<&'a [T]>, y: &'a mut [T]) -> Result<Seen>
where
    F: Formula<T, 0, 1>,
    T: Float + Runs<Map<'a, T, F>>,
{
    launch(Map { formula, x, y })
}

/// Applies a formula to slices of one length.
pub(crate) fn apply<'a, T, F: Formula<T, N, M>, const N: usize, const M: usize>(
    formula: F,
    inputs: [&'a [T]; N],
    outputs: [&'a mut [T]; M],
) -> Result<Seen>
where
    T: Float + Runs<Elementwise<'a, T, F, N, M>>,
{
    launch(Elementwise { formula, inputs, outputs })
}

/// What [`apply`] would tell.
pub(crate) fn rehearse<'a, T, F: Formula<T, N, M>, const N: usize, const M: usize>(
    formula: F,
    inputs: [&'a [T]; N],
    outputs: [&'a [T]; M],
) -> Result<Seen>
where
    T: Float + Runs<Rehearsal<'a, T, F, N, M>>,
{
    launch(Rehearsal { formula, inputs, outputs })
}

/// Applies a formula in place if all that it would write is finite, and else leaves everything as it was.
pub(crate) fn apply_if_finite<T, F: Formula<T, N, M>, const N: usize, const M: usize>(
    formula: F,
    inputs: [&[T]; N],
    mut outputs: [&mut [T]; M],
) -> Result<Seen>
where
    T: Float + for<'a> Runs<Elementwise<'a, T, F, N, M>> + for<'a> Runs<Rehearsal<'a, T, F, N, M>>,
{
    let seen = rehearse(formula, inputs, outputs.each_ref().map(|y| &**y))?;
    if seen.finite {
        apply(formula, inputs, outputs.each_mut().map(|y| &mut **y))?;
    }
    Ok(seen)
}
