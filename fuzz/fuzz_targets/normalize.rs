//! Statistics, norms and normalisations of rows, of operands of any magnitude.

#![no_main]

use std::ops::RangeInclusive;

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let long = u.ratio(1, 32)?;
    let (rows, cols) = (length(u, if long { 2 } else { 12 })?, length(u, if long { 3000 } else { 70 })?);
    let x = Matrix::<T>::draw(u, rows, cols, true)?;
    match u.int_in_range(0..=5)? {
        0 => {
            let (weight, bias) = (maybe(u, cols)?, maybe(u, cols)?);
            normalisation(Unit::Deviation, small(u)?, &x, [weight, bias], &near(u, rows, cols)?);
        }
        1 => normalisation(Unit::RootMeanSquare, small(u)?, &x, [maybe(u, cols)?, None], &near(u, rows, cols)?),
        2 => normalisation(Unit::Norm, small(u)?, &x, [None, None], &near(u, rows, cols)?),
        3 => cosines(&x, &near(u, rows, cols)?, &about(u, rows)?),
        4 => statistics(*u.choose(&[0, 0, 1, 2])?, *u.choose(&Statistic::ALL)?, &x, &about(u, rows)?),
        _ => {
            let order =
                if u.arbitrary()? { *u.choose(&[1.0, 2.0, 3.0, 0.5, f64::INFINITY])? } else { wide(scalar::<T>(u)?) };
            norms(num(order), &x, &about(u, rows)?);
        }
    }
    Ok(())
}

fn near<T: Float>(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Matrix<T>> {
    let (rows, cols) = (nearly(u, rows)?, nearly(u, cols)?);
    Matrix::draw(u, rows, cols, false)
}

fn maybe<T: Float>(u: &mut Unstructured<'_>, len: usize) -> Drawn<Option<Vec<T>>> {
    Ok(if u.arbitrary()? { Some(about(u, len)?) } else { None })
}

/// An epsilon.
fn small<T: Float>(u: &mut Unstructured<'_>) -> Drawn<T> {
    Ok(match u.int_in_range(0..=3)? {
        0 | 1 => T::zero(),
        2 => num(1e-5),
        _ => scalar(u)?,
    })
}

/// The rows to compare with the reference.
fn few_rows<T: Float>(x: &Matrix<T>) -> impl Iterator<Item = (usize, Vec<T>)> {
    let count = if x.place.cols == 0 { 0 } else { x.place.rows.min(72 / x.place.cols) };
    (0..count).map(|i| (i, x.row(i)))
}

/// What rows are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Deviation,
    RootMeanSquare,
    Norm,
}

impl Unit {
    fn definition<T: Float>(self, x: &[T], eps: T) -> Vec<Wide> {
        match self {
            Self::Deviation => reference::layer_norm(x, eps),
            Self::RootMeanSquare => reference::rms_norm(x, eps),
            Self::Norm => reference::normalize(x, eps),
        }
    }

    /// Without weights: in ULP, and what the mean may be off by, over the divisor.
    fn bounds<T: Float>(self, x: &[T], eps: T) -> (f64, Wide) {
        if self != Self::Deviation {
            return (1.5, zero());
        }
        let divisor = (reference::variance(x, 0) + Wide::new(eps)).sqrt();
        let largest = reference::lp_norm(T::infinity(), x);
        let slack = Wide::new(mean_error::<T>(x.len(), 1024.0)) * largest;
        (2.0, if divisor == zero() { zero() } else { slack / divisor })
    }
}

fn zero() -> Wide {
    Wide::new(0.0_f64)
}

/// What a mean may be wrong by, beside its rounding, over the largest magnitude.
fn mean_error<T: Float>(n: usize, more: f64) -> f64 {
    let n = n as f64;
    if T::LANES == 16 { (n + more) * 2_f64.powi(-57) } else { n * n * 2_f64.powi(-106) }
}

fn normalisation<T: Float>(unit: Unit, eps: T, x: &Matrix<T>, affine: [Option<Vec<T>>; 2], out: &Matrix<T>) {
    let name = format!("{unit:?}, eps {eps:e}");
    let [weight, bias] = affine.each_ref().map(Option::as_deref);
    let f = |[x]: [MatRef<'_, T>; 1], y: MatMut<'_, T>| match unit {
        Unit::Deviation => layer_norm(LayerNorm { eps }, x, weight, bias, y),
        Unit::RootMeanSquare => rms_norm(RmsNorm { eps }, x, weight, y),
        Unit::Norm => normalize(eps, x, y),
    };
    let (y, result) = everywhere_and_dense(&name, [x], out, f);
    let fits = x.has_shape_of(out) && [weight, bias].iter().flatten().all(|operand| operand.len() == x.place.cols);
    let eps_fits = eps.is_zero() || eps.is_normal() && eps > T::zero();
    assert_eq!(is_refused(&result), !fits || !eps_fits, "{name}: {result:?}");
    if is_refused(&result) {
        return;
    }
    let [weights, biases] = [weight, bias].map(|operand| Operand::Slice(operand.unwrap_or_default()));
    let inputs = [("x", Operand::Matrix(x.read())), ("weight", weights), ("bias", biases)];
    check_report(&result, &inputs, &[("y", Operand::Matrix(y.read()))], &[]);
    let finite = all_finite(&elements(x.read())) && all_finite(&elements(y.read()));
    assert_eq!(is_reported(&result), !finite, "{name}: {result:?}");
    for (i, x) in few_rows(x) {
        let y = y.row(i);
        assert!(!x.iter().any(|x| x.is_nan()) || y.iter().all(|y| y.is_nan()), "{name} of {x:?} lost a NaN: {y:?}");
        if all_finite(&x) {
            check_row(&format!("{name} of {x:?}"), unit.bounds(&x, eps), &unit.definition(&x, eps), [weight, bias], &y);
        }
    }
}

/// With weights and bias the product and the sum are rounded once more.
fn check_row<T: Float>(
    context: &str,
    (ulps, slack): (f64, Wide),
    unscaled: &[Wide],
    [weight, bias]: [Option<&[T]>; 2],
    y: &[T],
) {
    let u = Wide::new(unit_roundoff::<T>());
    for (j, (&z, &got)) in unscaled.iter().zip(y).enumerate() {
        if weight.is_none() && bias.is_none() {
            assert_ulp_beyond(&format!("{context}, at {j}"), got, z, ulps, slack);
            continue;
        }
        let (weight, bias) = (weight.map_or(T::one(), |w| w[j]), bias.map_or(T::zero(), |b| b[j]));
        if !all_finite(&[weight, bias]) {
            assert!(!got.is_finite(), "{context}, {weight:e}, {bias:e}: {got:e}");
            continue;
        }
        let (weight, bias) = (Wide::new(weight), Wide::new(bias));
        let product = weight * z;
        let want = product + bias;
        let of_unscaled = Wide::new(2.0 * ulps) * u * z.abs() + Wide::new(ulps) * smallest::<T>() + slack;
        let error = weight.abs() * of_unscaled + u * (product.abs() + want.abs()) + smallest::<T>() + smallest::<T>();
        let context = format!("{context}, at {j}, times {:e}, plus {:e}", weight.to_f64(), bias.to_f64());
        assert_near(&context, got, want, error);
    }
}

/// Calls a function of the rows of matrices on every instruction set, and once more with dense ones.
fn of_rows<T: Float, const N: usize>(
    name: &str,
    inputs: [&Matrix<T>; N],
    y: &[T],
    f: impl Fn([MatRef<'_, T>; N], &mut [T]) -> Result<()>,
) -> (Vec<T>, Result<()>) {
    let Outcome { written: [written], result } = everywhere(name, [y], |[y]| f(inputs.map(Matrix::read), y));
    let (dense, mut dense_y) = (inputs.map(Matrix::to_dense), y.to_vec());
    let dense_result = f(dense.each_ref().map(Matrix::read), &mut dense_y);
    assert_same(&format!("{name}, strided and dense"), &written, &dense_y);
    assert_eq!(format!("{result:?}"), format!("{dense_result:?}"), "{name}, strided and dense");
    (written, result)
}

fn cosines<T: Float>(a: &Matrix<T>, b: &Matrix<T>, y: &[T]) {
    let (y, result) = of_rows("cosine_similarity", [a, b], y, |[a, b], y| cosine_similarity(a, b, y));
    assert_eq!(is_refused(&result), !a.has_shape_of(b) || y.len() != a.place.rows, "{result:?}");
    if is_refused(&result) {
        return;
    }
    let inputs = [("a", Operand::Matrix(a.read())), ("b", Operand::Matrix(b.read()))];
    check_report(&result, &inputs, &[("y", Operand::Slice(&y))], &[]);
    let finite = [a, b].iter().all(|x| all_finite(&elements(x.read())));
    assert_eq!(is_reported(&result), !finite, "{result:?}");
    assert!(y.iter().all(|y| y.is_nan() || y.abs() <= T::one()), "{y:?}");
    let n = a.place.cols as f64;
    let lost = if T::LANES == 16 { n * 2_f64.powi(-53) } else { n * n * 2_f64.powi(-106) };
    for (i, a) in few_rows(a) {
        let b = b.row(i);
        let is_nan = a.iter().chain(&b).any(|x| x.is_nan());
        assert!(!is_nan || y[i].is_nan(), "{a:?}, {b:?}: {:e}", y[i]);
        if all_finite(&a) && all_finite(&b) {
            let want = reference::cosine_similarity(&a, &b);
            assert_ulp_beyond(&format!("cosine_similarity of {a:?}, {b:?}"), y[i], want, 0.51, Wide::new(lost));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Statistic {
    Mean,
    Variance,
    Std,
}

impl Statistic {
    const ALL: [Self; 3] = [Self::Mean, Self::Variance, Self::Std];
}

fn statistics<T: Float>(ddof: usize, statistic: Statistic, x: &Matrix<T>, y: &[T]) {
    let ddof = if matches!(statistic, Statistic::Mean) { 0 } else { ddof };
    let name = format!("{statistic:?}, ddof {ddof}");
    let (y, result) = of_rows(&name, [x], y, |[x], y| match statistic {
        Statistic::Mean => mean_rows(x, y),
        Statistic::Variance => variance_rows(Variance { ddof }, x, y),
        Statistic::Std => std_rows(Variance { ddof }, x, y),
    });
    let (rows, cols) = (x.place.rows, x.place.cols);
    assert_eq!(is_refused(&result), y.len() != rows || rows > 0 && cols <= ddof, "{name}: {result:?}");
    if is_refused(&result) {
        return;
    }
    check_rows(&name, x, &y, &result);
    for (i, x) in few_rows(x).filter(|(_, x)| all_finite(x)) {
        let context = format!("{name} of {x:?}");
        match statistic {
            Statistic::Mean => {
                let slack = Wide::new(mean_error::<T>(cols, 64.0)) * reference::lp_norm(T::infinity(), &x);
                assert_ulp_beyond(&context, y[i], reference::mean(&x), 0.7, slack);
            }
            Statistic::Variance => assert_ulp(&context, y[i], reference::variance(&x, ddof), 1.0),
            Statistic::Std => assert_ulp(&context, y[i], reference::variance(&x, ddof).sqrt(), 1.0),
        }
    }
}

/// A number for each row: nothing that is not finite is overlooked, and a NaN in a row is one in its number.
fn check_rows<T: Float>(name: &str, x: &Matrix<T>, y: &[T], result: &Result<()>) {
    check_report(result, &[("x", Operand::Matrix(x.read()))], &[("y", Operand::Slice(y))], &[]);
    let finite = all_finite(&elements(x.read())) && all_finite(y);
    assert_eq!(is_reported(result), !finite, "{name}: {result:?}");
    for (i, y) in y.iter().enumerate() {
        assert!(y.is_nan() || !x.row(i).iter().any(|x| x.is_nan()), "{name}: lost a NaN in row {i}");
    }
}

/// Orders in which the reference means something: above, its powers overflow; below, so does what it is rounded by, times
/// `1/p`.
const ORDERS: RangeInclusive<f64> = 1e-12..=100.0;

fn norms<T: Float>(p: T, x: &Matrix<T>, y: &[T]) {
    let name = format!("norms of order {p:e}");
    let (y, result) = of_rows(&name, [x], y, |[x], y| lp_norm_rows(p, x, y));
    assert_eq!(is_refused(&result), y.len() != x.place.rows || p.is_nan() || p <= T::zero(), "{name}: {result:?}");
    if is_refused(&result) {
        return;
    }
    check_rows(&name, x, &y, &result);
    let ulps = if T::LANES == 16 { 1.0 } else { 3.0 } / wide(p).min(1.0);
    for (i, row) in few_rows(x) {
        let single = everywhere(&name, [], |[]: [&mut [T]; 0]| lp_norm(p, &row)).result;
        check_norm(&name, &row, &single, y[i]);
        let euclidean = everywhere("l2_norm", [], |[]: [&mut [T]; 0]| l2_norm(&row)).result;
        if !all_finite(&row) {
            assert!(is_reported(&euclidean), "l2_norm of {row:?}: {euclidean:?}");
            continue;
        }
        assert!(!y[i].is_nan(), "{name}, of {row:?}");
        if p.is_infinite() || ORDERS.contains(&wide(p)) {
            assert_ulp(&format!("{name}, of {row:?}"), y[i], reference::lp_norm(p, &row), ulps);
        }
        let want = reference::l2_norm(&row);
        let norm = if is_reported(&euclidean) { T::infinity() } else { euclidean.unwrap() };
        assert_ulp(&format!("l2_norm of {row:?}"), norm, want, if T::LANES == 16 { 2.0 } else { 1.0 });
    }
}

/// The norm of a row is the norm of the same elements as a vector.
fn check_norm<T: Float>(name: &str, x: &[T], single: &Result<T>, of_row: T) {
    check_report(single, &[("x", Operand::Slice(x))], &[], &["norm"]);
    match single {
        Ok(norm) => assert!(same(*norm, of_row), "{name} of {x:?}: {norm:e} and {of_row:e}"),
        Err(_) => assert!(!of_row.is_finite() && is_reported(single), "{name} of {x:?}: {single:?} and {of_row:e}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
