//! The loops of the matrix product, `C = f(alpha A B + old)`, for a C whose rows or columns are contiguous.
//!
//! ```text
//! for columns of B that fit the L2 cache together with their k-block     (SLAB_LINES)
//!   for k-blocks                                                         (Float::K_BLOCK)
//!     pack that part of B, unless it is as good where it is              (Access: or the first tiles pack it)
//!     for rows of A, a register tile at a time                           (ROWS, MID or LOW)
//!       pack them, unless they are as good where they are                (left::LeftSide)
//!       for columns of that part of B, a register tile at a time         (BLOCKS): micro::chains, then store
//! ```
//!
//! A product of one row goes through B once, without a tile: `gemv`. One of few rows with a large B reads it in long
//! pieces: `thin`. One of few columns and a short `k` needs no tiles: `narrow`. Others of few columns are computed by
//! halves of tiles, or where tiles have none as their transpose, so that the lanes run along the rows, and turned where
//! they are written ([`Target::Columns`]).
//!
//! What an element is made of depends on `k` alone: in a k-block one ascending chain of fused multiply-adds from +0,
//! and `c = alpha * chain + old` for the first block, `c = alpha * chain + c` for the others. Tiles, packing and
//! threads only move data.

use core::ops::Range;

mod gemv;
mod left;
mod micro;
mod narrow;
mod pack;
mod scratch;
mod target;
mod thin;

pub(crate) use scratch::{HasScratch, keep_lists, lend_lists, take_lists};
pub(crate) use target::Target;

use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::{Kernel, outline};
use crate::lanes::Lanes;
use crate::ops::linear::Activation;
use crate::simd::{Simd, Tiled};
use crate::sweep::{load_first, store_first};
use crate::view::{MatMut, MatRef};
use left::{LeftSide, reads_little};
use micro::{Left, Right, Sums, chains, no_sums, of_depth};
use narrow::Narrow;
use pack::pack_panels;

/// Lines of tiles of B that are packed together: half of the L2 cache of the CPUs that a tile of one block (AVX2: 512 KiB)
/// or two (AVX-512: 1 MiB) is meant for.
const SLAB_LINES: usize = 8 * 512;

/// Lines of B that are read together from memory: a core that reads one alone waits.
const STREAMS: usize = 8;

/// Columns are split over threads at multiples of this, the widest tile.
const COLUMNS_CUT: usize = 32;

/// Rows of A below which packing B does not pay.
const DIRECT_ROWS: usize = 64;

/// Rows of A, for each block of a tile, up to which a large B is read once and as it lies.
const THIN_ROWS: usize = 48;

/// Elements of B beyond which it does not stay in the L2 cache.
const LARGE: usize = 1 << 18;

/// Elements of a k-block of B that is read where it is.
const DIRECT_AREA: usize = 1 << 15;

/// The same, where blocks lie in two cache lines each.
const UNALIGNED_AREA: usize = 3 << 12;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The kernel of the matrix product; whether all of `alpha A B + old` is finite. Neither `k` nor `alpha` is 0.
#[derive(Debug)]
pub struct Gemm<'a, T> {
    pub(crate) alpha: T,
    pub(crate) a: MatRef<'a, T>,
    pub(crate) b: MatRef<'a, T>,
    pub(crate) old: Old<'a, T>,
    pub(crate) c: Target<'a, T>,
    /// What becomes of the sums at the end.
    pub(crate) activation: Activation,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Old<'a, T> {
    /// C times a factor; with 0, C is not read.
    Scaled(T),
    /// The same row for every row of C.
    Row(&'a [T]),
    /// The same column for every column of C.
    Column(&'a [T]),
}

impl<T> Old<'_, T> {
    /// What it is to the transpose of C.
    pub(crate) fn t(self) -> Self {
        match self {
            Self::Scaled(beta) => Self::Scaled(beta),
            Self::Row(row) => Self::Column(row),
            Self::Column(column) => Self::Row(column),
        }
    }
}

impl<T: Float> Kernel for Gemm<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        simd.with_tile(self)
    }

    fn work(&self) -> usize {
        (self.c.rows().saturating_mul(self.c.cols()) / 32).saturating_mul(self.a.cols())
    }

    /// By columns where there are many: two threads then pack different parts of B.
    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { alpha, a, b, old, c, activation } = self;
        let (rows, cols) = (c.rows(), c.cols());
        if cols >= 4 * COLUMNS_CUT && cols >= rows / 4 {
            let at = (cols / 2).next_multiple_of(COLUMNS_CUT);
            let (c, c2) = c.split_cols(at);
            let (b, b2) = (b.t().rows_before(at).t(), b.t().rows_from(at).t());
            let (old, old2) = match old {
                Old::Row(row) => (Old::Row(&row[..at]), Old::Row(&row[at..])),
                same => (same, same),
            };
            Ok((Self { alpha, a, b, old, c, activation }, Self { alpha, a, b: b2, old: old2, c: c2, activation }))
        } else {
            match c.halve_rows() {
                Ok((c, c2)) => {
                    let at = c.rows();
                    let (a, a2) = (a.rows_before(at), a.rows_from(at));
                    let (old, old2) = match old {
                        Old::Column(column) => (Old::Column(&column[..at]), Old::Column(&column[at..])),
                        same => (same, same),
                    };
                    Ok((
                        Self { alpha, a, b, old, c, activation },
                        Self { alpha, a: a2, b, old: old2, c: c2, activation },
                    ))
                }
                Err(c) => Err(Self { alpha, a, b, old, c, activation }),
            }
        }
    }
}

impl<'a, T: Float> Gemm<'a, T> {
    /// What happens to the sums of the k-block at `start`.
    #[inline(always)]
    fn store(&self, start: usize) -> Store<'a, T> {
        Store { alpha: self.alpha, old: if start == 0 { self.old } else { Old::Scaled(T::one()) } }
    }

    /// How the tiles come to B. One that lies in memory is packed first: in pieces that are long, and not in those of tiles.
    #[inline(always)]
    fn access(&self) -> Access {
        let area = if is_aligned(self.b) { DIRECT_AREA } else { UNALIGNED_AREA };
        if !is_direct(self.b) {
            Access::Packed
        } else if self.c.rows() < DIRECT_ROWS || self.b.cols() * self.b.rows().min(T::K_BLOCK) <= area {
            Access::InPlace
        } else if self.b.area() <= LARGE {
            Access::Copied
        } else {
            Access::Packed
        }
    }

    /// Multiplies a part of B with all rows of A; whether what is written is finite.
    #[inline(always)]
    fn pass<S: Simd<T>, const ROWS: usize, const MID: usize, const LOW: usize, const BLOCKS: usize>(
        &mut self,
        simd: S,
        place: Place,
        access: Access,
        left: &mut [T],
        right: &mut [T],
    ) -> bool {
        let b = self.b.window(place.lines.clone(), place.cols.clone());
        let (slab, rows) = (Slab::new::<S, BLOCKS>(simd, b, access, right), self.c.rows());
        let a = self.a.window(0..rows, place.lines.clone());
        let left = LeftSide::new(a, reads_little::<T, BLOCKS>(slab.b.cols()), left);
        each_band::<_, S, ROWS, MID, LOW>(simd, rows, &mut Pass::<T, BLOCKS> { gemm: self, left, slab, place })
    }

    /// Applies the activation to columns of C, which are in the cache still.
    #[inline(always)]
    fn activate<S: Simd<T>>(&mut self, simd: S, cols: Range<usize>) {
        if self.activation != Activation::Identity {
            outline(simd, Activate { activation: self.activation, c: &mut self.c, cols });
        }
    }
}

/// The activation of columns of C.
struct Activate<'s, 'a, T> {
    activation: Activation,
    c: &'s mut Target<'a, T>,
    cols: Range<usize>,
}

impl<T: Float> Kernel for Activate<'_, '_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { activation, c, cols } = self;
        c.each_part(
            cols,
            #[inline(always)]
            |part| {
                activation.apply_row(simd, part);
            },
        );
    }
}

impl<T: Float> Tiled<T> for Gemm<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>, const ROWS: usize, const MID: usize, const LOW: usize, const BLOCKS: usize>(
        mut self,
        simd: S,
    ) -> bool {
        if self.c.rows() == 1 && self.c.has_rows() && gemv::fits(self.b) {
            return gemv::row(simd, &mut self);
        }
        if self.c.rows() <= THIN_ROWS * BLOCKS && self.c.has_rows() && is_direct(self.b) && self.b.area() > LARGE {
            return thin::multiply::<T, S, ROWS, MID, LOW, BLOCKS>(simd, &mut self);
        }
        if Narrow::<T, MID, 1>(&mut self).fits() {
            return outline(simd, Narrow::<T, MID, 1>(&mut self));
        }
        if BLOCKS > 1 && Narrow::<T, MID, BLOCKS>(&mut self).fits() {
            return outline(simd, Narrow::<T, MID, BLOCKS>(&mut self));
        }
        // As many registers hold sums as those of the largest tile.
        if BLOCKS > 1 && Narrow::<T, MID, 3>(&mut self).fits() {
            return outline(simd, Narrow::<T, MID, 3>(&mut self));
        }
        let widest = BLOCKS * T::LANES;
        let (n, depth) = (self.c.cols(), self.a.cols().min(T::K_BLOCK));
        let access = self.access();
        let in_place = access == Access::InPlace;
        // Columns at the end that fit half a tile are computed by halves of tiles.
        let narrow = if n % widest <= T::LANES { n % widest } else { 0 };
        let step = if in_place { n } else { SLAB_LINES / T::K_BLOCK * widest };
        let last = if narrow > 0 { T::LANES } else { widest };
        let packed_cols = if in_place { n % last } else { step.min(n) };
        let left_len = LeftSide::packed_len::<ROWS>(self.a, depth, reads_little::<T, BLOCKS>(n));
        let right_len = packed_cols.next_multiple_of(widest) * depth;
        let mut scratch = (left_len + right_len > 0).then(T::take_scratch);
        let [left, right] =
            scratch.as_mut().map_or_else(Default::default, |scratch| scratch.parts(left_len, right_len));
        let mut finite = true;
        // From the right to the left: see `tiles`.
        let mut end = n;
        while end > 0 {
            let is_narrow = end == n && narrow > 0;
            let cols = if is_narrow { narrow } else { (end - 1) % step + 1 };
            let col = end - cols;
            for start in (0..self.a.cols()).step_by(T::K_BLOCK) {
                let depth = T::K_BLOCK.min(self.a.cols() - start);
                let place = Place { cols: col..col + cols, lines: start..start + depth };
                finite &= if is_narrow {
                    self.pass::<S, ROWS, MID, LOW, 1>(simd, place, access, left, right)
                } else {
                    self.pass::<S, ROWS, MID, LOW, BLOCKS>(simd, place, access, left, right)
                };
            }
            self.activate(simd, col..end);
            end = col;
        }
        if let Some(scratch) = scratch {
            T::keep_scratch(scratch);
        }
        finite
    }
}

/// Whether tiles can read B where it is: rows contiguous and apart from each other.
fn is_direct<T>(b: MatRef<'_, T>) -> bool {
    b.row(0).is_some() && (b.row_stride() >= b.cols() || b.rows() == 1)
}

/// Whether the blocks of B lie in a cache line each.
fn is_aligned<T>(b: MatRef<'_, T>) -> bool {
    b.tail(0, 0).as_ptr().align_offset(LINE) == 0 && bytes::<T>(b.row_stride()).is_multiple_of(LINE)
}

/// The bytes of a stride, which may be any number where there is but one row or column.
#[inline(always)]
fn bytes<T>(stride: usize) -> usize {
    stride.saturating_mul(size_of::<T>())
}

/// Columns of B within a k-block.
struct Slab<'a, T> {
    b: MatRef<'a, T>,
    /// Room for the panels from a column on: those before it are read where they are.
    packed: &'a mut [T],
    packed_from: usize,
    /// The column from which on they are packed; the others are packed by the tiles of the first band.
    ready_from: usize,
}

/// How the tiles come to the whole panels of B.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// They are packed first.
    Packed,
    /// The first tile that reads one packs it, which its arithmetic hides.
    Copied,
    /// They are read where they are.
    InPlace,
}

impl<'a, T: Float> Slab<'a, T> {
    /// Packs what tiles of this width cannot read where it is, or all.
    #[inline(always)]
    fn new<S: Simd<T>, const BLOCKS: usize>(simd: S, b: MatRef<'a, T>, access: Access, packed: &'a mut [T]) -> Self {
        let (rows, cols, width) = (b.rows(), b.cols(), BLOCKS * T::LANES);
        let whole = cols / width * width;
        let packed_from = if access == Access::InPlace { whole } else { 0 };
        let ready_from = if access == Access::Packed { 0 } else { whole };
        if ready_from < cols {
            let packed = &mut packed[(ready_from - packed_from) * rows..];
            pack_panels::<T, S, BLOCKS>(simd, b.window(0..rows, ready_from..cols), packed);
        }
        Self { b, packed, packed_from, ready_from }
    }

    /// The panel at a column of the slab.
    #[inline(always)]
    fn panel<const BLOCKS: usize>(&mut self, col: usize) -> Right<'_, T, BLOCKS> {
        let &mut Self { b, ref mut packed, packed_from, ready_from } = self;
        let (lines, stride, width) = (b.tail(0, col), b.row_stride(), BLOCKS * T::LANES);
        if col < packed_from && stride == width {
            return Right::Packed(T::blocks(lines).0.as_chunks().0); // as good as packed
        }
        if col < packed_from {
            return Right::Lines(lines, stride.max(width));
        }
        let packed = T::blocks_mut(&mut packed[(col - packed_from) * b.rows()..]).0.as_chunks_mut().0;
        if col < ready_from { Right::Copied(lines, stride.max(width), packed) } else { Right::Packed(packed) }
    }
}

/// Where a slab lies in B.
#[derive(Clone)]
struct Place {
    cols: Range<usize>,
    lines: Range<usize>,
}

/// A job on all rows of C, those of a tile at a time.
trait Banded {
    type Elem: Float;
    /// Does it for the rows from one on, `ROWS` or as many as there are; whether what is written is finite.
    fn band<S: Simd<Self::Elem>, const ROWS: usize>(&mut self, simd: S, row: usize) -> bool;
}

/// Does a job on so many rows; whether all that is written is finite.
#[inline(always)]
fn each_band<J: Banded, S: Simd<J::Elem>, const ROWS: usize, const MID: usize, const LOW: usize>(
    simd: S,
    rows: usize,
    job: &mut J,
) -> bool {
    let mut finite = true;
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        // No thin tile at the end where two of MID rows do: too few chains in it to fill the pipes.
        let (done, all_finite) = if left > ROWS + LOW || left == ROWS || (MID < left && left < ROWS) {
            (ROWS, outline(simd, Band::<J, ROWS> { job, row }))
        } else if left > LOW {
            (MID, outline(simd, Band::<J, MID> { job, row }))
        } else {
            (LOW, outline(simd, Band::<J, LOW> { job, row }))
        };
        row += done;
        finite &= all_finite;
    }
    finite
}

/// The rows from one on. A function of its own, so that the registers are its own.
struct Band<'j, J, const ROWS: usize> {
    job: &'j mut J,
    row: usize,
}

impl<J: Banded, const ROWS: usize> Kernel for Band<'_, J, ROWS> {
    type Elem = J::Elem;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<J::Elem>>(self, simd: S) -> bool {
        self.job.band::<S, ROWS>(simd, self.row)
    }
}

/// A slab against all rows of A.
struct Pass<'s, 'a, T: Float, const BLOCKS: usize> {
    gemm: &'s mut Gemm<'a, T>,
    left: LeftSide<'s, T>,
    slab: Slab<'s, T>,
    place: Place,
}

impl<T: Float, const BLOCKS: usize> Banded for Pass<'_, '_, T, BLOCKS> {
    type Elem = T;

    #[inline(always)]
    fn band<S: Simd<T>, const ROWS: usize>(&mut self, simd: S, row: usize) -> bool {
        let Self { gemm, left, slab, place } = self;
        let depth = slab.b.rows();
        // Once for all tiles of the band.
        let finite = match left.band::<ROWS>(row) {
            Left::Rows(rows) => {
                let rows = of_depth(&rows, depth);
                tiles::<T, S, ROWS, BLOCKS>(
                    simd,
                    gemm,
                    slab,
                    place,
                    row,
                    #[inline(always)]
                    |p, i| rows[i][p],
                )
            }
            Left::Columns(columns, stride) => tiles::<T, S, ROWS, BLOCKS>(
                simd,
                gemm,
                slab,
                place,
                row,
                #[inline(always)]
                |p, i| columns[p * stride..][..ROWS][i],
            ),
        };
        slab.ready_from = slab.packed_from;
        finite
    }
}

/// The tiles of these rows.
#[inline(always)]
fn tiles<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    simd: S,
    gemm: &mut Gemm<'_, T>,
    slab: &mut Slab<'_, T>,
    place: &Place,
    row: usize,
    a: impl Fn(usize, usize) -> T,
) -> bool {
    let (depth, cols, width) = (slab.b.rows(), slab.b.cols(), BLOCKS * T::LANES);
    let rows = row..gemm.c.rows().min(row + ROWS);
    let store = gemm.store(place.lines.start);
    let (mut finite, mut watch) = (true, Watch::new(simd));
    // From the right to the left: where rows follow each other, a tile that is too wide for what is left of them may
    // run over into the next ones, which are written later.
    let mut col = cols.next_multiple_of(width);
    while col > 0 {
        col -= width;
        let sums: Sums<T, S, ROWS, BLOCKS> = chains(no_sums(simd), &a, slab.panel(col), depth);
        let at = place.cols.start + col..place.cols.end.min(place.cols.start + col + width);
        let has_all_rows = gemm.c.has_rows() && rows.len() == ROWS;
        let is_whole = has_all_rows && at.len() == width;
        if store.is_plain() && (is_whole || has_all_rows && may_run_over(&gemm.c, &rows, &at, width)) {
            gemm.c.each_line::<ROWS>(
                rows.start,
                at.start,
                #[inline(always)]
                |i, c| write_blocks(c, store_all(sums[i])),
            );
            watch_all(sums, &mut watch);
        } else if is_whole && store.is_added() {
            gemm.c.each_line::<ROWS>(
                rows.start,
                at.start,
                #[inline(always)]
                |i, c| {
                    if let Some(&old) = T::blocks(c).0.first_chunk() {
                        write_sums(c, store.alpha, sums[i], &old, &mut watch);
                    }
                },
            );
        } else if let (true, Some(bias)) = (is_whole, store.bias::<BLOCKS>(at.start)) {
            gemm.c.each_line::<ROWS>(
                rows.start,
                at.start,
                #[inline(always)]
                |i, c| write_sums(c, store.alpha, sums[i], bias, &mut watch),
            );
        } else {
            let sums = &mut in_memory(sums);
            finite &= outline(simd, Edge { store, sums, rows: rows.clone(), cols: at, c: &mut gemm.c });
        }
    }
    finite && watch.all_finite()
}

/// Whether a tile of this width, wider than these columns, may be written to C: what it runs over is of C, too, and comes
/// later.
#[inline(always)]
fn may_run_over<T>(c: &Target<'_, T>, rows: &Range<usize>, cols: &Range<usize>, width: usize) -> bool {
    let n = c.cols();
    c.is_gapless() && cols.end == n && (c.rows() - rows.end) * n + cols.len() >= width
}

/// The sums of a tile, out of the registers.
#[inline(always)]
fn in_memory<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    sums: Sums<T, S, ROWS, BLOCKS>,
) -> [[T::Block; BLOCKS]; ROWS] {
    let mut blocks = [[T::fill(T::zero()); BLOCKS]; ROWS];
    for i in 0..ROWS {
        blocks[i] = store_all(sums[i]);
    }
    blocks
}

/// Looks at the sums of a tile.
#[inline(always)]
fn watch_all<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    sums: Sums<T, S, ROWS, BLOCKS>,
    watch: &mut Watch<T, S>,
) {
    for sum in sums.as_flattened() {
        watch.see(*sum);
    }
}

/// Writes blocks to the beginning of a line, if they fit.
#[inline(always)]
fn write_blocks<T: Float, const BLOCKS: usize>(line: &mut [T], blocks: [T::Block; BLOCKS]) {
    if let Some(c) = T::blocks_mut(line).0.first_chunk_mut() {
        *c = blocks;
    }
}

/// Writes a factor times the sums of a row of a tile, plus what they are added to, to the beginning of a line.
#[inline(always)]
fn write_sums<T: Float, S: Simd<T>, const BLOCKS: usize>(
    line: &mut [T],
    factor: T,
    sums: [Lanes<T, S>; BLOCKS],
    old: &[T::Block; BLOCKS],
    watch: &mut Watch<T, S>,
) {
    let mut new = [T::fill(T::zero()); BLOCKS];
    for j in 0..BLOCKS {
        let sum = sums[j].all(factor).mul_add(sums[j], Lanes::load(sums[j].simd, &old[j]));
        watch.see(sum);
        new[j] = sum.store();
    }
    write_blocks(line, new);
}

/// The sums of a row of a tile, out of the registers.
#[inline(always)]
fn store_all<T: Float, S: Simd<T>, const BLOCKS: usize>(sums: [Lanes<T, S>; BLOCKS]) -> [T::Block; BLOCKS] {
    let mut blocks = [T::fill(T::zero()); BLOCKS];
    for j in 0..BLOCKS {
        blocks[j] = sums[j].store();
    }
    blocks
}

/// What happens to the sum of a k-block.
#[derive(Clone, Copy)]
struct Store<'a, T> {
    alpha: T,
    old: Old<'a, T>,
}

impl<T: Float> Store<'_, T> {
    /// Whether the sums are what is written.
    #[inline(always)]
    fn is_plain(self) -> bool {
        self.alpha.is_one() && matches!(self.old, Old::Scaled(beta) if beta.is_zero())
    }

    /// Whether the sums, times a factor, are added to C.
    #[inline(always)]
    fn is_added(self) -> bool {
        matches!(self.old, Old::Scaled(beta) if beta.is_one())
    }

    /// What is added to a tile that begins at a column, if it is the same for every row.
    #[inline(always)]
    fn bias<const BLOCKS: usize>(&self, col: usize) -> Option<&[T::Block; BLOCKS]> {
        match self.old {
            Old::Row(row) => T::blocks(row.get(col..)?).0.first_chunk(),
            Old::Scaled(_) | Old::Column(_) => None,
        }
    }

    /// Writes the first `len` sums of a block to C at this row and column, where this part of its memory begins.
    #[inline(always)]
    fn block<S: Simd<T>>(
        self,
        simd: S,
        sums: &T::Block,
        (row, col): (usize, usize),
        len: usize,
        c: &mut [T],
        watch: &mut Watch<T, S>,
    ) {
        let old = match self.old {
            Old::Scaled(beta) if beta.is_zero() => Lanes::zero(simd),
            Old::Scaled(_) => load_first(simd, c, len),
            Old::Row(old) => load_first(simd, &old[col..], len),
            Old::Column(old) => Lanes::splat(simd, old[row]),
        };
        let new = self.update(Lanes::load(simd, sums), old);
        // Lanes past the end are products with zeros: they raise nothing that the others do not.
        watch.see(new);
        store_first(new, c, len);
    }

    /// Makes results of the sums of a row, where `lines` are the columns of C, before they are written.
    #[inline(always)]
    fn line<S: Simd<T>, const BLOCKS: usize>(
        self,
        simd: S,
        sums: &mut [T::Block; BLOCKS],
        row: usize,
        cols: Range<usize>,
        lines: &MatMut<'_, T>,
        watch: &mut Watch<T, S>,
    ) {
        let mut blocks = [T::fill(T::zero()); BLOCKS];
        let old = &mut T::flatten_mut(&mut blocks)[..cols.len()];
        match self.old {
            Old::Scaled(beta) if beta.is_zero() => {}
            Old::Scaled(_) => old.iter_mut().zip(cols).for_each(|(old, col)| *old = lines.as_ref().tail(col, row)[0]),
            Old::Row(row) => old.copy_from_slice(&row[cols]),
            Old::Column(column) => old.fill(column[row]),
        }
        for (sum, old) in sums.iter_mut().zip(&blocks) {
            let new = self.update(Lanes::load(simd, sum), Lanes::load(simd, old));
            watch.see(new);
            *sum = new.store();
        }
    }

    /// `alpha * sum + old`; an old element that does not count has no part in it.
    #[inline(always)]
    fn update<S: Simd<T>>(self, sum: Lanes<T, S>, old: Lanes<T, S>) -> Lanes<T, S> {
        let alpha = sum.all(self.alpha);
        match self.old {
            Old::Scaled(beta) if beta.is_zero() => alpha * sum,
            Old::Scaled(beta) => alpha.mul_add(sum, sum.all(beta) * old),
            Old::Row(_) | Old::Column(_) => alpha.mul_add(sum, old),
        }
    }
}

/// The sums of a tile for which [`tiles`] has no quick way: one that is not whole, goes to a C in columns, or has a factor
/// or a summand that is rare; whether what is written is finite. A function of its own, so that the one that calls it is
/// small.
struct Edge<'s, 'a, T: Float, const ROWS: usize, const BLOCKS: usize> {
    store: Store<'s, T>,
    sums: &'s mut [[T::Block; BLOCKS]; ROWS],
    rows: Range<usize>,
    cols: Range<usize>,
    c: &'s mut Target<'a, T>,
}

impl<T: Float, const ROWS: usize, const BLOCKS: usize> Kernel for Edge<'_, '_, T, ROWS, BLOCKS> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { store, sums, rows, cols, c } = self;
        let mut watch = Watch::new(simd);
        if let Target::Columns(lines) = c {
            for (row, sums) in rows.clone().zip(&mut *sums) {
                store.line(simd, sums, row, cols.clone(), lines, &mut watch);
            }
            transpose_into(sums, rows, lines.rows_mut(cols));
        } else {
            for (row, sums) in rows.zip(sums) {
                let line = c.tail_mut(row, cols.start);
                for (j, sums) in sums.iter().enumerate() {
                    let at = j * T::LANES;
                    let len = T::LANES.min(cols.len().saturating_sub(at));
                    if len > 0 {
                        store.block(simd, sums, (row, cols.start + at), len, &mut line[at..], &mut watch);
                    }
                }
            }
        }
        watch.all_finite()
    }
}

/// Writes results to these places of lines that are the columns of C.
#[inline(always)]
fn transpose_into<'c, T: Float, const ROWS: usize, const BLOCKS: usize>(
    results: &mut [[T::Block; BLOCKS]; ROWS],
    places: Range<usize>,
    lines: impl Iterator<Item = &'c mut [T]>,
) {
    let width = BLOCKS * T::LANES;
    let results = T::flatten_mut(results.as_flattened_mut());
    for (j, line) in (0..width).zip(lines) {
        let line = &mut line[places.clone()];
        for i in 0..ROWS {
            if let Some(c) = line.get_mut(i) {
                *c = results[i * width + j];
            }
        }
    }
}
