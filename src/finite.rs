//! [`NonFinite`], the report of a NaN or an infinity, and [`Watch`], the check that every kernel carries.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{Error, Result};
use crate::float::Float;
use crate::kernel::Join;
use crate::lanes::Lanes;
use crate::scaled::Scaled;
use crate::simd::Simd;
use crate::view::MatRef;

/// Where a NaN or an infinity is, of what kind, how many there are, and where it came from.
///
/// `operand` is where the trouble first shows: an input that was already bad, or else the result. Its text is an answer
/// to "what happened":
///
/// ```
/// use nanproof::{MatMut, MatRef, softmax};
///
/// let x = [0.5_f32, f32::NAN, 1.5, 2.0];
/// let mut y = [0.0_f32; 4];
/// let error = softmax(MatRef::new(&x, 2, 2)?, MatMut::new(&mut y, 2, 2)?).unwrap_err();
/// assert_eq!(error.to_string(), "softmax: x[0, 1] is NaN, passed in; 1 of 4 elements is not finite");
///
/// // A matrix product that overflows names the largest term of the sum.
/// let (a, b) = ([1.0_f32, 1e30, 2.0], [1.0_f32, 1e20, 3.0]);
/// let (a, b) = (MatRef::new(&a, 1, 3)?, MatRef::new(&b, 3, 1)?);
/// let error = nanproof::matmul(a, b, MatMut::new(&mut [0.0], 1, 1)?).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "matmul: c[0, 0] is +Inf, born here: overflow, largest term a[0, 1] * b[1, 0] = 1.0e30 * 1.0e20"
/// );
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NonFinite {
    /// The operation that found it.
    pub operation: &'static str,
    /// The operand that it is in.
    pub operand: &'static str,
    /// The first element of that operand that is not finite where it should be.
    pub index: Index,
    /// What that element is.
    pub class: Class,
    /// What the operand holds.
    pub counts: Counts,
    /// Where it came from.
    pub origin: Origin,
    /// If a product of matrices, a sum, a dot product or a norm overflowed: the largest term of the sum that did.
    pub largest_term: Option<Term>,
}

/// A term of a sum: an element of an operand, or the product of two.
///
/// ```
/// use nanproof::{Error, Index, dot};
///
/// let Err(Error::NonFinite(report)) = dot(&[1.0_f32, 1e30], &[1.0, 1e30]) else { panic!("it overflows") };
/// let term = report.largest_term.unwrap();
/// assert_eq!((term.left.operand, term.left.index), ("a", Index::At(1)));
/// assert_eq!(term.right.map(|right| (right.operand, right.index)), Some(("b", Index::At(1))));
/// assert_eq!(term.to_string(), "a[1] * b[1] = 1.0e30 * 1.0e30");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Term {
    /// The element, or the first factor.
    pub left: Factor,
    /// What it is multiplied by.
    pub right: Option<Factor>,
}

/// An element of an operand in a [`Term`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Factor {
    /// The operand.
    pub operand: &'static str,
    /// The element; in a batch, one of the matrix which the report names.
    pub index: Index,
    /// Its value.
    pub value: f64,
}

/// The place of an element in the caller's operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Index {
    /// The operand is one number.
    Scalar,
    /// An element of a slice.
    At(usize),
    /// Row and column of a matrix.
    Cell(usize, usize),
    /// An element of one of several tensors.
    Tensor(usize, usize),
    /// Row and column of a matrix of a batch.
    Batch(usize, usize, usize),
}

/// What a number that is not finite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Class {
    /// Not a number.
    Nan,
    /// Plus infinity.
    PosInf,
    /// Minus infinity.
    NegInf,
}

/// How many elements of an operand are not finite, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counts {
    /// NaNs.
    pub nan: usize,
    /// Plus infinities.
    pub pos_inf: usize,
    /// Minus infinities.
    pub neg_inf: usize,
    /// All elements that were looked at.
    pub len: usize,
}

/// Where a NaN or an infinity came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Origin {
    /// It was there already: the report's operand is an input.
    PassedIn,
    /// The true result is too large for the type.
    Overflow,
    /// A finite number was divided by zero, or a pole was hit.
    DivisionByZero,
    /// No number is the answer, as for Inf - Inf or 0 / 0.
    Invalid,
}

impl NonFinite {
    /// Whether the operation made it of finite operands; if not, it was passed in.
    ///
    /// ```
    /// use nanproof::{Error, check_finite, sum};
    ///
    /// let is_born_here = |error| matches!(error, Error::NonFinite(report) if report.is_born_here());
    /// assert!(is_born_here(sum(&[f32::MAX; 2]).unwrap_err()));
    /// assert!(!is_born_here(check_finite(&[f32::NAN]).unwrap_err()));
    /// ```
    #[must_use]
    pub fn is_born_here(&self) -> bool {
        self.origin != Origin::PassedIn
    }
}

impl Class {
    /// The class of a number; `None` if it is finite.
    ///
    /// ```
    /// use nanproof::Class;
    ///
    /// assert_eq!(Class::of(f64::NEG_INFINITY), Some(Class::NegInf));
    /// assert_eq!(Class::of(f64::MAX), None);
    /// ```
    #[must_use]
    pub fn of<T: Float>(x: T) -> Option<Self> {
        if x.is_finite() {
            None
        } else if x.is_nan() {
            Some(Self::Nan)
        } else if x > T::zero() {
            Some(Self::PosInf)
        } else {
            Some(Self::NegInf)
        }
    }
}

impl Counts {
    /// Elements that are not finite.
    ///
    /// ```
    /// assert_eq!(nanproof::Counts::default().total(), 0);
    /// ```
    #[must_use]
    pub fn total(&self) -> usize {
        self.nan.saturating_add(self.pos_inf).saturating_add(self.neg_inf)
    }

    pub(crate) fn add(&mut self, class: Class) {
        *match class {
            Class::Nan => &mut self.nan,
            Class::PosInf => &mut self.pos_inf,
            Class::NegInf => &mut self.neg_inf,
        } += 1;
    }
}

impl Join for Counts {
    /// The counts of both; they wrap around rather than overflow.
    fn join(self, b: Self) -> Self {
        Self {
            nan: self.nan.wrapping_add(b.nan),
            pos_inf: self.pos_inf.wrapping_add(b.pos_inf),
            neg_inf: self.neg_inf.wrapping_add(b.neg_inf),
            len: self.len.wrapping_add(b.len),
        }
    }
}

/// An operand to be looked at again, element by element, on the failing path.
pub(crate) struct Operand<'a, T> {
    name: &'static str,
    elements: Box<dyn Iterator<Item = (Index, T)> + 'a>,
}

impl<'a, T: Float> Operand<'a, T> {
    pub(crate) fn new(name: &'static str, elements: impl Iterator<Item = (Index, T)> + 'a) -> Self {
        Self { name, elements: Box::new(elements) }
    }

    pub(crate) fn scalar(name: &'static str, x: T) -> Self {
        Self { name, elements: Box::new(core::iter::once((Index::Scalar, x))) }
    }

    pub(crate) fn slice(name: &'static str, x: &'a [T]) -> Self {
        Self { name, elements: Box::new(x.iter().enumerate().map(|(i, &x)| (Index::At(i), x))) }
    }

    pub(crate) fn matrix(name: &'static str, x: MatRef<'a, T>) -> Self {
        let row = move |i| x.row_iter(i).enumerate().map(move |(j, &x)| (Index::Cell(i, j), x));
        Self { name, elements: Box::new((0..x.rows()).flat_map(row)) }
    }

    /// The elements of an operand of `len` that are not finite.
    pub(crate) fn listed(name: &'static str, faults: Vec<(Index, T)>, len: usize) -> Self {
        let rest = core::iter::repeat_n((Index::Scalar, T::zero()), len - faults.len());
        Self { name, elements: Box::new(faults.into_iter().chain(rest)) }
    }

    /// Overlooks elements that the operation does not read, or defines to be infinite.
    pub(crate) fn overlook(self, overlooked: impl Fn(Index, T) -> bool + 'a) -> Self {
        let elements = self.elements.map(move |(i, x)| (i, if overlooked(i, x) { T::zero() } else { x }));
        Self { name: self.name, elements: Box::new(elements) }
    }

    /// Overlooks rows, or elements that each stand for one, where the result is finite: they were not read.
    pub(crate) fn overlook_unread_rows(self, result: MatRef<'a, T>) -> Self {
        let is_unread = move |i| result.all_of_row(i, |x| x.is_finite());
        self.overlook(move |index, x| {
            !x.is_finite() && matches!(index, Index::At(i) | Index::Cell(i, _) if is_unread(i))
        })
    }

    /// Reports the first element that is not finite, if there is one.
    fn report(self, operation: &'static str, origin: impl Fn(Index, Class) -> Origin) -> Option<NonFinite> {
        let mut first = None;
        let mut counts = Counts::default();
        for (index, x) in self.elements {
            counts.len += 1;
            if let Some(class) = Class::of(x) {
                counts.add(class);
                first.get_or_insert((index, class));
            }
        }
        let (index, class) = first?;
        let origin = origin(index, class);
        Some(NonFinite { operation, operand: self.name, index, class, counts, origin, largest_term: None })
    }
}

/// Looks for the first fault: in the inputs, where it was passed in, or else in the outputs, where `origin` names it.
///
/// # Errors
/// The report of the fault.
#[cold]
pub(crate) fn diagnose<'a, T: Float>(
    operation: &'static str,
    inputs: impl IntoIterator<Item = Operand<'a, T>>,
    outputs: impl IntoIterator<Item = Operand<'a, T>>,
    origin: impl Fn(Index, Class) -> Origin,
) -> Result<()> {
    let passed = inputs.into_iter().find_map(|input| input.report(operation, |_, _| Origin::PassedIn));
    let fault = passed.or_else(|| outputs.into_iter().find_map(|output| output.report(operation, &origin)));
    fault.map_or(Ok(()), |report| Err(report.into()))
}

/// What [`diagnose`] found; where a sum overflowed, with the first of its largest terms.
pub(crate) fn name_largest_term<I: Iterator<Item = Term>>(
    mut result: Result<()>,
    terms: impl FnOnce(Index) -> I,
) -> Result<()> {
    if let Err(Error::NonFinite(report)) = &mut result
        && report.origin == Origin::Overflow
    {
        let larger = |x: Term, y: Term| if x.size().compare_magnitude(y.size()).is_lt() { y } else { x };
        report.largest_term = terms(report.index).reduce(larger);
    }
    result
}

impl Term {
    fn size(&self) -> Scaled<f64> {
        let right = self.right.map_or(Scaled::of(1.0), |right| Scaled::of(right.value));
        Scaled::of(self.left.value).mul(right)
    }
}

impl Factor {
    pub(crate) fn new<T: Float>(operand: &'static str, index: Index, x: T) -> Self {
        Self { operand, index, value: x.to_f64().unwrap_or(f64::NAN) }
    }

    /// The elements of a slice.
    pub(crate) fn slice<T: Float>(operand: &'static str, x: &[T]) -> impl Iterator<Item = Self> {
        x.iter().enumerate().map(move |(i, &x)| Self::new(operand, Index::At(i), x))
    }

    /// The elements of a row of a matrix.
    pub(crate) fn row<T: Float>(operand: &'static str, x: MatRef<'_, T>, i: usize) -> impl Iterator<Item = Self> {
        x.row_iter(i).enumerate().map(move |(j, &x)| Self::new(operand, Index::Cell(i, j), x))
    }
}

impl From<Factor> for Term {
    fn from(left: Factor) -> Self {
        Self { left, right: None }
    }
}

/// The origin of a fault in an operation without poles.
pub(crate) fn overflow_or_invalid(_: Index, class: Class) -> Origin {
    match class {
        Class::Nan => Origin::Invalid,
        Class::PosInf | Class::NegInf => Origin::Overflow,
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, operand, index, class, counts, origin, largest_term } = self;
        write!(f, "{operation}: {operand}{index} is {class}, {origin}")?;
        if let Some(term) = largest_term {
            write!(f, ", largest term {term}")?;
        }
        match (counts.total(), counts.len) {
            (_, 1) => Ok(()),
            (1, len) => write!(f, "; 1 of {len} elements is not finite"),
            (total, len) => write!(f, "; {total} of {len} elements are not finite"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { left, right } = self;
        match right {
            Some(right) => write!(f, "{left} * {right} = {:.1e} * {:.1e}", left.value, right.value),
            None => write!(f, "{left} = {:.1e}", left.value),
        }
    }
}

/// The operand and the element, without the value.
impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.operand, self.index)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar => Ok(()),
            Self::At(i) => write!(f, "[{i}]"),
            Self::Cell(row, col) => write!(f, "[{row}, {col}]"),
            Self::Tensor(tensor, i) => write!(f, "[{tensor}][{i}]"),
            Self::Batch(matrix, row, col) => write!(f, "[{matrix}, {row}, {col}]"),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nan => "NaN",
            Self::PosInf => "+Inf",
            Self::NegInf => "-Inf",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PassedIn => "passed in",
            Self::Overflow => "born here: overflow",
            Self::DivisionByZero => "born here: division by zero",
            Self::Invalid => "born here: no number is the answer",
        })
    }
}

/// Remembers whether every lane that it saw was finite.
///
/// `x - x` is +0 for a finite `x` and NaN for any other, so the bits of one running `or` are zero as long as all is
/// well: a subtraction and an `or` a block, and no constant. With `--cfg nanproof_unchecked`, which is there to measure
/// what that costs (`benches/cost_of_checks`), it sees nothing.
#[derive(Clone, Copy)]
pub(crate) struct Watch<T: Float, S: Simd<T>>(Lanes<T, S>);

impl<T: Float, S: Simd<T>> Watch<T, S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self(Lanes::zero(simd))
    }

    #[expect(clippy::eq_op, reason = "not 0 for what is not finite")]
    #[inline(always)]
    pub(crate) fn see(&mut self, x: Lanes<T, S>) {
        if !cfg!(nanproof_unchecked) {
            self.0 = self.0 | (x - x);
        }
    }

    #[inline(always)]
    pub(crate) fn all_finite(self) -> bool {
        let zero = Lanes::zero(self.0.simd);
        self.0.eq(zero).all()
    }
}
