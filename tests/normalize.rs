//! Statistics, norms and normalisations of rows: errors against the reference, on every instruction set with the same
//! bits; gradients; invariances that hold bit for bit; edges.

mod common;

use common::{KINDS, Kind, Worst, assert_same, data, mat, mat_mut, num, nums, on_every_isa, report};
use nanproof::reference::{self, Wide};
use nanproof::{
    Error, Float, Index, LayerNorm, LayerNormGradients, MatMut, MatRef, Origin, RmsNorm, Variance, clip_rows_by_norm,
    clip_rows_with_norms, cosine_similarity, cosine_similarity_backward, layer_norm, layer_norm_backward, lp_norm,
    lp_norm_backward, lp_norm_rows, lp_norm_rows_backward, mean_rows, mean_rows_backward, normalize,
    normalize_backward, rms_norm, rms_norm_backward, std_rows, std_rows_backward, variance_rows,
    variance_rows_backward,
};

const POPULATION: Variance = Variance { ddof: 0 };

/// `2^-24` or `2^-53`.
fn unit_roundoff<T: Float>() -> Wide {
    Wide::new(T::epsilon()) / Wide::new(2.0_f64)
}

fn zero() -> Wide {
    Wide::new(0.0_f64)
}

/// Rows of many kinds: of every length to 300, at the seams, and far from 0 beside their deviations.
fn rows<T: Float>() -> Vec<(String, Vec<T>)> {
    let mut rows = Vec::new();
    for len in (1..300).chain([511, 512, 513, 1000, 4096, 4100]) {
        let kind = KINDS[len % 6]; // all but the special ones
        rows.push((format!("{len} {kind:?}"), data(len as u64, kind, len)));
    }
    for len in [2, 3, 16, 17, 100, 1000] {
        for kind in KINDS.into_iter().take(6) {
            rows.push((format!("{len} {kind:?}"), data(7, kind, len)));
        }
        for (center, spread) in [(3.0, 1e-6), (1e3, 1.0), (-1e20, 1e15), (1e-30, 1e-33), (5.0, 0.1), (16.0, 1.0)] {
            let x = data::<T>(len as u64, Kind::Within(spread), len);
            rows.push((
                format!("{len} at {center:e} within {spread:e}"),
                x.into_iter().map(|x| x + num(center)).collect(),
            ));
        }
        let mut x = vec![num::<T>(1e6); len];
        rows.push((format!("{len} all the same"), x.clone()));
        x[len / 2] = x[len / 2] * (T::one() + T::epsilon());
        rows.push((format!("{len} one a little larger"), x));
        let mut x = data(3, Kind::Within(1.0), len);
        x[len - 1] = num(1e30);
        rows.push((format!("{len} one huge"), x));
    }
    rows
}

/// Runs `f` on every instruction set, which gives the same bits, and returns them.
fn everywhere<T: Float>(context: &str, f: impl Fn(&mut Vec<T>)) -> Vec<T> {
    let mut want: Option<Vec<T>> = None;
    on_every_isa(|isa| {
        let mut y = Vec::new();
        f(&mut y);
        assert_same(format_args!("{context} on {isa}"), &y, want.get_or_insert_with(|| y.clone()));
    });
    want.expect("there is one")
}

/// `f` writes one number.
fn number<T: Float>(context: &str, f: impl Fn(&mut [T]) -> nanproof::Result<()>) -> T {
    everywhere(context, |y| {
        *y = vec![T::nan()];
        let _ = f(y);
    })[0]
}

/// `f` writes a row.
fn row<T: Float>(context: &str, n: usize, f: impl Fn(MatMut<'_, T>) -> nanproof::Result<()>) -> Vec<T> {
    everywhere(context, |y| {
        *y = vec![T::nan(); n];
        let _ = f(mat_mut(y, 1, n));
    })
}

/// The errors of `got` less `slack` each, in ULP.
fn compare<T: Float>(worst: &mut Worst, got: &[T], want: &[Wide], slack: Wide, context: &str) {
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = Wide::new(got) - want;
        let near = if error.abs() < slack { want } else { want + if error < zero() { -slack } else { slack } };
        worst.meet(reference::ulp_error(got, near), || {
            format!("{context}, element {i}: {got:e} for {:e}", want.to_f64())
        });
    }
}

/// The largest magnitude times `2^-53`, or `2^-104` in `f64`: what a mean may be wrong by.
fn mean_slack<T: Float>(x: &[T]) -> Wide {
    let bits = if T::LANES == 16 { 2_f64.powi(-51) } else { 2_f64.powi(-98) };
    reference::lp_norm(T::infinity(), x) * Wide::new(bits)
}

fn statistics<T: Float>() {
    let names = ["mean_rows", "variance_rows", "std_rows", "variance_rows_backward", "std_rows_backward"];
    let [mut mean, mut variance, mut std, mut dvariance, mut dstd] = names.map(Worst::of::<T>);
    for (context, x) in rows::<T>() {
        let (n, slack) = (x.len(), mean_slack(&x));
        let got = number(&context, |y| mean_rows(mat(&x, 1, n), y));
        compare(&mut mean, &[got], &[reference::mean(&x)], slack, &context);
        for ddof in [0, 1] {
            if n == ddof {
                continue;
            }
            let (options, want) = (Variance { ddof }, reference::variance(&x, ddof));
            let got = number(&context, |y| variance_rows(options, mat(&x, 1, n), y));
            variance.compare(&[got], &[want], &context);
            let got = number(&context, |y| std_rows(options, mat(&x, 1, n), y));
            std.compare(&[got], &[want.sqrt()], &context);
            for g in nums::<T>(&[1.0, -3e-20, 7e10]) {
                let context = format!("{context}, ddof {ddof}, g {g:e}");
                let factor = Wide::new(g).abs() / Wide::new((n - ddof) as f64);
                let got = row(&context, n, |dx| variance_rows_backward(options, mat(&x, 1, n), &[g], dx));
                let slack = slack * factor * Wide::new(2.0_f64);
                compare(&mut dvariance, &got, &reference::variance_backward(&x, ddof, g), slack, &context);
                let got = row(&context, n, |dx| std_rows_backward(options, mat(&x, 1, n), &[g], dx));
                let slack = if want == zero() { want } else { slack / want.sqrt() };
                compare(&mut dstd, &got, &reference::std_backward(&x, ddof, g), slack, &context);
            }
        }
    }
    mean.assert_at_most(0.7);
    variance.assert_at_most(1.0);
    std.assert_at_most(1.0);
    dvariance.assert_at_most(1.5);
    dstd.assert_at_most(1.5);
}

#[test]
fn statistics_within_their_bounds() {
    statistics::<f32>();
    statistics::<f64>();
}

fn norms<T: Float>(bounds: [f64; 2]) {
    let [mut simple, mut others] = ["norms of order 1, 2, inf", "norms of other orders"].map(Worst::of::<T>);
    let [mut dsimple, mut dothers] = ["their gradients", "gradients of other orders"].map(Worst::of::<T>);
    let orders = [1.0, 2.0, f64::INFINITY, 3.0, 1.5, 4.0, 1.1];
    for (number_of_row, (context, x)) in rows::<T>().into_iter().enumerate() {
        let n = x.len();
        for p in orders {
            let (is_simple, order) = (p <= 2.0 && p.fract() == 0.0 || p.is_infinite(), num::<T>(p));
            if !is_simple && number_of_row % 8 != 0 {
                continue; // the reference is slow
            }
            let context = format!("{context}, p {p}");
            let got = number(&context, |y| lp_norm_rows(order, mat(&x, 1, n), y));
            let worst = if is_simple { &mut simple } else { &mut others };
            worst.compare(&[got], &[reference::lp_norm(order, &x)], &context);
            if p.is_infinite() {
                continue;
            }
            let worst = if is_simple { &mut dsimple } else { &mut dothers };
            for g in nums::<T>(&[1.0, -3e-20]) {
                let got = row(&context, n, |dx| lp_norm_rows_backward(order, mat(&x, 1, n), &[g], dx));
                worst.compare(&got, &reference::lp_norm_backward(order, &x, g), &context);
            }
        }
    }
    simple.assert_at_most(1.0);
    others.assert_at_most(bounds[0]);
    dsimple.assert_at_most(1.5);
    dothers.assert_at_most(bounds[1]);
}

#[test]
fn norms_within_their_bounds() {
    norms::<f32>([1.0, 2.0]);
    norms::<f64>([3.0, 8.0]);
}

fn normalisations<T: Float>() {
    let [mut layer, mut rms, mut unit, mut cosine] =
        ["layer_norm", "rms_norm", "normalize", "cosine_similarity, of its bound"].map(Worst::of::<T>);
    for (context, x) in rows::<T>() {
        let n = x.len();
        for eps in nums::<T>(&[0.0, 1e-5, 1e-30, 1e10]) {
            let context = format!("{context}, eps {eps:e}");
            let got = row(&context, n, |y| layer_norm(LayerNorm { eps }, mat(&x, 1, n), None, None, y));
            let deviation = (reference::variance(&x, 0) + Wide::new(eps)).sqrt();
            let slack = if deviation == zero() { deviation } else { mean_slack(&x) / deviation };
            compare(&mut layer, &got, &reference::layer_norm(&x, eps), slack, &context);
            let got = row(&context, n, |y| rms_norm(RmsNorm { eps }, mat(&x, 1, n), None, y));
            rms.compare(&got, &reference::rms_norm(&x, eps), &context);
            let got = row(&context, n, |y| normalize(eps, mat(&x, 1, n), y));
            unit.compare(&got, &reference::normalize(&x, eps), &context);
        }
        let b = data::<T>(n as u64 + 1, Kind::Within(1.0), n);
        let got = number(&context, |y| cosine_similarity(mat(&x, 1, n), mat(&b, 1, n), y));
        let want = reference::cosine_similarity(&x, &b);
        let lost = if T::LANES == 16 { 2_f64.powi(-53) } else { 2_f64.powi(-100) } * n as f64;
        let bound = Wide::new(0.51_f64) * Wide::new(2.0_f64) * unit_roundoff::<T>() * want.abs() + Wide::new(lost);
        cosine.meet(((Wide::new(got) - want).abs() / bound).to_f64(), || context.clone());
    }
    layer.assert_at_most(2.0);
    rms.assert_at_most(1.5);
    unit.assert_at_most(1.5);
    cosine.assert_at_most(1.0);
}

#[test]
fn normalisations_within_their_bounds() {
    normalisations::<f32>();
    normalisations::<f64>();
}

/// `|got - sum of the terms| / (8 u sum of their magnitudes)`.
fn share_of_terms<T: Float, const N: usize>(got: &[T], want: &[[Wide; N]], worst: &mut Worst, context: &str) {
    let largest = Wide::new(T::max_value());
    for (i, (&got, terms)) in got.iter().zip(want).enumerate() {
        let (sum, size) = terms.iter().fold((zero(), zero()), |(sum, size), &term| (sum + term, size + term.abs()));
        if sum.abs() > largest {
            assert!(!got.is_finite(), "{context}, element {i}");
            continue;
        }
        let bound = Wide::new(8.0_f64) * unit_roundoff::<T>() * size + Wide::new(8.0_f64) * Wide::new(T::from_bits(1));
        worst.meet(((Wide::new(got) - sum).abs() / bound).to_f64(), || {
            format!("{context}, element {i}: {got:e} for {:e}", sum.to_f64())
        });
    }
}

fn gradients<T: Float>() {
    let [mut layer, mut rms, mut unit, mut cosine] = ["layer_norm", "rms_norm", "normalize", "cosine_similarity"]
        .map(|name| Worst::of::<T>(&format!("{name}_backward, of its bound")));
    for (context, x) in rows::<T>() {
        let n = x.len();
        let weight = data::<T>(1, Kind::Within(2.0), n);
        for (kind, eps) in [(Kind::Within(1.0), 1e-5), (Kind::Whole, 0.0), (Kind::Within(1e-20), 1e-30)] {
            let (dy, eps, context) =
                (data::<T>(2, kind, n), num::<T>(eps), format!("{context}, {kind:?}, eps {eps:e}"));
            let (x_mat, dy_mat) = (mat(&x, 1, n), mat(&dy, 1, n));
            let got = row(&context, n, |dx| {
                let gradients = LayerNormGradients { dx, dw: None, db: None };
                layer_norm_backward(LayerNorm { eps }, x_mat, Some(&weight), dy_mat, gradients)
            });
            share_of_terms(&got, &reference::layer_norm_backward(&x, eps, &weight, &dy), &mut layer, &context);
            let got = row(&context, n, |dx| rms_norm_backward(RmsNorm { eps }, x_mat, Some(&weight), dy_mat, dx, None));
            share_of_terms(&got, &reference::rms_norm_backward(&x, eps, &weight, &dy), &mut rms, &context);
            let got = row(&context, n, |dx| normalize_backward(eps, x_mat, dy_mat, dx));
            share_of_terms(&got, &reference::normalize_backward(&x, eps, &dy), &mut unit, &context);
            let g = num::<T>(-1.25);
            let both = everywhere(&context, |y| {
                let (mut da, mut db) = (vec![T::nan(); n], vec![T::nan(); n]);
                let (da_mat, db_mat) = (mat_mut(&mut da, 1, n), mat_mut(&mut db, 1, n));
                let _ = cosine_similarity_backward(x_mat, dy_mat, &[g], da_mat, db_mat);
                *y = [da, db].concat();
            });
            share_of_terms(&both[..n], &reference::cosine_similarity_backward(&x, &dy, g), &mut cosine, &context);
            share_of_terms(&both[n..], &reference::cosine_similarity_backward(&dy, &x, g), &mut cosine, &context);
        }
    }
    for worst in [layer, rms, unit, cosine] {
        worst.assert_at_most(1.0);
    }
}

#[test]
fn gradients_within_their_bounds() {
    gradients::<f32>();
    gradients::<f64>();
}

fn affine<T: Float>() {
    let mut worst = Worst::of::<T>("layer_norm with weights, of its bound");
    let u = unit_roundoff::<T>();
    for (context, x) in rows::<T>() {
        let (n, eps) = (x.len(), num::<T>(1e-5));
        let (w, b) = (data::<T>(1, Kind::Within(3.0), n), data::<T>(2, Kind::Within(3.0), n));
        let slack = mean_slack(&x) / (reference::variance(&x, 0) + Wide::new(eps)).sqrt();
        for (weight, bias) in [(true, true), (true, false), (false, true)] {
            let [weight, bias] = [(weight, &w), (bias, &b)].map(|(is_given, x)| is_given.then_some(&x[..]));
            let got = row(&context, n, |y| layer_norm(LayerNorm { eps }, mat(&x, 1, n), weight, bias, y));
            for (i, z) in reference::layer_norm(&x, eps).into_iter().enumerate() {
                let scaled = z * weight.map_or(Wide::new(T::one()), |w| Wide::new(w[i]));
                let want = scaled + bias.map_or(zero(), |b| Wide::new(b[i]));
                let size = Wide::new(5.0_f64) * scaled.abs() + want.abs();
                let bound = u * size + slack * Wide::new(3.0_f64) + Wide::new(T::from_bits(4));
                worst.meet(((Wide::new(got[i]) - want).abs() / bound).to_f64(), || format!("{context}, element {i}"));
            }
        }
    }
    worst.assert_at_most(1.0);
}

#[test]
fn weights_and_bias_within_their_bounds() {
    affine::<f32>();
    affine::<f64>();
}

fn columns<T: Float>() {
    let mut worst = Worst::of::<T>("sums of columns, of their bound");
    let u = unit_roundoff::<T>();
    let eps = num::<T>(1e-5);
    for (rows, cols) in [(1, 7), (3, 40), (255, 3), (256, 17), (257, 5), (600, 9)] {
        for kind in [Kind::Within(1.0), Kind::Whole, Kind::AnyFinite] {
            let (x, dy) = (data::<T>(5, Kind::Within(2.0), rows * cols), data::<T>(6, kind, rows * cols));
            let context = format!("{rows} x {cols}, {kind:?}");
            let got = everywhere(&context, |y| {
                let (mut dx, mut sums) = (vec![T::nan(); x.len()], vec![T::nan(); 2 * cols]);
                let (dw, db) = sums.split_at_mut(cols);
                let gradients = LayerNormGradients { dx: mat_mut(&mut dx, rows, cols), dw: Some(dw), db: Some(db) };
                let _ =
                    layer_norm_backward(LayerNorm { eps }, mat(&x, rows, cols), None, mat(&dy, rows, cols), gradients);
                *y = sums;
            });
            let z = x.chunks(cols).flat_map(|x| reference::layer_norm(x, eps)).collect::<Vec<_>>();
            for j in 0..cols {
                let at = || (j..x.len()).step_by(cols);
                let total = |terms: &[Wide]| terms.iter().fold(zero(), |sum, &term| sum + term);
                let size = |terms: &[Wide]| terms.iter().fold(zero(), |sum, &term| sum + term.abs());
                let products = at().map(|i| z[i] * Wide::new(dy[i])).collect::<Vec<_>>();
                let plain = at().map(|i| Wide::new(dy[i])).collect::<Vec<_>>();
                for (got, terms, factor) in [(got[j], products, 4.0), (got[cols + j], plain, 1e-4)] {
                    let (want, smallest) = (total(&terms), Wide::new(T::min_positive_value()) * u);
                    if want.abs() > Wide::new(T::max_value()) {
                        continue;
                    }
                    let lost = smallest * Wide::new(4.0 * rows as f64);
                    let bound = u * (Wide::new(factor) * size(&terms) + Wide::new(1.01_f64) * want.abs()) + lost;
                    worst.meet(((Wide::new(got) - want).abs() / bound).to_f64(), || format!("{context}, column {j}"));
                }
            }
        }
    }
    worst.assert_at_most(1.0);
}

#[test]
fn sums_of_columns_within_their_bounds() {
    columns::<f32>();
    columns::<f64>();
}

/// Of a layer normalisation without weights, with the sums of columns.
fn layer_norm_gradients<T: Float>(eps: f64, x: &[T], dy: &[T], rows: usize) -> nanproof::Result<[Vec<T>; 3]> {
    let cols = x.len() / rows;
    let [mut dx, mut dw, mut db] = [x.len(), cols, cols].map(|len| vec![T::nan(); len]);
    let gradients = LayerNormGradients { dx: mat_mut(&mut dx, rows, cols), dw: Some(&mut dw), db: Some(&mut db) };
    layer_norm_backward(LayerNorm { eps: num(eps) }, mat(x, rows, cols), None, mat(dy, rows, cols), gradients)?;
    Ok([dx, dw, db])
}

fn partial_sums_that_overflow<T: Float>() {
    let (max, one) = (T::max_value(), T::one());
    let x = [one, -one].repeat(3);
    let dy = [max, max, max, max, -max, -max];
    let [dx, dw, db] = layer_norm_gradients(0.0, &x, &dy, 3).expect("finite");
    assert_same("dx", &dx, &[T::zero(); 6]);
    assert_same("dw", &dw, &[max, -max]);
    assert_same("db", &db, &[max; 2]);
    // A sum that does overflow, beside one that does not.
    let found = report(layer_norm_gradients(0.0, &x, &[max, one, max, one, max, one], 3));
    assert_eq!((found.operand, found.index, found.origin), ("dw", Index::At(0), Origin::Overflow));
}

#[test]
fn sums_may_overflow_on_the_way() {
    on_every_isa(|_| {
        partial_sums_that_overflow::<f32>();
        partial_sums_that_overflow::<f64>();
    });
}

fn columns_that_cancel<T: Float>() {
    let (one, tiny) = (T::one(), num::<T>(2.0_f64.powi(-60)));
    let x = [one, -one].repeat(3);
    let [_, dw, db] = layer_norm_gradients(0.0, &x, &[one, one, tiny, tiny, -one, -one], 3).expect("finite");
    assert_same("db", &db, &[tiny; 2]);
    assert!(dw.iter().all(|dw| dw.abs() <= num(1e-6)));
}

#[test]
fn sums_of_columns_that_cancel() {
    everywhere!(columns_that_cancel);
}

#[test]
fn gradient_of_a_norm_just_above_eps() {
    on_every_isa(|_| {
        let (x, dy, mut dx) = ([1.0_f32, 2.0_f32.powi(-26)], [1.0, 0.0], [f32::NAN; 2]);
        normalize_backward(1.0, mat(&x, 1, 2), mat(&dy, 1, 2), mat_mut(&mut dx, 1, 2)).expect("finite");
        assert_eq!(dx[1], -x[1]);
    });
}

#[test]
fn one_weight_far_larger_than_others() {
    on_every_isa(|_| {
        let (x, w) = ([1e-10_f32, -1e-10, 1e-10, -1e-10], [3e38_f32, 1e-8, 1e-8, 1e-8]);
        let (dy, mut dx) = ([0.0, 1e36, 1e36, 1e36], [f32::NAN; 4]);
        let gradients = LayerNormGradients { dx: mat_mut(&mut dx, 1, 4), dw: None, db: None };
        layer_norm_backward(LayerNorm { eps: 0.0 }, mat(&x, 1, 4), Some(&w), mat(&dy, 1, 4), gradients)
            .expect("finite");
        for (dx, want) in dx.into_iter().zip([-5e37, 0.0, 5e37, 0.0]) {
            assert!((dx - want).abs() < 1e33, "{dx:e} for {want:e}");
        }
    });
}

fn invariances<T: Float>() {
    for len in [2, 5, 16, 33, 300, 1000] {
        let x = data::<T>(len as u64, Kind::Within(4.0), len);
        let eps = T::zero();
        let (mut y, mut scaled) = (vec![T::nan(); len], vec![T::nan(); len]);
        for k in [-60, -20, -1, 1, 20, 60, 120] {
            let moved = x.iter().map(|&x| x * num(2.0_f64.powi(k))).collect::<Vec<_>>();
            type Normalisation<T> = fn(T, MatRef<'_, T>, MatMut<'_, T>) -> nanproof::Result<()>;
            let operations: [(&str, Normalisation<T>); 3] = [
                ("layer_norm", |eps, x, y| layer_norm(LayerNorm { eps }, x, None, None, y)),
                ("rms_norm", |eps, x, y| rms_norm(RmsNorm { eps }, x, None, y)),
                ("normalize", normalize),
            ];
            for (name, operation) in operations {
                operation(eps, mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
                operation(eps, mat(&moved, 1, len), mat_mut(&mut scaled, 1, len)).expect("finite");
                assert_same(format_args!("{name}, {len}, 2^{k}"), &scaled, &y);
            }
        }
        let whole = data::<T>(len as u64, Kind::Whole, len);
        let shifted = whole.iter().map(|&x| x + num(1024.0)).collect::<Vec<_>>();
        layer_norm(LayerNorm { eps }, mat(&shifted, 1, len), None, None, mat_mut(&mut y, 1, len)).expect("finite");
        for (&y, want) in y.iter().zip(reference::layer_norm(&whole, eps)) {
            assert!(reference::ulp_error(y, want) <= 2.0, "a shift, {len}");
        }
        normalize(eps, mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
        let off = (reference::l2_norm(&y) - Wide::new(T::one())).abs();
        assert!(off < unit_roundoff::<T>() * Wide::new(2.0_f64), "{len}: {:e}", off.to_f64());
    }
}

#[test]
fn a_scale_changes_no_bit_and_a_shift_no_bound() {
    on_every_isa(|_| {
        invariances::<f32>();
        invariances::<f64>();
    });
}

fn special_rows<T: Float>() {
    for len in [1, 2, 16, 17, 100] {
        let (zeros, sevens, dy) =
            (vec![T::zero(); len], vec![num::<T>(7.0); len], data::<T>(1, Kind::Within(1.0), len));
        let mut y = vec![T::nan(); len];
        for eps in [0.0, 1e-5].map(num::<T>) {
            for x in [&zeros, &sevens] {
                layer_norm(LayerNorm { eps }, mat(x, 1, len), None, None, mat_mut(&mut y, 1, len)).expect("finite");
                assert_same("layer_norm of equal elements", &y, &zeros);
            }
            rms_norm(RmsNorm { eps }, mat(&zeros, 1, len), None, mat_mut(&mut y, 1, len)).expect("finite");
            assert_same("rms_norm of zeros", &y, &zeros);
            normalize(eps, mat(&zeros, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
            assert_same("normalize of zeros", &y, &zeros);
        }
        let [dx, ..] = layer_norm_gradients(0.0, &sevens, &dy, 1).expect("finite");
        assert_same("layer_norm_backward of equal elements", &dx, &zeros);
        rms_norm_backward(
            RmsNorm { eps: T::zero() },
            mat(&zeros, 1, len),
            None,
            mat(&dy, 1, len),
            mat_mut(&mut y, 1, len),
            None,
        )
        .expect("finite");
        assert_same("rms_norm_backward of zeros", &y, &zeros);
        normalize_backward(T::zero(), mat(&zeros, 1, len), mat(&dy, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
        assert_same("normalize_backward of zeros", &y, &zeros);
        let half = num::<T>(0.5);
        normalize_backward(half, mat(&zeros, 1, len), mat(&dy, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
        assert_same("with eps", &y, &dy.iter().map(|&dy| dy / half).collect::<Vec<_>>());
        for p in [0.5, 1.0, 1.5, 2.0, 3.0, f64::INFINITY].map(num::<T>) {
            assert_eq!(lp_norm(p, &zeros), Ok(T::zero()));
            lp_norm_backward(p, &zeros, T::one(), &mut y).expect("finite");
            assert_same("lp_norm_backward of zeros", &y, &zeros);
        }
        std_rows_backward(POPULATION, mat(&sevens, 1, len), &[T::one()], mat_mut(&mut y, 1, len)).expect("finite");
        assert_same("std_rows_backward of equal elements", &y, &zeros);
    }
    let mut dx = [T::nan(); 4];
    lp_norm_backward(T::infinity(), &nums::<T>(&[3.0, -3.0, 1.0, 3.0]), num(3.0), &mut dx).expect("finite");
    assert_same("shared by ties", &dx, &nums::<T>(&[1.0, -1.0, 0.0, 1.0]));
    mean_rows_backward(&[T::one()], mat_mut(&mut dx, 1, 4)).expect("finite");
    assert_same("mean_rows_backward", &dx, &[num(0.25); 4]);
}

#[test]
fn zeros_and_equal_elements() {
    on_every_isa(|_| {
        special_rows::<f32>();
        special_rows::<f64>();
    });
}

fn empty_operands<T: Float>() {
    let mut none: [T; 0] = [];
    assert_eq!(lp_norm(T::one(), &none), Ok(T::zero()));
    assert_eq!(lp_norm(num(3.0), &none), Ok(T::zero()));
    for (rows, cols) in [(0, 0), (0, 3), (3, 0)] {
        let x = mat(&[], rows, cols);
        layer_norm(LayerNorm::default(), x, None, None, mat_mut(&mut none, rows, cols)).expect("nothing to do");
        normalize(T::zero(), x, mat_mut(&mut none, rows, cols)).expect("nothing to do");
        let mut norms = vec![T::nan(); rows];
        for p in [1.0, 2.0, 3.0, f64::INFINITY] {
            lp_norm_rows(num(p), x, &mut norms).expect("nothing to do");
            assert_same("norms of nothing", &norms, &vec![T::zero(); rows]);
        }
        let (mut dw, mut dx): (_, [T; 0]) = (vec![T::nan(); cols], []);
        rms_norm_backward(RmsNorm::default(), x, None, x, mat_mut(&mut dx, rows, cols), Some(&mut dw))
            .expect("nothing to do");
        assert_same("sums of no rows", &dw, &vec![T::zero(); cols]);
        assert_eq!(mean_rows(x, &mut norms).is_err(), rows > 0 && cols == 0);
    }
}

#[test]
fn nothing() {
    empty_operands::<f32>();
    empty_operands::<f64>();
}

fn wrong_arguments<T: Float>() {
    let (x, mut y) = ([T::one(); 6], [num::<T>(5.0); 6]);
    let x = mat(&x, 2, 3);
    for eps in [-T::one(), T::nan(), T::infinity(), T::from_bits(1)] {
        let results = [
            layer_norm(LayerNorm { eps }, x, None, None, mat_mut(&mut y, 2, 3)),
            rms_norm(RmsNorm { eps }, x, None, mat_mut(&mut y, 2, 3)),
            normalize(eps, x, mat_mut(&mut y, 2, 3)),
            normalize_backward(eps, x, x, mat_mut(&mut y, 2, 3)),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Argument { argument: "eps", .. })), "{eps:e}");
        }
    }
    for p in [T::zero(), -T::one(), T::nan()] {
        assert!(matches!(lp_norm_rows(p, x, &mut y[..2]), Err(Error::Argument { argument: "p", .. })));
    }
    let options = Variance { ddof: 3 };
    assert!(matches!(variance_rows(options, x, &mut y[..2]), Err(Error::Argument { argument: "ddof", .. })));
    let layer = LayerNorm::default();
    let shape = |result: nanproof::Result<()>, name: &str| {
        assert!(matches!(result, Err(Error::Shape { operand, .. }) if operand == name), "{name}");
    };
    shape(layer_norm(layer, x, Some(&[T::one(); 2]), None, mat_mut(&mut y, 2, 3)), "weight");
    shape(layer_norm(layer, x, None, Some(&[T::one(); 4]), mat_mut(&mut y, 2, 3)), "bias");
    shape(layer_norm(layer, x, None, None, mat_mut(&mut y, 3, 2)), "y");
    let mut dw = [T::one(); 2];
    let dx = mat_mut(&mut y, 2, 3);
    shape(layer_norm_backward(layer, x, None, x, LayerNormGradients { dx, dw: Some(&mut dw), db: None }), "dw");
    shape(mean_rows(x, &mut y[..3]), "y");
    shape(cosine_similarity(x, x.t(), &mut y[..2]), "b");
    assert_same("nothing is written", &y, &[num(5.0); 6]);
}

#[test]
fn arguments_are_checked_first() {
    wrong_arguments::<f32>();
    wrong_arguments::<f64>();
}

fn faults<T: Float>() {
    for (value, len) in [(f64::NAN, 3), (f64::INFINITY, 17), (f64::NAN, 100), (f64::NEG_INFINITY, 300)] {
        let mut x = data::<T>(1, Kind::Within(1.0), 3 * len);
        x[2 * len - 1] = num(value);
        let (mut y, mut want) = (vec![T::nan(); 3 * len], vec![T::nan(); len]);
        let found = report(layer_norm(LayerNorm::default(), mat(&x, 3, len), None, None, mat_mut(&mut y, 3, len)));
        assert_eq!((found.operand, found.index, found.origin), ("x", Index::Cell(1, len - 1), Origin::PassedIn));
        assert!(y[len..2 * len].iter().all(|y| y.is_nan()));
        for i in [0, 2] {
            let row = i * len..(i + 1) * len;
            layer_norm(LayerNorm::default(), mat(&x[row.clone()], 1, len), None, None, mat_mut(&mut want, 1, len))
                .expect("finite");
            assert_same("the other rows", &y[row], &want);
        }
        let mut norms = [T::zero(); 3];
        for p in [1.0, 2.0, 3.0, f64::INFINITY] {
            let found = report(lp_norm_rows(num(p), mat(&x, 3, len), &mut norms));
            assert_eq!((found.index, found.counts.total()), (Index::Cell(1, len - 1), 1));
            assert!(norms[0].is_finite() && !norms[1].is_finite() && norms[2].is_finite());
        }
        let weight = vec![num::<T>(value); len];
        x[2 * len - 1] = T::one();
        let found = report(rms_norm(RmsNorm::default(), mat(&x, 3, len), Some(&weight), mat_mut(&mut y, 3, len)));
        assert_eq!((found.operand, found.index), ("weight", Index::At(0)));
    }
    // A result that overflows is infinite, with the right sign.
    let (x, mut y) = (nums::<T>(&[1.0, -1.0]), [T::nan(); 2]);
    let weight = [T::max_value(), T::one()];
    let bias = [T::max_value(), T::one()];
    let found = report(layer_norm(
        LayerNorm { eps: T::zero() },
        mat(&x, 1, 2),
        Some(&weight),
        Some(&bias),
        mat_mut(&mut y, 1, 2),
    ));
    assert_eq!((found.operand, found.index, found.origin), ("y", Index::Cell(0, 0), Origin::Overflow));
    assert_same("by the rule", &y, &[T::infinity(), T::zero()]);
    let large = [T::max_value(), -T::max_value()];
    let found = report(variance_rows(POPULATION, mat(&large, 1, 2), &mut y[..1]));
    assert_eq!((found.operand, found.origin), ("y", Origin::Overflow));
    variance_rows_backward(POPULATION, mat(&large, 1, 2), &[num(0.5)], mat_mut(&mut y, 1, 2)).expect("finite");
    assert_same("the gradient of what overflows", &y, &[T::max_value() / num(2.0), -T::max_value() / num(2.0)]);
}

#[test]
fn faults_are_reported() {
    on_every_isa(|_| {
        faults::<f32>();
        faults::<f64>();
    });
}

fn given_norms<T: Float>() {
    let x = data::<T>(1, Kind::Within(1.0), 60);
    let (mut whole, mut parts, mut norms) = (x.clone(), x.clone(), [T::nan(); 3]);
    clip_rows_by_norm(mat_mut(&mut whole, 3, 20), T::one(), &mut norms).expect("finite");
    assert_eq!(clip_rows_with_norms(mat_mut(&mut parts, 3, 20), &norms, T::one()), Ok(3));
    for (&part, &whole) in parts.iter().zip(&whole) {
        assert!(reference::ulp_error(part, Wide::new(whole)) <= 2.0);
    }
    assert_eq!(
        clip_rows_with_norms(mat_mut(&mut parts, 3, 20), &norms, norms[0]),
        Ok(usize::from(norms[1] > norms[0]) + usize::from(norms[2] > norms[0]))
    );
    assert_eq!(clip_rows_with_norms(mat_mut(&mut parts, 3, 20), &norms, T::zero()), Ok(3));
    assert_same("no room at all", &parts, &[T::zero(); 60]);
    assert_eq!(clip_rows_with_norms(mat_mut(&mut parts, 3, 20), &[T::zero(); 3], T::zero()), Ok(0));
    // Rows whose elements are apart.
    let columns = (0..60).map(|i| x[i % 3 * 20 + i / 3]).collect::<Vec<_>>();
    let mut apart = columns.clone();
    assert_eq!(clip_rows_by_norm(mat_mut(&mut apart, 20, 3).t(), T::one(), &mut norms), Ok(3));
    assert_same("apart", &apart, &(0..60).map(|i| whole[i % 3 * 20 + i / 3]).collect::<Vec<_>>());
    let mut kept = x.clone();
    norms[1] = -norms[1];
    let refused = clip_rows_with_norms(mat_mut(&mut kept, 3, 20), &norms, T::zero());
    assert!(matches!(refused, Err(Error::Argument { argument: "norms", .. })));
    norms[1] = T::nan();
    let found = report(clip_rows_with_norms(mat_mut(&mut kept, 3, 20), &norms, T::zero()));
    assert_eq!((found.operand, found.index), ("norms", Index::At(1)));
    norms[1] = T::one();
    kept[59] = T::infinity();
    let found = report(clip_rows_with_norms(mat_mut(&mut kept, 3, 20), &norms, T::zero()));
    assert_eq!((found.operand, found.index), ("x", Index::Cell(2, 19)));
    assert_same("nothing is written", &kept[..59], &x[..59]);
}

#[test]
fn clipping_by_norms_that_are_given() {
    on_every_isa(|_| {
        given_norms::<f32>();
        given_norms::<f64>();
    });
}

/// The gradient of `f` at `x` by central differences.
fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let h = 1e-3;
    let moved = |i: usize, by: f64| {
        let mut at = x.to_vec();
        at[i] += by;
        f(&at)
    };
    let gradient = |i| (8.0 * (moved(i, h) - moved(i, -h)) - (moved(i, 2.0 * h) - moved(i, -2.0 * h))) / (12.0 * h);
    (0..x.len()).map(gradient).collect()
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        approx::assert_relative_eq!(got, want, epsilon = 1e-9, max_relative = 1e-7);
    }
}

#[test]
fn gradients_against_differences() {
    const N: usize = 11;
    let away_from_zero = |seed| data::<f64>(seed, Kind::Within(2.0), N).into_iter().map(|x| x + 0.2 * x.signum());
    let [x, dy, w] = [1, 2, 3].map(|seed| away_from_zero(seed).collect::<Vec<_>>());
    fn m(x: &[f64]) -> MatRef<'_, f64> {
        mat(x, 1, N)
    }
    let dot = |y: &[f64]| y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
    let mut dx = vec![f64::NAN; N];
    let value = |f: &dyn Fn(&mut [f64]) -> nanproof::Result<()>| {
        let mut y = [f64::NAN];
        f(&mut y).expect("finite");
        y[0]
    };
    for ddof in [0, 1] {
        let options = Variance { ddof };
        variance_rows_backward(options, m(&x), &[1.0], mat_mut(&mut dx, 1, N)).expect("finite");
        assert_close(&dx, &differences(&x, |x| value(&|y| variance_rows(options, m(x), y))));
        std_rows_backward(options, m(&x), &[1.0], mat_mut(&mut dx, 1, N)).expect("finite");
        assert_close(&dx, &differences(&x, |x| value(&|y| std_rows(options, m(x), y))));
    }
    for p in [0.7, 1.0, 1.5, 2.0, 3.0, 7.0] {
        lp_norm_backward(p, &x, 1.0, &mut dx).expect("finite");
        assert_close(&dx, &differences(&x, |x| lp_norm(p, x).expect("finite")));
    }
    for eps in [0.0, 0.1, 100.0] {
        let layer = LayerNorm { eps };
        let (mut dw, mut db) = (vec![f64::NAN; N], vec![f64::NAN; N]);
        let gradients = LayerNormGradients { dx: mat_mut(&mut dx, 1, N), dw: Some(&mut dw), db: Some(&mut db) };
        layer_norm_backward(layer, m(&x), Some(&w), m(&dy), gradients).expect("finite");
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            let mut y = vec![f64::NAN; N];
            layer_norm(layer, m(x), Some(w), Some(b), mat_mut(&mut y, 1, N)).expect("finite");
            dot(&y)
        };
        assert_close(&dx, &differences(&x, |x| loss(x, &w, &w)));
        assert_close(&dw, &differences(&w, |w| loss(&x, w, &x)));
        assert_close(&db, &differences(&w, |b| loss(&x, &w, b)));
        let rms = RmsNorm { eps };
        rms_norm_backward(rms, m(&x), Some(&w), m(&dy), mat_mut(&mut dx, 1, N), Some(&mut dw)).expect("finite");
        let loss = |x: &[f64], w: &[f64]| {
            let mut y = vec![f64::NAN; N];
            rms_norm(rms, m(x), Some(w), mat_mut(&mut y, 1, N)).expect("finite");
            dot(&y)
        };
        assert_close(&dx, &differences(&x, |x| loss(x, &w)));
        assert_close(&dw, &differences(&w, |w| loss(&x, w)));
        normalize_backward(eps, m(&x), m(&dy), mat_mut(&mut dx, 1, N)).expect("finite");
        let loss = |x: &[f64]| {
            let mut y = vec![f64::NAN; N];
            normalize(eps, m(x), mat_mut(&mut y, 1, N)).expect("finite");
            dot(&y)
        };
        assert_close(&dx, &differences(&x, loss));
    }
    let (mut da, mut db) = (vec![f64::NAN; N], vec![f64::NAN; N]);
    let (da_mat, db_mat) = (mat_mut(&mut da, 1, N), mat_mut(&mut db, 1, N));
    cosine_similarity_backward(m(&x), m(&w), &[1.0], da_mat, db_mat).expect("finite");
    assert_close(&da, &differences(&x, |x| value(&|y| cosine_similarity(m(x), m(&w), y))));
    assert_close(&db, &differences(&w, |w| value(&|y| cosine_similarity(m(&x), m(w), y))));
}
