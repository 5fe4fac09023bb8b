//! Formulas as a textbook has them, and as one would write them.

use crate::matrix::Matrix;

pub(crate) fn map(x: &Matrix, f: impl Fn(f32) -> f32) -> Matrix {
    Matrix { data: x.data.iter().map(|&x| f(x)).collect(), ..*x }
}

pub(crate) fn zip(x: &Matrix, y: &Matrix, f: impl Fn(f32, f32) -> f32) -> Matrix {
    Matrix { data: x.data.iter().zip(&y.data).map(|(&x, &y)| f(x, y)).collect(), ..*x }
}

/// `(e^x - e^-x) / (e^x + e^-x)`.
pub(crate) fn tanh(x: f32) -> f32 {
    (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())
}

/// Each row over its sum.
pub(crate) fn normalise_rows(x: &Matrix) -> Matrix {
    let normalised = |i| {
        let sum: f32 = x.row(i).iter().sum();
        x.row(i).iter().map(move |x| x / sum)
    };
    Matrix { data: (0..x.rows).flat_map(normalised).collect(), ..*x }
}

/// Each row less its largest element.
pub(crate) fn shift_rows(x: &Matrix) -> Matrix {
    let shifted = |i| {
        let largest = x.row(i).iter().copied().fold(f32::NEG_INFINITY, f32::max);
        x.row(i).iter().map(move |x| x - largest)
    };
    Matrix { data: (0..x.rows).flat_map(shifted).collect(), ..*x }
}

/// The mean and the deviation of each column, each repeated as a matrix of the same shape.
pub(crate) fn columns(x: &Matrix) -> [Matrix; 2] {
    let rows = x.rows as f32;
    let column = |j: usize| (0..x.rows).map(move |i| x.row(i)[j]);
    let mean: Vec<f32> = (0..x.cols).map(|j| column(j).sum::<f32>() / rows).collect();
    let variance = |j: usize| column(j).map(|x| (x - mean[j]).powi(2)).sum::<f32>() / rows;
    let deviation: Vec<f32> = (0..x.cols).map(|j| variance(j).sqrt()).collect();
    [mean, deviation].map(|row| Matrix::repeated(&row, x.rows))
}
