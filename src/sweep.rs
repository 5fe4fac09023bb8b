//! Maps over slices in blocks, and their tails. Kernels that are called for short rows take care of their own, with
//! [`load_tail`] and [`store_tail`].

use crate::error::Result;
use crate::finite::Watch;
use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel, Runs, launch, outline_rare};
use crate::lanes::{Lanes, Mask};
use crate::simd::{Pair, Simd};

/// A slice in groups of `G` blocks, in two parts: the whole groups, where they lie, and what is left over.
///
/// What is left over, if anything is, is copied to a group of its own, the [`Rest`], and what is missing there filled up;
/// a tail shorter than a block is its last block. A loop over the parts around a loop over the groups then sees every
/// element, and its body is compiled once. That group is the caller's: moved with the slices it would be copied again and
/// again.
#[derive(Clone, Copy)]
struct Groups<'a, T: Float, const G: usize> {
    whole: &'a [[T::Block; G]],
    left_over: &'a [T],
}

/// The same, to write to. What was written to the group that is left over is written to the slice by [`Self::finish`].
struct GroupsMut<'a, T: Float, const G: usize> {
    whole: &'a mut [[T::Block; G]],
    left_over: &'a mut [T],
}

/// See [`Groups`].
type Rest<T, const G: usize> = Option<[<T as Format>::Block; G]>;

/// What stands for the elements that are missing in a [`Rest`].
#[derive(Clone, Copy)]
enum Missing<T> {
    Is(T),
    /// The first element that is left over: it raises nothing that this one does not.
    First,
}

/// How many elements whole groups take.
#[inline(always)]
fn in_whole_groups<T: Float, const G: usize>(len: usize) -> usize {
    len / (G * T::LANES) * (G * T::LANES)
}

impl<'a, T: Float, const G: usize> Groups<'a, T, G> {
    #[inline(always)]
    fn new(x: &'a [T]) -> Self {
        let (whole, left_over) = x.split_at(in_whole_groups::<T, G>(x.len()));
        Self { whole: T::blocks(whole).0.as_chunks().0, left_over }
    }

    #[inline(always)]
    fn new_each<const N: usize>(x: [&'a [T]; N]) -> [Self; N] {
        let mut groups = [Self { whole: &[], left_over: &[] }; N];
        for (groups, x) in groups.iter_mut().zip(x) {
            *groups = Self::new(x);
        }
        groups
    }

    #[inline(always)]
    fn copy_rest<S: Simd<T>>(self, simd: S, missing: Missing<T>, rest: &mut Rest<T, G>) {
        if !self.left_over.is_empty() {
            outline_rare(simd, CopyRest { left_over: self.left_over, missing, rest });
        }
    }

    /// How many groups there are, with what is left over.
    #[inline(always)]
    fn len(&self) -> usize {
        self.whole.len() + usize::from(!self.left_over.is_empty())
    }

    #[inline(always)]
    fn group<'s>(&self, i: usize, rest: &'s Rest<T, G>) -> &'s [T::Block]
    where
        'a: 's,
    {
        self.whole.get(i).or(rest.as_ref()).map_or(&[], |group| group.as_slice())
    }

    #[inline(always)]
    fn part<'s>(self, part: usize, rest: &'s Rest<T, G>) -> &'s [[T::Block; G]]
    where
        'a: 's,
    {
        if part == 0 { self.whole } else { rest.as_slice() }
    }
}

impl<'a, T: Float, const G: usize> GroupsMut<'a, T, G> {
    #[inline(always)]
    fn new(x: &'a mut [T]) -> Self {
        let (whole, left_over) = x.split_at_mut(in_whole_groups::<T, G>(x.len()));
        Self { whole: T::blocks_mut(whole).0.as_chunks_mut().0, left_over }
    }

    #[inline(always)]
    fn part<'s>(&'s mut self, part: usize, rest: &'s mut Rest<T, G>) -> &'s mut [[T::Block; G]] {
        if part == 0 { self.whole } else { rest.as_mut_slice() }
    }

    #[inline(always)]
    fn finish<S: Simd<T>>(&mut self, simd: S, rest: &Rest<T, G>) {
        if let Some(rest) = rest {
            outline_rare(simd, CopyBack { rest, left_over: self.left_over });
        }
    }
}

// Functions of their own: in the functions that sweep they would take the registers, and the compiler's time. Rare, so that
// registers are saved where they are called and not in the loops beside them. They write whole vectors: to read one that
// was written in pieces takes longer than all the rest.

/// See [`Groups::copy_rest`].
struct CopyRest<'a, T: Float, const G: usize> {
    left_over: &'a [T],
    missing: Missing<T>,
    rest: &'a mut Rest<T, G>,
}

impl<T: Float, const G: usize> Kernel for CopyRest<'_, T, G> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { left_over, missing, rest } = self;
        let fill = match missing {
            Missing::Is(fill) => fill,
            Missing::First => left_over[0],
        };
        let rest = rest.insert([T::fill(fill); G]);
        let (blocks, tail) = T::blocks(left_over);
        for (place, block) in rest.iter_mut().zip(blocks) {
            *place = *block;
        }
        if !tail.is_empty() {
            rest[G - 1] = load_tail(simd, tail, fill).store();
        }
    }
}

/// See [`GroupsMut::finish`].
struct CopyBack<'a, T: Float> {
    rest: &'a [T::Block],
    left_over: &'a mut [T],
}

impl<T: Float> Kernel for CopyBack<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let (blocks, tail) = T::blocks_mut(self.left_over);
        for (block, result) in blocks.iter_mut().zip(self.rest) {
            *block = *result;
        }
        if let Some(last) = self.rest.last()
            && !tail.is_empty()
        {
            store_tail(Lanes::load(simd, last), tail);
        }
    }
}

/// The two parts of slices in groups.
const PARTS: [usize; 2] = [0, 1];

// Loops below where they will do, not `array::map`: its machinery is much for the compiler to go through.

/// One part of each slice.
#[inline(always)]
fn parts<'a, T: Float, const N: usize, const G: usize>(
    x: &[Groups<'a, T, G>; N],
    part: usize,
    rest: &'a [Rest<T, G>; N],
) -> [&'a [[T::Block; G]]; N] {
    let mut parts: [&[[T::Block; G]]; N] = [&[]; N];
    for ((groups, x), rest) in parts.iter_mut().zip(x).zip(rest) {
        *groups = x.part(part, rest);
    }
    parts
}

/// Block `i` of each slice.
#[inline(always)]
fn load_each<T: Float, S: Simd<T>, const N: usize>(simd: S, x: &[&[[T::Block; 1]]; N], i: usize) -> [Lanes<T, S>; N] {
    let mut lanes = [Lanes::zero(simd); N];
    for (lanes, x) in lanes.iter_mut().zip(x) {
        let [block] = &x[i];
        *lanes = Lanes::load(simd, block);
    }
    lanes
}

/// Replaces the elements of `outputs` by `f(inputs, outputs)`, block by block. All slices have one length.
///
/// The lanes past the end of a tail repeat its first element, so they raise nothing that a real lane does not.
#[inline(always)]
pub(crate) fn sweep<T: Float, S: Simd<T>, const N: usize, const M: usize>(
    simd: S,
    inputs: [&[T]; N],
    outputs: [&mut [T]; M],
    mut f: impl FnMut([Lanes<T, S>; N], [Lanes<T, S>; M]) -> [Lanes<T, S>; M],
) {
    let x = Groups::new_each(inputs);
    let mut x_rests = [None; N];
    for (x, rest) in x.iter().zip(&mut x_rests) {
        x.copy_rest(simd, Missing::First, rest);
    }
    let mut y_rests = [None; M];
    for (y, rest) in outputs.iter().zip(&mut y_rests) {
        Groups::new(y).copy_rest(simd, Missing::First, rest);
    }
    let mut y = outputs.map(GroupsMut::new);
    for part in PARTS {
        let x = parts(&x, part, &x_rests);
        let mut rests = y_rests.iter_mut();
        let mut y = y.each_mut().map(
            #[inline(always)]
            |y| y.part(part, rests.next().expect("one for each")),
        );
        for i in 0..y[0].len() {
            let mut old = [Lanes::zero(simd); M];
            for (old, y) in old.iter_mut().zip(&y) {
                let [block] = &y[i];
                *old = Lanes::load(simd, block);
            }
            for (y, new) in y.iter_mut().zip(f(load_each(simd, &x, i), old)) {
                y[i] = [new.store()];
            }
        }
    }
    for (y, rest) in y.iter_mut().zip(&y_rests) {
        y.finish(simd, rest);
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
    let (x, y) = (Groups::new_each(x), Groups::new_each(y));
    let (mut x_rests, mut y_rests) = ([None; N], [None; M]);
    for (slice, rest) in x.iter().zip(&mut x_rests).chain(y.iter().zip(&mut y_rests)) {
        slice.copy_rest(simd, Missing::First, rest);
    }
    for part in PARTS {
        let (x, y) = (parts(&x, part, &x_rests), parts(&y, part, &y_rests));
        for i in 0..y[0].len() {
            f(load_each(simd, &x, i), load_each(simd, &y, i));
        }
    }
}

/// Calls `f` with each block of `x`, the tail filled up with `fill`.
#[inline(always)]
pub(crate) fn each_block<T: Float, S: Simd<T>>(simd: S, x: &[T], fill: T, mut f: impl FnMut(Lanes<T, S>)) {
    let x = Groups::new(x);
    let mut rest = None;
    x.copy_rest(simd, Missing::Is(fill), &mut rest);
    for part in PARTS {
        for [block] in x.part(part, &rest) {
            f(Lanes::load(simd, block));
        }
    }
}

/// Blocks that [`each_group`] hands out together.
pub(crate) const GROUP: usize = 4;

/// Calls `f` with each group of blocks of slices of one length, where they lie; what is missing in the last group is `fill`.
#[inline(always)]
pub(crate) fn each_group_in_place<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    fill: T,
    mut f: impl FnMut([&[T::Block; GROUP]; N]),
) {
    let x = Groups::<T, GROUP>::new_each(inputs);
    let mut rests = [None; N];
    for (x, rest) in x.iter().zip(&mut rests) {
        x.copy_rest(simd, Missing::Is(fill), rest);
    }
    for i in 0..x[0].len() {
        let groups = core::array::from_fn(
            #[inline(always)]
            |k| x[k].whole.get(i).or(rests[k].as_ref()),
        );
        if groups.iter().all(Option::is_some) {
            f(groups.map(
                #[inline(always)]
                |group| group.expect("there is one"),
            ));
        }
    }
}

/// Calls `f` with each group of blocks of a slice, where they lie; what is missing in the last group is `fill`.
///
/// Four places are read in turn: a core that reads at one place alone waits for memory.
#[inline(always)]
pub(crate) fn each_group_in_turn<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    fill: T,
    mut f: impl FnMut(&[T::Block; GROUP]),
) {
    let x = Groups::<T, GROUP>::new(x);
    let mut rest = None;
    x.copy_rest(simd, Missing::Is(fill), &mut rest);
    let quarter = x.whole.len() / 4;
    let [a, b, c, d] = [0, 1, 2, 3].map(|place| &x.whole[place * quarter..][..quarter]);
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        f(a);
        f(b);
        f(c);
        f(d);
    }
    for group in x.whole[4 * quarter..].iter().chain(&rest) {
        f(group);
    }
}

/// Calls `f` with each group of blocks of the first slice, and those of others as long or empty; what is missing is `fill`,
/// and a tail is the last block of its group.
#[inline(always)]
pub(crate) fn each_group<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    fill: T,
    mut f: impl FnMut([[Lanes<T, S>; N]; GROUP]),
) {
    let x = Groups::<T, GROUP>::new_each(inputs);
    let mut rests = [None; N];
    for (x, rest) in x.iter().zip(&mut rests) {
        x.copy_rest(simd, Missing::Is(fill), rest);
    }
    for i in 0..x[0].len() {
        let mut group = [[Lanes::splat(simd, fill); N]; GROUP];
        for ((x, rest), k) in x.iter().zip(&rests).zip(0..) {
            for (lanes, block) in group.iter_mut().zip(x.group(i, rest)) {
                lanes[k] = Lanes::load(simd, block);
            }
        }
        f(group);
    }
}

/// Replaces the elements of `output` by `f(input)` or, if it is empty, calls `f` alone, group by group as
/// [`each_group`].
#[inline(always)]
pub(crate) fn sweep_groups<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    fill: T,
    output: &mut [T],
    mut f: impl FnMut([[Lanes<T, S>; N]; GROUP]) -> [Lanes<T, S>; GROUP],
) {
    let mut y = GroupsMut::<T, GROUP>::new(output);
    let (mut i, mut y_rest) = (0, None);
    if !y.left_over.is_empty() {
        y_rest = Some([T::fill(fill); GROUP]);
    }
    each_group(
        simd,
        inputs,
        fill,
        #[inline(always)]
        |x| {
            let result = f(x);
            if let Some(y) = y.whole.get_mut(i).or(y_rest.as_mut()) {
                for (block, result) in y.iter_mut().zip(result) {
                    *block = result.store();
                }
            }
            i += 1;
        },
    );
    y.finish(simd, &y_rest);
}

/// Replaces the elements of a row by `f` of them. The tail stays in registers: in a short row most of the time would go to
/// copying it. `f` is compiled twice, so it is for short ones.
#[inline(always)]
pub(crate) fn map_row<T: Float, S: Simd<T>>(simd: S, y: &mut [T], f: impl Fn(Lanes<T, S>) -> Lanes<T, S>) {
    let (blocks, tail) = T::blocks_mut(y);
    for block in blocks {
        *block = f(Lanes::load(simd, block)).store();
    }
    if !tail.is_empty() {
        store_tail(f(load_tail(simd, tail, T::zero())), tail);
    }
}

/// A tail, shorter than a block, with `fill` in the lanes past its end.
#[inline(always)]
pub(crate) fn load_tail<T: Float, S: Simd<T>>(simd: S, tail: &[T], fill: T) -> Lanes<T, S> {
    let lanes = Lanes::new(simd, simd.load_tail(tail));
    if fill.is_zero() { lanes } else { Mask::first(simd, tail.len()).select(lanes, Lanes::splat(simd, fill)) }
}

/// Writes the first lanes to a tail.
#[inline(always)]
pub(crate) fn store_tail<T: Float, S: Simd<T>>(x: Lanes<T, S>, tail: &mut [T]) {
    x.simd.store_tail(x.vector, tail);
}

/// The first `len` elements of a slice, a block at the most, and zeros in the lanes past them. The elements there are not
/// looked at, but faster to load than to avoid.
#[inline(always)]
pub(crate) fn load_first<T: Float, S: Simd<T>>(simd: S, x: &[T], len: usize) -> Lanes<T, S> {
    match T::blocks(x).0.first() {
        Some(block) if len == T::LANES => Lanes::load(simd, block),
        Some(block) => Mask::first(simd, len).select(Lanes::load(simd, block), Lanes::zero(simd)),
        None => load_tail(simd, &x[..len], T::zero()),
    }
}

/// Writes the first `len` lanes to a slice and leaves the elements past them as they are.
#[inline(always)]
pub(crate) fn store_first<T: Float, S: Simd<T>>(x: Lanes<T, S>, place: &mut [T], len: usize) {
    match T::blocks_mut(place).0.first_mut() {
        Some(block) if len == T::LANES => *block = x.store(),
        Some(block) => *block = Mask::first(x.simd, len).select(x, Lanes::load(x.simd, block)).store(),
        None => store_tail(x, &mut place[..len]),
    }
}

/// A formula that is applied to the elements of `N` slices, and changes those of `M`.
pub trait Formula<T: Float, const N: usize, const M: usize>: Copy + Send + Sync {
    /// The new elements, from those read and the old ones.
    fn apply<S: Simd<T>>(self, x: [Lanes<T, S>; N], y: [Lanes<T, S>; M], guard: &mut Guard<T, S>) -> [Lanes<T, S>; M];
}

/// Counts the operands that a formula is guarded against.
#[derive(Debug)]
pub struct Guard<T: Float, S: Simd<T>> {
    /// Integers, one a lane, that no slice is long enough to overflow: one of `f32` would be of 256 GiB.
    counts: Lanes<T, S>,
    /// What the last block added.
    last: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Guard<T, S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { counts: Lanes::zero(simd), last: Lanes::zero(simd) }
    }

    /// Adds the lanes that are guarded, once for every block.
    #[inline(always)]
    pub(crate) fn note(&mut self, guarded: Mask<T, S>) {
        self.last = guarded.select(self.last.all(T::from_bits(1)), Lanes::zero(self.last.simd));
        self.counts = self.counts.int_add(self.last);
    }

    /// The count over a slice of `len` elements: without the lanes past its end, which repeat the first one of the last
    /// block.
    #[expect(clippy::cast_possible_truncation, reason = "no more than the elements")]
    #[inline(always)]
    fn count(self, len: usize) -> usize {
        let past_the_end = len.next_multiple_of(T::LANES) - len;
        let counted: u64 = self.counts.store().as_ref().iter().map(|count| count.to_bits()).sum();
        counted as usize - past_the_end * self.last.first().to_bits() as usize
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
    /// How often the guard was needed.
    pub(crate) guarded: usize,
}

impl Join for Seen {
    fn join(self, b: Self) -> Self {
        Self { finite: self.finite && b.finite, guarded: self.guarded + b.guarded }
    }
}

impl<T: Float, F: Formula<T, N, M>, const N: usize, const M: usize> Kernel for Elementwise<'_, T, F, N, M> {
    type Elem = T;
    type Output = Seen;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Seen {
        let (mut watch, mut guard) = (Watch::new(simd), Guard::new(simd));
        let len = self.outputs[0].len();
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
        Seen { finite: watch.all_finite(), guarded: guard.count(len) }
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
        let len = self.outputs[0].len();
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
        Seen { finite: watch.all_finite(), guarded: guard.count(len) }
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

/// A group of blocks side by side.
type Group<T, S> = Lanes<T, Pair<Pair<S>>>;

#[inline(always)]
fn load_group<T: Float, S: Simd<T>>(simd: S, [a, b, c, d]: &[T::Block; GROUP]) -> Group<T, S> {
    Lanes::new(Pair(Pair(simd)), [[simd.load(a), simd.load(b)], [simd.load(c), simd.load(d)]])
}

/// The blocks of a group, one by one.
#[inline(always)]
fn blocks_of<T: Float, S: Simd<T>>(simd: S, group: Group<T, S>) -> [Lanes<T, S>; GROUP] {
    let [[a, b], [c, d]] = group.vector;
    [Lanes::new(simd, a), Lanes::new(simd, b), Lanes::new(simd, c), Lanes::new(simd, d)]
}

/// The kernel of a function of one operand, `y = f(x)`; of `y` itself where there is no `x`. Both have one length.
///
/// The output is whether all results are finite.
///
/// There is one loop for blocks and tail, because the compiler has many functions to go through in it; groups of blocks
/// go side by side, because every function is a long chain of steps that wait for one another.
#[derive(Debug)]
pub struct Map<'a, T, F> {
    formula: F,
    x: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Float, F: Formula<T, 0, 1>> Kernel for Map<'_, T, F> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { formula, x, y } = self;
        let (mut watch, mut guard) = (Watch::new(simd), Guard::new(Pair(Pair(simd))));
        let mut rest: Rest<T, GROUP> = None;
        Groups::new(x.unwrap_or(y)).copy_rest(simd, Missing::First, &mut rest);
        let x = x.map(Groups::new);
        let mut y = GroupsMut::new(y);
        for part in PARTS {
            // What is left over is mapped in place.
            let (x, y) = match x {
                Some(x) if part == 0 => (Some(x.whole), &mut *y.whole),
                _ => (None, y.part(part, &mut rest)),
            };
            for i in 0..y.len() {
                let group = x.map_or(&y[i], |x| &x[i]);
                let [result] = formula.apply([], [load_group(simd, group)], &mut guard);
                let result = blocks_of(simd, result);
                for (y, result) in y[i].iter_mut().zip(result) {
                    watch.see(result);
                    *y = result.store();
                }
            }
        }
        y.finish(simd, &rest);
        watch.all_finite()
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

/// Applies a function of one operand, in place where there is no `x`, and says whether all results are finite.
pub(crate) fn map<'a, T, F>(formula: F, x: Option<&'a [T]>, y: &'a mut [T]) -> Result<bool>
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
