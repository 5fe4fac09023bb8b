//! Statistics, norms, normalisations and extreme entries of rows, and their gradients, of operands of any magnitude.

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
    match u.int_in_range(0..=10)? {
        0 => {
            let (weight, bias) = (maybe(u, cols)?, maybe(u, cols)?);
            normalisation(Unit::Deviation, small(u)?, &x, [weight, bias], &near(u, rows, cols)?);
        }
        1 => normalisation(Unit::RootMeanSquare, small(u)?, &x, [maybe(u, cols)?, None], &near(u, rows, cols)?),
        2 => normalisation(Unit::Norm, small(u)?, &x, [None, None], &near(u, rows, cols)?),
        3 => cosines(&x, &near(u, rows, cols)?, &about(u, rows)?),
        4 => statistics(*u.choose(&[0, 0, 1, 2])?, *u.choose(&Statistic::ALL)?, &x, &about(u, rows)?),
        5 => norms(order(u)?, &x, &about(u, rows)?),
        6 => normalisation_gradients(u, &x)?,
        7 => cosine_gradients(
            [&x, &near(u, rows, cols)?],
            &about(u, rows)?,
            [&near(u, rows, cols)?, &near(u, rows, cols)?],
        ),
        8 => {
            let (ddof, statistic) = (*u.choose(&[0, 0, 1, 2])?, *u.choose(&Statistic::ALL)?);
            statistic_gradients(ddof, statistic, &x, &about(u, rows)?, &near(u, rows, cols)?);
        }
        9 => norm_gradients(order(u)?, &x, &about(u, rows)?, &near(u, rows, cols)?),
        _ => {
            let (end, places) = (*u.choose(&[End::Largest, End::Smallest])?, nearly(u, rows)?);
            extremes(end, &x, &about(u, rows)?, vec![usize::MAX; places]);
            extreme_gradients(end, &x, &about(u, rows)?, &near(u, rows, cols)?);
        }
    }
    Ok(())
}

/// The order of a norm.
fn order<T: Float>(u: &mut Unstructured<'_>) -> Drawn<T> {
    Ok(if u.arbitrary()? { num(*u.choose(&[1.0, 2.0, 3.0, 0.5, f64::INFINITY])?) } else { scalar(u)? })
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

// --- Gradients of normalisations -------------------------------------------------------------------------------------

/// The operands of a normalisation and of its gradients.
struct Normalised<'a, T> {
    unit: Unit,
    eps: T,
    x: &'a Matrix<T>,
    weight: Option<&'a [T]>,
    dy: &'a Matrix<T>,
}

fn normalisation_gradients<T: Float>(u: &mut Unstructured<'_>, x: &Matrix<T>) -> Drawn<()> {
    let (rows, cols) = (x.place.rows, x.place.cols);
    let unit = *u.choose(&[Unit::Deviation, Unit::RootMeanSquare, Unit::Norm])?;
    let weight = if unit == Unit::Norm { None } else { maybe(u, cols)? };
    let wanted = [unit != Unit::Norm && u.arbitrary()?, unit == Unit::Deviation && u.arbitrary()?];
    let (eps, dy, dx) = (small(u)?, near(u, rows, cols)?, near(u, rows, cols)?);
    let [dw, db] = [Matrix::of_row(about(u, cols)?), Matrix::of_row(about(u, cols)?)];
    Normalised { unit, eps, x, weight: weight.as_deref(), dy: &dy }.check([&dx, &dw, &db], wanted);
    Ok(())
}

impl<T: Float> Normalised<'_, T> {
    fn check(&self, outputs: [&Matrix<T>; 3], wanted: [bool; 2]) {
        let (name, cols) = (format!("gradients of {:?}, eps {:e}", self.unit, self.eps), self.x.place.cols);
        let f = |inputs: [MatRef<'_, T>; 2], outputs: [MatMut<'_, T>; 3]| self.call(inputs, outputs, wanted);
        let ([dx, dw, db], result) = everywhere_and_dense_all(&name, [self.x, self.dy], outputs, f);
        let sums: Vec<_> = [&dw, &db].into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(x, _)| x).collect();
        let eps_fits = self.eps.is_zero() || self.eps.is_normal() && self.eps > T::zero();
        let fits = [self.dy, &dx].iter().all(|x| x.has_shape_of(self.x))
            && self.weight.is_none_or(|weight| weight.len() == cols)
            && sums.iter().all(|sums| sums.place.cols == cols);
        assert_eq!(is_refused(&result), !fits || !eps_fits, "{name}: {result:?}");
        if is_refused(&result) {
            return;
        }
        let weight = Operand::Slice(self.weight.unwrap_or_default());
        let inputs =
            [("x", Operand::Matrix(self.x.read())), ("weight", weight), ("dy", Operand::Matrix(self.dy.read()))];
        let outputs =
            [("dx", Operand::Matrix(dx.read())), ("dw", Operand::Slice(&dw.data)), ("db", Operand::Slice(&db.data))];
        check_report(&result, &inputs, &outputs, &[]);
        let finite = all_finite(&elements(dx.read())) && sums.iter().all(|sums| all_finite(&sums.data));
        assert_eq!(is_reported(&result), !finite, "{name}: {result:?}");
        for (i, x) in few_rows(self.x) {
            self.check_row(&x, &self.dy.row(i), &dx.row(i));
        }
        self.check_columns([&dw.data, &db.data], wanted);
    }

    fn call(
        &self,
        [x, dy]: [MatRef<'_, T>; 2],
        [dx, mut dw, mut db]: [MatMut<'_, T>; 3],
        wanted: [bool; 2],
    ) -> Result<()> {
        let (eps, weight) = (self.eps, self.weight);
        let dw = if wanted[0] { dw.row_mut(0) } else { None };
        let db = if wanted[1] { db.row_mut(0) } else { None };
        match self.unit {
            Unit::Deviation => layer_norm_backward(LayerNorm { eps }, x, weight, dy, LayerNormGradients { dx, dw, db }),
            Unit::RootMeanSquare => rms_norm_backward(RmsNorm { eps }, x, weight, dy, dx, dw),
            Unit::Norm => normalize_backward(eps, x, dy, dx),
        }
    }

    fn check_row(&self, x: &[T], dy: &[T], dx: &[T]) {
        let &Self { unit, eps, weight, .. } = self;
        let context = format!("gradient of {unit:?}, eps {eps:e}, of {x:?}, weights {weight:?}, {dy:?}");
        let rate = unit.rate(x, eps);
        let weight = weight.map_or_else(|| vec![T::one(); x.len()], <[T]>::to_vec);
        if !all_finite(x) {
            assert!(dx.iter().all(|dx| !dx.is_finite()), "{context}: lost a fault of x: {dx:?}");
        } else if rate == zero() {
            assert!(dx.iter().all(|dx| dx.is_zero()), "{context}: there is no derivative: {dx:?}");
        } else if !all_finite(dy) || !all_finite(&weight) {
            let is_lost =
                |((dy, weight), dx): ((&T, &T), &T)| !(dy.is_finite() && weight.is_finite()) && dx.is_finite();
            assert!(!dy.iter().zip(&weight).zip(dx).any(is_lost), "{context}: lost a fault: {dx:?}");
        } else if !is_far_apart(&weight) && !is_far_apart(dy) {
            let terms = unit.gradient(x, eps, &weight, dy);
            check_terms(&context, &terms, dx, self.slack(x, &weight, dy, rate));
        }
    }

    /// What the error may be besides that of the terms, in each element.
    fn slack(&self, x: &[T], weight: &[T], dy: &[T], rate: Wide) -> Vec<Wide> {
        let z = self.unit.definition(x, self.eps);
        let n = if self.unit == Unit::Norm { Wide::new(1.0) } else { count(x.len()) };
        let g: Vec<_> = weight.iter().zip(dy).map(|(&w, &dy)| Wide::new(w) * Wide::new(dy)).collect();
        let lost_of_sums = Wide::new(sum_error::<T>(x.len()));
        let along = total(g.iter().zip(&z).map(|(&g, &z)| (g * z).abs())) / n;
        let mean = if self.unit == Unit::Deviation { total(g.iter().map(|g| g.abs())) / n } else { zero() };
        let each = z.iter().zip(weight).zip(dy).map(|((z, &weight), &dy)| {
            rate * lost_of_sums * (mean + z.abs() * along) + upstream_underflow(weight, Wide::new(dy) * rate)
        });
        each.collect()
    }

    fn check_columns(&self, [dw, db]: [&[T]; 2], wanted: [bool; 2]) {
        let (rows, cols) = (self.x.place.rows, self.x.place.cols);
        if wanted == [false; 2] || rows * cols > 400 {
            return;
        }
        let [x, dy] = [self.x, self.dy].map(|x| (0..rows).map(|i| x.row(i)).collect::<Vec<_>>());
        // Known: in `f64` a row of `dy` that is not finite somewhere makes every sum of products NaN.
        let are_products_finite =
            x.iter().all(|x| all_finite(x)) && (T::LANES == 16 || dy.iter().all(|dy| all_finite(dy)));
        let normalised: Vec<_> = x.iter().map(|x| self.unit.normalised(x, self.eps)).collect();
        for j in 0..cols {
            let dy: Vec<T> = dy.iter().map(|dy| dy[j]).collect();
            let context =
                format!("{:?}, eps {:e}: the sum over the rows of {x:?}, at {j}, of {dy:?}", self.unit, self.eps);
            if !all_finite(&dy) {
                assert!(!(wanted[0] && dw[j].is_finite() || wanted[1] && db[j].is_finite()), "{context}: lost a fault");
                continue;
            }
            if wanted[0] && are_products_finite {
                check_sum_of_products(&context, &dy, normalised.iter().map(|z| z[j]), dw[j]);
            }
            if wanted[1] {
                check_sum(&context, &dy, db[j]);
            }
        }
    }
}

impl Unit {
    /// 1 over what a row is divided by, and 0 where there is nothing to divide.
    fn rate<T: Float>(self, x: &[T], eps: T) -> Wide {
        if !all_finite(x) {
            return zero();
        }
        let (n, norm, wide_eps) = (count(x.len()), reference::l2_norm(x), Wide::new(eps));
        let divisor = match self {
            Self::Deviation => (reference::variance(x, 0) + wide_eps).sqrt(),
            Self::RootMeanSquare => (norm * norm / n + wide_eps).sqrt(),
            Self::Norm => larger(norm, wide_eps),
        };
        if divisor == zero() { divisor } else { Wide::new(1.0) / divisor }
    }

    fn gradient<T: Float>(self, x: &[T], eps: T, weight: &[T], dy: &[T]) -> Vec<[Wide; 3]> {
        match self {
            Self::Deviation => reference::layer_norm_backward(x, eps, weight, dy),
            Self::RootMeanSquare => reference::rms_norm_backward(x, eps, weight, dy),
            Self::Norm => reference::normalize_backward(x, eps, dy),
        }
    }

    /// The elements without weights, and what each may be off by besides its rounding.
    fn normalised<T: Float>(self, x: &[T], eps: T) -> Vec<[Wide; 2]> {
        if !all_finite(x) {
            return vec![[zero(); 2]; x.len()];
        }
        let slack = self.bounds(x, eps).1;
        self.definition(x, eps).into_iter().map(|z| [z, slack]).collect()
    }
}

fn larger(a: Wide, b: Wide) -> Wide {
    if a < b { b } else { a }
}

fn count(n: usize) -> Wide {
    Wide::new(n as f64)
}

fn total(terms: impl Iterator<Item = Wide>) -> Wide {
    terms.fold(zero(), |sum, term| sum + term)
}

/// What sums of products over a row lose, over the sum of the magnitudes.
fn sum_error<T: Float>(n: usize) -> f64 {
    let n = n as f64;
    if T::LANES == 16 { (n + 64.0) * 2_f64.powi(-53) } else { n * n * 2_f64.powi(-106) }
}

/// Known: weights, or upstream gradients, of `f64` so far apart are scaled by one power of two, and some are lost.
fn is_far_apart<T: Float>(x: &[T]) -> bool {
    let exponents = || x.iter().filter(|x| !x.is_zero()).map(|x| wide(x.abs()).log2());
    let (lowest, highest) = (exponents().fold(f64::INFINITY, f64::min), exponents().fold(f64::NEG_INFINITY, f64::max));
    T::LANES == 8 && highest - lowest > 900.0
}

/// Known: a product of `dy` and the rate that is subnormal is rounded before a weight lifts it.
fn upstream_underflow<T: Float>(weight: T, product: Wide) -> Wide {
    if product.abs() < Wide::new(T::min_positive_value()) { Wide::new(weight).abs() * smallest::<T>() } else { zero() }
}

/// Sums of terms, within `8 u` of the terms.
fn check_terms<T: Float, const N: usize>(context: &str, terms: &[[Wide; N]], got: &[T], slack: Vec<Wide>) {
    let eight = Wide::new(8.0);
    for (j, ((terms, &got), slack)) in terms.iter().zip(got).zip(slack).enumerate() {
        let (sum, size) = (total(terms.iter().copied()), total(terms.iter().map(|term| term.abs())));
        let error = eight * (Wide::new(unit_roundoff::<T>()) * size + smallest::<T>()) + slack;
        assert_near(&format!("{context}, at {j}"), got, sum, error);
    }
}

/// `sum(dy z)` with what each `z` may be off by.
fn check_sum_of_products<T: Float>(context: &str, dy: &[T], z: impl Iterator<Item = [Wide; 2]>, got: T) {
    let (u, tiny) = (Wide::new(unit_roundoff::<T>()), smallest::<T>());
    let (mut sum, mut error) = (zero(), tiny);
    for (&dy, [z, slack]) in dy.iter().zip(z) {
        let product = Wide::new(dy) * z;
        sum = sum + product;
        error = error + Wide::new(3.0) * u * product.abs() + Wide::new(dy).abs() * (slack + tiny + tiny) + tiny;
    }
    assert_near(context, got, sum, error);
}

/// `sum(dy)`, with its rounding errors kept.
fn check_sum<T: Float>(context: &str, dy: &[T], got: T) {
    let (u, n) = (unit_roundoff::<T>(), dy.len() as f64);
    let (sum, size) = (reference::sum(dy), reference::lp_norm(T::one(), dy));
    let error = Wide::new(u) * sum.abs() + Wide::new(n * u) * Wide::new(n * u) * size + smallest::<T>();
    assert_near(context, got, sum, error);
}

// --- Gradients of cosines, statistics and norms ----------------------------------------------------------------------

fn cosine_gradients<T: Float>(inputs: [&Matrix<T>; 2], dy: &[T], outputs: [&Matrix<T>; 2]) {
    let name = "cosine_similarity_backward";
    let f = |[a, b]: [MatRef<'_, T>; 2], [da, db]: [MatMut<'_, T>; 2]| cosine_similarity_backward(a, b, dy, da, db);
    let ([da, db], result) = everywhere_and_dense_all(name, inputs, outputs, f);
    let [a, b] = inputs;
    let refused = dy.len() != a.place.rows || [b, &da, &db].iter().any(|x| !x.has_shape_of(a));
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let operand = |name, x| (name, Operand::Matrix(Matrix::read(x)));
    let inputs = [operand("a", a), operand("b", b), ("dy", Operand::Slice(dy))];
    check_report(&result, &inputs, &[operand("da", &da), operand("db", &db)], &[]);
    let finite = [&da, &db].iter().all(|x| all_finite(&elements(x.read())));
    assert_eq!(is_reported(&result), !finite, "{name}: {result:?}");
    for (i, a) in few_rows(a) {
        let (b, da, db) = (b.row(i), da.row(i), db.row(i));
        check_cosine_gradient([&a, &b], dy[i], &da);
        check_cosine_gradient([&b, &a], dy[i], &db);
    }
}

fn check_cosine_gradient<T: Float>([a, b]: [&[T]; 2], dy: T, da: &[T]) {
    let context = format!("cosine_similarity_backward of {a:?}, {b:?}, {dy:e}");
    let is_zero = |x: &[T]| x.iter().all(|x| x.is_zero());
    if !all_finite(a) || !all_finite(b) {
        return assert!(da.iter().all(|da| !da.is_finite()), "{context}: lost a fault: {da:?}");
    } else if is_zero(a) || is_zero(b) {
        return assert!(is_zero(da), "{context}: there is no derivative: {da:?}");
    } else if !dy.is_finite() {
        return assert!(da.iter().all(|da| !da.is_finite()), "{context}: lost a fault: {da:?}");
    }
    let norm = reference::l2_norm(a);
    let lost = Wide::new(dy).abs() * Wide::new(sum_error::<T>(a.len())) / norm;
    let slack = a.iter().map(|&a| lost * Wide::new(a).abs() / norm).collect();
    check_terms(&context, &reference::cosine_similarity_backward(a, b, dy), da, slack);
}

fn statistic_gradients<T: Float>(ddof: usize, statistic: Statistic, x: &Matrix<T>, dy: &[T], dx: &Matrix<T>) {
    if matches!(statistic, Statistic::Mean) {
        return mean_gradients(dy, dx);
    }
    let (name, options) = (format!("gradient of {statistic:?}, ddof {ddof}"), Variance { ddof });
    let is_std = matches!(statistic, Statistic::Std);
    let f = |[x]: [MatRef<'_, T>; 1], dx: MatMut<'_, T>| match is_std {
        true => std_rows_backward(options, x, dy, dx),
        false => variance_rows_backward(options, x, dy, dx),
    };
    let (dx, result) = everywhere_and_dense(&name, [x], dx, f);
    let (rows, cols) = (x.place.rows, x.place.cols);
    let refused = dy.len() != rows || !x.has_shape_of(&dx) || rows > 0 && cols <= ddof;
    assert_eq!(is_refused(&result), refused, "{name}: {result:?}");
    if refused {
        return;
    }
    check_gradient_report(&name, x, dy, &dx, &result);
    for (i, x) in few_rows(x) {
        let context = format!("{name} of {x:?}, {:e}", dy[i]);
        let (dx, std) = (dx.row(i), if all_finite(&x) { reference::variance(&x, ddof).sqrt() } else { zero() });
        if is_std && all_finite(&x) && std == zero() {
            assert!(dx.iter().all(|dx| dx.is_zero()), "{context}: there is no derivative: {dx:?}");
        } else if !all_finite(&x) || !dy[i].is_finite() {
            assert!(dx.iter().all(|dx| !dx.is_finite()), "{context}: lost a fault: {dx:?}");
        } else {
            let factor = Wide::new(dy[i]).abs() / count(cols - ddof);
            let factor = if is_std { factor / std } else { factor + factor };
            let mean = Wide::new(mean_error::<T>(cols, 1024.0)) * reference::lp_norm(T::infinity(), &x);
            let slack = factor * (mean + smallest::<T>());
            let of = if is_std { reference::std_backward } else { reference::variance_backward };
            for (j, (want, got)) in of(&x, ddof, dy[i]).into_iter().zip(dx).enumerate() {
                assert_ulp_beyond(&format!("{context}, at {j}"), got, want, 1.5, slack);
            }
        }
    }
}

fn mean_gradients<T: Float>(dy: &[T], dx: &Matrix<T>) {
    let f = |[]: [MatRef<'_, T>; 0], dx: MatMut<'_, T>| mean_rows_backward(dy, dx);
    let (dx, result) = everywhere_and_dense("mean_rows_backward", [], dx, f);
    assert_eq!(is_refused(&result), dy.len() != dx.place.rows, "{result:?}");
    if !is_refused(&result) {
        check_report(&result, &[("dy", Operand::Slice(dy))], &[], &[]);
        assert_eq!(is_reported(&result), !all_finite(dy), "{result:?}");
        let cols = dx.place.cols;
        let want = dy.iter().flat_map(|&dy| vec![dy / num(cols as f64); cols]).collect::<Vec<_>>();
        assert_same("mean_rows_backward", &elements(dx.read()), &want);
    }
}

/// A gradient of rows that each have one upstream gradient: reported if and only if not all of it is finite.
fn check_gradient_report<T: Float>(name: &str, x: &Matrix<T>, dy: &[T], dx: &Matrix<T>, result: &Result<()>) {
    let inputs = [("x", Operand::Matrix(x.read())), ("dy", Operand::Slice(dy))];
    check_report(result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_reported(result), !all_finite(&elements(dx.read())), "{name}: {result:?}");
}

fn norm_gradients<T: Float>(p: T, x: &Matrix<T>, dy: &[T], dx: &Matrix<T>) {
    let name = format!("gradients of norms of order {p:e}");
    let f = |[x]: [MatRef<'_, T>; 1], dx: MatMut<'_, T>| lp_norm_rows_backward(p, x, dy, dx);
    let (dx, result) = everywhere_and_dense(&name, [x], dx, f);
    let refused = dy.len() != x.place.rows || !x.has_shape_of(&dx) || p.is_nan() || p <= T::zero();
    assert_eq!(is_refused(&result), refused, "{name}: {result:?}");
    if refused {
        return;
    }
    check_gradient_report(&name, x, dy, &dx, &result);
    for (i, row) in few_rows(x) {
        let (g, dx) = (dy[i], dx.row(i));
        check_norm_gradient(&name, p, &row, g, &dx);
        let single = gradient_of_vector(&name, &row, g, &dx, |dx| lp_norm_backward(p, &row, g, dx));
        assert_same(&format!("{name} of {row:?}, {g:e}, as a vector"), &single, &dx);
        let euclidean = gradient_of_vector("l2_norm_backward", &row, g, &dx, |dx| l2_norm_backward(&row, g, dx));
        if all_finite(&row) && g.is_finite() {
            for (&got, want) in euclidean.iter().zip(reference::l2_norm_backward(&row, g)) {
                assert_ulp(&format!("l2_norm_backward of {row:?}, {g:e}"), got, want, 4.0);
            }
        }
    }
}

/// The gradient of the norm of a vector, of which all that is not finite is reported.
fn gradient_of_vector<T: Float>(name: &str, x: &[T], g: T, dx: &[T], f: impl Fn(&mut [T]) -> Result<()>) -> Vec<T> {
    let Outcome { written: [dx], result } = everywhere(name, [dx], |[dx]| f(dx));
    check_report(&result, &[("x", Operand::Slice(x)), ("g", Operand::Scalar(g))], &[("dx", Operand::Slice(&dx))], &[]);
    let finite = g.is_finite() && all_finite(x) && all_finite(&dx);
    assert_eq!(is_reported(&result), !finite, "{name} of {x:?}, {g:e}: {result:?}");
    dx
}

fn check_norm_gradient<T: Float>(name: &str, p: T, x: &[T], g: T, dx: &[T]) {
    let context = format!("{name} of {x:?}, {g:e}");
    if !all_finite(x) {
        return assert!(dx.iter().all(|dx| dx.is_nan()), "{context}: lost a fault: {dx:?}");
    } else if g.is_zero() || x.iter().all(|x| x.is_zero()) {
        return assert!(dx.iter().all(|dx| dx.is_zero()), "{context}: {dx:?}");
    } else if !g.is_finite() {
        return assert!(!all_finite(dx), "{context}: lost a fault: {dx:?}");
    }
    let order = wide(p);
    let want = match () {
        () if p.is_infinite() => shares(x, g),
        () if ORDERS.contains(&order) => reference::lp_norm_backward(p, x, g),
        () => return,
    };
    let ulps = if T::LANES == 16 || p.is_infinite() { 2.0 } else { 4.0 + (order - 1.0).abs() } / order.min(1.0);
    for (j, (&got, want)) in dx.iter().zip(want).enumerate() {
        assert_ulp(&format!("{context}, at {j}"), got, want, ulps);
    }
}

/// The gradient of the largest magnitude.
fn shares<T: Float>(x: &[T], g: T) -> Vec<Wide> {
    let largest = x.iter().fold(T::zero(), |largest, x| largest.max(x.abs()));
    let share = Wide::new(g) / count(x.iter().filter(|x| x.abs() == largest).count());
    x.iter().map(|&x| if x.abs() < largest { zero() } else { share * Wide::new(x.signum()) }).collect()
}

// --- Extreme entries -------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Largest,
    Smallest,
}

impl End {
    /// NaN if there is one; what is beyond all numbers of no entries.
    fn of<T: Float>(self, row: &[T]) -> T {
        let is_beyond = |a: T, b: T| if self == Self::Largest { a > b } else { a < b };
        row.iter().fold(self.start(), |end, &x| if end.is_nan() || is_beyond(end, x) { end } else { x })
    }

    fn start<T: Float>(self) -> T {
        if self == Self::Largest { T::neg_infinity() } else { T::infinity() }
    }
}

/// Whether an entry is the extreme one, or NaN where that is.
fn is_extreme<T: Float>(x: T, extreme: T) -> bool {
    x == extreme || x.is_nan() && extreme.is_nan()
}

fn extremes<T: Float>(end: End, x: &Matrix<T>, y: &[T], places: Vec<usize>) {
    let (name, rows) = (format!("{end:?}"), x.place.rows);
    let write_values = if end == End::Largest { max_rows } else { min_rows };
    let (y, result) = of_rows(&name, [x], y, |[x], y| write_values(x, y));
    assert_eq!(is_refused(&result), y.len() != rows, "{name}: {result:?}");
    let want: Vec<T> = (0..rows).map(|i| end.of(&x.row(i))).collect();
    if !is_refused(&result) {
        check_report(&result, &[("x", Operand::Matrix(x.read()))], &[], &[]);
        let is_fault = |x: &T| !x.is_finite() && *x != end.start();
        assert_eq!(is_reported(&result), want.iter().any(is_fault), "{name}: {result:?}");
        assert!(y.iter().zip(&want).all(|(&y, &want)| is_extreme(y, want)), "{name}: {y:?} for {want:?}");
    }
    check_places(end, x, &want, places);
}

fn check_places<T: Float>(end: End, x: &Matrix<T>, extremes: &[T], columns: Vec<usize>) {
    let write_places = if end == End::Largest { argmax_rows } else { argmin_rows };
    let run = |x: &Matrix<T>, isa: Isa| {
        let mut columns = columns.clone();
        let result = isa.run(|| write_places(x.read(), &mut columns));
        (columns, result)
    };
    let (places, result) = run(x, Isa::Baseline);
    let name = format!("place of {end:?}");
    for (x, &isa) in [x, &x.to_dense()].into_iter().flat_map(|x| Isa::available().iter().map(move |isa| (x, isa))) {
        assert_eq!(format!("{:?}", run(x, isa)), format!("{:?}", (&places, &result)), "{name}, {isa}");
    }
    let (rows, cols) = (x.place.rows, x.place.cols);
    assert_eq!(is_refused(&result), columns.len() != rows || rows > 0 && cols == 0, "{name}: {result:?}");
    if is_refused(&result) {
        return assert_eq!(places, columns, "{name}, refused");
    }
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[], &[]);
    assert_eq!(is_reported(&result), extremes.iter().any(|x| x.is_nan()), "{name}: {result:?}");
    let want = (0..rows).map(|i| x.row(i).iter().position(|&x| is_extreme(x, extremes[i])));
    assert!(want.eq(places.iter().copied().map(Some)), "{name}: {places:?}");
}

fn extreme_gradients<T: Float>(end: End, x: &Matrix<T>, dy: &[T], dx: &Matrix<T>) {
    let name = format!("gradient of {end:?}");
    let backward = if end == End::Largest { max_rows_backward } else { min_rows_backward };
    let (dx, result) = everywhere_and_dense(&name, [x], dx, |[x], dx| backward(x, dy, dx));
    assert_eq!(is_refused(&result), dy.len() != x.place.rows || !x.has_shape_of(&dx), "{name}: {result:?}");
    if is_refused(&result) {
        return;
    }
    check_gradient_report(&name, x, dy, &dx, &result);
    for (i, &dy) in dy.iter().enumerate() {
        let row = x.row(i);
        let extreme = end.of(&row);
        let share = dy / num(row.iter().filter(|&&x| is_extreme(x, extreme)).count() as f64);
        let gradient = |&x: &T| match is_extreme(x, extreme) {
            true if x.is_nan() => x,
            true => share,
            false => T::zero(),
        };
        assert_same(&name, &dx.row(i), &row.iter().map(gradient).collect::<Vec<_>>());
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
