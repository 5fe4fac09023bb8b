//! What the targets share: numbers and layouts drawn from the fuzzer's bytes, a call on every instruction set, and what
//! every outcome must satisfy.

use std::fmt::Debug;

use arbitrary::{Result as Drawn, Unstructured};
use nanproof::reference::Wide;
use nanproof::{Class, Error, Float, Index, Isa, MatMut, MatRef, NonFinite, Origin, Result};

/// Random numbers by integer arithmetic alone (SplitMix64).
struct Rng(u64);

impl Rng {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2_f64.powi(-52) - 1.0
    }
}

pub fn num<T: Float>(x: f64) -> T {
    T::from(x).expect("every f64 has a nearest number")
}

/// `2^-24` or `2^-53`.
pub fn unit_roundoff<T: Float>() -> f64 {
    wide(T::epsilon()) / 2.0
}

/// The smallest number above 0.
pub fn smallest<T: Float>() -> Wide {
    Wide::new(T::from_bits(1))
}

pub fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().expect("every number fits")
}

fn number<T: Float>(rng: &mut Rng, kind: u8) -> T {
    let top = 2 * T::BIAS as u64 + 1; // the exponent field of infinity
    let with_exponent = |rng: &mut Rng, from: u64, count: u64| {
        let fraction = rng.bits() & ((1 << T::FRACTION_BITS) - 1);
        let magnitude = T::from_bits((from + rng.below(count)) << T::FRACTION_BITS | fraction);
        if rng.bits() >> 63 == 0 { magnitude } else { -magnitude }
    };
    match kind {
        0 => num(rng.unit()),
        1 => num(rng.unit() * 30.0),
        2 => with_exponent(rng, 0, top),
        3 => with_exponent(rng, top - 4, 4),
        4 => with_exponent(rng, 0, 3),
        5 => num(rng.below(17) as f64 - 8.0),
        6 => match rng.below(16) {
            0 => special(rng.bits()),
            _ => num(rng.unit() * 100.0),
        },
        7 => T::from_bits(rng.bits()),
        8 => match rng.below(4) {
            0 => num(rng.unit()),
            _ => T::neg_infinity(),
        },
        9 => num(rng.unit() * 800.0),
        10 => T::one() + T::epsilon() * num(rng.below(64) as f64),
        _ => with_exponent(rng, top / 4, top / 2),
    }
}

fn special<T: Float>(choice: u64) -> T {
    let magnitude = match choice >> 1 & 15 {
        0 => T::zero(),
        1 => T::from_bits(1),
        2 => T::min_positive_value(),
        3 => T::from_bits(T::min_positive_value().to_bits() - 1),
        4 => T::epsilon(),
        5 => T::one() - T::epsilon(),
        6 => T::one(),
        7 => T::one() + T::epsilon(),
        8 => num(88.72),
        9 => num(709.78),
        10 => T::max_value(),
        11 => T::max_value() / num(2.0),
        12 => T::max_value().sqrt(),
        13 => T::min_positive_value().sqrt(),
        14 => T::infinity(),
        _ => T::nan(),
    };
    if choice & 1 == 0 { magnitude } else { -magnitude }
}

/// One number: any bits, or a special value, or a small plain one.
pub fn scalar<T: Float>(u: &mut Unstructured<'_>) -> Drawn<T> {
    Ok(match u.int_in_range(0..=3)? {
        0 => T::from_bits(u.arbitrary()?),
        1 => special(u.arbitrary::<u8>()?.into()),
        2 => num(f64::from(u.arbitrary::<i8>()?) / 8.0),
        _ => num(f64::from(u.arbitrary::<u16>()?) / 65536.0),
    })
}

/// So many numbers, drawn of one kind, and some of them set one by one.
pub fn numbers<T: Float>(u: &mut Unstructured<'_>, len: usize) -> Drawn<Vec<T>> {
    let kind = u.int_in_range(0..=11)?;
    let mut rng = Rng(u.arbitrary::<u16>()?.into());
    let mut x: Vec<T> = (0..len).map(|_| number(&mut rng, kind)).collect();
    if len > 0 {
        for _ in 0..u.int_in_range(0..=5)? {
            let i = u.choose_index(len)?;
            x[i] = scalar(u)?;
        }
    }
    Ok(x)
}

/// A length, mostly small.
pub fn length(u: &mut Unstructured<'_>, most: usize) -> Drawn<usize> {
    match u.int_in_range(0..=3)? {
        0 => u.int_in_range(0..=most.min(4)),
        1 | 2 => u.int_in_range(0..=most.min(20)),
        _ => u.int_in_range(0..=most),
    }
}

/// Mostly `len`, now and then another.
pub fn nearly(u: &mut Unstructured<'_>, len: usize) -> Drawn<usize> {
    if u.ratio(1, 24)? { length(u, 40) } else { Ok(len) }
}

/// Mostly `len` numbers, now and then another count of them.
pub fn about<T: Float>(u: &mut Unstructured<'_>, len: usize) -> Drawn<Vec<T>> {
    let len = nearly(u, len)?;
    numbers(u, len)
}

/// Where the elements of a matrix lie in a slice: a part of a larger matrix with any strides, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub rows: usize,
    pub cols: usize,
    /// Rows and columns before and after, in the larger matrix.
    margins: [usize; 4],
    strides: (usize, usize),
    by_columns: bool,
}

impl Place {
    pub fn dense(rows: usize, cols: usize) -> Self {
        Self { rows, cols, margins: [0; 4], strides: (cols, 1), by_columns: false }
    }

    /// A layout for a matrix of this shape; of one that is only read, rows and columns may repeat.
    pub fn draw(u: &mut Unstructured<'_>, rows: usize, cols: usize, read_only: bool) -> Drawn<Self> {
        if u.ratio(1, 3)? {
            return Ok(Self::dense(rows, cols));
        }
        let by_columns = u.arbitrary()?;
        let mut margins = [0; 4];
        if u.arbitrary()? {
            for margin in &mut margins {
                *margin = u.int_in_range(0..=2)?;
            }
        }
        let line = if by_columns { rows } else { cols } + margins[2] + margins[3];
        let inner = if u.ratio(1, 3)? { u.int_in_range(1..=3)? } else { 1 };
        let outer = line * inner + u.int_in_range(0..=3)?;
        let mut strides = (outer, inner);
        if read_only && u.ratio(1, 8)? {
            strides = *u.choose(&[(0, inner), (outer, 0), (0, 0), (inner, inner)])?;
        }
        Ok(Self { rows, cols, margins, strides, by_columns })
    }

    /// The larger matrix.
    fn whole(self) -> (usize, usize) {
        let (rows, cols) = if self.by_columns { (self.cols, self.rows) } else { (self.rows, self.cols) };
        (rows + self.margins[0] + self.margins[1], cols + self.margins[2] + self.margins[3])
    }

    fn part(self) -> [std::ops::Range<usize>; 2] {
        let (rows, cols) = self.whole();
        [self.margins[0]..rows - self.margins[1], self.margins[2]..cols - self.margins[3]]
    }

    /// The length of the slice.
    pub fn len(self) -> usize {
        let (rows, cols) = self.whole();
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * self.strides.0 + (cols - 1) * self.strides.1 + 1 }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn read<T>(self, data: &[T]) -> MatRef<'_, T> {
        let ((rows, cols), [i, j]) = (self.whole(), self.part());
        let whole = MatRef::with_strides(data, rows, cols, self.strides.0, self.strides.1).expect("it fits");
        let part = whole.submatrix(i, j).expect("inside");
        if self.by_columns { part.t() } else { part }
    }

    pub fn write<T>(self, data: &mut [T]) -> MatMut<'_, T> {
        let ((rows, cols), [i, j]) = (self.whole(), self.part());
        let whole = MatMut::with_strides(data, rows, cols, self.strides.0, self.strides.1).expect("it fits");
        let part = whole.submatrix(i, j).expect("inside");
        if self.by_columns { part.t() } else { part }
    }
}

/// The elements row by row.
pub fn elements<T: Copy>(x: MatRef<'_, T>) -> Vec<T> {
    let cell = |i, j| x.get(i, j).expect("inside");
    if x.cols() == 0 {
        Vec::new()
    } else {
        (0..x.rows()).flat_map(|i| (0..x.cols()).map(move |j| cell(i, j))).collect()
    }
}

/// Data with a layout.
#[derive(Clone, Debug)]
pub struct Matrix<T> {
    pub place: Place,
    pub data: Vec<T>,
}

impl<T: Float> Matrix<T> {
    pub fn draw(u: &mut Unstructured<'_>, rows: usize, cols: usize, read_only: bool) -> Drawn<Self> {
        let place = Place::draw(u, rows, cols, read_only)?;
        Ok(Self { place, data: numbers(u, place.len())? })
    }

    /// One row.
    pub fn of_row(data: Vec<T>) -> Self {
        Self { place: Place::dense(1, data.len()), data }
    }

    pub fn read(&self) -> MatRef<'_, T> {
        self.place.read(&self.data)
    }

    pub fn row(&self, i: usize) -> Vec<T> {
        elements(self.read().submatrix(i..i + 1, 0..self.place.cols).expect("inside"))
    }

    pub fn has_shape_of(&self, other: &Self) -> bool {
        (self.place.rows, self.place.cols) == (other.place.rows, other.place.cols)
    }

    /// The same elements row by row.
    pub fn to_dense(&self) -> Self {
        Self { place: Place::dense(self.place.rows, self.place.cols), data: elements(self.read()) }
    }
}

/// The same bits, or both NaN.
pub fn same<T: Float>(a: T, b: T) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[track_caller]
pub fn assert_same<T: Float>(context: &str, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{context}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(same(got, want), "{context}: element {i} is {got:e} and should be {want:e}");
    }
}

/// What a call wrote and returned.
#[derive(Debug)]
pub struct Outcome<T, R, const N: usize> {
    pub written: [Vec<T>; N],
    pub result: Result<R>,
}

/// Calls `f` on every instruction set, with copies of the operands that it writes: the same must come out. What was
/// refused must have changed nothing.
#[track_caller]
pub fn everywhere<T: Float, R: Debug, const N: usize>(
    name: &str,
    operands: [&[T]; N],
    f: impl Fn([&mut [T]; N]) -> Result<R>,
) -> Outcome<T, R, N> {
    let run = |isa: Isa| {
        let mut written = operands.map(<[T]>::to_vec);
        let result = isa.run(|| f(written.each_mut().map(Vec::as_mut_slice)));
        Outcome { written, result }
    };
    let outcome = run(Isa::Baseline);
    let result = format!("{:?}", outcome.result);
    for &isa in &Isa::available()[1..] {
        let other = run(isa);
        for (got, want) in other.written.iter().zip(&outcome.written) {
            assert_same(&format!("{name}, {isa} and baseline"), got, want);
        }
        assert_eq!(format!("{:?}", other.result), result, "{name}, {isa} and baseline");
    }
    if matches!(outcome.result, Err(Error::Shape { .. } | Error::Argument { .. })) {
        for (got, want) in outcome.written.iter().zip(operands) {
            assert_same(&format!("{name}, refused: {result}"), got, want);
        }
    }
    outcome
}

/// [`everywhere`] for a function from matrices to a matrix, and once more on dense ones: the same must come out, and
/// nothing be written around the result.
#[track_caller]
pub fn everywhere_and_dense<T: Float, R: Debug, const N: usize>(
    name: &str,
    inputs: [&Matrix<T>; N],
    out: &Matrix<T>,
    f: impl Fn([MatRef<'_, T>; N], MatMut<'_, T>) -> Result<R>,
) -> (Matrix<T>, Result<R>) {
    let ([written], result) = everywhere_and_dense_all(name, inputs, [out], |inputs, [out]| f(inputs, out));
    (written, result)
}

/// [`everywhere_and_dense`] for a function to several matrices.
#[track_caller]
pub fn everywhere_and_dense_all<T: Float, R: Debug, const N: usize, const M: usize>(
    name: &str,
    inputs: [&Matrix<T>; N],
    outputs: [&Matrix<T>; M],
    f: impl Fn([MatRef<'_, T>; N], [MatMut<'_, T>; M]) -> Result<R>,
) -> ([Matrix<T>; M], Result<R>) {
    let read = inputs.map(Matrix::read);
    let run = |data: [&mut [T]; M]| {
        let mut places = outputs.iter().map(|out| out.place);
        f(read, data.map(|data| places.next().expect("one for each").write(data)))
    };
    let Outcome { written, result } = everywhere(name, outputs.map(|out| &out.data[..]), run);
    let mut places = outputs.iter().map(|out| out.place);
    let written = written.map(|data| Matrix { place: places.next().expect("one for each"), data });
    let dense = inputs.map(Matrix::to_dense);
    let mut dense_outputs = outputs.map(Matrix::to_dense);
    let write = dense_outputs.each_mut().map(|out| out.place.write(&mut out.data));
    let dense_result = f(dense.each_ref().map(Matrix::read), write);
    assert_eq!(format!("{result:?}"), format!("{dense_result:?}"), "{name}, strided and dense");
    for ((before, after), dense) in outputs.into_iter().zip(&written).zip(&dense_outputs) {
        assert_same(&format!("{name}, strided and dense"), &after.to_dense().data, &dense.data);
        check_margins(name, before, after);
    }
    (written, result)
}

/// What lies around a matrix is not written.
fn check_margins<T: Float>(name: &str, before: &Matrix<T>, after: &Matrix<T>) {
    let mut inside = vec![false; after.data.len()];
    let mut mark = after.place.write(&mut inside);
    if after.place.cols > 0 {
        for i in 0..after.place.rows {
            for j in 0..after.place.cols {
                *mark.get_mut(i, j).unwrap() = true;
            }
        }
    }
    for (i, inside) in inside.iter().enumerate() {
        assert!(*inside || same(before.data[i], after.data[i]), "{name} wrote outside the matrix, at {i}");
    }
}

/// An operand that a report may name.
#[derive(Debug)]
pub enum Operand<'a, T> {
    Scalar(T),
    Slice(&'a [T]),
    Matrix(MatRef<'a, T>),
    Tensors(&'a [Vec<T>]),
}

impl<T: Float> Operand<'_, T> {
    fn get(&self, index: Index) -> Option<T> {
        match (self, index) {
            (&Self::Scalar(x), Index::Scalar) => Some(x),
            (Self::Slice(x), Index::At(i)) => x.get(i).copied(),
            (Self::Matrix(x), Index::Cell(i, j)) => x.get(i, j),
            (Self::Tensors(x), Index::Tensor(t, i)) => x.get(t)?.get(i).copied(),
            _ => None,
        }
    }

    fn elements(&self) -> Vec<T> {
        match self {
            &Self::Scalar(x) => vec![x],
            Self::Slice(x) => x.to_vec(),
            Self::Matrix(x) => elements(*x),
            Self::Tensors(x) => x.concat(),
        }
    }
}

/// Holds a report to what the operands hold: the element that it names is of the class that it says, and it counts no
/// more than there are. Results that the caller does not see (`hidden`) can be named, but not as inputs.
#[track_caller]
pub fn check_report<T: Float, R>(
    result: &Result<R>,
    inputs: &[(&str, Operand<'_, T>)],
    outputs: &[(&str, Operand<'_, T>)],
    hidden: &[&str],
) {
    let Err(Error::NonFinite(report)) = result else { return };
    let NonFinite { operand, index, class, counts, origin, .. } = **report;
    let passed_in = origin == Origin::PassedIn;
    assert!(counts.total() > 0 && counts.total() <= counts.len, "{report:?}");
    assert!(passed_in || (class == Class::Nan) == (origin == Origin::Invalid), "{report:?}");
    let operands = if passed_in { inputs } else { outputs };
    let Some((_, operand)) = operands.iter().find(|(name, _)| *name == operand) else {
        return assert!(!passed_in && hidden.contains(&operand), "no such operand: {report:?}");
    };
    assert_eq!(operand.get(index).and_then(Class::of), Some(class), "{report:?}");
    let all = operand.elements();
    let count = |class| all.iter().filter(|&&x| Class::of(x) == Some(class)).count();
    assert_eq!(all.len(), counts.len, "{report:?}");
    assert!(counts.nan <= count(Class::Nan), "{report:?}");
    assert!(counts.pos_inf <= count(Class::PosInf), "{report:?}");
    assert!(counts.neg_inf <= count(Class::NegInf), "{report:?}");
}

pub fn all_finite<T: Float>(x: &[T]) -> bool {
    x.iter().all(|x| x.is_finite())
}

/// Whether a call that must have been computed reported something.
#[track_caller]
pub fn is_reported<R: Debug>(result: &Result<R>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::NonFinite(_)) => true,
        other => panic!("should not have been refused: {other:?}"),
    }
}

/// Whether a call was refused for its shapes or arguments.
pub fn is_refused<R>(result: &Result<R>) -> bool {
    matches!(result, Err(Error::Shape { .. } | Error::Argument { .. }))
}

/// Holds a number to a true value within an error. Where that error may lead past the largest number, infinity will do.
#[track_caller]
pub fn assert_near<T: Float>(context: &str, got: T, want: Wide, error: Wide) {
    let reach = want.abs() + error;
    if reach >= Wide::new(T::max_value()) && (got.is_infinite() || want.abs() >= Wide::new(T::max_value())) {
        return;
    }
    let within = got.is_finite() && (Wide::new(got) - want).abs() <= error;
    assert!(within, "{context}: {got:e} for {:e}, within {:e}", want.to_f64(), error.to_f64());
}

/// Holds a number to a true value within units in the last place.
#[track_caller]
pub fn assert_ulp<T: Float>(context: &str, got: T, want: Wide, bound: f64) {
    let error = nanproof::reference::ulp_error(got, want);
    assert!(error <= bound, "{context}: {got:e} for {:e}, {error} ULP and not within {bound}", want.to_f64());
}

/// The same of a number that may be off by some `slack` besides.
#[track_caller]
pub fn assert_ulp_beyond<T: Float>(context: &str, got: T, want: Wide, bound: f64, slack: Wide) {
    let error = Wide::new(got) - want;
    let near = if error.abs() <= slack {
        Wide::new(got)
    } else if error < Wide::new(T::zero()) {
        want - slack
    } else {
        want + slack
    };
    assert_ulp(context, got, near, bound);
}
