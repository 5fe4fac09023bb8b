//! Rows that are not contiguous: they are copied, many at a time, and give the bits of rows that are.

mod common;

use common::{Kind, Rng, assert_same, data, mat, mat_mut, num};
use nanproof::{
    CrossEntropy, Float, LayerNorm, MatMut, MatRef, Softmax, Targets, cross_entropy_with_gradient, layer_norm,
    log_softmax, logsumexp, softmax, softmax_backward, softmax_in_place, softmax_with,
};

/// Squares of 16 or 8 rows and columns, and what is left over; rows that are copied alone.
const SHAPES: [(usize, usize); 12] = [
    (0, 20),
    (1, 40),
    (16, 16),
    (17, 16),
    (16, 17),
    (37, 50),
    (15, 70),
    (33, 7),
    (2000, 3),
    (3, 300),
    (100, 256),
    (2, 16_500),
];

/// How far apart rows and columns are, in several layouts.
fn strides(rows: usize, cols: usize) -> [[usize; 2]; 5] {
    [[1, rows], [1, rows + 3], [2, 2 * rows + 1], [3 * cols, 3], [cols + 5, 1]]
}

/// What lies in the gaps of a matrix: no operation comes to it.
const GAP: f64 = -123.456;

/// A matrix with gaps.
struct Spread<T> {
    storage: Vec<T>,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<T: Float> Spread<T> {
    fn new(x: &[T], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, cols] = shape;
        let span = if x.is_empty() { 0 } else { (rows - 1) * strides[0] + (cols - 1) * strides[1] + 1 };
        let mut spread = Self { storage: vec![num(GAP); span], shape, strides };
        let mut view = spread.view_mut();
        (0..x.len()).for_each(|at| *view.get_mut(at / cols, at % cols).expect("inside") = x[at]);
        spread
    }

    fn view(&self) -> MatRef<'_, T> {
        let ([rows, cols], [row_stride, col_stride]) = (self.shape, self.strides);
        MatRef::with_strides(&self.storage, rows, cols, row_stride, col_stride).expect("it fits")
    }

    fn view_mut(&mut self) -> MatMut<'_, T> {
        let ([rows, cols], [row_stride, col_stride]) = (self.shape, self.strides);
        MatMut::with_strides(&mut self.storage, rows, cols, row_stride, col_stride).expect("it fits")
    }

    /// The elements row by row; what lies between them is as it was.
    fn elements(mut self) -> Vec<T> {
        let [rows, cols] = self.shape;
        let elements = (0..rows * cols).map(|at| self.view().get(at / cols, at % cols).expect("inside")).collect();
        let mut view = self.view_mut();
        (0..rows * cols).for_each(|at| *view.get_mut(at / cols, at % cols).expect("inside") = num(GAP));
        assert!(self.storage.iter().all(|&x| x == num(GAP)), "a gap was written to");
        elements
    }
}

/// An operation on logits, probabilities and a mask.
type Op<T> = fn(MatRef<'_, T>, MatRef<'_, T>, MatRef<'_, bool>, MatMut<'_, T>);

fn ops<T: Float>() -> Vec<(&'static str, Op<T>)> {
    vec![
        ("softmax", |x, _, _, y| drop(softmax(x, y))),
        ("log_softmax", |x, _, _, y| drop(log_softmax(x, y))),
        ("softmax_backward", |dp, p, _, dx| drop(softmax_backward(p, dp, dx))),
        ("layer_norm", |x, _, _, y| drop(layer_norm(LayerNorm::default(), x, None, None, y))),
        ("logsumexp", |x, _, _, mut y| {
            let mut values = vec![T::nan(); x.rows()];
            drop(logsumexp(x, &mut values));
            (0..x.rows()).for_each(|i| *y.get_mut(i, 0).expect("inside") = values[i]);
        }),
        ("softmax_with", |x, bias, mask, y| {
            let options = Softmax { scale: num(0.5), bias: Some(bias), mask: Some(mask), ..Softmax::default() };
            drop(softmax_with(Softmax { causal: Some(2), ..options }, x, y));
        }),
        ("softmax_in_place", |x, bias, mask, mut y| {
            let options = Softmax { bias: Some(bias), mask: Some(mask), ..Softmax::default() };
            drop(softmax(x, y.reborrow()));
            drop(softmax_in_place(options, y.reborrow()));
            drop(softmax_in_place(Softmax::default(), y));
        }),
        ("cross_entropy", |x, p, _, dx| {
            drop(cross_entropy_with_gradient(CrossEntropy::default(), x, Targets::Probabilities(p), dx));
        }),
    ]
}

fn as_contiguous<T: Float>() {
    for (rows, cols) in SHAPES {
        for kind in [Kind::Within(20.0), Kind::Special] {
            let len = rows * cols;
            let (x, logits) = (data::<T>(1, kind, len), data::<T>(2, Kind::Within(3.0), len));
            let (mut p, mut rng) = (vec![T::nan(); len], Rng(3));
            softmax(mat(&logits, rows, cols), mat_mut(&mut p, rows, cols)).expect("finite logits");
            let keep = (0..len).map(|_| rng.below(5) > 0).collect::<Vec<_>>();
            let mask = MatRef::new(&keep, rows, cols).expect("its shape");
            for (name, op) in ops::<T>() {
                let mut want = vec![T::zero(); len];
                op(mat(&x, rows, cols), mat(&p, rows, cols), mask, mat_mut(&mut want, rows, cols));
                for strides in strides(rows, cols) {
                    let spread = |x: &[T]| Spread::new(x, [rows, cols], strides);
                    let mut y = spread(&vec![T::zero(); len]);
                    op(spread(&x).view(), spread(&p).view(), mask, y.view_mut());
                    let context = format!("{name}, {kind:?}, {rows} x {cols}, strides {strides:?}");
                    assert_same(&context, &y.elements(), &want);
                }
            }
        }
    }
}

#[test]
fn the_bits_of_contiguous_rows() {
    everywhere!(as_contiguous);
}

/// A column, or a row, that is repeated.
fn repeated<T: Float>() {
    for (rows, cols) in [(16, 16), (40, 35), (3, 100), (100, 3)] {
        let x = data::<T>(1, Kind::Within(20.0), rows + 2 * cols);
        for [row_stride, col_stride] in [[0, 2], [1, 0], [0, 1], [0, 0], [1, 1]] {
            let x = MatRef::with_strides(&x, rows, cols, row_stride, col_stride).expect("it fits");
            let whole = (0..rows * cols).map(|at| x.get(at / cols, at % cols).expect("inside")).collect::<Vec<_>>();
            let [mut want, mut got] = [(); 2].map(|()| vec![T::nan(); rows * cols]);
            softmax(mat(&whole, rows, cols), mat_mut(&mut want, rows, cols)).expect("finite logits");
            softmax(x, mat_mut(&mut got, rows, cols)).expect("finite logits");
            assert_same(format!("{rows} x {cols}, strides {row_stride} and {col_stride}"), &got, &want);
        }
    }
}

#[test]
fn repeated_rows_and_columns() {
    everywhere!(repeated);
}
