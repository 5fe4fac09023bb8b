//! Operations on two operands of which the second may be a row that counts for every row of the first, or one number.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Error, Result, Shape, check_len};
use crate::finite::{Class, Index, Operand, Origin, diagnose};
use crate::float::Float;
use crate::kernel::{Join, Runs, launch};
use crate::lanes::Lanes;
use crate::ops::sum::Sum;
use crate::reduce::TwoTerm;
use crate::scaled::{Scaled, ScaledSum, wide};
use crate::simd::Simd;
use crate::sweep::{Elementwise, Formula, Guard, Seen, apply};

/// Elements that are done at once: as many rows as fit.
const TILE: usize = 4096;

/// A formula of both gradients, whose second can be told where it is too large or too small for the type.
pub trait Gradients<T: Float>: Formula<T, 3, 2> {
    /// The second gradient as `[m, n]`, for `m 2^n` with `n` integral.
    fn second<S: Simd<T>>(self, x: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2];
}

/// [`Gradients::second`] as a formula.
#[derive(Clone, Copy, Debug)]
pub struct Second<F>(F);

impl<T: Float, F: Gradients<T>> Formula<T, 3, 2> for Second<F> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, x: [Lanes<T, S>; 3], _: [Lanes<T, S>; 2], _: &mut Guard<T, S>) -> [Lanes<T, S>; 2] {
        self.0.second(x)
    }
}

/// The operands of an operation and their names.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a, T> {
    pub(crate) operation: &'static str,
    pub(crate) a: (&'static str, &'a [T]),
    pub(crate) b: (&'static str, &'a [T]),
}

impl<T: Float> Pair<'_, T> {
    /// Refuses a second operand that does not fit the first.
    pub(crate) fn check(&self) -> Result<()> {
        let (len, (operand, b)) = (self.a.1.len(), self.b);
        if b.len() == len || (!b.is_empty() && len.is_multiple_of(b.len())) {
            return Ok(());
        }
        let reason = "the length of the first operand, or one that divides it";
        let (found, expected) = (Shape::Vector(b.len()), Shape::Vector(len));
        Err(Error::Shape { operation: self.operation, operand, found, expected, reason })
    }

    /// Refuses an operand that is not as long as the first.
    pub(crate) fn check_len(&self, operand: &'static str, x: &[T]) -> Result<()> {
        check_len(self.operation, operand, x.len(), self.a.1.len(), "the length of the first operand")
    }

    /// Refuses operands and gradients whose lengths do not fit.
    pub(crate) fn check_gradients(&self, g: &[T], da: (&'static str, &[T]), db: (&'static str, &[T])) -> Result<()> {
        self.check()?;
        self.check_len("g", g)?;
        self.check_len(da.0, da.1)?;
        check_len(self.operation, db.0, db.1.len(), self.b.1.len(), "the length of the second operand")
    }

    /// Applies a formula to every pair.
    pub(crate) fn map<F: Formula<T, 2, 1>>(&self, formula: F, q: &mut [T]) -> Result<Seen>
    where
        T: for<'a> Runs<Elementwise<'a, T, F, 2, 1>>,
    {
        let (a, b) = (self.a.1, self.b.1);
        if a.len() == b.len() {
            return apply(formula, [a, b], [q]);
        }
        let tile = tile(b);
        let mut seen = Seen { finite: true, guarded: 0 };
        for (a, q) in a.chunks(tile.len()).zip(q.chunks_mut(tile.len())) {
            seen = seen.join(apply(formula, [a, &tile[..a.len()]], [q])?);
        }
        Ok(seen)
    }

    /// Applies a formula that gives both gradients, of which the second is summed over the rows.
    pub(crate) fn gradients<F: Gradients<T>>(&self, formula: F, g: &[T], da: &mut [T], db: &mut [T]) -> Result<Seen>
    where
        T: for<'a> Runs<Elementwise<'a, T, F, 3, 2>> + for<'a> Runs<Elementwise<'a, T, Second<F>, 3, 2>>,
    {
        let (a, b) = (self.a.1, self.b.1);
        if a.len() == b.len() {
            return apply(formula, [a, b, g], [da, db]);
        }
        let tile = tile(b);
        let mut sums = ColumnSums::new(b.len());
        let mut terms = vec![T::zero(); tile.len().min(a.len())];
        let mut seen = Seen { finite: true, guarded: 0 };
        for ((a, g), da) in a.chunks(tile.len()).zip(g.chunks(tile.len())).zip(da.chunks_mut(tile.len())) {
            let terms = &mut terms[..a.len()];
            let chunk = apply(formula, [a, &tile[..a.len()], g], [da, terms])?;
            sums.add(terms, chunk.finite)?;
            seen = seen.join(chunk);
        }
        db.iter_mut().enumerate().for_each(|(j, db)| *db = sums.value(j));
        let is_finite = |db: &[T]| db.iter().all(|db| db.is_finite());
        if !is_finite(db) {
            self.sum_again(formula, g, db)?;
        }
        Ok(Seen { finite: seen.finite && is_finite(db), ..seen })
    }

    /// Sums those columns again that are not finite: of terms, and sums of them, that overflow on the way to a number
    /// that does not.
    #[cold]
    fn sum_again<F: Gradients<T>>(&self, formula: F, g: &[T], db: &mut [T]) -> Result<()>
    where
        T: for<'a> Runs<Elementwise<'a, T, Second<F>, 3, 2>>,
    {
        let (a, b) = (self.a.1, self.b.1);
        let tile = tile(b);
        let mut sums = vec![ScaledSum::new(); b.len()];
        let [mut mantissas, mut exponents] = [(); 2].map(|()| vec![T::zero(); tile.len().min(a.len())]);
        for (a, g) in a.chunks(tile.len()).zip(g.chunks(tile.len())) {
            let (mantissas, exponents) = (&mut mantissas[..a.len()], &mut exponents[..a.len()]);
            apply(Second(formula), [a, &tile[..a.len()], g], [&mut *mantissas, &mut *exponents])?;
            for (i, (&mantissa, exponent)) in mantissas.iter().zip(exponents).enumerate() {
                let j = i % b.len();
                if !db[j].is_finite() {
                    sums[j] = sums[j].add(Scaled::new(wide(mantissa), exponent.to_i32().unwrap_or(0)));
                }
            }
        }
        let overflowed = db.iter_mut().zip(sums).filter(|(db, _)| !db.is_finite());
        overflowed.for_each(|(db, sum)| *db = sum.value());
        Ok(())
    }

    /// Reports what is not finite in `q`. Of an operand that counts are those elements whose result is not finite, and
    /// which are not guarded against.
    pub(crate) fn diagnose(
        &self,
        seen: Seen,
        default: T,
        q: (&'static str, &[T]),
        is_guarded: impl Fn(T, T) -> bool + Copy,
        is_pole: impl Fn(T, T) -> bool,
    ) -> Result<()> {
        let (a, b) = (self.a.1, self.b.1);
        let is_read = |i: usize| !q.1[i].is_finite() && !is_guarded(a[i], b[i % b.len()]);
        let inputs = [
            Operand::slice(self.a.0, a).overlook(move |index, _| !matches!(index, Index::At(i) if is_read(i))),
            Operand::slice(self.b.0, b)
                .overlook(move |index, _| !matches!(index, Index::At(j) if (j..a.len()).step_by(b.len()).any(is_read))),
            Operand::scalar("default", if seen.guarded > 0 { default } else { T::zero() }),
        ];
        diagnose(self.operation, inputs, [Operand::slice(q.0, q.1)], |index, class| {
            origin(class, matches!(index, Index::At(i) if is_pole(a[i], b[i % b.len()])))
        })
    }

    /// Reports what is not finite in the gradients, in the same way; each has poles of its own.
    pub(crate) fn diagnose_gradients(
        &self,
        g: &[T],
        da: (&'static str, &[T]),
        db: (&'static str, &[T]),
        is_guarded: impl Fn(T, T) -> bool + Copy,
        is_pole: [impl Fn(T, T) -> bool; 2],
    ) -> Result<()> {
        let (a, b) = (self.a.1, self.b.1);
        let is_read = |i: usize| {
            let is_bad = !da.1[i].is_finite() || !db.1[i % b.len()].is_finite();
            is_bad && !is_guarded(a[i], b[i % b.len()])
        };
        // Where the upstream gradient is 0 nothing else counts but a NaN.
        let no_part = move |i: usize, x: T| !is_read(i) || (g[i].is_zero() && !x.is_nan());
        let column_counts = move |j: usize, b_j: T| (j..a.len()).step_by(b.len()).any(|i| !no_part(i, b_j));
        let inputs = [
            Operand::slice(self.a.0, a).overlook(move |index, x| matches!(index, Index::At(i) if no_part(i, x))),
            Operand::slice(self.b.0, b).overlook(move |index, x| !matches!(index, Index::At(j) if column_counts(j, x))),
            Operand::slice("g", g).overlook(move |index, _| !matches!(index, Index::At(i) if is_read(i))),
        ];
        let [is_pole_of_da, is_pole_of_db] = is_pole;
        diagnose(self.operation, inputs, [Operand::slice(da.0, da.1)], |index, class| {
            origin(class, matches!(index, Index::At(i) if is_pole_of_da(a[i], b[i % b.len()])))
        })?;
        diagnose(self.operation, [], [Operand::slice(db.0, db.1)], |index, class| {
            let at_pole = |j: usize| (j..a.len()).step_by(b.len()).any(|i| is_pole_of_db(a[i], b[j]));
            origin(class, matches!(index, Index::At(j) if at_pole(j)))
        })
    }
}

/// The origin of a fault in an operation with poles.
pub(crate) fn origin(class: Class, is_pole: bool) -> Origin {
    match class {
        Class::Nan => Origin::Invalid,
        _ if is_pole => Origin::DivisionByZero,
        Class::PosInf | Class::NegInf => Origin::Overflow,
    }
}

/// As many copies of a row as are done at once.
fn tile<T: Float>(row: &[T]) -> Vec<T> {
    row.repeat((TILE / row.len()).max(1))
}

/// Sums over the rows, one for each column.
struct ColumnSums<T> {
    sums: Vec<TwoTerm<T>>,
    /// Of the terms that are not finite.
    not_finite: Vec<T>,
}

impl<T: Float> ColumnSums<T> {
    fn new(cols: usize) -> Self {
        Self { sums: vec![TwoTerm::zero(); cols], not_finite: vec![T::zero(); cols] }
    }

    fn add(&mut self, terms: &[T], is_finite: bool) -> Result<()> {
        if let [sum] = &mut self.sums[..] {
            *sum = sum.join(launch(Sum { x: terms })?);
        } else {
            for row in terms.chunks(self.sums.len()) {
                for (sum, &term) in self.sums.iter_mut().zip(row) {
                    *sum = sum.join(TwoTerm { sum: term, error: T::zero() });
                }
            }
        }
        if !is_finite {
            for row in terms.chunks(self.sums.len()) {
                let columns = self.not_finite.iter_mut().zip(row).filter(|(_, term)| !term.is_finite());
                columns.for_each(|(sum, &term)| *sum = *sum + term);
            }
        }
        Ok(())
    }

    /// The sum of a column.
    fn value(&self, j: usize) -> T {
        let not_finite = self.not_finite[j];
        if not_finite.is_finite() { self.sums[j].value() } else { not_finite }
    }
}
